"""A chat with a language model as plain data: what is asked, and the pieces of the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ..core.models import Usage


class ToolCall(msgspec.Struct, frozen=True):
    """A complete call of a tool. ``arguments`` is JSON text as the model wrote it, unchecked.

    ``extra`` is the vendor's ``extra_content``, to be sent back with the call unchanged.
    """

    id: str
    name: str
    arguments: str
    extra: dict[str, Any] | None = None


class ChatDelta(msgspec.Struct):
    """The next piece of an answer. ``id`` is the provider's id of the completion.

    ``usage`` arrives at the end, from some providers with every piece, as it stands by then.
    ``finish_reason`` is ``stop``, ``length``, ``tool_calls``, ``content_filter`` or a vendor's own
    word. ``raw`` is the provider's own chunk in JSON, where it was asked for. ``pieces`` are the
    texts of several chunks, which came together and are each the one before them with that text.
    ``says_more``: it holds output that is none of these, such as a refusal's text or audio.
    """

    id: str = ""
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage | None = None
    extra: dict[str, Any] | None = None
    finish_reason: str = ""
    service_tier: str = ""
    raw: Sequence[bytes] = ()
    pieces: Sequence[str] = ()
    says_more: bool = False

    @property
    def content(self) -> bool:
        """Whether this is output that the caller waits for."""
        return bool(self.text or self.tool_calls or self.says_more)


class ChatRequest(msgspec.Struct):
    """What is asked: messages and tools in OpenAI's chat completions format.

    ``params`` are further request fields by their OpenAI names; in it, ``extra_headers``,
    ``extra_query`` and ``extra_body`` mean what they mean to the openai package.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []
    params: dict[str, Any] = {}
