"""What one failure teaches: the next call, the probe, the way back, a commanded change."""

from __future__ import annotations

import asyncio
import threading
import time
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import APIConnectionError, llm
from plugins import HANG, FakeLLM, FakeSTT, FakeTTS, Ledger, candidate, frames

from trunkline.core.events import Failover
from trunkline.core.health import HealthPolicy
from trunkline.core.models import Candidate, Deadlines, Identity, Plan, Purpose
from trunkline.runtime.attempt import Engine
from trunkline.runtime.gate import Gate
from trunkline.runtime.health import HealthBook
from trunkline.runtime.llm import LLM
from trunkline.runtime.stt import STT
from trunkline.runtime.tts import TTS
from trunkline.store.shared_local import InMemorySharedState

FAST = Deadlines(connect=0.5, first_content=0.5, idle=0.5, total=10)
CALL = Identity(call="call")
DOWN = [APIConnectionError("down")]
SOON = HealthPolicy(cooldown=0.1, longest_cooldown=0.2)


class House:
    """One process: an engine with quick cool-downs, and what it made, closed at the end."""

    def __init__(
        self, policy: HealthPolicy = SOON, shared: InMemorySharedState | None = None
    ) -> None:
        self.ledger = Ledger()
        self.failovers: list[Failover] = []
        self.closed: list[str] = []
        gate = Gate(self.ledger, lambda _: None, lambda _: None)
        self.engine = Engine(gate, HealthBook(shared, policy), self.failovers.append)
        self._made: list[Any] = []

    def closing(self, name: str) -> Callable[[], Any]:
        async def close() -> None:
            self.closed.append(name)

        return close

    def llm(self, *candidates: Candidate, **policy: Any) -> LLM:
        plan = replace(Plan(candidates, FAST), **policy)
        return self._keep(LLM(self.engine, plan, lambda: CALL, closing=self.closing("first")))

    def tts(self, *candidates: Candidate, **policy: Any) -> TTS:
        return self._keep(
            TTS(
                self.engine,
                replace(Plan(candidates, FAST), **policy),
                lambda: CALL,
                sample_rate=16000,
                closing=self.closing("first"),
            )
        )

    def stt(self, *candidates: Candidate) -> STT:
        return self._keep(
            STT(
                self.engine,
                Plan(candidates, FAST),
                lambda: CALL,
                sample_rate=None,
                vad=None,
                closing=self.closing("first"),
            )
        )

    def _keep(self, made: Any) -> Any:
        self._made.append(made)
        return made

    async def aclose(self) -> None:
        for made in self._made:
            await made.aclose()
        await self.engine.aclose()

    @property
    def served(self) -> list[tuple[str, str, str]]:
        return [
            (r.attempt.provider, r.attempt.outcome, r.attempt.purpose) for r in self.ledger.records
        ]


@pytest.fixture
async def house() -> Any:
    house = House()
    yield house
    await house.aclose()


async def chat(model: LLM) -> str:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="hello")
    said = ""
    async with model.chat(chat_ctx=context) as stream:
        async for chunk in stream:
            said += (chunk.delta.content or "") if chunk.delta else ""
    return said.strip()


async def speak(voice: TTS, text: str) -> float:
    async with voice.stream() as stream:
        stream.push_text(text)
        stream.end_input()
        return sum([audio.frame.duration async for audio in stream])


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the conditions have no event of their own
            await asyncio.sleep(0.02)


async def test_no_second_call_pays_for_what_the_first_found_out(house: House) -> None:
    hung, backup = candidate("a", FakeLLM([HANG])), candidate("b", FakeLLM(["served"]))
    assert await chat(house.llm(hung, backup)) == "served"
    another_call = house.llm(hung, backup)
    assert await chat(another_call) == "served"
    assert house.served[:3] == [
        ("a", "first_content_timeout", Purpose.SERVE),
        ("b", "ok", Purpose.SERVE),
        ("b", "ok", Purpose.SERVE),
    ]
    (failover,) = house.failovers
    assert (failover.failed, failover.outcome, failover.next) == (
        "a/fake",
        "first_content_timeout",
        "b/fake",
    )


async def test_a_model_returns_when_a_probe_finds_it_well(house: House) -> None:
    primary = FakeLLM(DOWN)
    model = house.llm(candidate("a", primary), candidate("b", FakeLLM(["backup"])))
    changes: list[tuple[Any, bool]] = []
    model.on("llm_availability_changed", lambda ev: changes.append((ev.llm, ev.available)))
    assert await chat(model) == "backup"
    primary.steps = ["primary"]
    await until(lambda: (primary, True) in changes)
    assert await chat(model) == "primary"
    assert changes[0] == (primary, False)
    probes = [one for one in house.served if one[2] is Purpose.PROBE]
    assert probes
    assert all(provider == "a" for provider, _, _ in probes)


async def test_a_prober_called_off_while_it_asks_leaves_the_key_to_the_next() -> None:
    """A session that closes must not keep a candidate from everybody for a lease."""
    shared, policy = Slow(), replace(SOON, probe_lease=3600)
    first, second = House(policy, shared), House(policy, shared)
    primary, backup = FakeLLM(DOWN), FakeLLM(["backup"])
    plan = candidate("a", primary), candidate("b", backup)
    ended = first.llm(*plan)
    assert await chat(ended) == "backup"
    await asyncio.to_thread(shared.asked.wait, 10)
    await ended.aclose()
    shared.answers.set()
    await asyncio.to_thread(shared.granted.wait, 10)
    primary.steps = ["primary"]
    model = second.llm(*plan)
    assert await chat(model) == "backup"
    await until(lambda: second.engine.health.allows(plan[0].key))
    await first.aclose()
    await second.aclose()


class Slow(InMemorySharedState):
    """Takes its time with a lease."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.answers, self.granted = (threading.Event() for _ in range(3))

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        self.asked.set()
        assert self.answers.wait(10)
        granted = super().lease(name, owner, seconds)
        self.granted.set()
        return granted


async def test_a_caller_keeps_the_voice_of_the_backup(house: House) -> None:
    primary, backup = FakeTTS(DOWN), FakeTTS()
    voice = house.tts(candidate("a", primary), candidate("b", backup))
    await speak(voice, "one two three")
    primary.steps = ()
    await until(lambda: house.engine.health.allows(voice.plan.candidates[1].key))
    await speak(voice, "four five six")
    assert backup.texts[-1] == "four five six"
    assert "four five six" not in primary.texts


async def test_a_recogniser_returns_between_two_utterances(house: House) -> None:
    primary, backup = FakeSTT(DOWN), FakeSTT(["backup"])
    recogniser = house.stt(candidate("a", primary), candidate("b", backup))
    stream = recogniser.stream()
    heard: list[Any] = []

    async def listen() -> None:
        async for event in stream:
            heard.append(event)

    listening = asyncio.create_task(listen())
    for frame in frames(0.3):
        stream.push_frame(frame)
        await asyncio.sleep(0.01)
    await until(lambda: len(backup.heard) == 1)
    primary.steps = ["primary"]
    await until(lambda: recogniser.provider == "a")
    for frame in frames(0.3):
        stream.push_frame(frame)
        await asyncio.sleep(0.01)
    stream.end_input()
    await asyncio.wait_for(listening, 30)
    await stream.aclose()
    assert heard[-1].alternatives[0].text.endswith("primary")
    assert sum(primary.heard[-1:]) == pytest.approx(0.6, abs=0.06)


async def test_a_swap_lets_the_utterance_in_flight_end_and_closes_the_old(house: House) -> None:
    old, new = FakeTTS(["slow", 0.2, "end"]), FakeTTS()
    voice = house.tts(candidate("old", old))
    speaking = asyncio.create_task(speak(voice, "slow end"))
    await asyncio.sleep(0.1)
    voice.swap(Plan((candidate("new", new),), FAST), house.closing("second"))
    assert house.closed == []
    assert await speaking == pytest.approx(0.4, abs=0.05)
    await until(lambda: house.closed == ["first"])
    await speak(voice, "after it")
    assert new.texts == ["after it"]
    assert [r.attempt.provider for r in house.ledger.records] == ["old", "new"]


async def test_a_recogniser_swaps_at_once_in_silence_and_loses_no_audio(house: House) -> None:
    old, new = FakeSTT(["old"]), FakeSTT(["one", "two", "three"])
    recogniser = house.stt(candidate("old", old))
    stream = recogniser.stream()
    for frame in frames(0.15):
        stream.push_frame(frame)
    await asyncio.sleep(0.05)
    recogniser.swap(Plan((candidate("new", new),), FAST), house.closing("second"))
    for frame in frames(0.45):
        stream.push_frame(frame)
    stream.end_input()
    async with asyncio.timeout(30):
        texts = [event.alternatives[0].text async for event in stream]
    await stream.aclose()
    assert texts[-1] == "one two three"
    assert new.heard == [pytest.approx(0.6)]
    assert [r.attempt.outcome for r in house.ledger.records] == ["moved", "ok"]
    await until(lambda: house.closed == ["first"])


async def test_when_all_are_down_the_caller_hears_an_apology(house: House) -> None:
    model = house.llm(candidate("a", FakeLLM(DOWN)), apology="One moment, please.", retries=0)
    errors: list[Any] = []
    model.on("error", errors.append)
    assert await chat(model) == "One moment, please."
    assert [error.recoverable for error in errors] == [True]
    assert [outcome for _, outcome, _ in house.served] == ["connect_failed"]


async def test_when_all_voices_are_down_a_recording_is_played(house: House, tmp_path: Path) -> None:
    clip = tmp_path / "sorry.wav"
    with wave.open(str(clip), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(b"\x00\x20" * 2 * 44100)
    voice = house.tts(candidate("a", FakeTTS(DOWN)), apology=str(clip), retries=0)
    assert await speak(voice, "one two") == pytest.approx(1.01, abs=0.03)


async def test_a_deadline_adapts_to_what_a_candidate_does_of_late(house: House) -> None:
    primary = FakeLLM(["quick"])
    deadlines = replace(FAST, first_content=60.0, total=120, adaptive=True)
    model = house.llm(
        candidate("a", primary), candidate("b", FakeLLM(["backup"])), deadlines=deadlines
    )
    for _ in range(12):
        assert await chat(model) == "quick"
    primary.steps = [HANG]
    began = time.perf_counter()
    assert await chat(model) == "backup"
    assert 0.4 < time.perf_counter() - began < 30  # the fixed deadline is 60 s
