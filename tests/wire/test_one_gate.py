"""One gate for all: with a budget that is spent, no way into Trunkline reaches a provider.

Every way is tried twice, before a listener that counts connections: with the spent budget it must
count none, without it at least one, so that a way that leads nowhere is no proof.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway_house import BEARER, KEY, SECRET, House, running
from livekit import rtc
from livekit.agents import APIConnectOptions, llm
from livekit.agents import inference as livekit_inference
from livekit.agents.utils import http_context
from livekit.plugins import cartesia, deepgram, openai

import trunkline
import trunkline.llm
import trunkline.stt
import trunkline.tts
from trunkline import inference
from trunkline.compose import Wanted
from trunkline.core.models import Modality
from trunkline.core.ports import Change, Said
from trunkline.core.windows import Kind, Window
from trunkline.gateway.app import HTTP, SOCKETS, Gateway
from trunkline.gateway.plans import Ask
from trunkline.inference._live import live_candidate
from trunkline.runtime.loud_vad import LoudVAD
from trunkline.store.gates import SQLiteGateStore

Way = Callable[["Place"], Awaitable[object]]

WAYS: dict[str, Way] = {}
"""Every way to a provider in this process, by name."""

DOORS: dict[str, Way] = {}
"""Every way through the gateway, by the path of its door."""

OPENS_NOTHING = {"/v1/models"}
"""Doors that answer from the settings."""

ONCE = APIConnectOptions(max_retry=0, timeout=3.0)


@dataclass
class Place:
    """Where the providers would be, and what a way may use."""

    url: str
    http: aiohttp.ClientSession
    spent: bool
    house: House | None = None
    connections: int = 0
    uses: list[int] = field(default_factory=list)
    """How many connections each use has made."""

    async def use(self, thing: Any, *how: Callable[[Any], Awaitable[object]]) -> None:
        """Use ``thing`` as an agent would, and close it. That it fails is what is meant to be."""
        for use in how:
            await self.count(use(thing))
        await thing.aclose()

    async def warm(self, thing: Any) -> None:
        """Warm ``thing`` up, as a session does with what it is given, and close it."""

        async def warmed() -> None:
            before, seconds = self.connections, 0.5 if self.spent else 30.0
            thing.prewarm()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while self.connections == before:  # noqa: ASYNC110 - it has no event
                        await asyncio.sleep(0.01)

        await self.count(warmed())
        await thing.aclose()

    async def count(self, use: Awaitable[object]) -> None:
        before = self.connections
        with contextlib.suppress(Exception):
            await use
        self.uses.append(self.connections - before)


@contextlib.asynccontextmanager
async def listening(*, spent: bool) -> AsyncIterator[Place]:
    """A provider's place at which every connection is counted, and closed."""

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place.connections += 1
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server, aiohttp.ClientSession() as http, http_context.open():
        place = Place(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", http, spent)
        yield place


def way(name: str) -> Callable[[Way], Way]:
    return lambda made: WAYS.setdefault(name, made)


def door(path: str) -> Callable[[Way], Way]:
    return lambda made: DOORS.setdefault(path, made)


def settings(url: str, *, spent: bool) -> dict[str, Any]:
    """Three providers at ``url``, and a budget of a single attempt."""
    # without the notice, which a voice says beyond the amount
    closed = {"window": "total", "amount": {"requests": 1}, "notice": False}
    deadlines = {"connect": 2, "first_content": 2, "idle": 2, "total": 3}
    return {
        "version": 1,
        "providers": {
            "openai": {"api_key": "key", "base_url": f"{url}/v1"},
            "deepgram": {"api_key": "key", "base_url": url},
            "cartesia": {"api_key": "key", "base_url": url},
        },
        "routes": {
            "ears": {"modality": "stt", "candidates": ["deepgram/nova-3"], "deadlines": deadlines},
            "brain": {
                "modality": "llm",
                "candidates": ["openai/gpt-4.1"],
                "deadlines": deadlines,
                "apology": "I am sorry.",
            },
            "mouth": {
                "modality": "tts",
                "candidates": ["cartesia/sonic-3"],
                "deadlines": deadlines,
            },
        },
        "stacks": {"desk": {"stt": "ears", "llm": "brain", "tts": "mouth"}},
        "gateway": {"keys": {KEY: SECRET}, "bearer": [BEARER]},
        **({"budgets": {"closed": closed}} if spent else {}),
    }


def spend(state: Path) -> None:
    """Have the whole budget spent already, by another process that is gone."""
    slot = Window(Kind.TOTAL).at(0).slot_ns
    store = SQLiteGateStore(state)
    store.flush(Said((Change("budget:closed", slot, spent=1, attempts=1),), (), 1))
    store.close()


# -- asking ---------------------------------------------------------------------------------------


async def chatted(model: llm.LLM[Any]) -> None:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="hello")
    async with model.chat(chat_ctx=context, conn_options=ONCE) as stream:
        async for _ in stream:
            pass


async def spoke(voice: Any) -> None:
    async with voice.stream(conn_options=ONCE) as stream:
        stream.push_text("Good morning.")
        stream.end_input()
        async for _ in stream:
            pass


async def synthesized(voice: Any) -> None:
    async with voice.synthesize("Good morning.", conn_options=ONCE) as stream:
        async for _ in stream:
            pass


def sound(seconds: float = 0.5) -> list[rtc.AudioFrame]:
    return [rtc.AudioFrame(b"\x00\x40" * 800, 16000, 1, 800)] * round(seconds / 0.05)


async def heard(ears: Any) -> None:
    async with ears.stream(conn_options=ONCE) as stream:
        for frame in sound():
            stream.push_frame(frame)
            await asyncio.sleep(0)
        stream.end_input()
        async for _ in stream:
            pass


async def recognized(ears: Any) -> None:
    await ears.recognize(sound(), conn_options=ONCE)


# -- in process -----------------------------------------------------------------------------------


@way("a model, over the wire")
async def _(place: Place) -> None:
    await place.use(inference.LLM("openai/gpt-4.1"), chatted)


@way("a model that is warmed up")
async def _(place: Place) -> None:
    await place.warm(inference.LLM("openai/gpt-4.1"))


@way("a recogniser")
async def _(place: Place) -> None:
    await place.use(inference.STT("deepgram/nova-3", http_session=place.http), heard)


@way("a recording")
async def _(place: Place) -> None:
    await place.use(inference.STT("deepgram/nova-3", http_session=place.http), recognized)


@way("a recogniser that cannot stream")
async def _(place: Place) -> None:
    await place.use(inference.STT("openai/whisper-1", vad=LoudVAD()), heard)


@way("a voice")
async def _(place: Place) -> None:
    await place.use(inference.TTS("cartesia/sonic-3", http_session=place.http), spoke)


@way("a voice in one piece")
async def _(place: Place) -> None:
    await place.use(inference.TTS("cartesia/sonic-3", http_session=place.http), synthesized)


@way("a voice that cannot stream")
async def _(place: Place) -> None:
    await place.use(inference.TTS("openai/tts-1"), spoke)


@way("a voice that is warmed up")
async def _(place: Place) -> None:
    await place.warm(inference.TTS("cartesia/sonic-3", http_session=place.http))


@way("a route with an apology")
async def _(place: Place) -> None:
    await place.use(inference.LLM("brain"), chatted)


@way("the members of a stack")
async def _(place: Place) -> None:
    stack = trunkline.stack("desk")
    for member, use in ((stack.llm, chatted), (stack.tts, spoke), (stack.stt, heard)):
        await place.use(member, use)


@way("a member of a stack that was swapped for a plugin")
async def _(place: Place) -> None:
    stack = trunkline.stack("local")
    stack.swap(llm=openai.LLM(base_url=place.url, api_key="key"))
    await place.use(stack.llm, chatted)
    await stack.aclose()


@way("a member of a stack that was swapped for a name")
async def _(place: Place) -> None:
    stack = trunkline.stack("local")
    stack.swap(tts="cartesia/sonic-3")
    await place.use(stack.tts, spoke)
    await stack.aclose()


@way("the model of a FallbackAdapter")
async def _(place: Place) -> None:
    plugin = openai.LLM(base_url=place.url, api_key="key")
    await place.use(trunkline.llm.FallbackAdapter([plugin]), chatted)


@way("the recogniser of a FallbackAdapter")
async def _(place: Place) -> None:
    plugin = deepgram.STT(base_url=place.url, api_key="key", http_session=place.http)
    await place.use(trunkline.stt.FallbackAdapter([plugin], retry_interval=0), heard, recognized)


@way("the voice of a FallbackAdapter")
async def _(place: Place) -> None:
    plugin = cartesia.TTS(base_url=place.url, api_key="key", http_session=place.http)
    adapter = trunkline.tts.FallbackAdapter([plugin])
    await place.use(adapter, spoke, synthesized)


@way("a gateway elsewhere")
async def _(place: Place) -> None:
    remote: dict[str, Any] = {"base_url": place.url, "api_key": "key", "api_secret": "s" * 32}
    await place.use(inference.LLM("openai/gpt-4.1", **remote), chatted)
    await place.use(inference.TTS("cartesia/sonic-3", http_session=place.http, **remote), spoke)
    await place.use(inference.STT("deepgram/nova-3", http_session=place.http, **remote), heard)


async def _probed(member: Any) -> None:
    """As its prober does for an ill candidate."""
    await member.probe(member.plan.candidates[0], member.plan)


@way("a probe of each modality")
async def _(place: Place) -> None:
    await place.use(inference.LLM("brain"), _probed)
    await place.use(inference.TTS("mouth", http_session=place.http), _probed)
    await place.use(inference.STT("ears", http_session=place.http), _probed)


@way("a plugin of the user's as a candidate")
async def _(place: Place) -> None:
    plugin = openai.LLM(base_url=place.url, api_key="key")
    model = inference.LLM("local")
    candidate = live_candidate(plugin)
    model.plan = trunkline.compose.replace(model.plan, candidates=(candidate,))
    await place.use(model, chatted)
    await plugin.aclose()


# -- through the gateway --------------------------------------------------------------------------


@door("/v1/chat/completions")
async def _(place: Place) -> None:
    house = place.house
    assert house is not None

    async def asked(**body: Any) -> None:
        headers = {"x-livekit-inference-provider": "openai"} if "stream" in body else {}
        async with house.ask({"Authorization": f"Bearer {BEARER}", **headers}, **body) as answer:
            await answer.read()

    for body in ({"model": "brain"}, {"model": "gpt-4.1", "stream": True}):
        await place.count(asked(**body))


@door("/v1/decisions")
async def _(place: Place) -> None:
    url = f"{_client(place.house)['base_url']}/decisions"
    questions = {"is_over": {"type": "noul", "instructions": "Has the caller said goodbye?"}}

    async def asked() -> None:
        bearer = {"Authorization": f"Bearer {BEARER}"}
        body = {"model": "brain", "state": "user: hello", "questions": questions}
        async with place.http.post(url, json=body, headers=bearer) as answer:
            await answer.read()

    await place.count(asked())


@way("a probe of each modality through the gateway")
async def _(place: Place) -> None:
    house = Gateway(trunkline.compose.current()).house
    names = {
        Modality.STT: "ears",
        Modality.LLM: "brain",
        Modality.TTS: "mouth",
        Modality.REALTIME: "openai/gpt-realtime",
    }
    for modality, probe in house.plans.probes.items():
        with house.plans.lease(Ask(modality, Wanted(names[modality]))) as plan:
            await place.count(probe(plan.candidates[0], plan))
    await house.plans.aclose()


def _client(house: House | None) -> dict[str, Any]:
    assert house is not None
    return {"base_url": house.url, "api_key": KEY, "api_secret": SECRET}


@door("/v1/stt")
async def _(place: Place) -> None:
    given = _client(place.house)
    await place.use(livekit_inference.STT("ears", http_session=place.http, **given), heard)


@door("/v1/tts")
async def _(place: Place) -> None:
    given = _client(place.house)
    await place.use(livekit_inference.TTS("mouth", http_session=place.http, **given), spoke)


@door("/v1/realtime")
async def _(place: Place) -> None:
    url = f"{_client(place.house)['base_url']}/realtime".replace("http", "ws", 1)

    async def asked() -> None:
        bearer = {"Authorization": f"Bearer {BEARER}"}
        query = {"model": "openai/gpt-realtime"}
        async with place.http.ws_connect(url, params=query, headers=bearer) as socket:
            await socket.receive()

    await place.count(asked())


@door("/v1/audio/speech")
async def _(place: Place) -> None:
    url = f"{_client(place.house)['base_url']}/audio/speech"
    body = {"model": "mouth", "input": "Good morning.", "voice": "v", "response_format": "pcm"}

    async def asked() -> None:
        bearer = {"Authorization": f"Bearer {BEARER}"}
        async with place.http.post(url, json=body, headers=bearer) as answer:
            await answer.read()

    await place.count(asked())


@door("/v1/audio/transcriptions")
async def _(place: Place) -> None:
    given = {"base_url": _client(place.house)["base_url"], "api_key": BEARER}
    await place.use(openai.STT(model="ears", **given), recognized)


# -- the tests ------------------------------------------------------------------------------------


async def tried(place: Path, made: Way, *, spent: bool, door: bool = False) -> list[int]:
    """How many connections each use of this way makes to a provider."""
    state = place / "state"
    if spent:
        spend(state)
    async with contextlib.AsyncExitStack() as stack:
        there = await stack.enter_async_context(listening(spent=spent))
        said = json.loads(json.dumps({**settings(there.url, spent=spent), "state": str(state)}))
        if door:
            there.house = await stack.enter_async_context(running(place, said))
        else:
            file = place / "trunkline.yaml"
            file.write_text(json.dumps(said))
            trunkline.configure(file)
            stack.push_async_callback(trunkline.aclose)
        async with asyncio.timeout(60):
            await made(there)
        return there.uses


async def stays_shut(place: Path, made: Way, *, door: bool = False) -> None:
    spent, free = place / "spent", place / "free"
    for one in (spent, free):
        one.mkdir()
    uses = await tried(spent, made, spent=True, door=door)
    assert uses
    assert not any(uses), uses
    assert all(await tried(free, made, spent=False, door=door))


@pytest.mark.parametrize("name", WAYS)
async def test_no_way_leads_past_the_gate(tmp_path: Path, name: str) -> None:
    await stays_shut(tmp_path, WAYS[name])


@pytest.mark.parametrize("room", [1, 9])
async def test_a_hedge_passes_the_gate_for_itself(tmp_path: Path, room: int) -> None:
    """The first attempt takes all of the budget's room, or a part, and hangs."""

    async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(4096):
            pass
        writer.close()

    server = await asyncio.start_server(hangs, "127.0.0.1", 0)
    async with server, listening(spent=room == 1) as there:
        said = settings(there.url, spent=False)
        first = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        said["providers"]["slow"] = {"kind": "openai", "api_key": "key", "base_url": first}
        said["routes"]["brain"] |= {
            "candidates": ["slow/gpt-4.1", "openai/gpt-4.1"],
            "hedge": {"after": 0.05, "share": 1.0},
        }
        said["budgets"] = {"tight": {"window": "total", "amount": {"requests": room}}}
        (tmp_path / "trunkline.yaml").write_text(json.dumps(said))
        trunkline.configure(tmp_path / "trunkline.yaml", tmp_path / "state")
        await there.use(inference.LLM("brain"), chatted)
        await trunkline.aclose()
    assert bool(there.connections) == (room > 1)


@pytest.mark.parametrize("path", sorted(DOORS))
async def test_no_door_leads_past_the_gate(tmp_path: Path, path: str) -> None:
    await stays_shut(tmp_path, DOORS[path], door=True)


def test_every_door_of_the_gateway_is_tried() -> None:
    assert {*HTTP, *SOCKETS} == {*DOORS, *OPENS_NOTHING}, "say in DOORS how it is asked"
