"""A Trunkline before the vendors' doubles: random calls, and what both sides counted of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from livekit import rtc
from livekit.agents import APIError, llm
from msgspec.structs import astuple

import trunkline
from trunkline import inference
from trunkline.core.models import Settlement, Usage
from trunkline.doubles import Double, Pace, Provider, Rule, tones
from trunkline.runtime.loud_vad import LoudVAD

TEXT = "the quick brown fox jumps over a lazy dog while seven wizards brew extraordinary potions"
WORDS = TEXT.split()
RATE = 16000
AT_ONCE = 8
SESSION = 20
"""Calls that a line makes with one client: making one costs more than a call does."""
PACE = Pace(first=0.003, between=0.001, rtf=0.005)
DEADLINE = 0.4
PATIENCE = 60.0
"""The deadline where nothing fails: a busy machine must not make it so."""
FAULTS = ("die", "stall", "end", "truncate", "garbage", "server_error", "rate_limited")
ROUGH = 0.07
"""The probability of each fault; together every other call meets one."""


def sentence(random: random.Random, longest: int) -> str:
    words = [random.choice(WORDS) for _ in range(random.randint(1, longest))]
    return " ".join(words).capitalize() + random.choice(".!?")


@dataclass
class Trade:
    """A Trunkline before a double: everything it settled, everything it was billed."""

    double: Double
    http: aiohttp.ClientSession
    random: random.Random
    settled: list[Settlement] = field(default_factory=list)

    @property
    def ours(self) -> Usage:
        return total(one.entry.usage for one in self.settled)

    @property
    def bill(self) -> Usage:
        return total(line.units for line in self.double.bill)

    def told(self, model: str) -> tuple[Usage, Usage]:
        """What was settled, and what was billed, for a model of the route."""
        provider, name = model.split("/")
        settled = [one for one in self.settled if one.attempt.provider == provider]
        bill = [
            line
            for line in self.double.bill
            if line.provider == _VENDORS.get(provider, provider)
            and (line.provider != "openai" or line.model == name)
        ]
        return total(one.entry.usage for one in settled), total(line.units for line in bill)

    @property
    def cut(self) -> list[Settlement]:
        """What did not end well."""
        return [one for one in self.settled if one.attempt.outcome != "ok"]


_PATHS = {"openai": "/v1", "elevenlabs": "/v1"}
_VENDORS = {"spare": "openai"}
"""Connections that have a name of their own."""


def total(parts: Any) -> Usage:
    columns = list(zip(*(astuple(part) for part in [Usage(), *parts]), strict=True))
    return Usage(*(sum(column) for column in columns))


@contextlib.asynccontextmanager
async def trading(
    place: Path,
    model: str,
    modality: str,
    seed: int,
    faults: bool,
    behind: str = "",
    hedge_after: float | None = None,
    **account: Any,
) -> AsyncIterator[Trade]:
    """One vendor behind its route "main" until the block ends; then all is settled and closed.

    ``account`` is what its connection says of it. Nothing fails at the model ``behind`` it, if any;
    after ``hedge_after`` seconds it is asked too.
    """
    source = random.Random(seed)
    models = [model, *([behind] if behind else [])]
    names = [one.split("/")[0] for one in models]
    vendors = {name: _VENDORS.get(name, name) for name in names}
    providers = [
        Provider(vendor, pace=PACE, answer=lambda _: sentence(source, 30))
        for vendor in dict.fromkeys(vendors.values())
    ]
    rules = [
        Rule(
            provider=names[0],
            model=model.split("/")[1] if len(providers) < len(names) else "",
            kind=kind,
            after=source.randint(0, 5),
            probability=ROUGH,
        )
        for kind in FAULTS
        if faults
    ]
    hedge = {"hedge": {"after": hedge_after, "share": 1.0}} if hedge_after else {}
    async with Double.serve(providers, faults=rules, seed=seed) as double:
        deadlines = dict.fromkeys(
            ("connect", "first_content", "idle"), DEADLINE if faults else PATIENCE
        )
        settings = {
            "version": 1,
            "providers": {
                name: {
                    "kind": vendor,
                    "api_key": "k",
                    **account,
                    "base_url": double.url(vendor) + _PATHS.get(vendor, ""),
                }
                for name, vendor in vendors.items()
            },
            "routes": {
                "main": {
                    "modality": modality,
                    "candidates": models,
                    "deadlines": deadlines,
                    **hedge,
                }
            },
        }
        (place / "trunkline.yaml").write_text(json.dumps(settings))
        trunkline.configure(place / "trunkline.yaml", place / "state")
        async with aiohttp.ClientSession() as http:
            trade = Trade(double, http, source)
            stop = trunkline.on("settled", trade.settled.append)
            yield trade
            await trunkline.aclose()
            stop()


@dataclass(frozen=True)
class Kind:
    """What callers do: the client that a line makes, and one call with it."""

    client: Callable[[Trade], Any]
    call: Callable[[Trade, Any], Awaitable[None]]


async def calls(trade: Trade, kind: Kind, times: int) -> None:
    """So many calls, some at once; a call that fails is a call."""
    left = iter(range(times))
    await asyncio.gather(*(_line(trade, kind, left) for _ in range(min(AT_ONCE, times))))
    async with asyncio.timeout(30):
        while any(one.outcome == "running" for one in trade.double.requests):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def _line(trade: Trade, kind: Kind, left: Iterator[int]) -> None:
    """One call after another, as long as any are left; now and then the line is a new one."""
    ended = False
    while not ended:
        client = kind.client(trade)
        try:
            for _ in range(SESSION):
                ended = next(left, None) is None
                if ended:
                    break
                async with asyncio.timeout(180):
                    # RuntimeError: pushed after the end
                    with contextlib.suppress(APIError, RuntimeError):
                        await kind.call(trade, client)
        finally:
            await client.aclose()


def chat(*, barge: bool) -> Kind:
    async def call(trade: Trade, model: Any) -> None:
        context = llm.ChatContext.empty()
        context.add_message(role="system", content=sentence(trade.random, 40))
        context.add_message(role="user", content=sentence(trade.random, 20))
        left = trade.random.randint(1, 60) if barge else None
        async with model.chat(chat_ctx=context) as stream:
            async for _ in stream:
                left = None if left is None else left - 1
                if left == 0:
                    break

    return Kind(lambda _: inference.LLM("main"), call)


def speak(*, barge: bool) -> Kind:
    """Text comes word by word; a barge-in may come before its end."""

    async def call(trade: Trade, voice: Any) -> None:
        words = sentence(trade.random, 40).split(" ")
        left = trade.random.uniform(0, 3) if barge else float("inf")
        stream = voice.stream()

        async def push() -> None:
            for n, word in enumerate(words):
                stream.push_text(f" {word}" if n else word)
                await asyncio.sleep(0.001)
            stream.end_input()

        pushing = asyncio.create_task(push())
        try:
            async with stream:
                async for audio in stream:
                    left -= audio.frame.duration
                    if left <= 0:
                        break
        finally:
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)

    return Kind(lambda trade: inference.TTS("main", http_session=trade.http), call)


def hear(*, barge: bool) -> Kind:
    """Audio faster than it is said; half of those who may leave in the middle do."""

    async def call(trade: Trade, recogniser: Any) -> None:
        pcm = tones.encode(sentence(trade.random, 6), RATE) + bytes(RATE)
        frames = [pcm[at : at + 640].ljust(640, b"\0") for at in range(0, len(pcm), 640)]
        leaves = barge and trade.random.random() < 0.5
        if leaves:
            frames = frames[: trade.random.randint(1, len(frames))]
        async with recogniser.stream() as stream:
            for frame in frames:
                stream.push_frame(rtc.AudioFrame(frame, RATE, 1, 320))
                await asyncio.sleep(0.001)
            if not leaves:
                stream.end_input()
                async for _ in stream:
                    pass

    return Kind(lambda trade: inference.STT("main", http_session=trade.http, vad=LoudVAD()), call)
