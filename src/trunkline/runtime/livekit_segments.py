"""A plugin that recognises whole recordings, given the utterances that a VAD finds.

LiveKit's own ``StreamAdapter`` does the same for one plugin that lives as long as the call. Here
the times of a transcript count from the start of the call, an utterance that the end of the input
cuts is recognised too, an utterance ends once it has been recognised, and what was is counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from livekit import rtc
from livekit.agents import APIConnectOptions, LanguageCode, inference, stt, utils
from livekit.agents.types import NotGivenOr, TimedString
from livekit.agents.vad import VAD, VADEvent, VADEventType

from ..core.models import Candidate, Deadlines, Usage
from ..errors import ConnectFailed, DeadlineExceeded, ProviderError
from .audio import silence
from .livekit_errors import from_livekit, may_be_sent
from .livekit_recogniser import Piece, PluginRecogniser, Recogniser
from .livekit_words import shifted
from .meter import audio_ns

_Event = stt.SpeechEventType
_TAIL_SECONDS = 0.3
"""Silence after the end of the input, over what the VAD asks for: it closes the last utterance."""
_MIN_SILENCE_SECONDS = 0.55
"""What a VAD that does not say may ask for."""


class SegmentRecogniser:
    """One audio stream over a plugin that does not stream; its times count from ``begins`` seconds.

    ``timeout`` in seconds is for each utterance.
    """

    request_id = ""
    listens = True
    behind = 0.0

    def __init__(
        self,
        plugin: stt.STT[Any],
        language: NotGivenOr[str],
        begins: float,
        *,
        vad: VAD | None,
        timeout: float,
    ) -> None:
        self._plugin = plugin
        self._language = language
        self._begins = begins
        self._timeout = timeout
        vad = vad or default_vad()
        asked: float | None = getattr(vad, "min_silence_duration", None)
        self._tail = (asked or _MIN_SILENCE_SECONDS) + _TAIL_SECONDS
        self._vad = vad.stream()
        self._rate = 0
        self._ready: list[stt.SpeechEvent] = []
        self._is_over = False
        self.used = Usage()

    def replay(self, pieces: Iterable[Piece]) -> None:
        for frame in pieces:
            if frame is not None:
                self.push_frame(frame)

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        if not self._is_over:
            self._rate = frame.sample_rate
            self._vad.push_frame(frame)

    def flush(self) -> None:
        """Do nothing: the VAD alone says where an utterance ends."""

    def end_input(self) -> None:
        if self._is_over:
            return
        if self._rate:
            for _ in range(round(self._tail * 100)):
                self._vad.push_frame(silence(self._rate))
        self._vad.end_input()

    def __aiter__(self) -> SegmentRecogniser:
        return self

    async def __anext__(self) -> stt.SpeechEvent:
        while not self._ready:
            heard = await self._vad.__anext__()
            if heard.type is VADEventType.START_OF_SPEECH:
                return stt.SpeechEvent(_Event.START_OF_SPEECH)
            if heard.type is VADEventType.END_OF_SPEECH:
                self._ready = await self._recognise(heard)
        return self._ready.pop(0)

    async def _recognise(self, heard: VADEvent) -> list[stt.SpeechEvent]:
        """The events of one utterance: what it cost, its words, which may be none, and its end."""
        ended = time.time() - heard.silence_duration - heard.inference_duration
        recording = utils.merge_frames(heard.frames)
        length = audio_ns(recording.samples_per_channel, recording.sample_rate)
        said = await self._ask(recording, length)
        at = self._begins + max(0.0, heard.timestamp - recording.duration)
        end = self._begins + heard.timestamp - heard.silence_duration
        words = said.alternatives or [stt.SpeechData(language=LanguageCode(""), text="")]
        return [
            stt.SpeechEvent(
                _Event.RECOGNITION_USAGE,
                recognition_usage=stt.RecognitionUsage(audio_duration=length / 1e9),
            ),
            stt.SpeechEvent(
                _Event.FINAL_TRANSCRIPT,
                said.request_id,
                [_placed(one, at, end, heard.speech_duration) for one in words],
                speech_end_time=ended,
            ),
            stt.SpeechEvent(_Event.END_OF_SPEECH, speech_end_time=ended),
        ]

    async def _ask(self, recording: rtc.AudioFrame, length_ns: int) -> stt.SpeechEvent:
        options = APIConnectOptions(max_retry=0, timeout=self._timeout)
        before = self.used
        # sent in any case, also when nobody waits for the answer any more
        self.used = Usage(audio_in_ns=before.audio_in_ns + length_ns)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._plugin.recognize(
                    recording, language=self._language, conn_options=options
                )
        except TimeoutError as error:
            raise DeadlineExceeded("first_content", self._timeout) from error
        except Exception as error:  # the edge: whatever a plugin raises is translated here
            told = from_livekit(error)
            if not (told.served or (isinstance(told, ConnectFailed) and may_be_sent(error))):
                self.used = before
            told.served = self.used != Usage()
            raise told from error

    async def aclose(self) -> None:
        self._is_over = True
        await self._vad.aclose()


def _placed(said: stt.SpeechData, at: float, end: float, spoken: float) -> stt.SpeechData:
    """``said`` of a recording that begins at ``at``, with the times it has in the call.

    Without times of its own it has those of the ``spoken`` seconds of speech before ``end``: a
    recording may begin earlier.
    """
    is_timed = said.end_time > 0
    words: list[TimedString] | None = shifted(said.words, at) if said.words else said.words
    return replace(
        said,
        start_time=at + said.start_time if is_timed else max(at, end - spoken),
        end_time=at + said.end_time if is_timed else end,
        words=words,
    )


def open_recogniser(
    candidate: Candidate,
    language: NotGivenOr[str],
    begins: float,
    vad: VAD | None,
    deadlines: Deadlines,
    failed: Callable[[ProviderError], None],
) -> Recogniser:
    """A stream on ``candidate``, whatever its plugin can do; raises ProviderError."""
    if not candidate.live.capabilities.streaming:
        timeout = deadlines.first_content
        return SegmentRecogniser(candidate.live, language, begins, vad=vad, timeout=timeout)
    return PluginRecogniser(
        candidate.live,
        language,
        begins,
        connect_timeout=deadlines.connect,
        replay_speed=candidate.replay_speed,
        failed=failed,
    )


def default_vad() -> VAD:
    return inference.VAD(model="silero")
