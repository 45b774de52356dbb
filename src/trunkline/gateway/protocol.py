"""uvicorn's HTTP protocol with what it lacks: limits for the head of a request."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from ..clock import new_id
from .refusal import Refusal

HEAD_SECONDS = 10.0
"""A head has this long to arrive from its first byte, the first one from the connection on."""

HEAD_LIMIT = 64 << 10


class Protocol(HttpToolsProtocol):
    """Closes a connection whose request is slow to begin, or begins without end."""

    _timer: asyncio.TimerHandle | None = None
    """Runs while a head is expected."""
    _head = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._timer is not None:
            self._head += len(data)
            if self._head > HEAD_LIMIT:
                told = f"the head of the request is larger than {HEAD_LIMIT:,} bytes"
                self.send_400_response(told)

    def on_message_begin(self) -> None:
        self._expect()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._arrived()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Tell what is wrong with the head, as the doors tell theirs, and hang up."""
        request_id = new_id()
        body = Refusal(400, msg.removesuffix(".")).json(request_id)
        self.transport.write(
            b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: application/json\r\n"
            b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
            % (request_id.encode(), len(body), body)
        )
        self._arrived()
        self.transport.close()

    def _expect(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_SECONDS, self.timeout_keep_alive_handler)

    def _arrived(self) -> None:
        self._head = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
