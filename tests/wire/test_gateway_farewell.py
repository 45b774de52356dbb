"""A call that a budget or limit ends, of an agent that was never changed: it is told, then ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway_call import Loudspeaker, Microphone
from gateway_house import KEY, SECRET, token, until
from gateway_speech import FLASH, GPT, NOVA, ROUTES, SONIC, Speech, Vendor, Wire, heard, speech
from livekit.agents import Agent, AgentSession, CloseEvent
from livekit.agents.testing import fake_job_context
from livekit.agents.utils import http_context
from msgspec.structs import replace
from typer.testing import CliRunner

from trunkline.cli.app import app
from trunkline.compose import Wanted
from trunkline.core.events import AttemptRefused
from trunkline.core.limits import PATIENCE
from trunkline.core.models import Identity, Modality
from trunkline.core.ports import Change, Said
from trunkline.doubles import tones
from trunkline.errors import Refused
from trunkline.gateway import stt as stt_door
from trunkline.gateway.plans import Ask
from trunkline.runtime.loud_vad import LoudVAD
from trunkline.store.gates import SQLiteGateStore

NOTICE = "I have to end this call now. Goodbye."
ANSWER = "You are very welcome."
MIND = Vendor(GPT.kind, GPT.model, GPT.path, more={"replies": (ANSWER,)})


def asked(house: Speech, name: str) -> list[str]:
    """What a double was asked for."""
    return [log.endpoint for log in house.doubles[name].requests if log.endpoint != "models"]


async def spend(house: Speech) -> None:
    """Use the budget ``b`` up, as a process did that is gone."""
    store = SQLiteGateStore(house.trunkline.state)
    store.flush(Said((Change("budget:b", 0, spent=1, attempts=1),), (), 1))
    store.close()


TURNS: dict[str, dict[str, Any]] = {
    "recogniser": {"vad": None, "turn_detection": "stt"},
    "vad": {"vad": LoudVAD(), "turn_detection": "vad"},
    "default": {},
}


async def hear_once(house: Speech) -> None:
    """Another call, before this one."""
    ear = await house.connect("stt")
    await ear.create()
    await ear.hear(heard("Good morning."))
    assert (await ear.until("final_transcript", "error"))["type"] == "final_transcript"
    await ear.close()


async def spend_nothing(house: Speech) -> None:
    """Everything is there to be used."""


def explained(house: Speech, group: str) -> str:
    """What the command line says of a recogniser that is refused now."""
    where = ["--config", str(house.file), "--state", str(house.trunkline.state)]
    said = CliRunner().invoke(app, [group, "explain", "stt", *where]).output
    assert "the attempt is refused" in said
    return said


@dataclass
class Call:
    """An agent of three names in a call, and what came of it."""

    session: AgentSession[None]
    house: Speech
    ears: Microphone
    mouth: Loudspeaker
    refused: list[AttemptRefused]
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    reasons: list[str] = field(default_factory=list)

    def close(self, event: CloseEvent) -> None:
        self.reasons.append(event.reason.value)
        self.closed.set()

    async def ends(self, seconds: float = 120) -> None:
        async with asyncio.timeout(seconds):
            await self.closed.wait()

    def asked(self, name: str) -> list[str]:
        return [
            log.endpoint for log in self.house.doubles[name].requests if log.endpoint != "models"
        ]


IDS = {"X-LiveKit-Job-ID": "AJ_1", "X-LiveKit-Room-ID": "RM_1"}
IN_A_CALL = Identity(call="AJ_1", job="AJ_1", room="RM_1", key=KEY)


async def in_a_call(house: Speech, door: str) -> Wire:
    """A socket of the call that these ids are."""
    wire = await house.connect(door, headers=IDS)
    await wire.create()
    return wire


@contextlib.asynccontextmanager
async def calling(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    turns: str = "recogniser",
    before: Callable[[Speech], Awaitable[None]] = spend,
    **rules: Any,
) -> AsyncIterator[Call]:
    """A call under ``rules``, after what was ``before``: the budget ``b`` of them is spent."""
    monkeypatch.setenv("LIVEKIT_API_KEY", KEY)
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    monkeypatch.setattr(stt_door, "voice_activity", LoudVAD)
    monkeypatch.setattr("trunkline.runtime.gate.GRACE", 1.0)
    monkeypatch.setattr("trunkline.runtime.gate_keeper.GRACE", 1.0)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(http_context.open())
        house = await stack.enter_async_context(
            speech(tmp_path, tts=[SONIC], stt=[NOVA], llm=[MIND], **rules)
        )
        await before(house)
        refused: list[AttemptRefused] = []
        house.trunkline.on("refused", refused.append)
        monkeypatch.setenv("LIVEKIT_INFERENCE_URL", house.url)
        stack.enter_context(fake_job_context(job_id="AJ_farewell"))
        names = {"stt": "ears", "llm": "brain", "tts": "mouth"}
        session = AgentSession[None](**names, **TURNS[turns])
        call = Call(session, house, Microphone(), Loudspeaker(in_real_time=True), refused)
        session.input.audio, session.output.audio = call.ears, call.mouth
        session.on("close", call.close)
        await session.start(Agent(instructions="Be brief."))
        try:
            yield call
        finally:
            await session.aclose()


def told(call: Call) -> None:
    """The caller has heard the notice to its end, once, and nothing but answers before it."""
    notice = tones.words_of(NOTICE)
    assert call.mouth.words[-len(notice) :] == notice
    before = call.mouth.words[: -len(notice)]
    assert before == tones.words_of(ANSWER) * (len(before) // len(tones.words_of(ANSWER)))
    assert call.mouth.cut == 0


ONCE = {"window": "total", "amount": {"requests": 1}, "notice": NOTICE}


def of(modality: str, **more: Any) -> dict[str, Any]:
    """A budget for one request of ``modality``, or of ``more``."""
    return {"b": {**ONCE, "scope": [{"modality": modality}], **more}}


@pytest.mark.parametrize("turns", TURNS)
async def test_a_silent_caller_whose_recogniser_is_refused_is_told_and_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turns: str
) -> None:
    async with calling(tmp_path, monkeypatch, turns=turns, budgets=of("stt")) as call:
        await call.ends()
        told(call)
        assert call.asked("llm0") == [], "its answer would not be heard"
        assert call.asked("stt0") == ["listen"], "for a moment, and not again"
        assert [a.outcome for a in call.house.attempts if a.modality == Modality.STT] == ["refused"]
        assert {one.rule for one in call.refused} == {"budget b"}
        assert NOTICE in explained(call.house, "budgets")


async def test_a_recogniser_that_a_limit_refuses_has_its_caller_told_and_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client would open it anew all the time; only a call with ears can go on."""
    few = {"scope": [{"modality": "stt"}], "amount": {"requests": 1}, "per": "hour"}
    limits = {"l": {**few, "notice": NOTICE}}
    async with calling(tmp_path, monkeypatch, before=hear_once, limits=limits) as call:
        await call.ends()
        told(call)
        assert {one.rule for one in call.refused} == {"limit l"}
        assert NOTICE in explained(call.house, "limits")


async def test_a_recogniser_that_is_cut_off_in_mid_call_has_its_caller_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.runtime.audio_line._SLICE_NS", 2_000_000_000)
    budget = of("stt", amount={"audio_seconds": 6})
    async with calling(tmp_path, monkeypatch, before=spend_nothing, budgets=budget) as call:
        call.ears.say(heard("Thank you for that.", after=1.0))
        await call.ends()
        told(call)
        assert call.mouth.words[: len(tones.words_of(ANSWER))] == tones.words_of(ANSWER)
        [ear] = [a for a in call.house.attempts if a.modality == Modality.STT]
        assert (ear.outcome, ear.usage.audio_in_ns > 0) == ("refused", True)


@pytest.mark.parametrize("modality", ["llm", "tts"])
async def test_a_call_whose_model_or_voice_has_no_budget_left_ends_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str
) -> None:
    async with calling(tmp_path, monkeypatch, budgets=of(modality)) as call:
        call.ears.say(heard("Thank you for that.", after=1.0))
        await call.ends()
        told(call)
        assert {(one.modality, one.rule) for one in call.refused} == {(modality, "budget b")}
        assert call.asked("llm0") == ([] if modality == "llm" else ["chat"])
        assert call.asked("stt0") == ["listen"]


@pytest.mark.parametrize(("modality", "turns"), [("llm", "recogniser"), ("stt", "vad")])
async def test_who_cuts_in_on_the_notice_hears_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str, turns: str
) -> None:
    """Also where no recogniser hears that."""
    long = " ".join([NOTICE] * 3)  # so that there is time to cut in, also on a busy machine
    budgets = of(modality, notice=long)
    async with calling(tmp_path, monkeypatch, turns=turns, budgets=budgets) as call:
        if modality == "llm":
            call.ears.say(heard("Thank you for that.", after=1.0))
        await until(lambda: call.mouth.pcm, 60)
        call.ears.say(heard("Wait, I have a question.", after=1.0))
        await call.ends()
        notice = tones.words_of(long)
        assert call.mouth.cut == 1
        assert len(call.mouth.words) > len(notice)
        assert call.mouth.words[-len(notice) :] == notice


async def test_a_limit_of_the_model_tells_the_caller_and_the_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {"l": {"scope": [{"modality": "llm"}], "amount": {"requests": 1}, "per": "hour"}}
    async with calling(tmp_path, monkeypatch, before=spend_nothing, limits=few) as call:
        for words in (tones.words_of(ANSWER), tones.words_of(f"{ANSWER} {PATIENCE}")):
            call.ears.say(heard("Thank you for that.", after=1.0))
            await until(lambda words=words: call.mouth.words == words, 60)
        assert call.house.gateway.house.farewells.of(call.house.attempts[0].identity) is None
        assert not call.closed.is_set()


async def test_the_doors_of_a_call_may_be_in_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each gateway knows the others by the state directory only."""
    monkeypatch.setattr("trunkline.runtime.gate.GRACE", 0.5)
    for place in ("hears", "speaks"):
        (tmp_path / place).mkdir()
    rules = {"budgets": of("stt")}
    async with (
        speech(tmp_path / "hears", stt=[NOVA], **rules) as hearing,
        speech(tmp_path / "speaks", tts=[SONIC], **rules) as speaking,
    ):
        await spend(hearing)
        ear = await in_a_call(hearing, "stt")
        await ear.hear(bytes(32000))
        assert (await ear.until("final_transcript", "error"))["transcript"] == "…"
        voice = await in_a_call(speaking, "tts")
        await until(lambda: speaking.gateway.house.farewells.of(IN_A_CALL))
        assert await voice.spoken("Which room?") == tones.words_of(NOTICE)
        assert (await ear.until("error"))["code"] == 429
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await hearing.connect("stt", headers=IDS)
        assert refused.value.status == 403


async def test_a_call_of_another_key_with_the_same_name_is_another(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[SONIC], budgets=of("stt")) as house:
        house.gateway.house.farewells.begin(replace(IN_A_CALL, key="other"), NOTICE)
        voice = await in_a_call(house, "tts")
        assert await voice.spoken("Which room?") == ["which", "room"]


async def test_an_utterance_in_two_voices_is_replaced_once(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[SONIC, FLASH], budgets=of("stt")) as house:
        house.gateway.house.farewells.begin(IN_A_CALL, NOTICE)
        voice = await in_a_call(house, "tts")
        await voice.say("Which room?", flush=False)
        other = {"model": "tts1/eleven_flash_v2_5"}
        assert await voice.spoken("Room seven?", generation_config=other) == tones.words_of(NOTICE)


async def test_a_recogniser_that_tells_no_call_is_not_let_in_for_a_notice(tmp_path: Path) -> None:
    """It could come again and again, and be heard each time."""
    async with speech(tmp_path, stt=[NOVA], budgets=of("stt")) as house:
        await spend(house)
        for _ in range(2):
            ear = await house.connect("stt")
            await ear.create()
            await ear.hear(bytes(32000))
            assert (await ear.until("error", "final_transcript"))["code"] == 429
        assert asked(house, "stt0") == []


async def test_a_judge_gets_the_error_and_ends_no_call(tmp_path: Path) -> None:
    """It would take the notice for an answer."""
    low = {"Authorization": f"Bearer {token()}", "X-LiveKit-Inference-Priority": "low", **IDS}
    async with speech(tmp_path, llm=[MIND], budgets=of("llm")) as house:
        await spend(house)
        farewells = house.gateway.house.farewells
        async with house.ask(headers=low, model="brain") as answer:
            assert answer.status == 429
        assert farewells.of(IN_A_CALL) is None
        async with house.ask(
            headers={**low, "X-LiveKit-Inference-Priority": ""}, model="brain"
        ) as answer:
            assert (answer.status, NOTICE in await answer.text()) == (200, True)
        assert farewells.of(IN_A_CALL) is not None


@pytest.mark.parametrize("modality", ["stt", "tts"])
async def test_a_probe_is_not_let_in_for_a_notice(tmp_path: Path, modality: str) -> None:
    """Nobody would hear it, and each probe is a call of its own."""
    vendors: dict[str, Any] = {"stt": [NOVA]} if modality == "stt" else {"tts": [SONIC]}
    async with speech(tmp_path, **vendors, budgets=of(modality)) as house:
        await spend(house)
        plans = house.gateway.house.plans
        ask = Ask(Modality(modality), Wanted(ROUTES[modality]))
        with plans.lease(ask) as plan:
            for _ in range(2):
                with pytest.raises(Refused) as refused:
                    await plans.probes[Modality(modality)](plan.candidates[0], plan)
                assert refused.value.notice == ""
        assert asked(house, f"{modality}0") == []
