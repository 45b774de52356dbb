"""Where speech goes when the listener is at the other end of a socket.

It goes no faster than the socket takes it and somebody can hear it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from livekit import rtc

from ..core.models import Candidate
from ..runtime.livekit_words import timed_transcript
from .speech_messages import text_of
from .tts_messages import Alignment, Word, output_audio
from .websocket import Socket

_LEAD_SECONDS = 20.0
"""How far audio may be ahead of whoever plays it. A client that was interrupted parks its socket
and reads no more; what it will not hear should not be made."""

_PIECE_BYTES = 256 << 10
"""Clients refuse messages of more than 4 MiB."""

_MUTE_SECONDS = 0.1


class Speaker:
    """Where the audio of one utterance goes: its messages, in the order they leave.

    ``whole_words`` is for clients that put a blank behind every word themselves.
    """

    def __init__(self, socket: Socket, sample_rate: int, *, whole_words: bool) -> None:
        self.id = socket.id
        self.sample_rate = sample_rate
        self.serving: Candidate | None = None
        self._socket = socket
        self._whole_words = whole_words
        self._ready: deque[str] = deque()
        self._clock = asyncio.get_running_loop().time
        self._seconds = 0.0
        self._begins = 0.0
        self._plays_until = 0.0

    @property
    def is_mute(self) -> bool:
        """Whether nobody has heard anything yet."""
        return not self._seconds

    @property
    def playing(self) -> float:
        """Seconds for which what has been sent is still to be heard."""
        return max(0.0, self._plays_until - self._clock())

    def begin(self) -> None:
        """Another voice goes on: its word times count from here."""
        self._begins = self._seconds

    def serves(self, candidate: Candidate) -> None:
        self.serving = candidate

    def mark_started(self, at: float) -> None:
        """Nothing: who measures the time to the first audio is at the other end."""

    def send(self, frame: rtc.AudioFrame, segment: str, *, final: bool = False) -> None:
        if final:
            return  # an end in LiveKit's own form; here it is a message of its own
        words = [word for timed in timed_transcript(frame) for word in self._word(timed)]
        if words:
            self._ready.append(text_of(Alignment(self._socket.id, words)))
        pcm = memoryview(frame.data).cast("B")
        for at in range(0, len(pcm), _PIECE_BYTES):
            self._ready.append(output_audio(self._socket.id, bytes(pcm[at : at + _PIECE_BYTES])))
        self._seconds += frame.duration
        self._plays_until = max(self._clock(), self._plays_until) + frame.duration

    def _word(self, timed: Any) -> list[Word]:
        start, end = timed.start_time, timed.end_time
        if not isinstance(start, float | int):
            return []
        text = str(timed)
        return [
            Word(
                text.removesuffix(" ") if self._whole_words else text,
                round(self._begins + start, 4),
                round(self._begins + (end if isinstance(end, float | int) else start), 4),
            )
        ]

    def say_nothing(self) -> None:
        """A moment of silence: clients take an utterance without audio for a failure."""
        samples = round(self.sample_rate * _MUTE_SECONDS)
        self.send(rtc.AudioFrame(bytes(2 * samples), self.sample_rate, 1, samples), "")

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    async def flush(self) -> None:
        """Send what is ready; waits while the client takes none, or has enough to play."""
        while self._ready:
            await self._socket.send(self._ready.popleft())
        ahead = self._plays_until - self._clock() - _LEAD_SECONDS
        if ahead > 0:
            await asyncio.sleep(ahead)
