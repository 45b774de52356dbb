"""A WebSocket that knows who opened it, and sends without a task that waits. Needs no livekit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import aiohttp

_told: ContextVar[Callable[[InletSocket], None] | None] = ContextVar("told", default=None)


class InletSocket(aiohttp.ClientWebSocketResponse):
    """What an ``aiohttp.ClientSession`` connects that has this as its ``ws_response_class``."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        told = _told.get()
        if told is not None:
            told(self)

    def send_now(self, data: bytes) -> bool:
        """Send a binary message; False when it would have to wait, or cannot be sent."""
        writer = self._writer
        if self.closed or writer.compress or writer.protocol._paused:
            return False
        try:
            writer._write_websocket_frame(data, aiohttp.WSMsgType.BINARY, 0)
        except ConnectionError:  # whoever waits for the socket meets it too, and says what it is
            return False
        return True


@contextlib.contextmanager
def telling(told: Callable[[InletSocket], None]) -> Iterator[None]:
    """Have ``told`` called with each socket that the block connects, or a task begun in it."""
    token = _told.set(told)
    try:
        yield
    finally:
        _told.reset(token)
