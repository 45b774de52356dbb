"""``/v1/stt``, message by message, before doubles of the vendors."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes.util
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from gateway_house import until
from gateway_speech import (
    FLASH,
    INK,
    NOVA,
    SONIC,
    WHISPER,
    Speech,
    Vendor,
    Wire,
    heard,
    speech,
)
from livekit.agents import APIError
from livekit.agents.stt import SpeechEvent

from trunkline.core.models import Modality
from trunkline.doubles import Kind, Rule, tones
from trunkline.gateway import endpointing, interims, stt
from trunkline.gateway import speech as speech_door
from trunkline.runtime.loud_vad import LoudVAD
from trunkline.runtime.stt import RecognizeStream

TEXT = "Good morning to you."
WORDS = tones.words_of(TEXT)
SETTINGS = {"sample_rate": "16000", "encoding": "pcm_s16le", "extra": {}}
FAST = {"connect": 0.5, "first_content": 0.5, "idle": 0.5}


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tones are no speech to a model of speech."""
    monkeypatch.setattr(stt, "voice_activity", LoudVAD)


async def opened(house: Speech, query: str | None = None, **fields: Any) -> Wire:
    wire = await house.connect("stt", query, fields.pop("headers", None))
    await wire.create(settings={**SETTINGS, **fields.pop("settings", {})}, **fields)
    return wire


async def ended(wire: Wire) -> None:
    """End the input as an older client does: by a message that may mean less, and silence."""
    await wire.send("session.finalize")
    assert (await wire.until("session.closed"))["type"] == "session.closed"
    assert (await wire.next())["type"] == "closed"


@pytest.mark.parametrize("vendor", [NOVA, INK, WHISPER], ids=lambda v: v.model)
async def test_utterances_end_without_a_word_of_the_client(tmp_path: Path, vendor: Vendor) -> None:
    async with speech(tmp_path, stt=[vendor]) as house:
        wire = await opened(house, connection={"timeout": 10.0, "retries": 3})
        await wire.hear(bytes(16000) + heard(TEXT) + heard("How are you?"))
        await wire.until("final_transcript")
        while len(wire.words()) < 7:
            assert (await wire.until("final_transcript"))["type"] == "final_transcript"
        assert wire.words() == [*WORDS, "how", "are", "you"]
        first = wire.finals()[0]
        if first["duration"]:  # some vendors tell no times
            assert first["start"] + first["duration"] == pytest.approx(1.7, abs=0.6)
        assert first["extra"]["served_by"] == f"stt0/{vendor.model}"
        assert first["request_id"]
        assert wire.kinds()[1] == "start_of_speech"
        assert None not in first.values()
        await ended(wire)
        await until(lambda: len(house.attempts) == 1)
        [attempt] = house.attempts
        assert (attempt.modality, attempt.outcome) == (Modality.STT, "ok")
        assert attempt.usage.audio_in_ns > 1e9


@pytest.mark.skipif(
    ctypes.util.find_library("flite") is None, reason="needs flite: apt-get install libflite1"
)
async def test_speech_ends_by_its_own_detector_not_by_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real speech twice, in noise that is louder than silence, for a vendor that ends nothing."""
    from trunkline.engines.flite import TTS

    monkeypatch.setattr(stt, "voice_activity", endpointing.voice_activity)
    frame = await TTS(voice="slt").synthesize("Good morning, how are you today?").collect()
    assert frame.sample_rate == 16000
    spoken = np.frombuffer(frame.data, np.int16)
    noise = np.random.default_rng(1).normal(0, 150, 16000 * 9).astype(np.int16)
    for start in (8000, 16000 * 5):
        noise[start : start + len(spoken)] += spoken // 2
    knowing = Vendor(WHISPER.kind, WHISPER.model, WHISPER.path, more={"hears": "good morning"})
    async with speech(tmp_path, stt=[knowing]) as house:
        wire = await opened(house)
        await wire.hear(noise.tobytes())
        for _ in range(2):
            assert (await wire.until("final_transcript"))["type"] == "final_transcript"
        assert wire.words() == ["good", "morning"] * 2
        starts = [one["start"] for one in wire.finals()]
        assert starts == pytest.approx([0.5, 5.0], abs=0.7)
        await ended(wire)
        assert len(wire.finals()) == 2


async def test_words_have_their_times_on_the_socket(tmp_path: Path) -> None:
    async with speech(tmp_path, stt=[NOVA]) as house:
        wire = await opened(house)
        pcm = bytes(32000) + heard(TEXT)
        await wire.hear(pcm)
        await wire.until("final_transcript")
        told = [(w["word"], w["start"]) for w in wire.finals()[0]["words"]]
        assert [word for word, _ in told] == WORDS
        spoken = [word.start for word in tones.hear(pcm, 16000)]
        assert [start for _, start in told] == pytest.approx(spoken, abs=0.1)
        assert "interim_transcript" in wire.kinds()
        await wire.close()


@pytest.mark.parametrize("rate", [8000, 24000, 48000])
async def test_audio_of_any_rate_is_heard(tmp_path: Path, rate: int) -> None:
    async with speech(tmp_path, stt=[NOVA]) as house:
        wire = await opened(house, settings={"sample_rate": str(rate)})
        await wire.hear(heard(TEXT, rate), rate)
        await wire.until("final_transcript")
        assert wire.words() == WORDS
        await wire.close()


async def test_a_finalize_in_mid_stream_ends_nothing(tmp_path: Path) -> None:
    async with speech(tmp_path, stt=[NOVA]) as house:
        wire = await opened(house)
        for text in (TEXT, "How are you?"):
            await wire.hear(heard(text, after=0.1))
            await wire.send("session.finalize")
            await wire.until("final_transcript")
        assert wire.words() == [*WORDS, "how", "are", "you"]
        assert wire.kinds().count("session.finalized") >= 1
        await wire.hear(bytes(3200))
        await ended(wire)


@pytest.mark.parametrize("last", [["session.close"], ["session.finalize", "session.close"]])
async def test_close_gets_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: list[str]
) -> None:
    """One frame after the client has shut down ends the whole process of a client on Node 20."""
    monkeypatch.setattr(stt, "_LINGER_SECONDS", 20.0)
    async with speech(tmp_path, stt=[NOVA]) as house:
        wire = await opened(house)
        await wire.hear(heard(TEXT, after=0.0))
        for kind in last:
            await wire.send(kind)
        rest = []
        while (message := await wire.next())["type"] != "closed":
            rest.append(message["type"])
        assert not {"session.closed", "session.finalized", "error"} & set(rest)
        await until(lambda: house.attempts)
        assert house.attempts[0].outcome == "cancelled"
        await until(lambda: not house.gateway.house.plans.in_use)


async def test_a_burst_of_interims_is_its_first_and_its_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever leaves at the first of them is gone before another is sent."""
    monkeypatch.setattr(interims, "GAP_SECONDS", 1000.0)
    async with speech(tmp_path, stt=[NOVA]) as house:
        wire = await opened(house)
        for _ in range(2):
            await wire.hear(heard(TEXT))
            await wire.until("final_transcript")
            assert wire.words()[-len(WORDS) :] == WORDS
        assert wire.kinds().count("interim_transcript") == 1
        await wire.close()
    monkeypatch.setattr(interims, "GAP_SECONDS", 0.2)
    told: list[str] = []

    async def tell(message: str) -> None:
        told.append(message)

    one = interims.Interims(tell)
    running = asyncio.create_task(one.run())
    for words in ("a", "a b", "a b c"):
        await one.offer(words)
    assert told == ["a"]
    await until(lambda: told == ["a", "a b c"])
    await one.offer("d")
    one.drop()
    await asyncio.sleep(0.3)
    await one.offer("e")
    assert told == ["a", "a b c", "e"]
    running.cancel()


async def test_long_silence_is_no_failure(tmp_path: Path) -> None:
    async with speech(tmp_path, stt=[NOVA], policy={"ears": {"deadlines": FAST}}) as house:
        wire = await opened(house)
        await wire.hear(bytes(16000 * 2 * 20))
        await wire.hear(heard(TEXT))
        await wire.until("final_transcript")
        assert wire.words() == WORDS
        assert wire.finals()[0]["start"] == pytest.approx(20.0, abs=0.2)
        await wire.close()
        await until(lambda: house.attempts)
        assert len(house.attempts) == 1


async def test_options_change_between_utterances(tmp_path: Path) -> None:
    async with speech(tmp_path, stt=[NOVA, INK]) as house:
        wire = await opened(house, "stt0/nova-3", model="stt0/nova-3")
        await wire.hear(heard(TEXT))
        await wire.until("final_transcript")
        await wire.send("session.update", settings={"language": "en", "extra": {"keyterm": ["x"]}})
        await wire.send("session.update", settings={"model": "no/such-model"})
        await wire.send("session.update", settings={"model": "stt1/ink-2", "language": ""})
        await wire.send("session.update", settings={"extra": {"keyterm": None}})
        await wire.hear(bytes(16000))
        await wire.hear(heard("How are you?"))
        await wire.until("final_transcript")
        assert wire.words() == [*WORDS, "how", "are", "you"]
        assert "error" not in wire.kinds()
        await wire.close()


async def test_one_callers_option_makes_nobody_else_lose_a_recogniser(tmp_path: Path) -> None:
    """Deepgram's plugin learns only when it is to hear that it detects no language in a stream."""
    async with speech(tmp_path, stt=[NOVA, INK]) as house:
        settings = {**SETTINGS, "extra": {"detect_language": True}}
        wire = await house.connect("stt", "stt0/nova-3")
        await wire.create(settings=settings, model="stt0/nova-3")
        await wire.hear(heard(TEXT))
        assert (await wire.until("error"))["code"] == 400
        other = await opened(house)
        await other.hear(heard(TEXT))
        await other.until("final_transcript")
        assert other.finals()[0]["extra"]["served_by"] == "stt0/nova-3"
        await other.close()


async def test_a_recogniser_that_dies_is_heard_by_nobody(tmp_path: Path) -> None:
    faults = {"stt0": [Rule(kind=Kind.DIE, after=2)]}
    async with speech(tmp_path, stt=[NOVA, INK], faults=faults) as house:
        wire = await opened(house, headers={"X-LiveKit-Room-ID": "RM_1"})
        await wire.hear(heard(TEXT))
        await wire.until("final_transcript")
        assert wire.words() == WORDS
        assert wire.finals()[0]["extra"]["served_by"] == "stt1/ink-2"
        await wire.close()
        await until(lambda: len(house.attempts) == 2)
        assert {a.identity.call for a in house.attempts} == {"RM_1"}


@pytest.mark.parametrize(("kind", "code"), [(Kind.SERVER_ERROR, 502), (Kind.RATE_LIMITED, 429)])
async def test_when_nobody_hears_there_is_one_error_and_the_end(
    tmp_path: Path, kind: Kind, code: int
) -> None:
    async with speech(tmp_path, stt=[NOVA], faults={"stt0": [Rule(kind=kind)]}) as house:
        wire = await opened(house)
        await wire.hear(heard(TEXT))
        error = await wire.until("error")
        assert (error["type"], error["code"]) == ("error", code)
        assert error["request_id"] in error["message"]
        assert (await wire.next())["type"] == "closed"


@pytest.mark.parametrize("goes_on", [True, False])
async def test_at_the_end_of_a_stream_the_caller_is_told_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool
) -> None:
    """More audio, or the end of the input, may come before the word of it; here it does."""
    told = RecognizeStream.__anext__

    async def told_late(self: RecognizeStream) -> SpeechEvent:
        try:
            return await told(self)
        except APIError:
            await asyncio.sleep(0.4)
            raise

    monkeypatch.setattr(RecognizeStream, "__anext__", told_late)
    monkeypatch.setattr(stt, "_END_SECONDS", 0.2)
    faults = {"stt0": [Rule(kind=Kind.SERVER_ERROR)]}
    async with speech(tmp_path, stt=[NOVA], faults=faults) as house:
        wire = await opened(house)
        telling = asyncio.create_task(wire.until("error"))
        await wire.hear(heard("word")[:1600])
        if not goes_on:
            await wire.send("session.finalize")
        while goes_on and not telling.done():
            with contextlib.suppress(ConnectionError):
                await wire.hear(heard("word")[:1600])
            await asyncio.sleep(0.01)
        assert (await telling)["code"] == 502


async def test_a_fallback_of_the_client_may_have_no_extra(tmp_path: Path) -> None:
    faults = {"stt0": [Rule(kind=Kind.SERVER_ERROR)]}
    fallback = {"models": [{"model": "stt1/ink-2", "extra": None}]}
    async with speech(tmp_path, stt=[NOVA, INK], faults=faults) as house:
        wire = await opened(house, "stt0/nova-3", model="stt0/nova-3", fallback=fallback)
        await wire.hear(heard(TEXT))
        await wire.until("final_transcript")
        assert wire.words() == WORDS
        await wire.close()


async def test_a_reload_moves_a_stream_between_utterances(tmp_path: Path) -> None:
    async with speech(tmp_path, stt=[NOVA, INK]) as house:
        wire = await opened(house)
        await wire.hear(heard(TEXT))
        await wire.until("final_transcript")
        house.without("stt0/nova-3")
        await wire.hear(bytes(32000) + heard("How are you?"))
        await wire.until("final_transcript")
        assert wire.words() == [*WORDS, "how", "are", "you"]
        assert wire.finals()[-1]["extra"]["served_by"] == "stt1/ink-2"
        await wire.close()
        await until(lambda: len(house.attempts) == 2)
        assert [(a.connection, a.outcome) for a in house.attempts] == [
            ("stt0", "moved"),
            ("stt1", "cancelled"),
        ]


async def test_a_drain_waits_for_the_end_of_an_utterance(tmp_path: Path) -> None:
    async with speech(tmp_path, stt=[NOVA]) as house:
        quiet, busy = await opened(house), await opened(house)
        await busy.hear(heard(TEXT, after=0.0))
        await busy.until("interim_transcript")
        draining = asyncio.create_task(house.gateway.house.drain(20))
        assert (await quiet.next())["code"] == 1001
        await busy.hear(bytes(32000))
        await busy.until("final_transcript")
        assert busy.words() == WORDS
        assert (await busy.until())["code"] == 1001
        assert await draining


async def test_a_stream_without_audio_ends_some_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stt, "_IDLE_SECONDS", 0.3)
    async with speech(tmp_path, stt=[NOVA]) as house:
        wire = await opened(house)
        assert (await wire.next())["type"] == "closed"
        await until(lambda: not house.gateway.house.plans.in_use)
        assert not house.attempts


async def test_a_client_that_says_nothing_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speech_door, "CREATE_SECONDS", 0.3)
    async with speech(tmp_path, stt=[NOVA], tts=[SONIC]) as house:
        for door in ("stt", "tts"):
            wire = await house.connect(door)
            assert (await wire.next())["code"] == 408
            assert (await wire.next())["type"] == "closed"


async def test_audio_faster_than_life_is_read_no_faster_than_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stt, "_AHEAD_SECONDS", 0.5)
    async with speech(tmp_path, stt=[NOVA]) as house:
        wire = await opened(house)
        clock = asyncio.get_running_loop().time
        begun = clock()
        await wire.hear(heard(TEXT, after=2.0))
        await ended(wire)
        assert clock() - begun > 2.5 + 2.0 - 0.5
        assert wire.words() == WORDS


@pytest.mark.parametrize(
    ("model", "status"), [("deepgramm/nova", 404), ("mouth", 404), ("elevenlabs/x", 404)]
)
async def test_a_model_that_is_not_here_is_refused_on_the_upgrade(
    tmp_path: Path, model: str, status: int
) -> None:
    async with speech(tmp_path, stt=[NOVA], tts=[FLASH]) as house:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await house.connect("stt", model)
        assert refused.value.status == status


async def test_a_stream_that_ends_lets_go_while_others_go_on(tmp_path: Path) -> None:
    """They share a plugin: what waited until nobody uses it would wait for ever on a busy day."""
    async with speech(tmp_path, stt=[NOVA]) as house:
        plans, engine = house.gateway.house.plans, house.trunkline.engine
        staying = await opened(house)
        await staying.hear(heard(TEXT))
        await staying.until("final_transcript")
        before = len(engine._closing)
        for _ in range(3):
            leaving = await opened(house)
            await leaving.hear(heard(TEXT))
            await leaving.until("final_transcript")
            await leaving.send("session.update", settings={"language": "en"})
            await leaving.close()
        await until(lambda: plans.in_use == 1)
        await until(lambda: len(engine._closing) <= before)
        await staying.hear(heard("How are you?"))
        await staying.until("final_transcript")
        assert staying.words() == [*WORDS, "how", "are", "you"]
        await staying.close()
