"""What is asked of the two audio doors, checked: the fields of OpenAI's audio API.

https://platform.openai.com/docs/api-reference/audio
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from ..catalog import OPENAI_VOICES
from ..compose import Wanted
from ..core.models import Modality
from .audio_encoding import TYPES
from .audio_form import Form, read_form
from .chat_request import checked
from .names import AUTO, model_of
from .plans import Ask
from .refusal import Refusal

SPEECH_LIMIT = 1 << 20
"""Bytes of a request for speech."""

UPLOAD_LIMIT = 26 << 20
"""Bytes of a request with a recording: OpenAI's 25 MB, and the other fields."""

_LONGEST_INPUT = 4096
_LONGEST_HINT = 4096
_OWN_VOICE = frozenset({"", "default", AUTO})

Name = Annotated[str, Meta(max_length=200)]


class _VoiceId(Struct):
    id: Name


class _Speech(Struct):
    input: str
    model: Name | None = None
    voice: Name | _VoiceId | None = None
    instructions: Annotated[str, Meta(max_length=_LONGEST_HINT)] | None = None
    response_format: str | None = None
    stream_format: str | None = None
    speed: Annotated[float, Meta(ge=0.25, le=4.0)] | None = None


@dataclass(frozen=True)
class SpeechAsked:
    """A request for speech. ``events`` says that the audio leaves as server-sent events."""

    text: str
    ask: Ask
    form: str
    events: bool


def read_speech(body: bytes, provider: str) -> SpeechAsked:
    """Read a request for speech. Raises Refusal (400) naming the field."""
    _, asked = checked(body, _Speech)
    if not asked.input.strip():
        raise Refusal(400, "input: there is nothing to say", param="input")
    if len(asked.input) > _LONGEST_INPUT:
        told = f"input: {len(asked.input):,} characters, and {_LONGEST_INPUT:,} are taken at once"
        raise Refusal(400, told, param="input", code="string_above_max_length")
    form = _one_of("response_format", asked.response_format or "mp3", TYPES)
    way = _one_of("stream_format", asked.stream_format or "audio", ("audio", "sse"))
    voice = asked.voice.id if isinstance(asked.voice, _VoiceId) else asked.voice or ""
    wishes: dict[str, Any] = {}
    if asked.instructions:
        wishes["instructions"] = asked.instructions
    if asked.speed not in (None, 1.0):
        wishes["speed"] = asked.speed
    if voice in OPENAI_VOICES:  # clients must name one, whoever speaks
        wishes["voice"], voice = voice, ""
    wanted = Wanted(model_of(asked.model), "" if voice in _OWN_VOICE else voice)
    ask = Ask(Modality.TTS, wanted, provider=provider, wishes=wishes)
    return SpeechAsked(asked.input, ask, form, way == "sse")


FORMATS = ("json", "text", "srt", "verbose_json", "vtt")


@dataclass(frozen=True)
class TranscriptionAsked:
    """A request for a transcript. ``granularities`` are those of ``verbose_json``."""

    file: bytes
    ask: Ask
    form: str
    stream: bool
    granularities: frozenset[str]


def read_transcription(body: bytes, content_type: str, provider: str) -> TranscriptionAsked:
    """Read a request for a transcript. Raises Refusal (400, 415) naming the field."""
    form = read_form(body, content_type)
    if not form.file:
        told = "file: there is no recording" if form.file is None else "file: it is empty"
        raise Refusal(400, told, param="file")
    given = _one_of("response_format", form.text("response_format") or "json", FORMATS)
    stream = _one_of("stream", form.text("stream").lower() or "false", _TRUTHS)
    granularities = form.texts.get("timestamp_granularities") or ["segment"]
    for one in granularities:
        _one_of("timestamp_granularities", one, ("word", "segment"))
    language = form.text("language") or form.text("languages")
    wanted = Wanted(model_of(form.text("model")), language)
    ask = Ask(Modality.STT, wanted, provider=provider, wishes=_hints(form))
    return TranscriptionAsked(form.file, ask, given, stream in _TRUE, frozenset(granularities))


_TRUE = ("true", "1")
_TRUTHS = (*_TRUE, "false", "0")


def _hints(form: Form) -> dict[str, Any]:
    """What helps the recognisers that listen to it."""
    hints: dict[str, Any] = {}
    if prompt := form.text("prompt"):
        if len(prompt) > _LONGEST_HINT:
            told = f"prompt: longer than {_LONGEST_HINT:,} characters"
            raise Refusal(400, told, param="prompt")
        hints["prompt"] = prompt
    if keywords := form.texts.get("keywords"):
        hints["keywords"] = keywords
    if given := form.text("temperature"):
        try:
            temperature = msgspec.json.decode(given, type=Annotated[float, Meta(ge=0, le=1)])
        except msgspec.DecodeError:
            told = f"temperature: a number from 0 to 1, not {given[:20]!r}"
            raise Refusal(400, told, param="temperature") from None
        if temperature:
            hints["temperature"] = temperature
    return hints


def _one_of(field: str, value: str, known: Any) -> str:
    if value not in known:
        told = f"{field}: one of {', '.join(known)}, not {value[:20]!r}"
        raise Refusal(400, told, param=field)
    return value
