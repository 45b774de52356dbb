"""Speech in the formats of OpenAI's audio API, each in a form that can be played as it comes.

https://platform.openai.com/docs/guides/text-to-speech: PCM is 24 kHz, 16 bit, little-endian, mono.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import av

RATE = 24000

_ENDLESS = 0xFFFFFFFF
_BIT_RATE = 64_000


class Encoder(Protocol):
    """From 16-bit samples at RATE to a file, piece by piece."""

    def feed(self, pcm: bytes) -> bytes:
        """What can leave for ``pcm`` and all before it, maybe nothing."""

    def finish(self) -> bytes:
        """The rest."""


class _Plain:
    """Samples as they are, behind ``head``."""

    def __init__(self, head: bytes = b"") -> None:
        self._head = head

    def feed(self, pcm: bytes) -> bytes:
        head, self._head = self._head, b""
        return head + pcm

    def finish(self) -> bytes:
        return b""


class _Coded:
    """A container that FFmpeg writes, flushed packet by packet."""

    def __init__(self, way: _Way) -> None:
        self._ready = bytearray()
        options = {"flush_packets": "1", **way.options}
        self._container = av.open(self, "w", format=way.container, options=options)
        stream = self._container.add_stream(way.codec, rate=RATE, layout="mono")
        assert isinstance(stream, av.AudioStream)
        self._stream = stream
        self._stream.options = dict(way.coding)
        if way.codec != "flac":
            self._stream.bit_rate = _BIT_RATE
        self._at = 0

    def write(self, data: bytes) -> int:
        """Take what the container writes."""
        self._ready += data
        return len(data)

    def feed(self, pcm: bytes) -> bytes:
        frame = av.AudioFrame(format="s16", layout="mono", samples=len(pcm) // 2)
        frame.planes[0].update(pcm)
        frame.sample_rate = RATE
        frame.pts = self._at
        self._at += len(pcm) // 2
        self._container.mux(self._stream.encode(frame))
        return self._taken()

    def finish(self) -> bytes:
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._taken()

    def _taken(self) -> bytes:
        data = bytes(self._ready)
        self._ready.clear()
        return data


@dataclass(frozen=True)
class _Way:
    """How FFmpeg makes a format: its names, options of the container and of the coding."""

    container: str
    codec: str
    options: Mapping[str, str] = field(default_factory=dict)
    coding: Mapping[str, str] = field(default_factory=dict)


_WAYS: Mapping[str, _Way] = {
    # the frame before the first that counts the file's frames is only known at its end
    "mp3": _Way("mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}),
    # a page is what leaves at once
    "opus": _Way("ogg", "libopus", {"page_duration": "20000"}),
    "aac": _Way("adts", "aac"),
    "flac": _Way("flac", "flac"),
}

TYPES: Mapping[str, bytes] = {
    "mp3": b"audio/mpeg",
    "opus": b"audio/ogg",
    "aac": b"audio/aac",
    "flac": b"audio/flac",
    "wav": b"audio/wav",
    "pcm": b"audio/pcm",
}
"""The formats, and the content type of each."""


def encoder(form: str) -> Encoder:
    """A new encoder for one of TYPES."""
    if form == "pcm":
        return _Plain()
    if form == "wav":
        return _Plain(_wav_head())
    return _Coded(_WAYS[form])


def _wav_head() -> bytes:
    """The head of a WAV file whose length is not yet known, as OpenAI streams it.

    http://soundfile.sapp.org/doc/WaveFormat/
    """
    layout = struct.pack("<HHIIHH", 1, 1, RATE, 2 * RATE, 2, 16)
    return (
        struct.pack("<4sI4s4sI", b"RIFF", _ENDLESS, b"WAVE", b"fmt ", len(layout))
        + layout
        + struct.pack("<4sI", b"data", _ENDLESS)
    )
