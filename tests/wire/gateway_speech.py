"""A gateway before doubles of voices and recognisers, and a client that speaks frame by frame."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from gateway_house import BEARER, KEY, SECRET, House, Talk, running, token

from trunkline.doubles import Double, Provider, Rule, tones

RATE = 24000
HEARS_AT = 16000


@dataclass(frozen=True)
class Vendor:
    """A double behind the gateway: the name of its connection, its kind and what it serves."""

    kind: str
    model: str
    path: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)
    """How the double behaves."""


SONIC = Vendor("cartesia", "sonic-3")
FLASH = Vendor("elevenlabs", "eleven_flash_v2_5", "/v1")
AURA = Vendor("deepgram", "aura-2")
NOVA = Vendor("deepgram", "nova-3")
INK = Vendor("cartesia", "ink-2", options={"turn_end_timeout_ms": 640})
WHISPER = Vendor("openai", "whisper-1", "/v1")
GPT = Vendor("openai", "gpt-4.1", "/v1")

ROUTES = {"tts": "mouth", "stt": "ears", "llm": "brain"}


@dataclass
class Speech(House):
    """``doubles`` are by the name of their connection: the modality and their place in it."""

    doubles: dict[str, Double] = field(default_factory=dict)

    def without(self, candidate: str) -> None:
        """An operator takes a candidate out of its route."""
        said = yaml.safe_load(self.file.read_text("utf-8"))
        for route in said["routes"].values():
            route["candidates"] = [c for c in route["candidates"] if candidate not in str(c)]
        self.file.write_text(yaml.safe_dump(said), "utf-8")
        self.gateway.house.reload()

    async def connect(
        self, door: str, model: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Wire:
        """Open a socket as LiveKit's clients do; the route of the door unless ``model`` is said."""
        given = {"Authorization": f"Bearer {token()}", **(headers or {})}
        query = {} if model == "" else {"model": ROUTES[door] if model is None else model}
        url = f"{self.url.replace('http', 'ws', 1)}/{door}"
        socket = await self.session.ws_connect(url, params=query, headers=given)
        return Wire(socket)


@dataclass
class Wire(Talk):
    """A client of a socket for speech."""

    def audio_in(self, message: dict[str, Any]) -> str:
        return str(message["audio"]) if message["type"] == "output_audio" else ""

    async def create(self, **fields: Any) -> None:
        await self.send("session.create", **fields)
        assert (await self.next())["type"] == "session.created"

    async def say(self, *sentences: str, flush: bool = True, **fields: Any) -> None:
        for sentence in sentences:
            await self.send("input_transcript", transcript=f"{sentence} ", **fields)
        if flush:
            await self.send("session.flush")

    async def spoken(self, *sentences: str, **fields: Any) -> list[str]:
        """Say an utterance; the words of its audio, or the message that came in place of it."""
        self.pcm = b""
        await self.say(*sentences, **fields)
        done = await self.until("done", "error")
        assert done["type"] == "done", done
        return tones.decode(self.pcm, RATE)

    async def hear(self, pcm: bytes, rate: int = HEARS_AT, milliseconds: int = 50) -> None:
        """Send audio, as fast as it goes."""
        step = 2 * rate * milliseconds // 1000
        for at in range(0, len(pcm), step):
            audio = base64.b64encode(pcm[at : at + step]).decode()
            await self.send("input_audio", audio=audio)

    def finals(self) -> list[dict[str, Any]]:
        return [m for m in self.seen if m["type"] == "final_transcript"]

    def words(self) -> list[str]:
        return [word for m in self.finals() for word in m["transcript"].lower().split()]


def heard(text: str, rate: int = HEARS_AT, after: float = 1.0) -> bytes:
    """``text`` in tones, with silence behind it."""
    return tones.encode(text, rate) + bytes(2 * round(after * rate))


def said(doubles: Mapping[str, tuple[Vendor, Double]], **more: Any) -> dict[str, Any]:
    """One connection a double, named ``tts0`` and so on, and a route a modality over them."""
    providers, routes = {}, {}
    for name, (vendor, double) in doubles.items():
        providers[name] = {
            "kind": vendor.kind,
            "api_key": f"key-of-{name}",
            "base_url": double.url(vendor.kind) + vendor.path,
        }
        modality = name[:3]
        candidates = routes.setdefault(ROUTES[modality], {"modality": modality, "candidates": []})[
            "candidates"
        ]
        ref = f"{name}/{vendor.model}"
        candidates.append(
            {"model": ref, "options": dict(vendor.options)} if vendor.options else ref
        )
    for name, changes in more.pop("policy", {}).items():
        routes[name].update(changes)
    stacks = {}
    if len(routes) == len(ROUTES):
        stacks = {"stacks": {"default": dict(ROUTES)}}
    return {
        "version": 1,
        "providers": providers,
        "routes": routes,
        **stacks,
        "gateway": {"keys": {KEY: SECRET}, "bearer": [BEARER]},
        **more,
    }


@contextlib.asynccontextmanager
async def speech(
    tmp_path: Path,
    *,
    tts: Sequence[Vendor] = (),
    stt: Sequence[Vendor] = (),
    llm: Sequence[Vendor] = (),
    faults: Mapping[str, Sequence[Rule]] | None = None,
    **more: Any,
) -> AsyncIterator[Speech]:
    """A gateway before a double for each vendor; ``faults`` by the name of the connection."""
    async with contextlib.AsyncExitStack() as stack:
        doubles = {}
        for modality, vendors in (("tts", tts), ("stt", stt), ("llm", llm)):
            for place, vendor in enumerate(vendors):
                name = f"{modality}{place}"
                provider = Provider(vendor.kind, port=0, **vendor.more)
                rules = list((faults or {}).get(name, ()))
                double = await stack.enter_async_context(Double.serve([provider], faults=rules))
                doubles[name] = (vendor, double)
        house = await stack.enter_async_context(running(tmp_path, said(doubles, **more)))
        yield Speech(**vars(house), doubles={name: one for name, (_, one) in doubles.items()})
