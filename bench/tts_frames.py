"""What a frame costs on its way from a voice: our stream beside the bare plugin's.

Both read the same speech from the same plugin, which has it in memory: a long utterance and a
short one, with and without word timings. What an utterance costs however long it is, is not a
frame's: a frame costs what the long one takes more, divided by the frames that it has more. The
time is CPU time of the event loop's thread; the two take turns, and the best round of each counts,
the one with the least other load. The difference is ours: loudness, what is owed, handing on.

    python -m bench tts_frames
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import numpy as np
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, tts
from livekit.agents.types import TimedString

from bench.frames import frame_costs
from trunkline.core.models import Candidate, Deadlines, Identity, ModelRef, Plan, Settlement
from trunkline.runtime.attempt import Engine
from trunkline.runtime.gate import Gate
from trunkline.runtime.health import HealthBook
from trunkline.runtime.tts import TTS

RATE = 24000
FRAME_SECONDS = 0.2
"""As long as livekit-agents makes the frames of a plugin that streams."""
SHORT, LONG = 20, 320
"""Frames."""
ROUNDS = 25
TEXT = "The quick brown fox jumps over a lazy dog while seven wizards brew their potions. "


class _Nowhere:
    def append(self, record: Settlement | Any) -> None: ...


class Voice(tts.TTS[Any]):
    """A plugin that has ``frames`` of speech in memory and gives one at each turn of the loop."""

    def __init__(self, *, timed: bool) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=True, aligned_transcript=timed),
            sample_rate=RATE,
            num_channels=1,
        )
        samples = int(RATE * FRAME_SECONDS)
        noise = np.random.default_rng(1).integers(-8000, 8001, samples).astype("<i2")
        self.piece = noise.tobytes()
        self.frames = 0
        self.timed = timed

    def synthesize(self, text: str, *, conn_options: Any = None) -> tts.ChunkedStream:
        raise NotImplementedError

    def stream(self, *, conn_options: Any = DEFAULT_API_CONNECT_OPTIONS) -> tts.SynthesizeStream:
        return _VoiceStream(tts=self, conn_options=conn_options)


class _VoiceStream(tts.SynthesizeStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        voice = self._tts
        assert isinstance(voice, Voice)
        async for _ in self._input_ch:
            pass
        output_emitter.initialize(
            request_id="bench",
            sample_rate=RATE,
            num_channels=1,
            mime_type="audio/pcm",
            frame_size_ms=int(FRAME_SECONDS * 1000),
            stream=True,
        )
        output_emitter.start_segment(segment_id="bench")
        self._mark_started()
        for number in range(voice.frames):
            if voice.timed:
                at = number * FRAME_SECONDS
                word = TimedString("word ", start_time=at, end_time=at + FRAME_SECONDS)
                output_emitter.push_timed_transcript(word)
            output_emitter.push(voice.piece)
            await asyncio.sleep(0)
        output_emitter.end_segment()


async def spoken(model: tts.TTS[Any], voice: Voice, frames: int) -> float:
    """Seconds of this thread's CPU for an utterance of so many frames."""
    voice.frames = frames
    gc.collect()
    gc.disable()
    begun, heard = time.thread_time(), 0
    async with model.stream() as stream:
        stream.push_text(TEXT * (frames // 10))
        stream.end_input()
        async for _ in stream:
            heard += 1
        took = time.thread_time() - begun
    gc.enable()
    assert heard >= frames, f"{heard} of {frames} frames came"
    return took


async def measure() -> dict[str, tuple[float, float]]:
    """(bare plugin, ours) in microseconds a frame, by kind of voice."""

    async def closing() -> None: ...

    engine = Engine(Gate(_Nowhere(), lambda _: None, lambda _: None), HealthBook(), lambda _: None)
    found: dict[str, tuple[float, float]] = {}
    for kind in ("plain", "timed"):
        voice = Voice(timed=kind == "timed")
        candidate = Candidate(ModelRef("voice", "any"), "voice", live=voice)
        plan = Plan((candidate,), Deadlines(idle=3600.0))
        ours = TTS(engine, plan, lambda: Identity(call="bench"), sample_rate=RATE, closing=closing)
        best: dict[tuple[tts.TTS[Any], int], float] = {}
        for _ in range(ROUNDS):
            for frames in (SHORT, LONG):
                for model in (voice, ours):
                    took = await spoken(model, voice, frames)
                    best[model, frames] = min(took, best.get((model, frames), took))
        bare, wrapped = (
            (best[model, LONG] - best[model, SHORT]) / (LONG - SHORT) * 1e6
            for model in (voice, ours)
        )
        found[kind] = bare, wrapped
        await ours.aclose()
    return found


def main() -> str:
    """The table; ends with status 1 when a frame costs more than the budget."""
    return frame_costs(asyncio.run(measure()))
