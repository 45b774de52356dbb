"""The voice of a double: text in, audio out in chunks, with the exact time of every word."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from . import tones


@dataclass(frozen=True, slots=True)
class Timed:
    """A word as it was written, with its time in seconds."""

    text: str
    start: float
    end: float

    @property
    def letters(self) -> list[tuple[str, float, float]]:
        """Each character with its start and duration, spread evenly over the word."""
        each = (self.end - self.start) / max(len(self.text), 1)
        return [(c, self.start + i * each, each) for i, c in enumerate(self.text)]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some audio (16-bit mono PCM), and the words that begin in it."""

    pcm: bytes
    rate: int
    words: tuple[Timed, ...]

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / self.rate


@dataclass(frozen=True, slots=True)
class Spoken:
    """A text as audio of ``rate`` Hz."""

    pcm: bytes
    rate: int
    words: tuple[Timed, ...]

    def chunks(self, milliseconds: int, offset: float = 0.0) -> Iterator[Chunk]:
        """Cut into chunks; the words' times are moved by ``offset`` seconds."""
        step = 2 * (self.rate * milliseconds // 1000)
        for at in range(0, len(self.pcm), step):
            first, last = at / 2 / self.rate, (at + step) / 2 / self.rate
            words = tuple(
                Timed(w.text, w.start + offset, w.end + offset)
                for w in self.words
                if first <= w.start < last
            )
            yield Chunk(self.pcm[at : at + step], self.rate, words)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / self.rate


class Voice(Protocol):
    async def say(self, text: str, rate: int) -> Spoken:
        """Speak ``text`` at ``rate`` Hz."""


class ToneVoice:
    """Speaks in the tones of ``trunkline.doubles.tones``; words of punctuation only are silent."""

    async def say(self, text: str, rate: int) -> Spoken:
        pcm, words = bytearray(), []
        for word in text.split():
            start = len(pcm) / 2 / rate
            pcm += tones.encode([word], rate)
            end = len(pcm) / 2 / rate
            words.append(Timed(word, start, end - tones.pause_after(word)))
        return Spoken(bytes(pcm), rate, tuple(words))


def wav(pcm: bytes, rate: int) -> bytes:
    """A WAV file of 16-bit mono audio."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(pcm)
    return file.getvalue()


class Mp3:
    """Encodes 16-bit mono audio as it comes (through PyAV, which livekit-agents brings)."""

    def __init__(self, rate: int, kilobits: int) -> None:
        import av  # costs 100 ms, and only MP3 needs it

        self._rate = rate
        self._frame = partial(av.AudioFrame, format="s16p", layout="mono")
        self._codec = av.CodecContext.create("libmp3lame", "w")
        self._codec.sample_rate = rate
        self._codec.layout = "mono"
        self._codec.format = "s16p"
        self._codec.bit_rate = kilobits * 1000
        # a third of the usual search's time: several voices share this interpreter with the calls
        self._codec.options = {"compression_level": "7"}
        self._codec.open()
        self._waiting = b""

    def feed(self, pcm: bytes) -> bytes:
        """What is ready after ``pcm``; the rest waits for a whole frame."""
        self._waiting += pcm
        size = 2 * self._codec.frame_size
        whole = len(self._waiting) // size * size
        ready = b"".join(self._encode(self._waiting[i : i + size]) for i in range(0, whole, size))
        self._waiting = self._waiting[whole:]
        return ready

    def finish(self) -> bytes:
        """The rest of the audio, filled up with silence, and what the encoder still holds."""
        fill = -len(self._waiting) % (2 * self._codec.frame_size)
        last = self.feed(bytes(fill)) if self._waiting else b""
        return last + b"".join(bytes(packet) for packet in self._codec.encode(None))

    def _encode(self, pcm: bytes) -> bytes:
        frame = self._frame(samples=len(pcm) // 2)
        frame.sample_rate = self._rate
        frame.planes[0].update(pcm)
        return b"".join(bytes(packet) for packet in self._codec.encode(frame))
