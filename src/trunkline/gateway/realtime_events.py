"""OpenAI's Realtime events, as far as a proxy reads them: usage, whether it speaks, what is wrong.

https://developers.openai.com/api/reference/resources/realtime: "Client events", "Server events".
Which events matter is told by the first characters of a text; all else, such as audio, is not
decoded.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ..clock import new_id
from ..core.models import Usage
from .refusal import Refusal

CREATED, DONE = "response.created", "response.done"
COMMITTED = "input_audio_buffer.committed"
STOPPED = "input_audio_buffer.speech_stopped"
TRANSCRIBED = "conversation.item.input_audio_transcription.completed"
UNTRANSCRIBED = "conversation.item.input_audio_transcription.failed"
SESSIONS = frozenset({"session.created", "session.updated"})
ERROR, UPDATE, ASKS = "error", "session.update", "response.create"

_READ = frozenset({CREATED, DONE, COMMITTED, STOPPED, TRANSCRIBED, UNTRANSCRIBED, *SESSIONS, ERROR})
_HEADS = ('{"type":"', '{"type": "')
"""How providers begin an event."""

_SPENT = "insufficient_quota"
"""The code after which a client does not connect again."""

Count = int | None


class Cached(msgspec.Struct):
    text_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None


class Details(msgspec.Struct):
    text_tokens: Count = None
    audio_tokens: Count = None
    image_tokens: Count = None
    cached_tokens: Count = None
    reasoning_tokens: Count = None
    cached_tokens_details: Cached | None = None


class Told(msgspec.Struct):
    """The usage of a response or of a transcript, which some models tell in seconds."""

    input_tokens: Count = None
    output_tokens: Count = None
    input_token_details: Details | None = None
    output_token_details: Details | None = None
    seconds: float | None = None


class Response(msgspec.Struct):
    id: str | None = None
    status: str | None = None
    usage: Told | None = None


class Transcription(msgspec.Struct):
    model: str | None = None


class TurnDetection(msgspec.Struct):
    create_response: bool | None = None


class Input(msgspec.Struct):
    transcription: Transcription | None = None
    turn_detection: TurnDetection | None = None


class Audio(msgspec.Struct):
    input: Input | None = None


class Session(msgspec.Struct):
    audio: Audio | None = None

    @property
    def transcribes_by(self) -> str:
        """The model that writes down what is heard; empty for none."""
        heard = self.audio.input if self.audio is not None else None
        by = heard.transcription if heard is not None else None
        return (by.model if by is not None else None) or ""

    @property
    def answers(self) -> bool:
        """Whether the provider answers by itself when the caller has spoken."""
        heard = self.audio.input if self.audio is not None else None
        turns = heard.turn_detection if heard is not None else None
        return turns is not None and turns.create_response is not False


class Wrong(msgspec.Struct):
    """An error; ``event_id`` is of the client's event that it answers."""

    message: str | None = None
    type: str | None = None
    code: str | int | None = None
    event_id: str | None = None


class Event(msgspec.Struct):
    """A provider's event, of those that are read."""

    type: str
    item_id: str | None = None
    status: str | None = None
    response: Response | None = None
    session: Session | None = None
    usage: Told | None = None
    error: Wrong | None = None


class Asked(msgspec.Struct):
    """A client's event."""

    type: str
    event_id: str | None = None


decode_event = msgspec.json.Decoder(Event).decode
decode_asked = msgspec.json.Decoder(Asked).decode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


def is_read(text: str) -> bool:
    """Whether ``text`` is an event that matters here, or cannot be told from one."""
    for head in _HEADS:
        if text.startswith(head):
            return text[len(head) : text.find('"', len(head))] in _READ
    try:
        return decode_asked(text).type in _READ
    except msgspec.DecodeError:
        return True


def usage_of(told: Told) -> Usage:
    """The usage that a provider told of a response or a transcript."""
    into, out = told.input_token_details or Details(), told.output_token_details or Details()
    cached = into.cached_tokens_details or Cached()
    return Usage(
        audio_in_ns=round((told.seconds or 0) * 1e9),
        tokens_in=told.input_tokens or 0,
        tokens_out=told.output_tokens or 0,
        tokens_cached=into.cached_tokens or 0,
        tokens_reasoning=out.reasoning_tokens or 0,
        tokens_audio_in=into.audio_tokens or 0,
        tokens_audio_out=out.audio_tokens or 0,
        tokens_cached_audio=cached.audio_tokens or 0,
    )


def has_images(told: Told) -> bool:
    """Whether some of it were images, which have a price of their own."""
    return bool(told.input_token_details and told.input_token_details.image_tokens)


def without_model(text: str) -> tuple[str, str]:
    """A ``session.update`` without its model, and that model; all else as it was written.

    Raises msgspec.DecodeError.
    """
    event = _decode_fields(text)
    session = _decode_fields(event["session"]) if "session" in event else {}
    if "model" not in session:
        return text, ""
    model = msgspec.json.decode(session.pop("model"))
    event["session"] = msgspec.Raw(_encode(session))
    named = "" if model is None else model if isinstance(model, str) else repr(model)
    return _encode(event).decode(), named


def error_event(
    message: str, code: str | None, *, kind: str = "", event_id: str = "", param: str | None = None
) -> str:
    """An error as OpenAI's Realtime API tells it; ``event_id`` is the client's own."""
    error: dict[str, Any] = {
        "type": kind or "invalid_request_error",
        "code": code,
        "message": message,
        "param": param,
        "event_id": event_id or None,
    }
    return _encode({"type": ERROR, "event_id": f"event_{new_id()}", "error": error}).decode()


def refusal_event(socket_id: str, refusal: Refusal) -> str:
    """The end of a session. A budget that is spent is told in the words that clients obey."""
    told = f"{refusal} (request {socket_id})"
    if refusal.code == "refused":
        return error_event(told, _SPENT, kind=_SPENT)
    return error_event(told, refusal.code, kind=refusal.kind, param=refusal.param)
