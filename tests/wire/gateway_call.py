"""What an agent in a call hears from and speaks into: a microphone, a loudspeaker."""

from __future__ import annotations

import asyncio

from livekit import rtc
from livekit.agents.voice import io

from trunkline.doubles import tones


class Microphone(io.AudioInput):
    """Hears what is said into it, and silence at the pace of a call."""

    def __init__(self) -> None:
        super().__init__(label="test")
        self._pcm = bytearray()
        self._due = 0.0

    def say(self, pcm: bytes) -> None:
        self._pcm += pcm

    async def __anext__(self) -> rtc.AudioFrame:
        loop = asyncio.get_running_loop()
        self._due = max(self._due, loop.time() - 0.2) + 0.02
        await asyncio.sleep(max(0.0, self._due - loop.time()))
        piece = bytes(self._pcm[:640]).ljust(640, b"\0")
        del self._pcm[:640]
        return rtc.AudioFrame(piece, 16000, 1, 320)


class Loudspeaker(io.AudioOutput):
    """Keeps what is played. It has played it at once, or ``in_real_time`` as in a call."""

    def __init__(self, *, in_real_time: bool = False) -> None:
        super().__init__(label="test", capabilities=io.AudioOutputCapabilities(pause=False))
        self.pcm = b""
        self.rate = 24000
        self.cut = 0
        """How often something was still being played that nobody heard to its end."""
        self._in_real_time = in_real_time
        self._seconds = 0.0
        self._began = 0.0
        self._playing: asyncio.TimerHandle | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._seconds:
            self._began = asyncio.get_running_loop().time()
        self.pcm += bytes(frame.data.cast("B"))
        self.rate = frame.sample_rate
        self._seconds += frame.duration

    def flush(self) -> None:
        super().flush()
        if self._seconds:
            ends = self._began + (self._seconds if self._in_real_time else 0.0)
            self._playing = asyncio.get_running_loop().call_at(ends, self._finished)

    def clear_buffer(self) -> None:
        if self._playing is not None:
            self._playing.cancel()
            self.cut += 1
            self._finished(interrupted=True)

    def _finished(self, interrupted: bool = False) -> None:
        played, self._seconds, self._playing = self._seconds, 0.0, None
        self.on_playback_finished(playback_position=played, interrupted=interrupted)

    @property
    def words(self) -> list[str]:
        return tones.decode(self.pcm, self.rate)
