"""A chat's side of the loop: the context in, text and tool calls out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any, Protocol

import msgspec
from livekit.agents import llm
from livekit.agents.inference.llm import supports_prompt_cache_breakpoints

from ..core.models import Candidate, Plan
from .chat import ChatDelta, ChatRequest
from .hedge import Held
from .line import ProviderStream
from .livekit_chat import PluginChat, function_schemas, plugin_chat, prompt_texts, to_chunk
from .text_line import TextLine
from .wire_llm import WireLLM

_takes_breakpoints = lru_cache(256)(supports_prompt_cache_breakpoints)


class ChatSink(Protocol):
    """What is asked, and where the answer goes: the stream that the agent reads."""

    @property
    def chat_ctx(self) -> llm.ChatContext: ...
    @property
    def tools(self) -> list[llm.Tool]: ...
    @property
    def send(self) -> Callable[[llm.ChatChunk], object]: ...


class _HeldSink:
    """The sink of an attempt that may come to nothing."""

    def __init__(self, sink: ChatSink, held: Held) -> None:
        self.chat_ctx = sink.chat_ctx
        self.tools = sink.tools
        self._sink = sink
        self._held = held

    def send(self, chunk: llm.ChatChunk) -> None:
        self._held.keep(partial(self._sink.send, chunk))


class ChatLine(TextLine):
    """A chat whose context and whose answer are LiveKit's."""

    def __init__(
        self,
        sink: ChatSink,
        plan: Plan,
        serves: Callable[[Candidate], None],
        params: dict[str, Any],
        breakpoints: bool | str,
    ) -> None:
        super().__init__(plan)
        self._sink = sink
        self._serves = serves
        self._params = params
        self._breakpoints = breakpoints
        self._held: Held | None = None

    def rival(self) -> ChatLine:
        held, serves = Held(), self._serves
        made = ChatLine(
            _HeldSink(self._sink, held),
            self._plan,
            lambda candidate: held.keep(partial(serves, candidate)),
            self._params,
            self._breakpoints,
        )
        made._held = held
        return made

    def wins(self) -> None:
        if self._held is not None:
            self._held.release()

    def ask(self, candidate: Candidate, continued: str) -> ProviderStream[ChatDelta]:
        self._serves(candidate)
        if isinstance(candidate.live, WireLLM):
            request = self._request(candidate, candidate.live, continued)
            return candidate.live.stream(
                candidate.ref.model, request, connect_timeout=self._plan.deadlines.connect
            )
        return self._plugin_chat(candidate, continued)

    def _request(self, candidate: Candidate, client: WireLLM, continued: str) -> ChatRequest:
        marked = self._breakpoints
        if marked == "auto":
            marked = _takes_breakpoints(str(candidate.ref))
        extra = {"prompt_cache_breakpoints": True} if marked else {}
        messages, _ = self._sink.chat_ctx.to_provider_format("openai", **extra)
        if continued:
            messages.append({"role": "assistant", "content": continued})
        tools = function_schemas(self._sink.tools, strict=client.quirks.strict_tools)
        return ChatRequest(messages, tools, dict(self.asked(candidate)))

    def _plugin_chat(self, candidate: Candidate, continued: str) -> PluginChat:
        chat_ctx = self._sink.chat_ctx
        if continued:
            chat_ctx = chat_ctx.copy()
            chat_ctx.add_message(role="assistant", content=continued)
        return plugin_chat(
            candidate, chat_ctx, self._sink.tools, self._params, self._plan.deadlines.total
        )

    def send(self, delta: ChatDelta) -> None:
        chunk = to_chunk(delta)
        if chunk is not None:
            self._sink.send(chunk)

    def parameters(self) -> Mapping[str, Any]:
        return self._params

    def asked_text(self) -> Iterable[str]:
        yield from prompt_texts(self._sink.chat_ctx)
        for schema in function_schemas(self._sink.tools, strict=False):
            yield msgspec.json.encode(schema).decode()
