"""A chat's side of the loop, for whoever asks in OpenAI's format. Imports no livekit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import msgspec

from .. import catalog
from ..core.models import Candidate, Plan
from ..runtime.chat import ChatDelta, ChatRequest
from ..runtime.hedge import Held
from ..runtime.line import ProviderStream
from ..runtime.text_line import TextLine
from ..runtime.wire_llm import WireLLM
from .chat_request import Asked
from .flushing import Flushing


class Sink(Protocol):
    """Where an answer goes.

    ``whole`` says that it leaves in one piece at its end, so that any of it can be forgotten. What
    is no content may be forgotten in every case: a thought, a part of a tool call.
    """

    whole: bool

    @property
    def last_write(self) -> float:
        """The loop time of the last write; now, as long as the client takes none."""

    def begin(self, candidate: Candidate) -> None:
        """Forget what can be forgotten; ``candidate`` answers from here."""

    def put(self, delta: ChatDelta) -> None:
        """Take the next piece, which may wait for the next content."""

    async def flush(self) -> None:
        """Send what is ready; waits while the client takes none."""


class Unsent:
    """The sink of an answer that does not leave as it is: the line keeps its words."""

    whole = True
    last_write = 0.0

    def begin(self, candidate: Candidate) -> None: ...
    def put(self, delta: ChatDelta) -> None: ...
    async def flush(self) -> None: ...


class _HeldSink:
    """The sink of an attempt that may come to nothing: nothing of it leaves before it wins."""

    def __init__(self, sink: Sink, held: Held) -> None:
        self.whole = sink.whole
        self._sink = sink
        self._held = held

    @property
    def last_write(self) -> float:
        return self._sink.last_write

    def begin(self, candidate: Candidate) -> None:
        self._held.keep(partial(self._sink.begin, candidate))

    def put(self, delta: ChatDelta) -> None:
        self._held.keep(partial(self._sink.put, delta))

    async def flush(self) -> None:
        if self._held.is_released:
            await self._sink.flush()


class ChatLine(TextLine):
    """A chat whose messages are OpenAI's own, and whose answer leaves as it comes."""

    is_read_here = False

    def __init__(self, plan: Plan, asked: Asked, sink: Sink) -> None:
        super().__init__(plan)
        self._asked = asked
        self._sink = sink
        self._held = Held()

    def rival(self) -> ChatLine:
        held = Held()
        made = ChatLine(self._plan, self._asked, _HeldSink(self._sink, held))
        made._held = held
        made.may_be_cut_short = self.may_be_cut_short
        return made

    def wins(self) -> None:
        self._held.release()

    @property
    def has_begun(self) -> bool:
        return not self._sink.whole and super().has_begun

    def ask(self, candidate: Candidate, continued: str) -> ProviderStream[ChatDelta]:
        self._sink.begin(candidate)
        if self._sink.whole:
            self.forget()
            continued = ""
        messages = self._asked.messages
        if continued:
            messages = [*messages, {"role": "assistant", "content": continued}]
        request = ChatRequest(messages, self._asked.tools, dict(self.asked(candidate)))
        if isinstance(candidate.live, WireLLM):
            return candidate.live.stream(
                candidate.ref.model,
                request,
                connect_timeout=self._plan.deadlines.connect,
                verbatim=True,
                before_wait=self._sink.flush,
            )
        from .chat_plugin import ask_plugin  # with livekit, which no other chat needs

        total = self._plan.deadlines.total
        return Flushing(ask_plugin(candidate, request, total), self._sink.flush)

    def send(self, delta: ChatDelta) -> None:
        self._sink.put(delta)

    def owed_since(self) -> float:
        return max(self._opened, self._sink.last_write)

    def may_continue(self, plan: Plan) -> bool:
        return self._sink.whole or super().may_continue(plan)

    def parameters(self) -> Mapping[str, Any]:
        return self._asked.params

    def asked(self, candidate: Candidate) -> Mapping[str, Any]:
        return {**self._asked.params, **_tier(candidate, self._asked), **candidate.options}

    def asked_text(self) -> Iterable[str]:
        yield from map(_text, self._asked.messages)
        for tool in self._asked.tools:
            yield msgspec.json.encode(tool).decode()


def _tier(candidate: Candidate, asked: Asked) -> dict[str, Any]:
    """What the provider calls the class that was asked for; one without tiers has one speed."""
    if not asked.inference_class:
        return {}
    row = catalog.in_use(candidate.ref.provider)
    how = row.llm if row is not None else None
    tier = how.service_tiers.get(asked.inference_class) if isinstance(how, catalog.Wire) else None
    return {"service_tier": tier} if tier else {}


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    texts = [part.get("text") for part in parts if isinstance(part, dict)]
    for call in message.get("tool_calls") or ():
        function = call.get("function")
        texts += function.values() if isinstance(function, dict) else ()
    return "".join(text for text in texts if isinstance(text, str))
