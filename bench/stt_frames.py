"""What a frame costs on its way to a recogniser: our stream beside the bare plugin's.

Both hand 20 ms frames, of speech and of silence, to the same plugin, whose stream drops them. The
difference is ours: loudness, the buffer, what is owed.

    python -m bench stt_frames
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, stt

from bench.frames import frame_costs
from trunkline.core.models import Candidate, Deadlines, Identity, ModelRef, Plan, Settlement
from trunkline.runtime.attempt import Engine
from trunkline.runtime.gate import Gate
from trunkline.runtime.health import HealthBook
from trunkline.runtime.loud_vad import LoudVAD
from trunkline.runtime.stt import STT

RATE = 16000
FRAMES = 500
"""Ten seconds of frames between two chances for the plugin to take them."""
ROUNDS = 150


class _Nowhere:
    def append(self, record: Settlement | Any) -> None: ...


class Deaf(stt.STT[Any]):
    """A plugin whose stream takes audio and answers nothing."""

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        raise NotImplementedError

    def stream(
        self, *, language: Any = None, conn_options: Any = DEFAULT_API_CONNECT_OPTIONS
    ) -> stt.RecognizeStream:
        return _DeafStream(stt=self, conn_options=conn_options)


class _DeafStream(stt.RecognizeStream):
    async def _run(self) -> None:
        async for _ in self._input_ch:
            pass


def frames(peak: int) -> list[rtc.AudioFrame]:
    """Noise of at most ``peak``."""
    samples = RATE // 50
    noise = np.random.default_rng(1).integers(-peak, peak + 1, samples * FRAMES).astype("<i2")
    pieces = noise.reshape(FRAMES, samples)
    return [rtc.AudioFrame(piece.tobytes(), RATE, 1, samples) for piece in pieces]


async def costs(streams: Sequence[stt.RecognizeStream], audio: list[rtc.AudioFrame]) -> list[float]:
    """Microseconds of CPU that ``push_frame`` takes, turn by turn: each one's best round."""
    best = [float("inf")] * len(streams)
    for _ in range(ROUNDS):
        for index, stream in enumerate(streams):
            begun = time.thread_time_ns()
            for frame in audio:
                stream.push_frame(frame)
            best[index] = min(best[index], time.thread_time_ns() - begun)
            await asyncio.sleep(0.01)
    return [one / len(audio) / 1000 for one in best]


async def measure() -> dict[str, tuple[float, ...]]:
    """(bare plugin, ours) in microseconds a frame, by kind of audio."""

    async def closing() -> None: ...

    engine = Engine(Gate(_Nowhere(), lambda _: None, lambda _: None), HealthBook(), lambda _: None)
    plan = Plan(
        (Candidate(ModelRef("deaf", "any"), "deaf", live=Deaf()),),
        Deadlines(first_content=3600.0, idle=3600.0),
    )
    found: dict[str, tuple[float, ...]] = {}
    for kind, peak in (("silence", 100), ("speech", 8000)):
        audio = frames(peak)
        ours = STT(
            engine,
            plan,
            lambda: Identity(call="bench"),
            sample_rate=None,
            vad=LoudVAD(),
            closing=closing,
        )
        async with Deaf().stream() as bare, ours.stream() as wrapped:
            wrapped.push_frame(audio[0])
            await asyncio.sleep(0.05)
            found[kind] = tuple(await costs((bare, wrapped), audio))
        await ours.aclose()
    return found


def main() -> str:
    """The table; ends with status 1 when a frame costs more than the budget."""
    return frame_costs(asyncio.run(measure()))
