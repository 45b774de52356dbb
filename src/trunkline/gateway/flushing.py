"""A provider's stream as others see it, and one whose output leaves before more is taken."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, Self

from ..runtime.line import Out, ProviderStream


class Passing(Generic[Out]):
    """``stream`` itself, for those that do more at its next output."""

    __slots__ = ("_stream", "close")

    def __init__(self, stream: ProviderStream[Out]) -> None:
        self._stream = stream
        self.close = stream.close

    @property
    def request_id(self) -> str:
        return self._stream.request_id

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Out:
        return await self._stream.__anext__()


class Flushing(Passing[Out]):
    """``stream``, with ``flush`` awaited before each wait for its next output."""

    __slots__ = ("_flush",)

    def __init__(self, stream: ProviderStream[Out], flush: Callable[[], Awaitable[None]]) -> None:
        super().__init__(stream)
        self._flush = flush

    async def __anext__(self) -> Out:
        await self._flush()
        return await self._stream.__anext__()
