"""How one vendor's double behaves: what it accepts, what it says and hears, how long it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec

from .latency import Pace

__all__ = ["Answer", "Provider", "Reply", "ToolCall", "Word"]

Answer = Callable[[Sequence[dict[str, Any]]], "str | Reply"]
"""Makes a reply of the messages of a request, as the vendor's API has them."""


class ToolCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A function that the model asks for; ``arguments`` are sent as JSON text."""

    name: str
    arguments: dict[str, Any] = {}


class Reply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One answer of a language model: text, tool calls, or both."""

    text: str = ""
    tools: tuple[ToolCall, ...] = ()


class Word(msgspec.Struct, frozen=True, array_like=True):
    """A word that a recogniser hears, with its time in seconds of audio received."""

    text: str
    start: float
    end: float


Engine = Literal["scripted", "local"]


class Provider(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One vendor. The fields are the keys of a provider in the configuration file.

    ``port`` is its own one (0: a free one); without it, it shares the double's.
    ``keys`` are the API keys that it accepts; none means any but an empty one.
    ``replies`` are the language model's, in turn, the last one repeating; none means an echo of
    the last message. ``answer`` is a function in their place (in process only).
    ``words`` are what a recogniser hears, by time; ``hears`` is a text heard from the first sound
    on; without either it reads the tones of ``trunkline.doubles.tones`` in the audio itself.
    ``chunk_ms`` is the audio in one output of a voice.
    ``engine`` ``local`` puts the speech engines of this machine in the place of the script.
    """

    name: str
    port: int | None = None
    keys: tuple[str, ...] = ()
    replies: tuple[str | Reply, ...] = ()
    answer: Any = None  # an Answer; msgspec has no type for a function
    words: tuple[Word, ...] = ()
    hears: str = ""
    pace: Pace = Pace()
    chunk_ms: int = 100
    engine: Engine = "scripted"

    def __post_init__(self) -> None:
        if self.port is not None and not 0 <= self.port <= 65535:
            raise ValueError(f"port {self.port} is not between 0 and 65535")
        if not 10 <= self.chunk_ms <= 5000:
            raise ValueError(f"chunk_ms {self.chunk_ms} is not between 10 and 5000")
        if self.answer is not None and not callable(self.answer):
            raise ValueError("answer is a function, and set in process; use replies here")
