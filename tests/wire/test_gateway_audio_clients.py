"""Unmodified clients of the audio doors: OpenAI's SDK, as Pipecat does, and LiveKit's plugins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
import yaml
from gateway_audio import RATE, played, recorded, spoken, words
from gateway_house import BEARER
from gateway_speech import AURA, NOVA, SONIC, WHISPER, Speech, speech
from livekit import rtc
from livekit.agents import APIConnectOptions, APIStatusError
from livekit.plugins import openai as livekit_openai

from trunkline.doubles import Kind, Rule, tones

WAV = recorded(spoken("Good morning."), "wav")
ONCE = APIConnectOptions(max_retry=0, timeout=10.0)


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[Speech]:
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA]) as house:
        yield house


@pytest_asyncio.fixture
async def client(house: Speech) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=house.url, api_key=BEARER, max_retries=0) as client:
        yield client


async def test_openais_sdk_speaks(client: openai.AsyncOpenAI) -> None:
    for form in ("mp3", "opus", "wav", "pcm"):
        asked: Any = {"model": "mouth", "voice": "alloy", "response_format": form}
        said = await client.audio.speech.create(input="Good morning.", **asked)
        assert tones.decode(played(said.content, form), RATE) == ["good", "morning"]


async def test_openais_sdk_speaks_in_a_stream(client: openai.AsyncOpenAI) -> None:
    """This is how Pipecat's service asks, which plays what comes as 24 kHz PCM."""
    asked: Any = {"model": "mouth", "voice": "alloy", "response_format": "pcm"}
    create = client.audio.speech.with_streaming_response.create
    async with create(input="Good morning.", instructions="Calmly.", **asked) as response:
        assert response.status_code == 200
        pcm = b"".join([chunk async for chunk in response.iter_bytes(4800)])
    assert tones.decode(pcm, RATE) == ["good", "morning"]


async def test_openais_sdk_hears(client: openai.AsyncOpenAI) -> None:
    """Pipecat sends the same: a WAV with ``model`` and ``language``."""
    create: Any = client.audio.transcriptions.create
    asked = {"file": ("audio.wav", WAV, "audio/wav"), "model": "ears", "language": "en"}
    assert words((await create(**asked)).text) == ["good", "morning"]
    assert words(await create(**asked, response_format="text")) == ["good", "morning"]
    granular = {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
    verbose = await create(**asked, **granular)
    assert words(" ".join(word.word for word in verbose.words)) == ["good", "morning"]
    stream = await create(**asked, stream=True)
    *deltas, done = [event async for event in stream]
    assert "".join(event.delta for event in deltas) == done.text
    assert words(done.text) == ["good", "morning"]


async def test_openais_sdk_gets_errors_in_its_form(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await client.audio.speech.create(input="Yes.", model="nobody/x", voice="alloy")
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as broken:
        await client.audio.transcriptions.create(file=("a.wav", b"RIFFbroken"), model="ears")
    assert broken.value.param == "file"
    assert broken.value.request_id


async def test_livekits_plugin_speaks(house: Speech) -> None:
    voice = livekit_openai.TTS(model="mouth", base_url=house.url, api_key=BEARER)
    stream = voice.synthesize("Good morning.", conn_options=ONCE)
    pcm = b"".join([bytes(audio.frame.data) async for audio in stream])
    assert tones.decode(pcm, RATE) == ["good", "morning"]
    await voice.aclose()


async def test_livekits_plugin_hears(house: Speech) -> None:
    ears = livekit_openai.STT(model="ears", base_url=house.url, api_key=BEARER, use_realtime=False)
    pcm = spoken("Good morning.")
    frame = rtc.AudioFrame(pcm, RATE, 1, len(pcm) // 2)
    event = await ears.recognize(frame, conn_options=ONCE)
    assert words(event.alternatives[0].text) == ["good", "morning"]
    await ears.aclose()


async def test_livekits_plugins_learn_what_is_wrong(tmp_path: Path) -> None:
    faults = {name: [Rule(kind=Kind.SERVER_ERROR)] for name in ("tts0", "stt0")}
    async with speech(tmp_path, tts=[AURA], stt=[WHISPER], faults=faults) as house:
        voice = livekit_openai.TTS(model="mouth", base_url=house.url, api_key=BEARER)
        with pytest.raises(APIStatusError) as raised:
            async for _ in voice.synthesize("Good morning.", conn_options=ONCE):
                pass
        assert (raised.value.status_code, raised.value.retryable) == (502, True)
        await voice.aclose()


LOADED = """
import asyncio, sys
from pathlib import Path
from trunkline.config import load
from trunkline.gateway.preload import Preload

async def main():
    done = asyncio.Event()
    Preload(load(Path(sys.argv[1]), {})).start(done.set)
    await done.wait()

asyncio.run(main())
print(*sorted(name for name in sys.modules if name.startswith("trunkline.gateway.audio")))
"""


@pytest.mark.parametrize("modality", ["tts", "stt", "llm"])
def test_what_is_configured_is_loaded_before_the_first_call(tmp_path: Path, modality: str) -> None:
    """And a process that serves chats alone loads none of it."""
    candidate = {"tts": "cartesia/sonic-3", "stt": "deepgram/nova-3", "llm": "openai/gpt-4.1"}
    used = candidate[modality].partition("/")[0]
    said = {
        "version": 1,
        "providers": {used: {"api_key": "key"}},
        "routes": {"one": {"modality": modality, "candidates": [candidate[modality]]}},
    }
    file = tmp_path / "trunkline.yaml"
    file.write_text(yaml.safe_dump(said), "utf-8")
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(file)], capture_output=True, text=True, check=True
    )
    loaded = {name.rpartition("_")[2] for name in done.stdout.split()}
    expected = {"tts": {"speech"}, "stt": {"transcriptions"}, "llm": set()}
    assert loaded >= expected[modality]
    assert modality != "llm" or not loaded
