"""uvicorn's protocols with what they lack: limits for the head of a request, one form for every
refusal, word of a hang-up, and an end for every connection.
"""

from __future__ import annotations

import asyncio
import http
import re
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from websockets.http11 import Request

from ..clock import new_id
from . import exchange
from .refusal import Refusal, log_refusal
from .short_way import ShortWay

HEAD_SECONDS = 10.0
"""A head has this long to arrive from its first byte, the first one from the connection on."""

HEAD_LIMIT = 64 << 10

_END = b"\r\n\r\n"
_H2C = re.compile(rb"\r\nupgrade:[ \t]*h2c[ \t]*(?=\r\n|$)", re.IGNORECASE)
"""What some clients offer with every request, Java's own among them. The parser would take it for
the end of HTTP, though nobody has agreed to it."""


class Protocol(HttpToolsProtocol):
    """Closes a connection whose request is slow to begin, or begins without end.

    It tells at once when a client hangs up: to ask for that takes a task for each request.
    """

    _timer: asyncio.TimerHandle | None = None
    """Runs while a head is expected."""
    _head = 0
    _is_upgraded = False
    _served: RequestResponseCycle | None = None
    """What is being answered; ``cycle`` may be a later request, which waits behind it."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._rest = _Rest(self.loop, transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        self._rest.cancel()
        if self._served is not None and not self._is_idle:
            self._served.disconnected = True
            self._served.message_event.set()
            cast(dict[str, Any], self._served.scope).get(exchange.HUNG_UP, _nobody)()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is not None or self._is_idle:
            data = _without_h2c(data) if b"h2c" in data else data
            if self._head + len(data) > HEAD_LIMIT and not -1 < data.find(_END) <= HEAD_LIMIT:
                told = f"the head of the request is larger than {HEAD_LIMIT:,} bytes"
                self.send_400_response(told)
                return
            self._head += len(data)
        super().data_received(data)
        if self._is_idle and self._timer is None and self.timeout_keep_alive_task is None:
            # no head has begun: these are line ends, or the rest of a body that nobody reads
            self.timeout_keep_alive_task = self.loop.call_later(
                HEAD_SECONDS, self.timeout_keep_alive_handler
            )

    def handle_websocket_upgrade(self) -> None:
        self._is_upgraded = True
        super().handle_websocket_upgrade()

    @property
    def _is_idle(self) -> bool:
        """Whether nothing is being answered, on a connection that is still HTTP's."""
        done = self._served is None or self._served.response_complete
        return done and not self._is_upgraded

    def on_message_begin(self) -> None:
        self._expect()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._arrived()
        super().on_headers_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._served = cycle
        task = self.loop.create_task(cycle.run_asgi(app))
        task.add_done_callback(self._ended)
        self.tasks.add(task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self._rest.watch()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        if not self.pipeline:  # else it is paused because of requests that wait
            self.flow.resume_reading()  # after a large body it is not, and no hang-up is heard

    def send_400_response(self, msg: str) -> None:
        """Tell what is wrong with the head, as the doors tell theirs, and hang up."""
        self.transport.write(_refused(400, msg.removesuffix(".")))
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


class SocketProtocol(ShortWay):
    """Answers every upgrade, also one that is none.

    ``Protocol`` hands the whole head of it over at once.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._rest = _Rest(self.loop, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self.handshake_initiated:
            told = "an upgrade has no body, and up to 128 headers of 8,190 bytes"
            self._refuse(400, told)

    def handle_connect(self, event: Request) -> None:
        answer = self.conn.accept(event)
        if answer.status_code == http.HTTPStatus.SWITCHING_PROTOCOLS:
            super().handle_connect(event)
        else:
            self._refuse(answer.status_code, f"no upgrade: {self.conn.handshake_exc}")

    def _refuse(self, status: int, told: str) -> None:
        self.handshake_initiated = self.handshake_complete = self.close_sent = True
        self.transport.write(_refused(status, told))
        self.transport.close()

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self._rest.watch()


class _Rest:
    """What a connection has still to send when its work is done.

    It is dropped with the connection when the client takes none of it: a transport that is closed
    would wait for that as long as the client likes.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.Transport) -> None:
        self._loop = loop
        self._transport = transport
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, before: int = 0) -> None:
        """Look again and again whether it has become less than ``before``, until there is none."""
        self.cancel()
        size = self._transport.get_write_buffer_size()
        if size and size == before:
            self._transport.abort()
        elif size:
            self._timer = self._loop.call_later(exchange.STALL_SECONDS, self.watch, size)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _without_h2c(data: bytes) -> bytes:
    head, end, rest = data.partition(_END)
    return _H2C.sub(b"", head) + end + rest


def _refused(status: int, told: str) -> bytes:
    """A whole answer, for what comes to no door."""
    refusal, request_id = Refusal(status, told), new_id()
    log_refusal(request_id, refusal)
    body = refusal.json(request_id)
    return (
        b"HTTP/1.1 %d %b\r\nconnection: close\r\ncontent-type: application/json\r\n"
        b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n%b"
        % (status, http.HTTPStatus(status).phrase.encode(), request_id.encode(), len(body), body)
    )


def _nobody() -> None:
    """Who hears of a hang-up before the request was begun."""
