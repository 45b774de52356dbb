"""The items of a realtime conversation, and what they count as in a prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..clock import new_id
from .language import tokens

_TYPES = ("message", "function_call", "function_call_output")


@dataclass(frozen=True, slots=True)
class Units:
    """Tokens of text and of audio."""

    text: int = 0
    audio: int = 0

    def __add__(self, other: Units) -> Units:
        return Units(self.text + other.text, self.audio + other.audio)


@dataclass(slots=True)
class Item:
    """One item. ``said`` are its words, also where they are only heard."""

    id: str
    body: dict[str, Any]
    units: Units
    said: str = ""

    def rendered(self, status: str = "completed") -> dict[str, Any]:
        """The item as events hold it."""
        return {"id": self.id, "object": "realtime.item", "status": status, **self.body}

    def message(self) -> dict[str, Any]:
        """The item as a message of a chat."""
        role = {"function_call": "assistant", "function_call_output": "tool"}
        kind = self.body.get("type")
        return {"role": role.get(str(kind)) or self.body.get("role", "user"), "content": self.said}


@dataclass(slots=True)
class Context:
    """The items in their order, and what of them the last prompt held, which is cached."""

    items: list[Item] = field(default_factory=list)
    _known: dict[str, Units] = field(default_factory=dict)

    def __contains__(self, name: object) -> bool:
        return any(item.id == name for item in self.items)

    def get(self, name: str) -> Item | None:
        return next((item for item in self.items if item.id == name), None)

    def add(self, item: Item, previous: str | None = None) -> str | None:
        """Put ``item`` behind ``previous``, at the start for ``root``, else at the end.

        Returns the id of the one before it.
        """
        at = len(self.items)
        if previous == "root":
            at = 0
        elif previous is not None:
            at = [one.id for one in self.items].index(previous) + 1
        self.items.insert(at, item)
        return self.items[at - 1].id if at else None

    def remove(self, name: str) -> bool:
        item = self.get(name)
        if item is not None:
            self.items.remove(item)
        return item is not None

    def prompt(self, instructions: Units) -> tuple[Units, Units]:
        """What a prompt of all items counts as, and the part of it that was in the last one."""
        held = {"": instructions, **{item.id: item.units for item in self.items}}
        whole = sum(held.values(), Units())
        cached = sum((u for n, u in held.items() if self._known.get(n) == u), Units())
        self._known = held
        return whole, cached


def audio_tokens(seconds: float, each: float) -> int:
    """Tokens of audio, one for ``each`` so many seconds that have begun."""
    return -(-round(seconds * 1000) // round(each * 1000))


def read_item(data: object) -> Item | None:
    """An item as a client makes it; None for what is none."""
    if not isinstance(data, dict) or data.get("type") not in _TYPES:
        return None
    said = " ".join(filter(None, (_text(part) for part in data.get("content") or ())))
    said = said or str(data.get("output") or data.get("arguments") or "")
    body = {k: v for k, v in data.items() if k not in ("id", "object", "status")}
    name = data.get("id") or f"item_{new_id()[-12:]}"
    return Item(str(name), body, Units(text=len(tokens(said))), said)


def _text(part: object) -> str:
    if not isinstance(part, dict):
        return ""
    return str(part.get("text") or part.get("transcript") or "")
