"""The gate in the engine: attempts of each modality reserve, and a refused caller is told so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from gating import TOKENS, Process, spent, until
from livekit.agents import APIStatusError, llm
from plugins import FakeLLM, FakeSTT, FakeTTS, candidate, frames

from trunkline.core.budgets import Action, Step
from trunkline.core.limits import Limit
from trunkline.core.models import Candidate, Identity, Modality, Plan
from trunkline.core.scopes import Scope, Unit
from trunkline.runtime.attempt import Engine
from trunkline.runtime.health import HealthBook
from trunkline.runtime.llm import LLM
from trunkline.runtime.stt import STT
from trunkline.runtime.tts import TTS

NOTICE = "We have to end here."
USAGE = llm.CompletionUsage(completion_tokens=1900, prompt_tokens=50, total_tokens=1950)
CALL = Identity(call="call")


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., Process]:
    return lambda *rules: Process(tmp_path / "state", *rules)


async def nothing() -> None:
    return None


def engine(process: Process) -> Engine:
    return Engine(process.gate, HealthBook(), lambda _: None)


async def chat(process: Process, *candidates: Candidate, by: Engine | None = None) -> str:
    model = LLM(by or engine(process), Plan(candidates), lambda: CALL, closing=nothing)
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="hello there")
    said = ""
    async with model.chat(chat_ctx=context) as stream:
        async for chunk in stream:
            said += (chunk.delta.content or "") if chunk.delta else ""
    return said.strip()


async def test_a_refused_chat_answers_with_the_notice_as_a_reply(
    process: Callable[..., Process],
) -> None:
    one = process(replace(TOKENS, amount=2000, notice=NOTICE))
    model = FakeLLM(["hello"], USAGE)
    assert await chat(one, candidate("a", model)) == "hello"
    assert await chat(one, candidate("a", model)) == NOTICE
    assert model.chats == 1
    assert [record.attempt.outcome for record in one.ledger.records] == ["ok"]
    one.gate.close()


async def test_without_a_notice_a_refused_chat_fails_and_is_not_tried_again(
    process: Callable[..., Process],
) -> None:
    one = process(replace(TOKENS, amount=1))
    backup = FakeLLM(["hello"])
    with pytest.raises(APIStatusError, match="budget tokens") as refused:
        await chat(one, candidate("a", backup), candidate("b", backup))
    assert (refused.value.status_code, backup.chats) == (429, 0)
    one.gate.close()


async def test_a_downgraded_call_takes_the_other_route(process: Callable[..., Process]) -> None:
    one = process(replace(TOKENS, steps=(Step(500_000, Action.DOWNGRADE, route="cheap"),)))
    cheap = Plan((candidate("b", FakeLLM(["cheap"], USAGE)),), route="cheap")
    asked: list[tuple[Modality, tuple[str, ...]]] = []

    def routed(modality: Modality, names: Sequence[str]) -> Plan:
        asked.append((modality, tuple(names)))
        return cheap

    dear = candidate("a", FakeLLM(["dear"], USAGE))
    downgrading = Engine(one.gate, HealthBook(), lambda _: None, routed)
    assert await chat(one, dear, by=downgrading) == "dear"
    await until(lambda: one.reached)
    assert await chat(one, dear, by=downgrading) == "cheap"
    assert asked == [(Modality.LLM, ("cheap",))]
    assert [record.attempt.route for record in one.ledger.records] == ["", "cheap"]
    one.gate.close()


async def test_every_modality_reserves_and_settles(
    process: Callable[..., Process], tmp_path: Path
) -> None:
    one = process(
        replace(TOKENS, name="heard", unit=Unit.AUDIO_SECONDS, amount=10**12),
        replace(TOKENS, name="spoken", unit=Unit.CHARACTERS),
        Limit("streams", Scope(), Unit.STREAMS, 1),
    )
    voice = TTS(
        engine(one), Plan((candidate("v", FakeTTS()),)), lambda: CALL,
        sample_rate=24000, closing=nothing,
    )  # fmt: skip
    async with voice.stream() as speech:
        speech.push_text("one two")
        speech.end_input()
        async for _ in speech:
            pass
    ear = STT(
        engine(one), Plan((candidate("e", FakeSTT(["one"])),)), lambda: CALL,
        sample_rate=None, vad=None, closing=nothing,
    )  # fmt: skip
    async with ear.stream() as heard:
        for frame in frames(2.0):
            heard.push_frame(frame)
        heard.end_input()
        async for _ in heard:
            pass
    assert await chat(one, candidate("a", FakeLLM(["hello"], USAGE))) == "hello"
    await until(lambda: one.purse._openings == {})
    one.gate.close()
    counted = spent(tmp_path)
    assert counted["budget:spoken"] == len("one two")
    assert counted["budget:heard"] == sum(
        record.entry.usage.audio_in_ns + record.entry.usage.audio_out_ns
        for record in one.ledger.records
    )
