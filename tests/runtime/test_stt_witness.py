"""The look at unanswered audio: speech is found, noise is not, and the loop goes on."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from livekit import rtc
from speech import frames, needs_flite, say

from trunkline.runtime.audio_buffer import AudioBuffer
from trunkline.runtime.witness import Witness

RATE = 16000
TIME = np.arange(10 * RATE) / RATE
RANDOM = np.random.default_rng(1)
CLICKS = np.zeros(10 * RATE)
CLICKS[::4000] = 20000
NOISES = {
    "quiet noise": RANDOM.integers(-500, 500, 10 * RATE),
    "loud noise": RANDOM.integers(-12000, 12000, 10 * RATE),
    "mains hum": 8000 * np.sin(2 * np.pi * 120 * TIME),
    "beeps": 8000 * np.sin(2 * np.pi * 440 * TIME) * (np.sin(4 * np.pi * TIME) > 0),
    "clicks": CLICKS,
}


def witness(pcm: bytes) -> Witness:
    """By LiveKit's own VAD."""
    buffer = AudioBuffer(60_000_000_000, 300_000_000)
    for frame in frames(pcm):
        buffer.push(frame, round(frame.duration * 1e9), 5000)
    return Witness(buffer, None)


@pytest.mark.parametrize("samples", NOISES.values(), ids=NOISES)
async def test_noise_accuses_nobody(samples: np.ndarray) -> None:
    assert not await witness(samples.astype("<i2").tobytes()).heard_speech(0)


@needs_flite
async def test_much_speech_accuses_everybody_a_word_only_the_first() -> None:
    much = witness(await say("I would like to book a room for two nights please"))
    assert [await much.heard_speech(0) for _ in range(3)] == [True, True, True]
    word = witness(await say("yes"))
    assert [await word.heard_speech(0) for _ in range(2)] == [True, False]


async def test_a_look_does_not_hold_up_the_loop() -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.001)
            beats += 1

    beating = asyncio.create_task(beat())
    await witness(NOISES["loud noise"].astype("<i2").tobytes()).heard_speech(0)
    beating.cancel()
    assert beats > 10, "ten seconds of audio are looked at in many steps"


def test_a_commit_is_to_the_sample() -> None:
    buffer = AudioBuffer(60_000_000_000, 300_000_000)
    samples = np.arange(1600, dtype="<i2")
    buffer.push(rtc.AudioFrame(samples.tobytes(), RATE, 1, 1600), 100_000_000, 1599)
    buffer.forget(33_312_500)  # 533 samples
    (rest,) = buffer.frames()
    assert rest.data[0] == 533
    assert (buffer.begins_ns, buffer.held_ns) == (33_312_500, 66_687_500)
    buffer.forget(100_000_000)
    assert (buffer.frames(), buffer.held_ns, buffer.loud_ns) == ([], 0, 0)
