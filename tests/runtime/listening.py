"""A caller who speaks tones to ``inference.STT``, before doubles of the vendors."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from livekit.agents import APIError
from livekit.agents.stt import SpeechEvent
from matrix import caller

import trunkline
from trunkline import inference
from trunkline.core.models import Purpose, Settlement
from trunkline.doubles import BillLine, Double, Pace, Provider, Rule, tones
from trunkline.runtime.loud_vad import LoudVAD

TEXT = "Good morning how are you. My room is cold and dark. Could somebody help me please."
WORDS = tones.words_of(TEXT)
DEADLINE = 2.0
FASTER = 4.0
"""How many times faster than real the caller speaks."""


def speech(*, pause: float = 0.8) -> bytes:
    """The sentences of ``TEXT`` with ``pause`` seconds between them."""
    return caller.speech(TEXT, pause=pause)


@dataclass
class Heard:
    """What the agent got."""

    events: list[SpeechEvent] = field(default_factory=list)
    error: BaseException | None = None
    took_after_end: float = 0.0

    @property
    def words(self) -> list[str]:
        return caller.words(self.events)

    @property
    def times(self) -> list[tuple[str, float, float]]:
        """Words with their times, of the finals that have them."""
        return caller.times(self.events)


@dataclass
class Vendor:
    """One way to recognise: the provider's row and model, and the path of its double."""

    kind: str
    model: str
    path: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind}-{self.model}"


NOVA = Vendor("deepgram", "nova-3")
FLUX = Vendor("deepgram", "flux-general-en", options={"eot_timeout_ms": 500})
INK = Vendor("cartesia", "ink-2", options={"turn_end_timeout_ms": 640})
WHISPER = Vendor("cartesia", "ink-whisper")
SCRIBE = Vendor("elevenlabs", "scribe_v2_realtime", "/v1")
BATCH = Vendor("openai", "whisper-1", "/v1")
VENDORS = [NOVA, FLUX, INK, WHISPER, SCRIBE, BATCH]


class House:
    """One user's Trunkline with two recognisers, each before a double of its own."""

    def __init__(self, doubles: dict[str, Double], http: aiohttp.ClientSession) -> None:
        self.doubles = doubles
        self.http = http
        self.settled: list[Settlement] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls,
        place: Path,
        primary: Vendor,
        backup: Vendor,
        *,
        faults: Sequence[Rule] = (),
        pace: Pace | None = None,
    ) -> AsyncIterator[House]:
        vendors = {"primary": primary, "backup": backup}
        rules = {"primary": list(faults), "backup": []}
        before = asyncio.all_tasks()
        async with contextlib.AsyncExitStack() as stack:
            served = {}
            for name, vendor in vendors.items():
                served[name] = await stack.enter_async_context(
                    Double.serve(
                        [Provider(vendor.kind, port=0, pace=pace or Pace())], faults=rules[name]
                    )
                )
            http = await stack.enter_async_context(aiohttp.ClientSession())
            house = cls(served, http)
            config = place / "trunkline.yaml"
            config.write_text(house._configuration(vendors))
            trunkline.configure(config, place / "state")
            stop = trunkline.on("settled", house.settled.append)
            try:
                yield house
            finally:
                stop()
                await trunkline.aclose()
            await house._nothing_left(before)

    def _configuration(self, vendors: dict[str, Vendor]) -> str:
        deadlines = dict.fromkeys(("connect", "first_content", "idle"), DEADLINE)
        candidates = [
            {"model": f"{name}/{vendor.model}", "options": vendor.options} if vendor.options
            else f"{name}/{vendor.model}"
            for name, vendor in vendors.items()
        ]  # fmt: skip
        return json.dumps(
            {
                "version": 1,
                "providers": {
                    name: {
                        "kind": vendor.kind,
                        "base_url": self.doubles[name].url(vendor.kind) + vendor.path,
                        "api_key": "key",
                    }
                    for name, vendor in vendors.items()
                },
                "routes": {
                    "both": {
                        "modality": "stt",
                        "candidates": candidates,
                        "deadlines": {**deadlines, "total": 5},
                    }
                },
            }
        )

    async def _nothing_left(self, before: set[asyncio.Task[Any]]) -> None:
        async def left() -> set[str]:
            doubles = ("Double", "Server", "Site", "RequestHandler", "Outbox", "web_protocol")
            tasks = asyncio.all_tasks() - before - {asyncio.current_task()}
            names = {repr(task.get_coro()) for task in tasks if not task.done()}
            return {name for name in names if not any(one in name for one in doubles)}

        for _ in range(100):
            if not await left():
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"tasks left: {await left()}")

    def recogniser(self, **options: Any) -> inference.STT:
        return inference.STT("both", http_session=self.http, vad=LoudVAD(), **options)

    async def hear(
        self,
        pcm: bytes,
        *,
        milliseconds: float = 50,
        flushes: bool = False,
        bound: float = 30.0,
        faster: float = FASTER,
    ) -> Heard:
        """Say ``pcm`` to a new recogniser; everything that came, within ``bound`` seconds."""
        heard = Heard()
        recogniser = self.recogniser()
        async with recogniser.stream() as stream:

            async def listen() -> None:
                try:
                    async for event in stream:
                        heard.events.append(event)
                except APIError as error:
                    heard.error = error

            listening = asyncio.create_task(listen())
            await caller.say(stream, pcm, faster=faster, milliseconds=milliseconds, flushes=flushes)
            with contextlib.suppress(RuntimeError):
                stream.end_input()
            begun = asyncio.get_running_loop().time()
            async with asyncio.timeout(bound):
                await listening
            heard.took_after_end = asyncio.get_running_loop().time() - begun
        await recogniser.aclose()
        return heard

    @property
    def attempts(self) -> list[tuple[str, str]]:
        """(connection, outcome) of everything but probes, in order."""
        served = [one.attempt for one in self.settled if one.attempt.purpose is Purpose.SERVE]
        return [(one.connection, one.outcome) for one in served]

    def bill(self, name: str) -> list[BillLine]:
        return self.doubles[name].bill

    def heard_seconds(self, name: str) -> float:
        """What the ledger says was recognised by ``name``."""
        mine = [one for one in self.settled if one.attempt.connection == name]
        return sum(one.entry.usage.audio_in_ns for one in mine) / 1e9

    def billed_seconds(self, name: str) -> float:
        return sum(line.units.audio_in_ns for line in self.bill(name)) / 1e9
