"""The messages of ``/v1/tts``: one WebSocket speaks many utterances, one after another.

As livekit-agents 1.8.9 and @livekit/agents 1.9.0 speak it (``inference/tts.py``).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from .speech_messages import Close, Connection, Created, Fallbacks, Name, Reader, base64_of

__all__ = ["Close", "Created"]


class Create(Struct, tag_field="type", tag="session.create"):
    """The first message. ``sample_rate`` is in Hz and comes as text."""

    model: Name | None = None
    voice: Name | None = None
    language: Name | None = None
    sample_rate: str | int = "24000"
    encoding: str = "pcm_s16le"
    extra: dict[str, Any] | None = None
    fallback: Fallbacks | None = None
    connection: Connection | None = None


class Generation(Struct):
    """Who is to speak a sentence, as far as it differs from ``session.create``."""

    model: Name | None = None
    voice: Name | None = None
    language: Name | None = None


class InputTranscript(Struct, tag_field="type", tag="input_transcript"):
    """A sentence, or several."""

    transcript: str
    generation_config: Generation | None = field(default_factory=Generation)
    extra: dict[str, Any] | None = None


class Flush(Struct, tag_field="type", tag="session.flush"):
    """The utterance has all its text, which may be none."""


Message = Create | InputTranscript | Flush | Close

reader: Reader[Message] = Reader(Message)


class Word(Struct):
    """Times are in seconds from the start of the utterance."""

    word: str
    start: float
    end: float


class Alignment(Struct, tag_field="type", tag="output_alignment"):
    """When the words of the audio that follows are said."""

    session_id: str
    words: list[Word]


class Done(Struct, tag_field="type", tag="done"):
    """The end of an utterance; exactly one for each ``session.flush``."""

    session_id: str


def output_audio(session_id: str, pcm: bytes) -> str:
    """A piece of the utterance: 16-bit little-endian mono PCM at the rate that was asked for.

    Built as text, because this is the hot path; neither part can hold what JSON would escape.
    """
    return f'{{"type":"output_audio","session_id":"{session_id}","audio":"{base64_of(pcm)}"}}'
