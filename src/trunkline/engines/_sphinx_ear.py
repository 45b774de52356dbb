"""Listening to one caller: frames in, utterances by voice activity detection, speech events out."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Sequence

import numpy as np
from livekit import rtc
from livekit.agents import stt, vad
from livekit.agents.language import LanguageCode
from livekit.agents.types import TimedString
from livekit.agents.utils import aio, shortuuid

from ._sphinx_client import Pool, Utterance
from ._sphinx_wire import SAMPLE_RATE, Hypothesis, Word

LANGUAGE = "en-us"
END_OF_SPEECH_SECONDS = 0.45
"""Silence that ends an utterance; shorter, and a pause for breath within a sentence does it."""
LONGEST_UTTERANCE_SECONDS = 30.0
"""Speech without a pause is cut here, which bounds what is kept for decoding again."""


@functools.cache
def load_vad() -> vad.VAD:
    """Silero's voice activity detection, one model a process; blocks for 0.1 s the first time."""
    from livekit.plugins import silero

    return silero.VAD.load(min_silence_duration=END_OF_SPEECH_SECONDS)


def mono(frame: rtc.AudioFrame) -> rtc.AudioFrame:
    """Mix a frame's channels into one."""
    if frame.num_channels == 1:
        return frame
    channels = np.frombuffer(frame.data, dtype=np.int16).reshape(-1, frame.num_channels)
    mixed = channels.mean(axis=1).astype(np.int16)
    return rtc.AudioFrame(mixed.tobytes(), frame.sample_rate, 1, len(mixed))


def speech_data(words: Sequence[Word], offset: float = 0.0) -> stt.SpeechData:
    """Words as LiveKit's transcript; ``offset`` in seconds is where their clock begins."""
    return stt.SpeechData(
        language=LanguageCode(LANGUAGE),
        text=" ".join(word.text for word in words),
        start_time=offset + words[0].start if words else 0.0,
        end_time=offset + words[-1].end if words else 0.0,
        confidence=sum(word.confidence for word in words) / len(words) if words else 0.0,
        words=[
            TimedString(
                word.text,
                start_time=offset + word.start,
                end_time=offset + word.end,
                confidence=word.confidence,
            )
            for word in words
        ],
    )


class Ear:
    """Turns one caller's 16 kHz mono frames into speech events, handed to ``emit`` in order.

    ``timeout`` bounds the wait for a final transcript, in seconds. Times in the events count from
    the first frame, plus ``offset`` seconds.
    """

    def __init__(
        self,
        pool: Pool,
        emit: Callable[[stt.SpeechEvent], None],
        *,
        timeout: float,
        offset: float = 0.0,
    ) -> None:
        self._pool = pool
        self._emit = emit
        self._timeout = timeout
        self._offset = offset
        self._utterance: Utterance | None = None
        self._id = ""
        self._start = 0.0
        self._cmn = ""
        self._heard = 0
        self._reported = 0

    async def listen(self, frames: AsyncIterator[rtc.AudioFrame]) -> None:
        """Recognise frames until they end; an utterance still open then ends with them.

        Raises livekit's APIConnectionError and APITimeoutError.
        """
        began = self._heard / SAMPLE_RATE
        stream = (await asyncio.to_thread(load_vad)).stream()
        feeding = asyncio.create_task(self._feed(stream, frames))
        try:
            async for event in stream:
                await self._on_vad(event, began)
            await feeding
            if self._utterance is not None:
                await self._finish(speech_end=time.time())
            self._report_usage()
        finally:
            await aio.cancel_and_wait(feeding)
            await stream.aclose()
            if self._utterance is not None:
                await self._utterance.abandon()
                self._utterance = None

    async def _feed(self, stream: vad.VADStream, frames: AsyncIterator[rtc.AudioFrame]) -> None:
        try:
            async for frame in frames:
                self._heard += frame.samples_per_channel
                stream.push_frame(frame)
        finally:
            stream.end_input()

    async def _on_vad(self, event: vad.VADEvent, began: float) -> None:
        match event.type:
            case vad.VADEventType.START_OF_SPEECH:
                self._send(stt.SpeechEventType.START_OF_SPEECH)
                self._begin(began + event.timestamp - event.frames[0].duration)
                self._push(event.frames)
            case vad.VADEventType.INFERENCE_DONE if event.speaking:
                self._push(event.frames)
                if self._utterance and self._utterance.seconds > LONGEST_UTTERANCE_SECONDS:
                    await self._cut(began + event.timestamp)
            case vad.VADEventType.END_OF_SPEECH:
                speech_end = time.time() - event.silence_duration - event.inference_duration
                await self._finish(speech_end)
                self._report_usage()

    def _begin(self, start: float) -> None:
        self._id = shortuuid("sphinx_")
        self._start = start
        self._utterance = Utterance(self._pool, cmn=self._cmn, on_interim=self._on_interim)

    def _push(self, frames: Sequence[rtc.AudioFrame]) -> None:
        assert self._utterance is not None  # voice activity detection starts before it ends
        for frame in frames:
            self._utterance.push(bytes(frame.data.cast("B")))

    def _on_interim(self, hypothesis: Hypothesis) -> None:
        self._send(stt.SpeechEventType.INTERIM_TRANSCRIPT, hypothesis.words)

    async def _cut(self, now: float) -> None:
        await self._transcribe(time.time())
        self._begin(now)

    async def _finish(self, speech_end: float) -> None:
        await self._transcribe(speech_end)
        self._send(stt.SpeechEventType.END_OF_SPEECH, speech_end=speech_end)

    async def _transcribe(self, speech_end: float) -> None:
        assert self._utterance is not None
        final = await self._utterance.final(self._timeout)
        self._utterance = None
        self._cmn = final.cmn
        if final.words:
            self._send(stt.SpeechEventType.FINAL_TRANSCRIPT, final.words, speech_end)

    def _report_usage(self) -> None:
        seconds = (self._heard - self._reported) / SAMPLE_RATE
        self._reported = self._heard
        if seconds:
            usage = stt.RecognitionUsage(audio_duration=seconds)
            kind = stt.SpeechEventType.RECOGNITION_USAGE
            self._emit(stt.SpeechEvent(kind, self._id, recognition_usage=usage))

    def _send(
        self,
        kind: stt.SpeechEventType,
        words: Sequence[Word] | None = None,
        speech_end: float | None = None,
    ) -> None:
        offset = self._offset + self._start
        heard = [] if words is None else [speech_data(words, offset)]
        self._emit(stt.SpeechEvent(kind, self._id, heard, speech_end_time=speech_end))
