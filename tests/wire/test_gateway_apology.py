"""When every voice is down, a listener hears the recording that the settings have for it."""

from __future__ import annotations

import wave
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from gateway_house import AUTH
from gateway_speech import AURA, FLASH, RATE, Speech, speech

from trunkline.doubles import Kind, Rule, tones

SORRY = "we call you back"


async def over_a_socket(house: Speech) -> tuple[bytes, int]:
    wire = await house.connect("tts")
    await wire.create(sample_rate="16000")
    for _ in range(2):  # and the socket is there for the next utterance
        wire.pcm = b""
        await wire.say("Good day.", "How are you?")
        assert (await wire.until("done", "error"))["type"] == "done"
    await wire.close()
    return wire.pcm, 16000


async def over_http(house: Speech) -> tuple[bytes, int]:
    body = {"model": "mouth", "input": "Good day.", "response_format": "pcm"}
    async with house.session.post(f"{house.url}/audio/speech", json=body, headers=AUTH) as answer:
        assert answer.status == 200
        return await answer.read(), RATE


@pytest.mark.parametrize("ask", [over_a_socket, over_http])
async def test_a_recording_is_heard_in_place_of_the_text(
    tmp_path: Path,
    ask: Callable[[Speech], Awaitable[tuple[bytes, int]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    clip = tmp_path / "sorry.wav"
    with wave.open(str(clip), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(tones.encode(SORRY, 48000))
    down = [Rule(kind=Kind.SERVER_ERROR)]
    async with speech(
        tmp_path,
        tts=[AURA, FLASH],
        faults={"tts0": down, "tts1": down},
        policy={"mouth": {"apology": str(clip)}},
    ) as house:
        assert tones.decode(*await ask(house)) == SORRY.split()
        assert {a.outcome for a in house.attempts} == {"provider_fault"}
        assert [r for r in caplog.records if "refused with 502" in r.getMessage()]
