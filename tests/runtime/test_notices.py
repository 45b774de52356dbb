"""A refused caller in LiveKit's own session: hears the notice, is let go politely, once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import wave
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, CloseEvent
from livekit.agents.utils import http_context
from livekit.agents.voice import io

import trunkline
from trunkline.core.budgets import FAREWELL
from trunkline.core.events import AttemptRefused
from trunkline.core.limits import PATIENCE
from trunkline.core.models import Attempt
from trunkline.core.ports import Change, Said
from trunkline.doubles import Double, Provider, Rule, tones
from trunkline.runtime.loud_vad import LoudVAD
from trunkline.store.gates import SQLiteGateStore

NOTICE = "I have to end this call now. Goodbye."
ANSWER = "Your room is ready."
QUESTION = "Is my room ready."
RATE = 24000
DEADLINES = {"connect": 3, "first_content": 3, "idle": 3, "total": 10}


class Loudspeaker(io.AudioOutput):
    """Keeps what it is given, and has played it at once."""

    def __init__(self) -> None:
        super().__init__(label="test", capabilities=io.AudioOutputCapabilities(pause=False))
        self.pcm = bytearray()
        self._rate = RATE
        self._seconds = 0.0

    @property
    def words(self) -> list[str]:
        return tones.decode(bytes(self.pcm), self._rate)

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        self.pcm += bytes(frame.data)
        self._rate = frame.sample_rate
        self._seconds += frame.duration

    def flush(self) -> None:
        super().flush()
        if self._seconds:
            asyncio.get_running_loop().call_soon(self._finished, False)

    def clear_buffer(self) -> None:
        if self._seconds:
            self._finished(True)

    def _finished(self, interrupted: bool) -> None:
        played, self._seconds = self._seconds, 0.0
        if played:
            self.on_playback_finished(playback_position=played, interrupted=interrupted)


class Microphone(io.AudioInput):
    """Says its words and is silent then, at the pace of a call, for as long as it is asked."""

    def __init__(self, words: str = "") -> None:
        super().__init__(label="test")
        self._pcm = bytes(RATE) + (tones.encode(words, RATE) if words else b"")

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(0.02)
        size = RATE // 50 * 2
        piece, self._pcm = self._pcm[:size], self._pcm[size:]
        return rtc.AudioFrame(piece.ljust(size, b"\0"), RATE, 1, RATE // 50)


@dataclass
class Call:
    """A session before doubles of three vendors, and what came of it."""

    double: Double
    session: AgentSession[None]
    speaker: Loudspeaker
    refused: list[AttemptRefused] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    reason: str = ""
    errors: list[Any] = field(default_factory=list)

    @property
    def asked(self) -> list[str]:
        return [log.endpoint for log in self.double.requests if log.endpoint != "models"]

    def close(self, event: CloseEvent) -> None:
        self.reason = event.reason.value
        self.closed.set()

    async def ends(self, seconds: float = 60) -> None:
        async with asyncio.timeout(seconds):
            await self.closed.wait()


def spend(state: Path) -> None:
    """Use the budget up, as a process did that is gone."""
    store = SQLiteGateStore(state)
    store.flush(Said((Change("budget:b", 0, spent=1, attempts=1),), (), 1))
    store.close()


@contextlib.asynccontextmanager
async def calling(
    place: Path,
    *,
    modality: str = "",
    notice: str | bool | None = NOTICE,
    limit: dict[str, Any] | None = None,
    says: str = "",
    faults: tuple[Rule, ...] = (),
    clip: Path | None = None,
) -> AsyncIterator[Call]:
    """A call under a budget of its ``modality`` (every one: of all) that is spent already."""
    scope = {"scope": [{"modality": modality}]} if modality else {}
    budget = {**scope, "window": "total", "amount": {"requests": 1}}
    said = {} if notice is None else {"notice": notice}
    providers = [Provider("openai", replies=(ANSWER,)), Provider("deepgram"), Provider("cartesia")]
    async with contextlib.AsyncExitStack() as stack:
        double = await stack.enter_async_context(Double.serve(providers, faults=list(faults)))
        await stack.enter_async_context(http_context.open())
        routes = {
            "ears": {"modality": "stt", "candidates": ["deepgram/nova-3"]},
            "brain": {"modality": "llm", "candidates": ["openai/gpt-4.1"]},
            "mouth": {"modality": "tts", "candidates": ["cartesia/sonic-3"]},
        }
        for route in routes.values():
            route["deadlines"] = dict(DEADLINES)
        if clip is not None:
            routes["mouth"]["apology"] = str(clip)
        config = {
            "version": 1,
            "providers": {
                "openai": {"api_key": "key", "base_url": double.url("openai") + "/v1"},
                "deepgram": {"api_key": "key", "base_url": double.url("deepgram")},
                "cartesia": {"api_key": "key", "base_url": double.url("cartesia")},
            },
            "routes": routes,
            "stacks": {"desk": {"stt": "ears", "llm": "brain", "tts": "mouth"}},
        }
        if limit is not None:
            config["limits"] = {"l": {**scope, **limit, **said}}
        else:
            config["budgets"] = {"b": {**budget, **said}}
            spend(place / "state")
        (place / "trunkline.yaml").write_text(json.dumps(config))
        trunkline.configure(place / "trunkline.yaml", place / "state")
        stack.push_async_callback(trunkline.aclose)
        desk = trunkline.stack("desk")
        stack.push_async_callback(desk.aclose)
        session = AgentSession[None](**desk, vad=LoudVAD(), turn_detection="vad")
        session.output.audio = speaker = Loudspeaker()
        session.input.audio = Microphone(says)
        call = Call(double, session, speaker)
        trunkline.on("refused", call.refused.append)
        trunkline.on("settled", lambda one: call.attempts.append(one.attempt))
        session.on("close", call.close)
        session.on("error", call.errors.append)
        await session.start(Agent(instructions="Be brief."))
        try:
            yield call
        finally:
            await session.aclose()


def words(text: str) -> list[str]:
    return tones.words_of(text)


async def test_a_refused_model_answers_with_the_notice_and_the_call_ends(tmp_path: Path) -> None:
    async with calling(tmp_path, modality="llm") as call:
        await call.session.generate_reply(user_input="Hello?")
        await call.ends()
    assert call.speaker.words == words(NOTICE)
    assert call.reason == "user_initiated", "no error closed it"
    assert "chat" not in call.asked
    assert len(call.refused) == 1


@pytest.mark.parametrize("modality", ["llm", "tts", "stt"])
async def test_without_words_of_the_settings_a_refused_caller_is_told_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str
) -> None:
    monkeypatch.setattr("trunkline.runtime.gate.GRACE", 1.0)
    async with calling(tmp_path, modality=modality, notice=None) as call:
        if modality != "stt":
            await call.session.generate_reply(user_input="Hello?")
        await call.ends()
    assert call.speaker.words == words(FAREWELL)
    assert call.reason == "user_initiated"


async def test_a_limit_has_words_of_its_own(tmp_path: Path) -> None:
    limit = {"amount": {"requests": 1}, "per": "hour"}
    async with calling(tmp_path, modality="llm", limit=limit, notice=None) as call:
        await call.session.generate_reply(user_input="Hello?")
        await call.session.generate_reply(user_input="Hello?")
        assert call.speaker.words == words(f"{ANSWER} {PATIENCE}")
        assert not call.closed.is_set()


async def test_a_refused_voice_says_the_notice_and_the_call_ends(tmp_path: Path) -> None:
    async with calling(tmp_path, modality="tts") as call:
        await call.session.generate_reply(user_input="Hello?")
        await call.ends()
    assert call.speaker.words == words(NOTICE), "and not the answer"
    assert call.asked.count("tts") == 1
    assert not call.errors


async def test_a_refused_recogniser_has_the_notice_said_and_is_not_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.runtime.gate.GRACE", 1.0)
    async with calling(tmp_path, modality="stt") as call:
        await call.ends()
        await asyncio.sleep(1.2)  # twice the time after which LiveKit opens a stream again
    assert call.speaker.words == words(NOTICE)
    assert call.asked.count("listen") == 1
    assert [attempt.outcome for attempt in call.attempts if attempt.modality == "stt"] == [
        "refused"
    ]


async def test_a_refused_call_hears_the_notice_as_its_first_answer(tmp_path: Path) -> None:
    async with calling(tmp_path, says=QUESTION) as call:
        await call.ends()
    assert call.speaker.words == words(NOTICE)
    assert sorted(call.asked) == ["listen", "tts"], "heard, and told; no model was asked"


async def test_without_a_notice_a_refused_recogniser_ends_the_call(tmp_path: Path) -> None:
    async with calling(tmp_path, modality="stt", notice=False) as call:
        await call.ends()
        await asyncio.sleep(1.2)
    assert "listen" not in call.asked
    assert len(call.refused) == 1


async def test_a_limit_tells_the_caller_and_the_call_goes_on(tmp_path: Path) -> None:
    limit = {"amount": {"requests": 1}, "per": "hour"}
    async with calling(tmp_path, modality="llm", limit=limit, notice="One moment.") as call:
        await call.session.generate_reply(user_input="Hello?")
        await call.session.generate_reply(user_input="Hello?")
        assert call.speaker.words == words(f"{ANSWER} One moment.")
        await asyncio.sleep(0.2)
        assert not call.closed.is_set()


async def test_where_no_voice_speaks_the_clip_is_played(tmp_path: Path) -> None:
    clip = tmp_path / "sorry.wav"
    with wave.open(str(clip), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes(tones.encode("sorry", RATE))
    broken = Rule(kind="server_error", provider="cartesia")
    async with calling(tmp_path, modality="tts", faults=(broken,), clip=clip) as call:
        await call.session.generate_reply(user_input="Hello?")
        await call.ends()
    assert call.speaker.words == ["sorry"]


async def test_who_talks_over_the_notice_is_told_again(tmp_path: Path) -> None:
    async with calling(tmp_path, modality="llm") as call:
        speaker = call.speaker
        speaker.flush = lambda: None  # type: ignore[method-assign]  # it is still being played
        handle = call.session.generate_reply(user_input="Hello?")
        async with asyncio.timeout(30):
            while not speaker.pcm:  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.01)
        await call.session.interrupt()
        await handle.wait_for_playout()
        assert not call.closed.is_set()
        del speaker.flush
        speaker.pcm.clear()
        await call.session.generate_reply(user_input="Hello?")
        await call.ends()
    assert speaker.words == words(NOTICE)
