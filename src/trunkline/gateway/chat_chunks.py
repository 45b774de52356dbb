"""Chat completions as OpenAI writes them: chunks of a stream, and the whole that they add up to.

https://platform.openai.com/docs/api-reference/chat-streaming
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..clock import now_ns
from ..core.models import Usage
from ..runtime.chat import ChatDelta

DONE = b"data: [DONE]\n\n"

_encode = msgspec.json.encode
_LINE_ENDS = b"\r\n"


def event(payload: bytes) -> bytes:
    """One server-sent event."""
    return events([payload])


def events(payloads: Sequence[bytes]) -> bytes:
    """Server-sent events. JSON has line ends between its tokens only, where none is needed."""
    if not payloads:
        return b""
    data = b"\n".join(payloads)
    if b"\r" in data or data.count(b"\n") >= len(payloads):
        payloads = [payload.translate(None, _LINE_ENDS) for payload in payloads]
    return b"data: " + b"\n\ndata: ".join(payloads) + b"\n\n"


def is_only_usage(delta: ChatDelta) -> bool:
    """Whether ``delta`` is the chunk that comes for ``stream_options.include_usage``."""
    return delta.usage is not None and not (delta.content or delta.finish_reason or delta.extra)


class Renderer:
    """Writes the deltas of one answer that did not come as OpenAI's chunks."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._created = now_ns() // 1_000_000_000
        self._id = ""
        self._calls = 0
        self._begun = False

    def chunks(self, delta: ChatDelta, *, usage: bool = False) -> list[bytes]:
        """The chunks for ``delta``: its content and, if wanted, its usage in one of its own."""
        found = []
        self._id = delta.id or self._id
        if delta.content or delta.extra or delta.finish_reason:
            body: dict[str, Any] = {} if self._begun else {"role": "assistant"}
            self._begun = True
            if delta.text:
                body["content"] = delta.text
            if delta.tool_calls:
                body["tool_calls"] = [self._call(*_fields(call)) for call in delta.tool_calls]
            if delta.extra:
                body["extra_content"] = delta.extra
            choice = {"index": 0, "delta": body, "finish_reason": delta.finish_reason or None}
            found.append(self._chunk(delta, [choice]))
        if usage and delta.usage is not None:
            found.append(self._chunk(delta, [], usage=usage_of(delta.usage)))
        return found

    def last(self) -> bytes:
        """The chunk with the reason of a clean end, which plugins do not tell."""
        return self.chunks(ChatDelta(finish_reason="tool_calls" if self._calls else "stop"))[0]

    def _call(self, id: str, name: str, arguments: str, extra: Any) -> dict[str, Any]:
        function = {"name": name, "arguments": arguments}
        call = {"index": self._calls, "id": id, "type": "function", "function": function}
        self._calls += 1
        return {**call, "extra_content": extra} if extra else call

    def _chunk(self, delta: ChatDelta, choices: list[Any], **more: Any) -> bytes:
        if delta.service_tier:
            more["service_tier"] = delta.service_tier
        return _encode(
            {
                "id": self._id,
                "object": "chat.completion.chunk",
                "created": self._created,
                "model": self._model,
                "choices": choices,
                **more,
            }
        )


def _fields(call: Any) -> tuple[str, str, str, Any]:
    return call.id, call.name, call.arguments, call.extra


def usage_of(usage: Usage) -> dict[str, Any]:
    """OpenAI's usage object."""
    return {
        "prompt_tokens": usage.tokens_in,
        "completion_tokens": usage.tokens_out,
        "total_tokens": usage.tokens_in + usage.tokens_out,
        "prompt_tokens_details": {
            "cached_tokens": usage.tokens_cached,
            "cache_write_tokens": usage.tokens_cache_written,
            "audio_tokens": usage.tokens_audio_in,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.tokens_reasoning,
            "audio_tokens": usage.tokens_audio_out,
        },
    }


def whole(chunks: Iterable[bytes | str]) -> bytes:
    """The completion that ``chunks`` add up to; fields that are not OpenAI's add up as well.

    A text among them goes on with the one of the chunk before it.
    """
    completion: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    texts: dict[int, list[str]] = {}
    told: list[str] = []
    for payload in chunks:
        if isinstance(payload, str):
            told.append(payload)
            continue
        chunk = msgspec.json.decode(payload)
        for part in chunk.pop("choices", None) or ():
            index = part.get("index") or 0
            choice = choices.setdefault(index, {"message": {}})
            delta = part.pop("delta", None) or {}
            if isinstance(text := delta.get("content"), str):  # one a token: added up at the end
                told = texts.setdefault(index, [])
                told.append(text)
                del delta["content"]
            _add(choice["message"], delta)
            if part.keys() != _PLACE or part["finish_reason"] is not None:
                _add(choice, part)
        completion |= {name: value for name, value in chunk.items() if value is not None}
    for index, choice in choices.items():
        message = choice["message"]
        if index in texts:
            _add(message, {"content": "".join(texts[index])})
        choice["index"] = index
        choice["message"] = {"role": "assistant", "content": None, **message}
        for call in message.get("tool_calls", ()):
            call.pop("index", None)
    completion["object"] = "chat.completion"
    completion["choices"] = [choices[index] for index in sorted(choices)]
    return _encode(completion)


_PLACE = {"index", "finish_reason"}


_ONCE = frozenset({"role", "id", "type", "name", "index", "finish_reason"})
"""Text that a stream sends whole; all other text comes in pieces."""


def _add(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Add a piece of a message to it: text to text, list to list, table to table."""
    for name, value in part.items():
        before = whole.get(name)
        if value is None or before is None:
            whole[name] = before if value is None else _numbered(name, value)
        elif isinstance(value, str) and isinstance(before, str) and name not in _ONCE:
            whole[name] = before + value
        elif isinstance(value, dict) and isinstance(before, dict):
            _add(before, value)
        elif isinstance(value, list) and isinstance(before, list):
            if name == "tool_calls":
                _add_calls(before, value)
            else:
                before += value
        else:
            whole[name] = value


def _numbered(name: str, value: Any) -> Any:
    if name != "tool_calls" or not isinstance(value, list):
        return value
    calls: list[dict[str, Any]] = []
    _add_calls(calls, value)
    return calls


def _add_calls(calls: list[dict[str, Any]], parts: list[dict[str, Any]]) -> None:
    """Add pieces of tool calls: one with a name begins a call, others go on with theirs.

    Some providers give every call the index 0, so the index alone does not tell them apart.
    """
    for part in parts:
        function = part.get("function") or {}
        same = [call for call in calls if call.get("index") == part.get("index")]
        own = same[-1] if same else None
        if own is None or (function.get("name") and part.get("id") != own.get("id")):
            calls.append(part)
        else:
            _add(own, part)
