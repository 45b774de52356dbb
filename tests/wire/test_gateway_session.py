"""A whole ``AgentSession`` over the gateway: it hears, thinks and speaks by three names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway_call import Loudspeaker, Microphone
from gateway_house import KEY, SECRET, until
from gateway_speech import FLASH, GPT, INK, NOVA, SONIC, Speech, Vendor, heard, speech
from livekit.agents import Agent, AgentSession, inference
from livekit.agents.utils import http_context

from trunkline.core.models import Modality
from trunkline.doubles import Kind, Rule, tones
from trunkline.gateway import stt as stt_door
from trunkline.runtime.loud_vad import LoudVAD

ANSWER = "You are very welcome."
MIND = Vendor(GPT.kind, GPT.model, GPT.path, more={"replies": (ANSWER,)})


@pytest.fixture
async def outside(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("LIVEKIT_API_KEY", KEY)
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    monkeypatch.setattr(stt_door, "voice_activity", LoudVAD)
    async with http_context.open():
        yield


async def called(house: Speech, text: str, answers: int = 1, **more: Any) -> Loudspeaker:
    """Say ``text`` to an agent that was never changed, until it has answered."""
    ears, mouth = Microphone(), Loudspeaker()
    how: dict[str, Any] = more or {"vad": None, "turn_detection": "stt"}
    async with AgentSession[None](stt="ears", llm="brain", tts="mouth", **how) as session:
        session.input.audio = ears
        session.output.audio = mouth
        await session.start(Agent(instructions="Be brief."))
        for number in range(answers):
            ears.say(heard(text, after=1.0))
            wanted = tones.words_of(ANSWER) * (number + 1)
            await until(lambda wanted=wanted: mouth.words == wanted, 30)
    return mouth


@pytest.mark.usefixtures("outside")
async def test_an_agent_of_three_names_holds_a_conversation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA], llm=[MIND]) as house:
        monkeypatch.setenv("LIVEKIT_INFERENCE_URL", house.url)
        await called(house, "Thank you for that.", answers=2)
        await until(lambda: not house.gateway.house.plans.in_use)
        served = [a.modality for a in house.attempts]
        assert served.count(Modality.LLM) == served.count(Modality.TTS) == 2
        assert served.count(Modality.STT) == 1
        [request] = [r for r in house.doubles["llm0"].requests if r.endpoint == "chat"][:1]
        assert request.outcome == "ok"


@pytest.mark.usefixtures("outside")
async def test_nobody_hears_that_every_primary_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {name: [Rule(kind=Kind.SERVER_ERROR)] for name in ("tts0", "stt0", "llm0")}
    async with speech(
        tmp_path, tts=[SONIC, FLASH], stt=[NOVA, INK], llm=[MIND, MIND], faults=faults
    ) as house:
        monkeypatch.setenv("LIVEKIT_INFERENCE_URL", house.url)
        await called(house, "Thank you for that.")
        await until(lambda: not house.gateway.house.plans.in_use)
        assert {a.connection for a in house.attempts if a.outcome in ("ok", "cancelled")} >= {
            "llm1",
            "tts1",
            "stt1",
        }


@pytest.mark.usefixtures("outside")
async def test_an_agent_goes_on_with_what_it_has_where_a_path_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It asks ``/v1/eot`` and ``/v1/bargein`` once each, and finds the ends of turns itself."""
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA], llm=[MIND]) as house:
        monkeypatch.setenv("LIVEKIT_INFERENCE_URL", house.url)
        await called(
            house,
            "Thank you for that.",
            answers=2,
            vad=LoudVAD(0.5),
            turn_handling={
                "turn_detection": inference.TurnDetector(version="v1"),
                "interruption": {"mode": "adaptive"},
            },
        )
    told = [record.getMessage() for record in caplog.records]
    assert len([one for one in told if "refused with 404: nothing is served" in one]) == 2
