"""Unmodified clients: livekit-agents' inference.STT and TTS, told nothing but the address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway_house import KEY, SECRET, House, running, until
from gateway_speech import FLASH, INK, NOVA, SONIC, Vendor, heard, speech
from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, APIStatusError, inference, stt

from trunkline.doubles import Double, Kind, Pace, Rule, tones
from trunkline.gateway import stt as stt_door
from trunkline.runtime.loud_vad import LoudVAD

ONCE = APIConnectOptions(max_retry=0, timeout=10.0)
TEXT = "Good morning to you."
WORDS = tones.words_of(TEXT)
PCM = heard(TEXT)
Type = stt.SpeechEventType


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent's environment, and ears for tones, which are no speech to a model of speech."""
    monkeypatch.setenv("LIVEKIT_API_KEY", KEY)
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)
    monkeypatch.setattr(stt_door, "voice_activity", LoudVAD)


def client(
    house: House, monkeypatch: pytest.MonkeyPatch, kind: Any, model: str, **more: Any
) -> Any:
    monkeypatch.setenv("LIVEKIT_INFERENCE_URL", house.url)
    return kind(model, http_session=house.session, **more)


async def said(voice: Any, *text: str, options: APIConnectOptions = ONCE) -> list[str]:
    """The words of an utterance that comes in pieces, as from a language model."""
    async with voice.stream(conn_options=options) as stream:
        for piece in text:
            stream.push_text(piece)
        stream.end_input()
        pcm = b"".join([bytes(audio.frame.data.cast("B")) async for audio in stream])
    return tones.decode(pcm, 24000)


def frames(pcm: bytes, rate: int = 16000) -> list[rtc.AudioFrame]:
    step = rate // 50 * 2
    return [
        rtc.AudioFrame(pcm[at : at + step], rate, 1, len(pcm[at : at + step]) // 2)
        for at in range(0, len(pcm), step)
    ]


async def listened(ears: Any, pcm: bytes, options: APIConnectOptions = ONCE) -> list[Any]:
    async with ears.stream(conn_options=options) as stream:
        for frame in frames(pcm):
            stream.push_frame(frame)
        stream.end_input()
        async with asyncio.timeout(20):
            return [event async for event in stream]


def words(events: list[Any]) -> list[str]:
    finals = [e for e in events if e.type is Type.FINAL_TRANSCRIPT]
    return [word for e in finals for word in e.alternatives[0].text.lower().split()]


async def test_an_agent_hears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with speech(tmp_path, stt=[NOVA]) as house:
        ears = client(house, monkeypatch, inference.STT, "ears")
        loop = asyncio.get_running_loop()
        begun = loop.time()
        events = await listened(ears, PCM)
        assert words(events) == WORDS
        kinds = [event.type for event in events]
        assert kinds[0] is Type.START_OF_SPEECH
        assert kinds[-1] is Type.END_OF_SPEECH
        assert Type.INTERIM_TRANSCRIPT in kinds
        final = next(e for e in events if e.type is Type.FINAL_TRANSCRIPT).alternatives[0]
        assert [str(word) for word in final.words] == WORDS
        assert final.metadata == {"served_by": "stt0/nova-3"}
        assert loop.time() - begun < 15  # and not the 30 s that a client waits for the end


async def test_an_agent_speaks_two_hundred_times_on_one_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with speech(tmp_path, tts=[SONIC]) as house:
        voice = client(house, monkeypatch, inference.TTS, "mouth")
        for number in range(200):
            assert await said(voice, f"N{number}.") == [f"n{number}"]
        assert len(house.attempts) == 200
        assert {a.outcome for a in house.attempts} == {"ok"}
        assert len({a.identity.session for a in house.attempts}) == 1
        assert house.gateway.house.plans.in_use == 0
        await voice.aclose()


async def test_an_agent_that_is_interrupted_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It parks the socket without a word, and closes it at the next utterance."""
    slow = Vendor("cartesia", "sonic-3", more={"pace": Pace(rtf=0.5)})
    async with speech(tmp_path, tts=[slow]) as house:
        voice = client(house, monkeypatch, inference.TTS, "mouth")
        async with voice.stream(conn_options=ONCE) as stream:
            stream.push_text("This is a long sentence that nobody wants to hear. And one more.")
            stream.end_input()
            await stream.__anext__()
        assert await said(voice, "Yes. ", "Of course.") == ["yes", "of", "course"]
        await until(lambda: len(house.attempts) == 2)
        assert [a.outcome for a in house.attempts] == ["cancelled", "ok"]
        await voice.aclose()


async def test_an_agents_options_change_on_the_same_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with speech(tmp_path, tts=[SONIC, FLASH]) as house:
        voice = client(house, monkeypatch, inference.TTS, "tts0/sonic-3")
        assert await said(voice, "One.") == ["one"]
        voice.update_options(model="tts1/eleven_flash_v2_5", voice="another")
        assert await said(voice, "Two.") == ["two"]
        assert [a.connection for a in house.attempts] == ["tts0", "tts1"]
        assert len({a.identity.session for a in house.attempts}) == 1
        await voice.aclose()


async def test_an_agents_fallbacks_serve_unheard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = {name: [Rule(kind=Kind.SERVER_ERROR)] for name in ("tts0", "stt0")}
    async with speech(tmp_path, tts=[SONIC, FLASH], stt=[NOVA, INK], faults=faults) as house:
        fallback = [{"model": "tts1/eleven_flash_v2_5", "voice": "v", "extra_kwargs": {}}]
        voice = client(house, monkeypatch, inference.TTS, "tts0/sonic-3", fallback=fallback)
        assert await said(voice, "Good day.") == ["good", "day"]
        ears = client(house, monkeypatch, inference.STT, "stt0/nova-3", fallback="stt1/ink-2")
        assert words(await listened(ears, PCM)) == WORDS
        await voice.aclose()


@pytest.mark.parametrize("unserved", ["assemblyai/universal-streaming", "nobody/x", "brain"])
async def test_a_fallback_that_nobody_serves_harms_no_call(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    unserved: str,
) -> None:
    monkeypatch.delenv("ASSEMBLYAI_API_KEY", raising=False)
    faults = {"stt0": [Rule(kind=Kind.SERVER_ERROR)]}
    async with speech(tmp_path, stt=[NOVA, INK], faults=faults) as house:
        fallback = [unserved, "stt1/ink-2"]
        ears = client(house, monkeypatch, inference.STT, "stt0/nova-3", fallback=fallback)
        assert words(await listened(ears, PCM)) == WORDS
    assert f'the fallback "{unserved}" is left out' in caplog.text


async def test_an_agents_fallback_hears_its_language(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whisper = Vendor("cartesia", "ink-whisper")
    faults = {"stt0": [Rule(kind=Kind.SERVER_ERROR)]}
    async with speech(tmp_path, stt=[NOVA, whisper], faults=faults) as house:
        ears = client(
            house,
            monkeypatch,
            inference.STT,
            "stt0/nova-3",
            language="es",
            fallback=["stt1/ink-whisper"],
        )
        events = await listened(ears, PCM)
        assert words(events) == WORDS
        final = next(e for e in events if e.type is Type.FINAL_TRANSCRIPT).alternatives[0]
        assert (final.language, final.metadata) == ("es", {"served_by": "stt1/ink-whisper:es"})


async def test_an_agent_without_key_terms_is_heard_by_a_model_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client sends Deepgram's models their list of terms in any case: an empty one, to most."""
    async with Double.serve(["deepgram"]) as double:
        deepgram = {"api_key": "any", "base_url": double.url("deepgram")}
        settings = {
            "version": 1,
            "providers": {"deepgram": deepgram},
            "gateway": {"keys": {KEY: SECRET}},
        }
        async with running(tmp_path, settings) as house:
            ears = client(house, monkeypatch, inference.STT, "deepgram/nova-2")
            assert words(await listened(ears, PCM)) == WORDS


async def test_a_live_streams_options_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with speech(tmp_path, stt=[NOVA]) as house:
        ears = client(house, monkeypatch, inference.STT, "stt0/nova-3", language="en")
        async with ears.stream(conn_options=ONCE) as stream:
            for frame in frames(PCM):
                stream.push_frame(frame)
            events = await _until_end(stream)
            ears.update_options(language="de", extra={"keyterm": ["Trunkline"]})
            await asyncio.sleep(0)
            for frame in frames(bytes(32000) + heard("How are you?")):
                stream.push_frame(frame)
            events += await _until_end(stream)
        assert words(events) == [*WORDS, "how", "are", "you"]
        await until(lambda: len(house.attempts) == 2)
        assert house.attempts[0].outcome == "moved"


async def _until_end(stream: AsyncIterator[Any]) -> list[Any]:
    events = []
    async with asyncio.timeout(20):
        async for event in stream:
            events.append(event)
            if event.type is Type.END_OF_SPEECH:
                break
    return events


FINAL = [
    ("a wrong secret", {"api_secret": "x" * 32}, "{}", 401),
    ("an unknown key", {"api_key": "APIx"}, "{}", 401),
    ("an unknown model", {}, "nobody/x", 404),
]


@pytest.mark.parametrize(
    ("more", "model", "status"), [row[1:] for row in FINAL], ids=[row[0] for row in FINAL]
)
@pytest.mark.parametrize("door", ["stt", "tts"])
async def test_what_cannot_change_is_not_tried_again(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    door: str,
    more: dict[str, Any],
    model: str,
    status: int,
) -> None:
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA]) as house:
        kind = inference.TTS if door == "tts" else inference.STT
        model = model.replace("{}", "mouth" if door == "tts" else "ears")
        one = client(house, monkeypatch, kind, model, **more)
        often = APIConnectOptions(max_retry=3, timeout=10.0)
        asking = said(one, "Hi.", options=often) if door == "tts" else listened(one, PCM, often)
        with pytest.raises(APIStatusError) as refused:
            await asking
        assert refused.value.status_code == status
        assert not refused.value.retryable


@pytest.mark.parametrize("kind", [Kind.RATE_LIMITED, Kind.SERVER_ERROR])
async def test_what_may_change_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
    faults = {name: [Rule(kind=kind)] for name in ("tts0", "stt0")}
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA], faults=faults) as house:
        voice = client(house, monkeypatch, inference.TTS, "mouth")
        with pytest.raises(APIError) as failed:
            await said(voice, "Good day.")
        assert failed.value.retryable
        ears = client(house, monkeypatch, inference.STT, "ears")
        with pytest.raises(APIError):
            await listened(ears, PCM)
        for name, double in house.doubles.items():
            double.heal()
            assert name in ("tts0", "stt0")
        again = APIConnectOptions(max_retry=3, timeout=10.0, retry_interval=0.1)
        assert await said(voice, "Good day.", options=again) == ["good", "day"]
        await voice.aclose()


async def test_a_drain_moves_clients_without_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Vendor("cartesia", "sonic-3", more={"pace": Pace(rtf=0.3)})
    async with speech(tmp_path, tts=[slow], stt=[NOVA]) as house:
        voice = client(house, monkeypatch, inference.TTS, "mouth")
        speaking = asyncio.create_task(said(voice, "This is the last that you hear of me."))
        await until(lambda: house.gateway.house.plans.in_use)
        assert await house.gateway.house.drain(20)
        assert await speaking == tones.words_of("this is the last that you hear of me")
        await voice.aclose()
