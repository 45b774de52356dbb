"""The two ways a chat's answer leaves: as a stream of events, or whole at its end."""

from __future__ import annotations

from typing import Any

from ..core.models import Candidate
from ..runtime.chat import ChatDelta
from ..runtime.wire_llm import WireLLM
from .chat_chunks import DONE, Renderer, event, events, is_only_usage, whole
from .exchange import Exchange
from .refusal import Headers, Refusal

_SSE = b"text/event-stream; charset=utf-8"
_NO_CACHE = (b"cache-control", b"no-cache")
_KEEP_ALIVE = b": keep-alive\n\n"


class _Answer:
    """Collects chunks. What is no content waits for the next that is, so it can be forgotten.

    So a client never gets half of a tool call from one candidate and a whole one from the next,
    and the status is not yet sent while a model thinks.
    """

    whole = False

    def __init__(self, exchange: Exchange, *, wants_usage: bool) -> None:
        self.exchange = exchange
        self._wants_usage = wants_usage
        self._waiting: list[Any] = []
        self._ready: list[Any] = []
        """Chunks as they leave; of an answer that leaves whole, the text of what is alike."""
        self._renderer: Renderer | None = None
        self._finished = False
        self._headers: Headers = ()

    @property
    def last_write(self) -> float:
        return self.exchange.last_write

    def begin(self, candidate: Candidate) -> None:
        self._waiting.clear()
        self._finished = False
        self._headers = ((b"x-trunkline-model", str(candidate).encode("ascii", "replace")),)
        rendered = not isinstance(candidate.live, WireLLM)
        self._renderer = Renderer(str(candidate)) if rendered else None

    def put(self, delta: ChatDelta) -> None:
        if self._renderer is not None:
            self._waiting += self._renderer.chunks(delta, usage=self._wants_usage)
        elif delta.raw and (delta.usage is None or self._wants_usage or not is_only_usage(delta)):
            self._waiting += (delta.pieces if self.whole else ()) or delta.raw
        if delta.finish_reason:
            self._finished = True
        if delta.content:
            self._ready += self._waiting
            self._waiting.clear()

    async def flush(self) -> None:
        """Nothing leaves before the end."""

    async def say(self, id: str, text: str) -> None:
        """Answer with a sentence of our own, in the place of an answer that has not begun."""
        self._waiting.clear()
        self._ready.clear()
        self._finished = False
        self._renderer = Renderer(id)
        self.put(ChatDelta(id=id, text=text))
        await self.end()

    async def end(self) -> None:
        """Send what waited, and that this was all."""
        if self._renderer is not None and not self._finished:
            self._ready.append(self._renderer.last())
        self._ready += self._waiting
        self._waiting.clear()


class StreamedAnswer(_Answer):
    """Server-sent events. The status leaves with the first content, or the first keep-alive."""

    async def flush(self) -> None:
        if self._ready:
            data = events(self._ready)
            self._ready.clear()
            await self._write(data)

    async def keep_alive(self) -> None:
        """Send a comment: clients measure the time between two reads."""
        await self._write(_KEEP_ALIVE)

    async def end(self) -> None:
        await super().end()
        await self._start()
        await self.exchange.end(events(self._ready) + DONE)

    async def fail(self, refusal: Refusal) -> None:
        """Tell an error as the last event: nothing follows that could pass for a clean end."""
        await self.exchange.end(event(refusal.json(self.exchange.id)))

    async def _write(self, data: bytes) -> None:
        await self._start()
        await self.exchange.write(data)

    async def _start(self) -> None:
        if not self.exchange.started:
            await self.exchange.start(200, _SSE, (_NO_CACHE, *self._headers))


class WholeAnswer(_Answer):
    """One JSON document. Until it is sent every candidate may begin anew."""

    whole = True

    def begin(self, candidate: Candidate) -> None:
        self._ready.clear()
        super().begin(candidate)

    async def end(self) -> None:
        await super().end()
        await self.exchange.answer(200, whole(self._ready), headers=self._headers)
