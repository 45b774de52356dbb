"""Real speech for the tests of the engines: made by flite, or recorded people where present."""

from __future__ import annotations

import asyncio
import ctypes.util
import os
import re
import shutil
import time
import wave
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from livekit import rtc

RECORDINGS = os.environ.get("TRUNKLINE_TEST_AUDIO", "")
"""A folder of recorded people: WAV files (16 kHz, mono) and a README.md with | file | words |."""

needs_flite = pytest.mark.skipif(
    ctypes.util.find_library("flite") is None, reason="needs flite: apt-get install libflite1"
)
needs_espeak = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="needs espeak-ng: apt-get install espeak-ng"
)


async def say(text: str, voice: str = "slt") -> bytes:
    """Speech of flite as 16 kHz PCM, with half a second of silence before and a second after."""
    from trunkline.engines.flite import TTS

    frame = await TTS(voice=voice).synthesize(text).collect()
    return bytes(16_000) + bytes(frame.data.cast("B")) + bytes(32_000)


def frames(pcm: bytes, rate: int = 16_000, channels: int = 1) -> Iterator[rtc.AudioFrame]:
    """Cut PCM into frames of 20 ms."""
    size = rate // 50 * 2 * channels
    for at in range(0, len(pcm) - size + 1, size):
        yield rtc.AudioFrame(pcm[at : at + size], rate, channels, rate // 50)


async def paced(
    audio: Iterable[rtc.AudioFrame], speed: float = 1.0
) -> AsyncIterator[rtc.AudioFrame]:
    """Frames at the pace of a call, or some times faster."""
    due = time.perf_counter()
    for frame in audio:
        yield frame
        due += frame.duration / speed
        await asyncio.sleep(max(0.0, due - time.perf_counter()))


@dataclass
class Stalls:
    """Whether this process kept its own event loop waiting.

    ``worst`` is the longest it did, in seconds of CPU time, because a busy machine that runs
    somebody else is no stall of ours. ``share`` is how many of its beats the loop kept; that also
    tells of work in a thread of this process, which may hold the loop up or just run beside it.
    """

    worst: float = 0.0
    share: float = 0.0


@asynccontextmanager
async def stalls() -> AsyncIterator[Stalls]:
    found = Stalls()
    beat, beats, began = 0.005, 0, time.perf_counter()

    async def tick() -> None:
        nonlocal beats
        while True:
            before = time.process_time()
            await asyncio.sleep(beat)
            found.worst = max(found.worst, time.process_time() - before)
            beats += 1

    ticker = asyncio.create_task(tick())
    try:
        yield found
    finally:
        ticker.cancel()
        found.share = beats * beat / (time.perf_counter() - began)


def recordings() -> list[tuple[str, bytes]]:
    """(words, 16 kHz PCM) of each recorded reading; skips the test where there are none."""
    index = Path(RECORDINGS, "README.md")
    if not RECORDINGS or not index.is_file():
        pytest.skip("no recordings of people: TRUNKLINE_TEST_AUDIO names no folder of them")
    rows = re.findall(r"^\| (\S+\.wav) \| (.+?) \|$", index.read_text(), re.MULTILINE)
    found = []
    for name, words in rows:
        with wave.open(str(Path(RECORDINGS, name))) as file:
            found.append((words, file.readframes(file.getnframes())))
    return found
