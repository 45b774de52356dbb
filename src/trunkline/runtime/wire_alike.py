"""Chunks of a stream that are one another but for a text, which most are: they need no reading."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Self

import msgspec


class Alike:
    """The bytes that such chunks have in common, before their text and after it."""

    __slots__ = ("_after", "_around", "_before")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before
        self._after = after
        self._around = len(before) + len(after)

    @classmethod
    def to(cls, payload: bytes) -> Self | None:
        """What chunks are like that have only the text of ``payload`` changed.

        None where a chunk says more than its text, or its text cannot be told from the rest.
        """
        places = list(_CONTENT.finditer(payload))
        chunk: dict[str, Any] = msgspec.json.decode(payload)
        choices = chunk.get("choices") or []
        if len(choices) != 1 or len(places) != 1 or chunk.get("usage"):
            return None
        said = {**choices[0], **(choices[0].get("delta") or {})}
        if any(said[name] for name in said.keys() - _EACH_TIME):
            return None
        start, end = places[0].span(1)
        return cls(payload[:start], payload[end:])

    def texts_of(self, payloads: Iterable[bytes]) -> list[str]:
        """The texts of ``payloads``, as far as they are chunks like this."""
        before, after, texts = self._before, self._after, []
        start, rest, around = len(before), len(after), self._around
        for payload in payloads:
            size = len(payload)
            if size < around or not (payload.startswith(before) and payload.endswith(after)):
                break
            try:
                texts.append(_text_in(payload[start : size - rest]))
            except ValueError:  # more than a text has changed, or it is none
                break
        return texts


_EACH_TIME = frozenset({"index", "delta", "role", "content"})
"""What a chunk of text has, and no other value."""

_CONTENT = re.compile(rb'"content":\s*("(?:[^"\\]|\\.)*")')
_text_in = msgspec.json.Decoder(str).decode
