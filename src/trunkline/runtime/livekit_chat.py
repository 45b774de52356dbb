"""Chats across LiveKit's border: its chunks and ours, and a plugin's stream as one of ours."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any

from livekit.agents import APIConnectOptions, llm

from ..core.models import Candidate, Usage
from ..errors import ConnectFailed, StreamCut, UnsupportedOption
from .chat import ChatDelta, ToolCall
from .learnt import Learnt
from .livekit_errors import from_livekit, may_be_sent
from .meter import with_thoughts


class _Habits:
    """Whether a plugin's whole answers end with their usage."""

    __slots__ = ("tells_usage",)

    def __init__(self) -> None:
        self.tells_usage = False


_habits = Learnt(_Habits)


class PluginChat:
    """A plugin's LLMStream as a provider stream of ours.

    Plugins end a stream cleanly when the connection does, and hide the finish reason. From one that
    tells the usage at the end of its answers, an answer without it is one that was cut.
    """

    def __init__(self, stream: llm.LLMStream, habits: _Habits) -> None:
        self._stream = stream
        self._habits = habits
        self._has_told = False
        self.request_id = ""

    def __aiter__(self) -> PluginChat:
        return self

    async def __anext__(self) -> ChatDelta:
        try:
            chunk = await self._stream.__anext__()
        except StopAsyncIteration:
            if self.request_id and not self._has_told and self._habits.tells_usage:
                raise StreamCut("the stream ended before the answer was whole") from None
            raise
        except Exception as error:  # the edge: whatever a plugin raises is translated here
            told = from_livekit(error)
            if isinstance(told, ConnectFailed):
                told.served = may_be_sent(error)
            raise told from error
        self.request_id = self.request_id or chunk.id
        if chunk.usage is not None:
            self._has_told = self._habits.tells_usage = True
        return from_chunk(chunk)

    def close(self) -> Coroutine[Any, Any, None]:
        return self.aclose()

    async def aclose(self) -> None:
        await self._stream.aclose()


def plugin_chat(
    candidate: Candidate,
    chat_ctx: llm.ChatContext,
    tools: list[llm.Tool],
    params: Mapping[str, Any],
    seconds: float,
) -> PluginChat:
    """Ask the plugin of ``candidate``. Raises UsageError for a parameter that it does not take."""
    plugin: llm.LLM[Any] = candidate.live
    stream = plugin.chat(
        chat_ctx=chat_ctx,
        tools=tools,
        conn_options=APIConnectOptions(max_retry=0, timeout=seconds),
        **_arguments(plugin, params),
    )
    return PluginChat(stream, _habits.about(candidate))


_BY_NAME = ("parallel_tool_calls", "tool_choice")
"""Parameters that a plugin's ``chat`` takes by name; the others go as ``extra_kwargs``."""


def _arguments(plugin: llm.LLM[Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """``params`` as arguments of the plugin's ``chat``: by name where it has one."""
    named = {name: params[name] for name in _BY_NAME if name in params}
    rest = {name: value for name, value in params.items() if name not in _BY_NAME}
    if "response_format" in rest:
        if "response_format" not in inspect.signature(plugin.chat).parameters:
            raise UnsupportedOption(f"{plugin.label} takes no response_format")
        named["response_format"] = rest.pop("response_format")
    return named | ({"extra_kwargs": rest} if rest else {})


def prompt_texts(chat_ctx: llm.ChatContext) -> Iterator[str]:
    """The text that each item of a context sends to the model."""
    for item in chat_ctx.items:
        if item.type == "message":
            yield item.text_content or ""
        elif item.type == "function_call":
            yield item.name + item.arguments
        elif item.type == "function_call_output":
            yield item.output


def function_schemas(tools: list[llm.Tool], *, strict: bool) -> list[dict[str, Any]]:
    """The tools that the model may call, as OpenAI has them."""
    if not tools:
        return []
    return llm.ToolContext(tools).parse_function_tools("openai", strict=strict)


def to_chunk(delta: ChatDelta) -> llm.ChatChunk | None:
    """LiveKit's chunk for ``delta``, None when it holds nothing for the agent."""
    content = delta.text or delta.tool_calls or delta.extra
    if not (content or delta.usage):
        return None
    chunk = llm.ChatChunk(id=delta.id)
    if content:
        chunk.delta = llm.ChoiceDelta(
            role="assistant",
            content=delta.text or None,
            tool_calls=[
                llm.FunctionToolCall(
                    name=call.name, arguments=call.arguments, call_id=call.id, extra=call.extra
                )
                for call in delta.tool_calls
            ],
            extra=delta.extra,
        )
    if delta.usage is not None:
        chunk.usage = _to_livekit_usage(delta.usage, delta.service_tier)
    return chunk


def from_chunk(chunk: llm.ChatChunk) -> ChatDelta:
    """Our delta for a plugin's ``chunk``."""
    delta = ChatDelta(id=chunk.id)
    if chunk.delta is not None:
        delta.text = chunk.delta.content or ""
        delta.extra = chunk.delta.extra
        delta.tool_calls = tuple(
            ToolCall(call.call_id, call.name, call.arguments, call.extra)
            for call in chunk.delta.tool_calls
        )
    if chunk.usage is not None:
        delta.usage = _from_livekit_usage(chunk.usage)
        delta.service_tier = chunk.usage.service_tier or ""
    return delta


def _to_livekit_usage(usage: Usage, service_tier: str) -> llm.CompletionUsage:
    return llm.CompletionUsage(
        completion_tokens=usage.tokens_out,
        prompt_tokens=usage.tokens_in,
        prompt_cached_tokens=usage.tokens_cached,
        cache_creation_tokens=usage.tokens_cache_written,
        reasoning_tokens=usage.tokens_reasoning,
        total_tokens=usage.tokens_in + usage.tokens_out,
        service_tier=service_tier or None,
    )


def _from_livekit_usage(usage: llm.CompletionUsage) -> Usage:
    out, reasoning = with_thoughts(
        usage.prompt_tokens, usage.completion_tokens, usage.reasoning_tokens, usage.total_tokens
    )
    return Usage(
        tokens_in=usage.prompt_tokens,
        tokens_out=out,
        tokens_cached=usage.prompt_cached_tokens,
        tokens_cache_written=usage.cache_creation_tokens,
        tokens_reasoning=reasoning,
    )
