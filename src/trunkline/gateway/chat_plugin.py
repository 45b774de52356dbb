"""A chat in OpenAI's format as LiveKit's context, for providers behind a plugin.

Imports livekit, so it is imported by the first chat that needs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from livekit.agents import llm

from ..core.models import Candidate
from ..errors import UsageError
from ..runtime.chat import ChatRequest
from ..runtime.livekit_chat import PluginChat, plugin_chat

_ROLES = {"system", "developer", "user", "assistant"}


def ask_plugin(candidate: Candidate, request: ChatRequest, seconds: float) -> PluginChat:
    """Ask the plugin of ``candidate``. Raises UsageError for what LiveKit has no form for."""
    context = llm.ChatContext(list(_items(request.messages)))
    tools = [_tool(tool) for tool in request.tools]
    return plugin_chat(candidate, context, tools, request.params, seconds)


class _Function(msgspec.Struct):
    name: str
    arguments: str = "{}"


class _Call(msgspec.Struct):
    function: _Function
    id: str = ""
    extra_content: dict[str, Any] | None = None


class _Url(msgspec.Struct):
    url: str
    detail: str = "auto"


class _Part(msgspec.Struct):
    type: str = "text"
    text: str = ""
    image_url: _Url | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str = ""
    name: str = ""


def _items(messages: list[dict[str, Any]]) -> Iterator[llm.ChatItem]:
    names: dict[str, str] = {}
    for index, plain in enumerate(messages):
        try:
            message = msgspec.convert(plain, _Message)
        except msgspec.ValidationError as error:
            raise UsageError(f"messages[{index}]: {error}") from None
        content = [_content(part, index) for part in _parts(message.content)]
        if message.role == "tool":
            text = "".join(part for part in content if isinstance(part, str))
            name = names.get(message.tool_call_id, message.name)
            yield llm.FunctionCallOutput(
                call_id=message.tool_call_id, name=name, output=text, is_error=False
            )
        elif message.role not in _ROLES:
            raise UsageError(f'messages[{index}].role: "{message.role[:20]}" is no role of a chat')
        elif content:
            role: Any = message.role
            yield llm.ChatMessage(role=role, content=content)
        for call in message.tool_calls or ():
            names[call.id] = call.function.name
            yield llm.FunctionCall(
                call_id=call.id,
                name=call.function.name,
                arguments=call.function.arguments,
                extra=call.extra_content or {},
            )


def _parts(content: str | list[_Part] | None) -> list[_Part]:
    if isinstance(content, str):
        return [_Part(text=content)] if content else []
    return content or []


def _content(part: _Part, index: int) -> llm.ChatContent:
    if part.type == "text":
        return part.text
    if part.image_url is not None:
        detail: Any = part.image_url.detail
        return llm.ImageContent(image=part.image_url.url, inference_detail=detail)
    raise UsageError(f'messages[{index}].content: a part of type "{part.type[:20]}" is not taken')


def _tool(tool: dict[str, Any]) -> llm.Tool:
    schema = tool.get("function")
    if not isinstance(schema, dict) or not isinstance(schema.get("name"), str):
        raise UsageError("tools: this provider takes functions with a name only")

    async def called(raw_arguments: dict[str, object]) -> None:
        """Never runs: the call is the client's to make."""

    parameters = schema.get("parameters") or {"type": "object", "properties": {}}
    return llm.function_tool(called, raw_schema={**schema, "parameters": parameters})
