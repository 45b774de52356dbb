"""The messages of ``/v1/stt``: one WebSocket is one audio stream.

As livekit-agents 1.8.9 and @livekit/agents 1.9.0 speak it (``inference/stt.py``).
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from .speech_messages import Close, Connection, Created, Fallbacks, Name, Reader

__all__ = ["Close", "Created"]


class Settings(Struct):
    """``sample_rate`` is in Hz and comes as text."""

    sample_rate: str | int = "16000"
    encoding: str = "pcm_s16le"
    language: Name | None = None
    extra: dict[str, Any] | None = None


class Create(Struct, tag_field="type", tag="session.create"):
    """The first message. Without a model the stack ``default`` hears."""

    model: Name | None = None
    settings: Settings = field(default_factory=Settings)
    fallback: Fallbacks | None = None
    connection: Connection | None = None


class InputAudio(Struct, tag_field="type", tag="input_audio"):
    audio: str


class Changes(Struct):
    """What is not None takes the place of what was; ``extra`` does so key by key."""

    model: Name | None = None
    language: Name | None = None
    extra: dict[str, Any] | None = None


class Update(Struct, tag_field="type", tag="session.update"):
    settings: Changes = field(default_factory=Changes)


class Finalize(Struct, tag_field="type", tag="session.finalize"):
    """What was said is to become final now; the stream may go on."""


Message = Create | InputAudio | Update | Finalize | Close

reader: Reader[Message] = Reader(Message)


class Word(Struct, omit_defaults=True):
    """Times are in seconds from the first audio of the socket."""

    word: str
    start: float
    end: float
    confidence: float | None = None
    speaker_id: str | None = None


class Transcript(Struct, tag_field="type", omit_defaults=True):
    """Words heard. What is not known is left out, never null."""

    transcript: str
    request_id: str
    session_id: str
    start: float = 0.0
    duration: float = 0.0
    language: str | None = None
    confidence: float | None = None
    speaker_id: str | None = None
    words: list[Word] = []
    extra: dict[str, Any] | None = None


class Interim(Transcript, tag="interim_transcript"):
    pass


class Preflight(Transcript, tag="preflight_transcript"):
    """What will probably be final: an agent may begin to answer."""


class Final(Transcript, tag="final_transcript"):
    """The end of an utterance; without words when nothing was understood."""


class StartOfSpeech(Struct, tag_field="type", tag="start_of_speech"):
    pass


class Finalized(Struct, tag_field="type", tag="session.finalized"):
    pass


class Closed(Struct, tag_field="type", tag="session.closed"):
    pass
