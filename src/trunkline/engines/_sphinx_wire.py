"""What a recogniser and its pool say to each other: length-prefixed msgpack on a Unix socket.

One connection is one utterance. The client sends ``Begin``, any number of ``Audio`` and an ``End``;
the worker answers ``Ready``, then a ``Hypothesis`` now and then, the last one ``final``.
"""

from __future__ import annotations

import struct

import msgspec

SAMPLE_RATE = 16_000
LENGTH = struct.Struct("!I")
LARGEST = 8 * 1024 * 1024
"""Bytes of one message; a longer one is a protocol violation."""


class Begin(msgspec.Struct, tag=True):
    """``cmn`` is the cepstral mean that an earlier utterance of the same caller ended with."""

    cmn: str = ""


class Audio(msgspec.Struct, tag=True):
    """16-bit mono PCM at 16 kHz."""

    pcm: bytes


class End(msgspec.Struct, tag=True):
    """The utterance is over; the worker owes a final hypothesis."""


class Ready(msgspec.Struct, tag=True):
    """A worker took the utterance."""

    pid: int


class Word(msgspec.Struct, array_like=True):
    """A recognised word; times in seconds from the start of the utterance.

    ``confidence`` is 0 to 1 in a final hypothesis, and 0, unknown, before.
    """

    text: str
    start: float
    end: float
    confidence: float


class Hypothesis(msgspec.Struct, tag=True):
    """What was recognised so far; ``cmn`` only in the final one."""

    words: list[Word]
    final: bool = False
    cmn: str = ""

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


Request = Begin | Audio | End
Reply = Ready | Hypothesis

_encoder = msgspec.msgpack.Encoder()
_request_decoder: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_reply_decoder: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)
decode_request = _request_decoder.decode
decode_reply = _reply_decoder.decode


def pack(message: Request | Reply) -> bytes:
    """Return a message as it goes over the socket."""
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body
