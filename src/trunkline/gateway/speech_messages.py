"""What LiveKit Inference's two speech protocols share: JSON text frames, one message each.

The messages are structs that msgspec reads and checks; ``stt_messages`` and ``tts_messages`` name
the fields of each protocol. Nothing here needs a socket.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import pybase64
from msgspec import Meta, Struct

from .refusal import Refusal

M = TypeVar("M")

Seconds = Annotated[float, Meta(gt=0, le=600)]
Count = Annotated[int, Meta(ge=0, le=100)]
Name = Annotated[str, Meta(max_length=200)]

RATES = range(8000, 48001)
"""Samples a second that are taken and given."""

_ENCODING = "pcm_s16le"


class Fallback(Struct):
    """A model that serves when the one before it cannot. ``voice`` may be empty or missing."""

    model: Name
    voice: Name | None = None
    extra: dict[str, Any] | None = None


class Fallbacks(Struct):
    models: Annotated[list[Fallback], Meta(max_length=16)] = []


class Connection(Struct):
    """A client's wishes for the way to the provider: its own options for the way to us."""

    timeout: Seconds = 10.0
    retries: Count = 3


class _Kind(Struct):
    type: str


_kind_of = msgspec.json.Decoder(_Kind).decode


class Reader(Generic[M]):
    """Reads the messages of one protocol; ``messages`` is the union of their structs."""

    def __init__(self, messages: Any) -> None:
        self.decode: Callable[[str | bytes], M] = msgspec.json.Decoder(messages).decode
        """The message in a text. Raises ValueError and RecursionError."""
        self._known = {one.__struct_config__.tag for one in messages.__args__}

    def read(self, frame: str | bytes) -> M | None:
        """The message in ``frame``, None for a kind that is not known here: a later client's.

        Raises Refusal (400) for what is no message, which says what is wrong and never quotes it.
        """
        if isinstance(frame, bytes):
            raise Refusal(400, "a binary frame: every message is JSON in a text frame")
        try:
            message = self.decode(frame)
        except msgspec.ValidationError as error:
            kind = self._kind(frame)
            if kind not in self._known:
                return None
            raise Refusal(400, f"{kind}: {error}") from None
        except (msgspec.DecodeError, RecursionError, UnicodeError):
            raise Refusal(400, "the message is not JSON") from None
        return message

    @staticmethod
    def _kind(frame: str) -> str:
        try:
            return _kind_of(frame).type
        except (msgspec.DecodeError, RecursionError):
            raise Refusal(400, 'the message is no JSON object with a text "type"') from None


def rate_of(value: str | int) -> int:
    """A sample rate in Hz; clients send it as text. Raises Refusal."""
    try:
        rate = int(value)
    except ValueError:
        rate = 0
    if rate not in RATES:
        told = f"sample_rate is {RATES.start} to {RATES.stop - 1} Hz, not {str(value)[:12]!r}"
        raise Refusal(400, told, param="sample_rate")
    return rate


def check_encoding(encoding: str) -> None:
    """Raise Refusal for any encoding but the one there is."""
    if encoding != _ENCODING:
        told = f"encoding is {_ENCODING}, not {encoding[:20]!r}"
        raise Refusal(400, told, param="encoding")


def pcm_of(audio: str) -> bytes:
    """The samples in a message: base64 of 16-bit little-endian mono PCM. Raises Refusal."""
    try:
        pcm = pybase64.b64decode(audio, validate=True)
    except ValueError:  # binascii.Error is one, and so is text that is not ASCII
        raise Refusal(400, "input_audio.audio is not base64", param="audio") from None
    if len(pcm) % 2:
        told = f"input_audio.audio is not whole 16-bit samples: {len(pcm):,} bytes"
        raise Refusal(400, told, param="audio")
    return pcm


def base64_of(pcm: bytes) -> str:
    return pybase64.b64encode_as_string(pcm)


def text_of(message: Struct) -> str:
    """A message as the text of its frame."""
    return msgspec.json.encode(message).decode()


class Created(Struct, tag_field="type", tag="session.created"):
    session_id: str


class Close(Struct, tag_field="type", tag="session.close"):
    """The client wants nothing more, not even an answer to this."""
