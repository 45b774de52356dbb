"""A voice activity detector that takes everything loud for speech."""

from __future__ import annotations

from livekit import rtc
from livekit.agents import utils
from livekit.agents.vad import VAD, VADCapabilities, VADEvent, VADEventType, VADStream

from .audio import is_silent


class LoudVAD(VAD):
    """For audio that was made to be heard: a probe's, a test's. It runs no model.

    ``min_silence`` seconds of silence end an utterance.
    """

    def __init__(self, min_silence: float = 0.2) -> None:
        super().__init__(capabilities=VADCapabilities(update_interval=0.01))
        self._min_silence = min_silence

    @property
    def min_silence_duration(self) -> float:
        return self._min_silence

    def stream(self) -> VADStream:
        return _Stream(self, self._min_silence)


class _Stream(VADStream):
    def __init__(self, vad: VAD, min_silence: float) -> None:
        super().__init__(vad)
        self._min_silence = min_silence

    async def _main_task(self) -> None:
        frames: list[rtc.AudioFrame] = []
        at = quiet = 0.0
        async for frame in self._input_ch:
            if not isinstance(frame, rtc.AudioFrame):
                frames, quiet = [], 0.0
                continue
            at += frame.duration
            is_loud = not is_silent(frame)
            if is_loud and not frames:
                self._tell(VADEventType.START_OF_SPEECH, at, [frame], 0.0)
            if is_loud or frames:
                frames.append(frame)
                quiet = 0.0 if is_loud else quiet + frame.duration
            if frames and quiet >= self._min_silence - 1e-6:
                self._tell(VADEventType.END_OF_SPEECH, at, frames, quiet)
                frames, quiet = [], 0.0

    def _tell(
        self, kind: VADEventType, at: float, frames: list[rtc.AudioFrame], quiet: float
    ) -> None:
        length = sum(frame.duration for frame in frames)
        self._event_ch.send_nowait(
            VADEvent(
                type=kind,
                samples_index=round(at * frames[0].sample_rate),
                timestamp=at,
                speech_duration=length - quiet,
                silence_duration=quiet,
                frames=[utils.merge_frames(frames)],
                speaking=kind is VADEventType.START_OF_SPEECH,
            )
        )
