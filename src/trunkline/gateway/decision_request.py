"""The body of ``POST /v1/decisions``: questions about a text, and the chat that they become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ..config import Settings
from .chat_request import Asked, checked, inference_class, shaped
from .decision_questions import KINDS, MOST, Question, task
from .names import AUTO, model_of
from .refusal import Refusal

LIVEKITS = frozenset(
    {
        "openai/gpt-6-luna-decisions",
        "typesafe/jev",
        "typesafe/jev-latest",
        "typesafe/jev-preview",
        "livekit/clef-omni",
    }
)
"""Decision models that only LiveKit's cloud serves; the first is its client's default."""

_NOTHING = "(Nothing has been said.)"
"""Instead of an empty text, which several providers refuse."""


class _Known(msgspec.Struct):
    questions: Annotated[dict[str, Any], Meta(min_length=1, max_length=MOST)]
    state: str
    model: str | None = None


class Decisions(msgspec.Struct, frozen=True):
    """``questions`` by their names about the text ``state``."""

    questions: Mapping[str, Question]
    state: str
    model: str = AUTO
    inference_class: str = ""

    def as_chat(self) -> Asked:
        """The chat that asks them all at once."""
        text = self.state if self.state.strip() else _NOTHING
        messages = [
            {"role": "system", "content": task(self.questions)},
            {"role": "user", "content": text},
        ]
        return Asked(messages, self.model, inference_class=self.inference_class)


def read(body: bytes, priority: str, settings: Settings) -> Decisions:
    """Read a request. Raises Refusal (400) naming the field."""
    _, known = checked(body, _Known)
    return Decisions(
        {name: _question(name, told) for name, told in known.questions.items()},
        known.state,
        _served(known.model, settings),
        inference_class(priority),
    )


def _served(model: str | None, settings: Settings) -> str:
    """The name that is meant here: whoever names no model of ours gets the one for decisions."""
    if model in LIVEKITS or model_of(model) == AUTO:
        return settings.gateway.decisions
    return model_of(model)


def _question(name: str, told: Any) -> Question:
    where = f"questions.{_shown(name)}"
    if not name.strip():
        raise _wrong("questions", "a question needs a name")
    if not isinstance(told, dict):
        raise _wrong(where, f"an object with a type, which is one of {', '.join(KINDS)}")
    kind = told.get("type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise _wrong(f"{where}.type", f"one of {', '.join(KINDS)}")
    question = shaped(told, KINDS[kind], where)
    if not question.instructions.strip():
        raise _wrong(f"{where}.instructions", "they are blank")
    return question


def _wrong(field: str, told: str) -> Refusal:
    return Refusal(400, f"{field}: {told}", param=field)


def _shown(name: str) -> str:
    """``name`` as an error can hold it: short, on one line."""
    short = name if len(name) <= 50 else f"{name[:50]}..."
    return short if short.isprintable() else ascii(short)
