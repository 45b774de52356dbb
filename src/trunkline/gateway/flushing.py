"""A provider's stream for a client over the network: what there is leaves before more is taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, Self

from ..runtime.line import Out, ProviderStream


class Flushing(Generic[Out]):
    """``stream``, with ``flush`` awaited before each wait for its next output."""

    __slots__ = ("_flush", "_stream", "close")

    def __init__(self, stream: ProviderStream[Out], flush: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._flush = flush
        self.close = stream.close

    @property
    def request_id(self) -> str:
        return self._stream.request_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Out:
        await self._flush()
        return await self._stream.__anext__()
