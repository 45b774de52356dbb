"""Whether audio that a recogniser has left unanswered was speech."""

from __future__ import annotations

import logging
from typing import Protocol

from livekit import rtc
from livekit.agents.vad import VAD, VADEventType

from .livekit_segments import default_vad

logger = logging.getLogger("trunkline")

_SPEECH_SECONDS = 0.2
"""How much speech accuses the candidate that left it unanswered."""
_CERTAIN_SECONDS = 1.0
"""How much speech accuses also a second candidate."""


class Held(Protocol):
    """Audio that is kept; positions are nanoseconds from its beginning."""

    @property
    def pushed_ns(self) -> int: ...
    def frames(self, since_ns: int) -> list[rtc.AudioFrame]: ...


class Witness:
    """Looks at the audio of a stream, on suspicion only: a VAD all the time would cost 1 % of a
    core.

    A cough that no candidate makes a word of must not take all of them down: little speech accuses
    only the first.
    """

    def __init__(self, buffer: Held, vad: VAD | None) -> None:
        self._buffer = buffer
        self._vad = vad
        self._accused_ns = -1

    async def heard_speech(self, since_ns: int) -> bool:
        """Whether enough speech ends after ``since_ns`` to accuse a candidate of its silence."""
        until = self._buffer.pushed_ns
        try:
            seconds = await speech_seconds(self._buffer.frames(since_ns), self._vad)
        except Exception:  # the boundary to a VAD: rather change the candidate than stay deaf
            logger.exception("the voice activity detector failed")
            seconds = _CERTAIN_SECONDS
        if seconds < _SPEECH_SECONDS:
            return False
        if seconds < _CERTAIN_SECONDS and since_ns < self._accused_ns:
            return False
        self._accused_ns = until
        return True

    def accuse(self) -> None:
        """Take note that a candidate is accused for what has been said so far."""
        self._accused_ns = self._buffer.pushed_ns


async def speech_seconds(frames: list[rtc.AudioFrame], vad: VAD | None) -> float:
    """How much speech a voice activity detector finds in ``frames``."""
    stream = (vad or default_vad()).stream()
    found, begun = 0.0, None
    try:
        for frame in frames:
            stream.push_frame(frame)
        stream.end_input()
        async for event in stream:
            if event.type is VADEventType.START_OF_SPEECH:
                begun = event.timestamp - event.speech_duration
            elif event.type is VADEventType.END_OF_SPEECH:
                found, begun = found + event.speech_duration, None
    finally:
        await stream.aclose()
    if begun is not None:
        found += sum(frame.duration for frame in frames) - begun
    return found
