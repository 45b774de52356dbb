"""Words with their times, as livekit-agents has them: beside a voice's frames, and in events."""

from __future__ import annotations

from collections.abc import Sequence

from livekit import rtc
from livekit.agents.types import USERDATA_TIMED_TRANSCRIPT, NotGivenOr, TimedString


def timed_transcript(frame: rtc.AudioFrame) -> Sequence[TimedString]:
    """The word timings that travel with ``frame``."""
    words: Sequence[TimedString] = frame.userdata.get(USERDATA_TIMED_TRANSCRIPT) or ()
    return words


def set_timed_transcript(frame: rtc.AudioFrame, words: Sequence[TimedString]) -> None:
    frame.userdata[USERDATA_TIMED_TRANSCRIPT] = list(words)


def shifted(words: Sequence[TimedString], seconds: float) -> list[TimedString]:
    """``words`` as they are timed ``seconds`` later."""

    def later(at: NotGivenOr[float]) -> NotGivenOr[float]:
        return at + seconds if isinstance(at, float | int) else at

    return [
        TimedString(str(word), start_time=later(word.start_time), end_time=later(word.end_time))
        for word in words
    ]
