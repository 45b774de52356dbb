"""A gateway before doubles of OpenAI's Realtime API, and a client that speaks event by event."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from gateway_house import BEARER, KEY, SECRET, House, Talk, running, token

from trunkline.core.models import Entry, Usage
from trunkline.doubles import Double, Provider, Rule, tones

RATE = 24000
MODEL = "gpt-realtime"
ROUTE = "voice"
NAMES = ("openai", "second", "third")


@dataclass
class Realtime(House):
    """``doubles`` are by the name of their connection, ``entries`` what was settled, also late."""

    doubles: dict[str, Double] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    async def connect(
        self, model: str | None = ROUTE, headers: Mapping[str, str] | None = None
    ) -> Wire:
        """Open a socket as LiveKit's clients do."""
        given = {"Authorization": f"Bearer {token()}", **(headers or {})}
        query = {} if model is None else {"model": model}
        url = f"{self.url.replace('http', 'ws', 1)}/realtime"
        return Wire(await self.session.ws_connect(url, params=query, headers=given))

    async def status(self, model: str | None = ROUTE, **headers: str) -> int:
        """The status of an upgrade that is refused."""
        try:
            wire = await self.connect(model, headers)
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status
        await wire.close()
        return 101

    @property
    def used(self) -> Usage:
        """All that the ledger has, in sum."""
        return summed([entry.usage for entry in self.entries])

    @property
    def billed(self) -> Usage:
        """All that the doubles invoice, in sum."""
        return summed([line.units for double in self.doubles.values() for line in double.bill])


def summed(usages: Sequence[Usage]) -> Usage:
    columns = zip(*map(msgspec.structs.astuple, usages), strict=True)
    return Usage(*map(sum, columns))


@dataclass
class Wire(Talk):
    """A client of one session."""

    def audio_in(self, message: dict[str, Any]) -> str:
        return str(message["delta"]) if message["type"] == "response.output_audio.delta" else ""

    async def write(self, text: str) -> None:
        """Say something in writing."""
        content = [{"type": "input_text", "text": text}]
        item = {"type": "message", "role": "user", "content": content}
        await self.send("conversation.item.create", item=item)

    async def ask(self, text: str, **response: Any) -> dict[str, Any]:
        """Say something in writing; the response at its end, or what came in place of it."""
        await self.write(text)
        await self.send("response.create", response=response)
        done = await self.until("response.done", "error")
        return done.get("response") or done

    async def speak(self, text: str, *, after: float = 0.8) -> None:
        """Say something aloud, with silence behind it, as fast as it goes."""
        pcm = tones.encode(text, RATE) + bytes(2 * round(after * RATE))
        step = 2 * RATE // 10
        for at in range(0, len(pcm), step):
            audio = base64.b64encode(pcm[at : at + step]).decode()
            await self.send("input_audio_buffer.append", audio=audio)

    @property
    def heard(self) -> list[str]:
        """The words of the audio that came."""
        return tones.decode(self.pcm, RATE)


def said(doubles: Mapping[str, Double], route: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A connection a double, and a route over all of them."""
    providers = {
        name: {"kind": "openai", "api_key": f"sk-{name}", "base_url": double.base_url("openai")}
        for name, double in doubles.items()
    }
    candidates = [f"{name}/{MODEL}" for name in doubles]
    return {
        "version": 1,
        "providers": providers,
        "routes": {ROUTE: {"modality": "realtime", "candidates": candidates, **route}},
        "gateway": {"keys": {KEY: SECRET}, "bearer": [BEARER]},
        **more,
    }


@contextlib.asynccontextmanager
async def realtime(
    tmp_path: Path,
    *faults: Sequence[Rule],
    route: Mapping[str, Any] | None = None,
    double: Mapping[str, Any] | None = None,
    **more: Any,
) -> AsyncIterator[Realtime]:
    """A gateway before a double for each of ``faults``; one that is well when there are none."""
    async with contextlib.AsyncExitStack() as stack:
        doubles = {}
        for name, rules in zip(NAMES, faults or ((),), strict=False):
            provider = Provider("openai", port=0, keys=(f"sk-{name}",), **(double or {}))
            served = Double.serve([provider], faults=rules)
            doubles[name] = await stack.enter_async_context(served)
        settings = said(doubles, route or {}, **more)
        house = Realtime(
            **vars(await stack.enter_async_context(running(tmp_path, settings))), doubles=doubles
        )
        for name in ("settled", "late"):
            house.trunkline.on(name, lambda settlement: house.entries.append(settlement.entry))
        yield house
