"""The language model of a double: replies from a script, a function or an echo, in tokens.

A word with the white space before it is one token, on both sides of the bill.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from .provider import Provider, Reply, ToolCall

_TOKEN = re.compile(r"\s*\S+|\s+$")


class LanguageModel(Protocol):
    async def reply(self, messages: Sequence[dict[str, Any]]) -> Reply:
        """The answer to ``messages`` (role and content, as in OpenAI's API)."""


class ScriptedModel:
    """Answers requests in the order they come."""

    def __init__(self, settings: Provider) -> None:
        self._settings = settings
        self._asked = 0

    async def reply(self, messages: Sequence[dict[str, Any]]) -> Reply:
        said: str | Reply
        replies = self._settings.replies
        if self._settings.answer is not None:
            said = self._settings.answer(messages)
        elif replies:
            said = replies[min(self._asked, len(replies) - 1)]
        else:
            said = text_of(messages[-1]) if messages else ""
        self._asked += 1
        return said if isinstance(said, Reply) else Reply(text=said)


def text_of(message: dict[str, Any]) -> str:
    """The text of a message whose content is a string or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    parts = (part for part in content if isinstance(part, dict))
    return " ".join(str(part.get("text", "")) for part in parts)


def tokens(text: str) -> list[str]:
    """``text`` cut into tokens that join to it again."""
    return _TOKEN.findall(text)


def count(messages: Sequence[dict[str, Any]]) -> int:
    """Tokens of a prompt."""
    return sum(len(tokens(text_of(message))) for message in messages)


def arguments_of(call: ToolCall) -> list[str]:
    """The arguments of a tool call as the pieces of JSON text that a model streams."""
    text = msgspec.json.encode(call.arguments).decode()
    return [text[at : at + 12] for at in range(0, len(text), 12)]
