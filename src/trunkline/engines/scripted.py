"""A scripted responder that streams like a language model; it is none, and its scripts say so."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Never

from livekit.agents import llm
from livekit.agents.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    NOT_GIVEN,
    APIConnectOptions,
    NotGivenOr,
)
from livekit.agents.utils import shortuuid

from ..errors import UsageError
from ._script import Answer, Conversation, Script, ToolDone, answer
from ._script_file import load

SHIPPED = Path(__file__).with_name("scripts")


class LLM(llm.LLM[Never]):
    """A scripted LLM; ``script`` is the name of a shipped script, or a path to a YAML file.

    Its answer depends on the chat context and the offered tools alone. Tokens are words.
    Raises UsageError for a script that does not exist or has a mistake.
    """

    def __init__(self, *, script: str = "receptionist") -> None:
        super().__init__()
        self._label = "scripted"
        self._model = Path(script).stem
        self._script = _shipped(script)

    @property
    def model(self) -> str:
        return self._model

    @property
    def provider(self) -> str:
        return "scripted"

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[llm.ToolChoice] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> llm.LLMStream:
        offered = () if tool_choice == "none" else _names(tools or ())
        return _Stream(
            self,
            script=self._script,
            conversation=_read(chat_ctx, frozenset(offered)),
            chat_ctx=chat_ctx,
            tools=tools or [],
            conn_options=conn_options,
        )


@functools.cache
def _shipped_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.yaml")))


def _shipped(script: str) -> Script:
    if script in _shipped_names():
        return load(SHIPPED / f"{script}.yaml")
    path = Path(script)
    if not path.suffix and not path.exists():
        raise UsageError(
            f"script {script!r} is neither shipped ({', '.join(_shipped_names())}) nor a file"
        )
    return load(path)


def _names(tools: Iterable[llm.Tool]) -> Iterable[str]:
    for tool in tools:
        if isinstance(tool, llm.FunctionTool | llm.RawFunctionTool):
            yield tool.info.name


def _read(context: llm.ChatContext, offered: frozenset[str]) -> Conversation:
    """Reduce a chat context to what a script looks at."""
    turns: list[str] = []
    fresh = 0
    calls: dict[str, llm.FunctionCall] = {}
    done: ToolDone | None = None
    for item in context.items:
        if isinstance(item, llm.FunctionCall):
            calls[item.call_id] = item
        elif isinstance(item, llm.FunctionCallOutput):
            call = calls.get(item.call_id)
            arguments = call.arguments if call else ""
            done = ToolDone(item.name, arguments, item.output, item.is_error)
        elif isinstance(item, llm.ChatMessage) and item.role == "user":
            turns.append(item.text_content or "")
            fresh += 1
            done = None
        elif isinstance(item, llm.ChatMessage) and item.role == "assistant":
            fresh, done = 0, None
    return Conversation(turns, fresh, done, offered)


class _Stream(llm.LLMStream):
    def __init__(
        self,
        model: LLM,
        *,
        script: Script,
        conversation: Conversation,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool],
        conn_options: APIConnectOptions,
    ) -> None:
        self._script = script
        self._conversation = conversation
        super().__init__(model, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options)

    async def _run(self) -> None:
        id = shortuuid("scripted_")
        reply = answer(self._script, self._conversation)
        timing = self._script.timing
        await asyncio.sleep(timing.first_token_ms / 1000)
        words = reply.text.split()
        for index, word in enumerate(words):
            if index:
                await asyncio.sleep(timing.per_token_ms / 1000)
            self._send(id, llm.ChoiceDelta(role="assistant", content=" " * bool(index) + word))
        if reply.tool:
            self._send(id, llm.ChoiceDelta(role="assistant", tool_calls=[self._call(reply)]))
        spoken = len(words) + len(reply.arguments) + bool(reply.tool)
        self._event_ch.send_nowait(llm.ChatChunk(id=id, usage=_usage(self._chat_ctx, spoken)))

    def _send(self, id: str, delta: llm.ChoiceDelta) -> None:
        self._event_ch.send_nowait(llm.ChatChunk(id=id, delta=delta))

    def _call(self, reply: Answer) -> llm.FunctionToolCall:
        made = sum(isinstance(item, llm.FunctionCall) for item in self._chat_ctx.items)
        return llm.FunctionToolCall(
            name=reply.tool, arguments=json.dumps(reply.arguments), call_id=f"call_{made + 1}"
        )


def _usage(context: llm.ChatContext, spoken: int) -> llm.CompletionUsage:
    """Count tokens as words: of every message heard, and of the answer or the tool call."""
    heard = sum(len((message.text_content or "").split()) for message in context.messages())
    return llm.CompletionUsage(
        completion_tokens=spoken, prompt_tokens=heard, total_tokens=spoken + heard
    )
