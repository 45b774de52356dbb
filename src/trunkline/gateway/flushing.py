"""A provider's stream for a client over the network: what there is leaves before more is taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, Self

from ..runtime.line import Out, ProviderStream


class Flushing(Generic[Out]):
    """``stream``, with ``flush`` awaited before each wait for its next output.

    While ``is_ready`` says that the next one is there already, nothing is waited for.
    """

    __slots__ = ("_flush", "_is_ready", "_stream", "close")

    def __init__(
        self,
        stream: ProviderStream[Out],
        flush: Callable[[], Awaitable[None]],
        is_ready: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stream = stream
        self._flush = flush
        self._is_ready = is_ready
        self.close = stream.close

    @property
    def request_id(self) -> str:
        return self._stream.request_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Out:
        if not self._is_ready():
            await self._flush()
        return await self._stream.__anext__()
