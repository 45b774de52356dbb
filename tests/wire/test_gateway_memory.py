"""What a gateway keeps of those it has served: nothing, however many names they bring."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from gateway_house import AUTH, BROKEN, House, serving, token
from gateway_speech import NOVA, SONIC, heard, speech
from llm_server import STALL, Answer, delta, say

from trunkline.catalog import pricelist
from trunkline.core.speech import Pace
from trunkline.gateway import plans, stt
from trunkline.runtime import health, learnt, speech_line
from trunkline.runtime.learnt import Learnt
from trunkline.runtime.loud_vad import LoudVAD
from trunkline.store import shared

BATCH = 60
"""Calls between two counts, each with names that never came before."""


@pytest.fixture(autouse=True)
def short_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is bounded is full after the first batch."""
    for module, name in (
        (plans, "_KEPT"),
        (health, "_KEPT"),
        (learnt, "_KEPT"),
        (shared, "KEPT"),
        (pricelist, "_REMEMBERED"),
    ):
        monkeypatch.setattr(module, name, 16)
    monkeypatch.setattr(speech_line, "_paces", Learnt(Pace))
    pricelist.shipped.cache_clear()
    logging.disable()  # pytest keeps what is logged
    yield
    logging.disable(logging.NOTSET)
    pricelist.shipped.cache_clear()


SAID = heard("hello", after=0.2)


class Live:
    """What is alive in this process: objects by type, and all blocks of memory."""

    def __init__(self) -> None:
        gc.collect()
        self.blocks = sys.getallocatedblocks()
        self.types = Counter(type(one) for one in gc.get_objects())
        del self.types[weakref.ref]  # sqlite3 keeps up to 200 dead ones a connection

    def since(self, before: Live) -> dict[str, int]:
        grown = {kind.__qualname__: n for kind, n in (self.types - before.types).items()}
        return {"blocks": self.blocks - before.blocks, **grown}


async def kept(batch: Callable[[int], Awaitable[None]]) -> dict[str, int]:
    """What one more batch leaves behind: the least of a few, for a thread may be at work."""
    await batch(0)
    found: list[dict[str, int]] = []
    before = Live()
    for number in range(1, 4):
        await batch(number)
        after = Live()
        found.append(after.since(before))
        before = after
    return {name: min(one.get(name, 0) for one in found) for name in found[0]}


async def test_chats_leave_nothing_behind(tmp_path: Path) -> None:
    goes_on = Answer([delta(content="a"), STALL])
    patient = {"deadlines": {"first_content": 600, "idle": 600, "total": 900}}
    async with (
        serving(tmp_path, (goes_on, say("Hi")), BROKEN, route=patient) as (house, servers),
        house.ask(stream=True) as long,
    ):
        assert await long.content.readany()

        async def chat(name: str) -> None:
            models = ("answer", f"openai/{name}", f"second/{name}", f"nobody/{name}")
            for number, model in enumerate(models):
                of = {f"X-LiveKit-{x}-ID": f"{name}-{number}" for x in ("Room", "Job", "Session")}
                body = {"model": model, "stream": bool(number % 2), "user": name}
                async with house.ask(headers={**AUTH, **of}, **body) as answer:
                    await answer.read()
            bearer = {"Authorization": f"Bearer {token(sub=name)}"}
            async with house.ask(headers=bearer, model=name) as answer:
                assert answer.status == 404
            async with house.ask(headers={"Authorization": f"Bearer {name}"}) as answer:
                assert answer.status == 401

        async def batch(number: int) -> None:
            await side_by_side(chat, number)
            await settled(house)
            for server in servers:
                server.requests.clear()

        grown = await kept(batch)
        check(grown)


async def test_speech_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stt, "voice_activity", LoudVAD)
    monkeypatch.setattr(stt, "_END_SECONDS", 0.1)
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA]) as house:

        async def call(name: str) -> None:
            of = {f"X-LiveKit-{x}-ID": name for x in ("Room", "Job", "Session")}
            voice = await house.connect("tts", headers=of)
            await voice.create(
                sample_rate="24000", encoding="pcm_s16le", voice=name, extra={"language": name}
            )
            await voice.spoken("Hi.")
            await voice.close()
            ears = await house.connect("stt", headers=of)
            term = f"word-{int(name.rpartition('-')[2]) % 20}"  # it is in a URL, which others keep
            settings = {"sample_rate": "16000", "language": "en", "extra": {"keyterm": [term]}}
            await ears.create(settings=settings)
            await ears.hear(SAID)
            await ears.send("session.finalize")
            await ears.until("final_transcript")
            await ears.close()

        async def batch(number: int) -> None:
            await side_by_side(call, number)
            await settled(house)
            for double in house.doubles.values():
                double.reset()

        grown = await kept(batch)
        check(grown)


def check(grown: dict[str, int]) -> None:
    """Less than one object of any type for two names; of blocks, which come and go, for each."""
    assert grown.pop("blocks") < 6 * BATCH, grown
    assert max(grown.values(), default=0) < BATCH // 2, grown


async def side_by_side(one: Callable[[str], Awaitable[None]], number: int) -> None:
    names = iter([f"name-{number}-{place}" for place in range(BATCH)])

    async def lane() -> None:
        for name in names:
            await one(name)

    await asyncio.gather(*(lane() for _ in range(20)))


async def settled(house: House) -> None:
    """Nothing is under way; what the test itself was told is forgotten."""
    await asyncio.to_thread(house.trunkline.recorder.flush_all, 10)
    house.attempts.clear()


@pytest.mark.parametrize(("steps", "status"), [(say("Hi"), 200), (Answer(status=500), 502)])
async def test_a_chat_leaves_no_cycle(
    tmp_path: Path, steps: list[bytes] | Answer, status: int
) -> None:
    """Its memory is free at once: collections are rare, and an outage brings many failures."""
    few = 10  # a failed one is tried again after a pause
    async with serving(tmp_path, steps) as (house, _):

        async def chat() -> None:
            async with house.ask() as answer:
                await answer.read()
                assert answer.status == status

        for _ in range(few):
            await chat()
        gc.collect()
        gc.disable()
        try:
            for _ in range(few):
                await chat()
            assert gc.collect() < 2 * few
        finally:
            gc.enable()
