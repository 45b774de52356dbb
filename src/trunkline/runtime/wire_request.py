"""A chat request as it leaves: checked, adapted to the endpoint's quirks, serialised once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec
from yarl import URL

from ..core.quirks import ChatQuirks
from ..errors import UsageError
from .chat import ChatRequest

_TOKEN_LIMITS = ("max_completion_tokens", "max_tokens")
_NEEDS_TOOLS = ("tool_choice", "parallel_tool_calls")
_FOREIGN_KEYS = frozenset({"extra_content", "prompt_cache_breakpoint"})
BESIDE_THE_BODY = frozenset({"extra_body", "extra_headers", "extra_query"})


class WireRequest(NamedTuple):
    body: bytes
    headers: dict[str, str] | None
    query: dict[str, str] | None


def encode(model: str, request: ChatRequest, quirks: ChatQuirks) -> WireRequest:
    """Return what travels. Raises UsageError for a value that JSON, a header or a URL cannot hold.

    Fields that only mean something with tools are left out when there are none, since endpoints
    refuse them.
    """
    params = quirks.accepted(model, request.params)
    body: dict[str, Any] = {
        "model": model,
        "messages": request.messages if quirks.extra_content else _plain(request.messages),
        "stream": True,
    }
    if quirks.stream_options:
        body["stream_options"] = {"include_usage": True}
    if request.tools:
        body["tools"] = request.tools if quirks.strict_tools else _lax(request.tools)
    body.update(_fields(params, quirks, with_tools=bool(request.tools)))
    body.update(params.get("extra_body") or {})
    try:
        data = msgspec.json.encode(body)
    except (TypeError, ValueError, RecursionError) as error:
        # Only the class: the text of a UnicodeEncodeError may quote the conversation.
        raise UsageError(
            f"the chat request cannot be written as JSON ({type(error).__name__}): "
            "use plain values and valid Unicode in messages, tools and parameters"
        ) from None
    headers, query = params.get("extra_headers"), params.get("extra_query")
    return WireRequest(
        data,
        {name: header_value(name, value) for name, value in headers.items()} if headers else None,
        {name: _query_value(name, value) for name, value in query.items()} if query else None,
    )


def endpoint(base_url: str) -> URL:
    """Read a base URL. Raises UsageError unless it is http(s), with a host and no credentials."""
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host:
        shown = base_url.rpartition("@")[2].partition("?")[0]
        raise UsageError(f"base_url {shown!r} is not an address such as https://host/v1")
    if url.user is not None or url.password is not None:
        raise UsageError(f"base_url for {url.host} holds credentials: give them as the API key")
    return url


def header_value(name: str, value: object) -> str:
    """Return ``value`` if a header can carry it, else raise UsageError, which does not show it."""
    if not isinstance(value, str) or not value.isascii() or not value.isprintable():
        raise UsageError(
            f"{name} cannot travel in an HTTP header: it must be printable ASCII text, "
            "without a line end"
        )
    return value


def _query_value(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise UsageError(f"extra_query field {name!r} must be text or a number")


def _fields(
    params: Mapping[str, Any], quirks: ChatQuirks, *, with_tools: bool
) -> Iterator[tuple[str, Any]]:
    for name, value in params.items():
        if name in BESIDE_THE_BODY:
            continue
        if name in _NEEDS_TOOLS and not with_tools:
            continue
        if name in _TOKEN_LIMITS and quirks.max_tokens_field:
            yield quirks.max_tokens_field, value
        else:
            yield name, value


def _lax(tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ``tools`` without ``strict``."""
    return [
        {**tool, "function": {k: v for k, v in tool["function"].items() if k != "strict"}}
        if "strict" in tool.get("function", ())
        else tool
        for tool in tools
    ]


def _plain(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ``messages`` with OpenAI's own keys only.

    Without ``extra_content``, on themselves and on their tool calls, and without cache breakpoints
    on their parts.
    """
    nested = ("tool_calls", "content")
    return [
        {
            name: [_stripped(item) if isinstance(item, dict) else item for item in value]
            if name in nested and isinstance(value, list)
            else value
            for name, value in _stripped(message).items()
        }
        for message in messages
    ]


def _stripped(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in _FOREIGN_KEYS}
