"""A turn of a call by Pipecat's unmodified services for OpenAI: heard, answered, spoken.

``{"base_url": ..., "key": ..., "pcm": ...}`` comes on the standard input, 16 kHz samples in base64;
what every service made of it goes out as one JSON object. It runs in Pipecat's own environment.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys

from loguru import logger
from pipecat.frames.frames import (
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    TranscriptionFrame,
    TTSAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.tests.utils import run_test

RATE = 16_000


class Asks(FrameProcessor):
    """Asks the model for an answer to what was heard."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, TranscriptionFrame):
            context = LLMContext([{"role": "user", "content": frame.text}])
            await self.push_frame(LLMContextFrame(context))


async def main() -> None:
    asked = json.loads(sys.stdin.readline())
    known = {"base_url": asked["base_url"], "api_key": asked["key"]}
    ears = OpenAISTTService(**known, settings=OpenAISTTService.Settings(model="ears"))
    brain = OpenAILLMService(**known, settings=OpenAILLMService.Settings(model="brain"))
    mouth = OpenAITTSService(
        **known, settings=OpenAITTSService.Settings(model="mouth", voice="alloy")
    )
    pcm, step = base64.b64decode(asked["pcm"]), RATE // 50 * 2
    audio = [pcm[at : at + step] for at in range(0, len(pcm), step)]
    frames = [
        VADUserStartedSpeakingFrame(),
        *(InputAudioRawFrame(audio=one, sample_rate=RATE, num_channels=1) for one in audio),
        VADUserStoppedSpeakingFrame(),
    ]
    down, up = await run_test(
        Pipeline([ears, Asks(), brain, mouth]),
        frames_to_send=frames,
        pipeline_params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=24_000),
        start_timeout=60.0,
    )
    spoken = b"".join(one.audio for one in down if isinstance(one, TTSAudioRawFrame))
    made = {
        "heard": [one.text for one in down if isinstance(one, TranscriptionFrame)],
        "pcm": base64.b64encode(spoken).decode(),
        "errors": [str(one.error) for one in [*down, *up] if isinstance(one, ErrorFrame)],
    }
    print(json.dumps(made), flush=True)


logger.remove()
logger.add(sys.stderr, level="WARNING")
asyncio.run(main())
