"""pocketsphinx, CMU's small English recogniser, in a pool of processes shared by the machine.

Silero's voice activity detection cuts the call into utterances; each is decoded while the caller
still speaks, so that the final transcript comes within 50 ms of the end being detected. It is a
recogniser for demonstrations: see docs/embedded-voice.md for the error rates we measured.
"""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Never

from livekit import rtc
from livekit.agents import APIConnectionError, stt
from livekit.agents.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
)
from livekit.agents.utils import AudioBuffer, is_given, shortuuid

from ..errors import MissingExtra, UnsupportedOption
from ._sphinx_client import Pool
from ._sphinx_ear import LANGUAGE, Ear, load_vad, mono, speech_data
from ._sphinx_wire import SAMPLE_RATE

logger = logging.getLogger(__name__)

_INSTALL = "pocketsphinx is not installed; install it with: pip install 'trunkline[pocketsphinx]'"


class STT(stt.STT[Never]):
    """pocketsphinx as a LiveKit recogniser: streaming with interim results, and batch.

    ``directory`` is where the pool's socket lies; by default one of this user's own among the
    system's temporary files. Raises MissingExtra without the packages and UnsupportedOption for a
    language other than American English.
    """

    def __init__(self, *, language: str = LANGUAGE, directory: Path | None = None) -> None:
        _check_language(language)
        _check_packages()
        super().__init__(
            capabilities=stt.STTCapabilities(
                streaming=True, interim_results=True, aligned_transcript="word"
            )
        )
        self._label = "pocketsphinx"
        self._pool = Pool(directory)

    @property
    def model(self) -> str:
        return LANGUAGE

    @property
    def provider(self) -> str:
        return "pocketsphinx"

    def prewarm(self) -> None:
        """Start the pool and load the voice activity detection, in the background."""
        threading.Thread(target=self._warm, name="pocketsphinx-prewarm", daemon=True).start()

    def _warm(self) -> None:
        try:
            self._pool.launch()
            load_vad()
        except APIConnectionError as error:  # the first utterance will try, and tell, again
            logger.warning("pocketsphinx: %s", error)

    async def _recognize_impl(
        self,
        buffer: AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        if is_given(language):
            _check_language(language)
        events: list[stt.SpeechEvent] = []
        ear = Ear(self._pool, events.append, timeout=conn_options.timeout)
        await ear.listen(_resampled(rtc.combine_audio_frames(buffer)))
        final = stt.SpeechEventType.FINAL_TRANSCRIPT
        found = [event.alternatives[0] for event in events if event.type is final]
        return stt.SpeechEvent(
            type=final, request_id=shortuuid("sphinx_"), alternatives=[_joined(found)]
        )

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> stt.RecognizeStream:
        if is_given(language):
            _check_language(language)
        return _Stream(self, self._pool, conn_options)


def _check_language(language: str) -> None:
    if language.lower().replace("_", "-") not in ("en", LANGUAGE):
        raise UnsupportedOption(f"pocketsphinx speaks {LANGUAGE} only, not {language!r}")


def _check_packages() -> None:
    try:
        # LiveKit lets plugins register on the main thread only, hence now and not when first used.
        from livekit.plugins import silero  # noqa: F401
    except ImportError as error:
        raise MissingExtra(_INSTALL) from error
    if importlib.util.find_spec("pocketsphinx") is None:
        raise MissingExtra(_INSTALL)


async def _resampled(frame: rtc.AudioFrame) -> AsyncIterator[rtc.AudioFrame]:
    """A recording of any rate and channel count as 16 kHz mono, in pieces."""
    frame = mono(frame)
    if frame.sample_rate == SAMPLE_RATE:
        yield frame
        return
    resampler = rtc.AudioResampler(
        frame.sample_rate, SAMPLE_RATE, quality=rtc.AudioResamplerQuality.HIGH
    )
    for piece in [*resampler.push(frame), *resampler.flush()]:
        yield piece


def _joined(utterances: Sequence[stt.SpeechData]) -> stt.SpeechData:
    if not utterances:
        return speech_data([])
    return replace(
        utterances[0],
        text=" ".join(utterance.text for utterance in utterances),
        end_time=utterances[-1].end_time,
        confidence=sum(utterance.confidence for utterance in utterances) / len(utterances),
        words=[word for utterance in utterances for word in utterance.words or ()],
    )


class _Stream(stt.RecognizeStream):
    def __init__(self, recogniser: STT, pool: Pool, conn_options: APIConnectOptions) -> None:
        self._pool = pool
        super().__init__(stt=recogniser, conn_options=conn_options, sample_rate=SAMPLE_RATE)

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        super().push_frame(mono(frame))

    async def _run(self) -> None:
        ear = Ear(
            self._pool,
            self._event_ch.send_nowait,
            timeout=self._conn_options.timeout,
            offset=self.start_time_offset,
        )
        while not (self._input_ch.closed and self._input_ch.empty()):
            await ear.listen(self._until_flush())

    async def _until_flush(self) -> AsyncIterator[rtc.AudioFrame]:
        async for frame in self._input_ch:
            if isinstance(frame, self._FlushSentinel):
                return
            yield frame
