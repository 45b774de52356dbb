"""A voice's side of the loop when the listener is at the other end of a socket.

The line is that of the in-process door; what is added is where its audio goes, and that it goes no
faster than the socket takes it and somebody can hear it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from livekit import rtc
from livekit.agents import tts

from ..core.models import Candidate
from ..runtime.line import ProviderStream
from ..runtime.livekit_compat import timed_transcript
from ..runtime.speech_line import SpeechLine
from .exchange import ClientGone
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


class SpokenLine(SpeechLine):
    """An utterance, or its part by one voice, whose audio leaves before more is taken."""

    def __init__(self, speaker: Speaker) -> None:
        super().__init__(speaker, speaker, expressive=False)
        self.is_deserted = False
        """Whether it was cancelled because nobody is there to listen."""
        self._speaker = speaker
        self._waits = False

    def open(self, candidate: Candidate) -> ProviderStream[tts.SynthesizedAudio]:
        return _Flushing(super().open(candidate), self._flush)

    async def _flush(self) -> None:
        if not self._speaker.has_ready:
            return
        self._waits = True
        try:
            await self._speaker.flush()
        except ClientGone:
            # for the engine this is what it is when somebody hangs up: the work is called off
            self.is_deserted = True
            raise asyncio.CancelledError from None
        finally:
            self._waits = False
        if self._owed is not None:  # while the client waited nothing was owed to it
            self._owed = asyncio.get_running_loop().time()
        if self.watch is not None:
            self.watch.poke()

    def owed_since(self) -> float | None:
        return None if self._waits else super().owed_since()


class _Flushing:
    """A voice that lets the client take what there is before it goes on."""

    def __init__(
        self, voice: ProviderStream[tts.SynthesizedAudio], flush: Callable[[], Awaitable[None]]
    ) -> None:
        self._voice = voice
        self._flush = flush

    @property
    def request_id(self) -> str:
        return self._voice.request_id

    def __aiter__(self) -> _Flushing:
        return self

    async def __anext__(self) -> tts.SynthesizedAudio:
        await self._flush()
        return await self._voice.__anext__()

    def close(self) -> Coroutine[Any, Any, None] | None:
        return self._voice.close()
