"""What leaves a double: bodies in pieces, WebSocket messages, and the ugly ways to end them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import WSMsgType, web

from .faults import Kind
from .turn import Turn, Verdict

_GARBAGE = b"\x16\x03\x01\xff<?not the protocol?>\r\n\r\n"


class Over(Exception):
    """The request has ended as the fault script wants it; ``response`` is what is left to send."""

    def __init__(self, response: web.StreamResponse | None = None) -> None:
        super().__init__("the request is over")
        self.response = response


class Rejected(Exception):
    """The vendor does not take this request, and says why; ``retry_after`` is in seconds."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


async def hang(request: web.Request) -> None:
    """Read what comes and answer nothing, until the client goes away or the server stops."""
    with contextlib.suppress(ConnectionError):
        async for _ in request.content.iter_any():
            pass  # an unread body would keep the loss of the connection from being seen
    await asyncio.get_running_loop().create_future()


def reset(request: web.Request) -> None:
    """Reset the connection (RST, not FIN)."""
    transport = request.transport
    if transport is None:
        return
    raw: socket.socket | None = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def garble(request: web.Request) -> None:
    """Send bytes that are not HTTP, and close."""
    if request.transport is not None:
        request.transport.write(_GARBAGE)
        request.transport.close()


class Stream:
    """The body of an HTTP answer, in pieces: server-sent events, or audio."""

    def __init__(
        self, request: web.Request, turn: Turn, response: web.StreamResponse, *, events: bool
    ) -> None:
        self._request = request
        self._turn = turn
        self._response = response
        self._events = events

    async def output(self, data: bytes) -> bool:
        """Send a piece of content when it is due; False when it was left out."""
        return await self._deliver(data, await self._turn.output())

    async def mark(self, data: bytes) -> None:
        """Send something that is no content: a role, a usage report, the end marker."""
        await self._deliver(data, self._turn.mark())

    async def finish(self) -> web.StreamResponse:
        """The answer is complete."""
        await self.mark(b"")
        await self._response.write_eof()
        self._turn.done()
        return self._response

    async def _deliver(self, data: bytes, verdict: Verdict) -> bool:
        if verdict is Verdict.RESET:
            reset(self._request)
            raise Over(self._response)
        if verdict is Verdict.CLOSE:
            await self._response.write_eof()
            raise Over(self._response)
        if verdict is Verdict.SILENCE:
            await self._silence()
        if verdict is Verdict.GARBAGE and not self._events:
            garble(self._request)  # in audio, garbage would be noise: break the framing instead
            raise Over(self._response)
        if verdict is not Verdict.DROP and data:
            await self._response.write(b"data: }{\n\n" if verdict is Verdict.GARBAGE else data)
        return verdict is Verdict.SEND

    async def _silence(self) -> None:
        fault = self._turn.fault
        if fault is None or fault.kind is not Kind.KEEP_ALIVE or not self._events:
            await hang(self._request)
        while fault is not None:
            await self._response.write(b": keep-alive\n\n")
            await asyncio.sleep(fault.every)


class Socket:
    """A WebSocket after the upgrade: messages in, paced outputs out."""

    def __init__(self, request: web.Request, response: web.WebSocketResponse) -> None:
        self.response = response
        self._request = request

    async def messages(self) -> AsyncIterator[bytes | str]:
        """What the client sends, until either side closes."""
        async for message in self.response:
            if message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                yield message.data

    async def objects(self) -> AsyncIterator[bytes | dict[str, Any]]:
        """Like ``messages``, with texts read as JSON objects; closes with 1003 on any other."""
        async for message in self.messages():
            if isinstance(message, bytes):
                yield message
                continue
            try:
                data = msgspec.json.decode(message)
            except msgspec.DecodeError:
                data = None
            if not isinstance(data, dict):
                await self.response.close(code=1003, message=b"not a JSON object")
                return
            yield data

    async def output(self, turn: Turn, payload: bytes | dict[str, Any]) -> bool:
        """Send content when it is due; False when it was left out. Raises Over."""
        return await self._deliver(turn, payload, await turn.output())

    async def mark(self, turn: Turn, payload: bytes | dict[str, Any]) -> None:
        """Send a message that is no content. Raises Over."""
        await self._deliver(turn, payload, turn.mark())

    async def finish(self, turn: Turn) -> None:
        """Close the connection because the protocol is at its end."""
        if turn.mark() is Verdict.SEND:
            turn.done()
            await self.response.close()

    async def _deliver(self, turn: Turn, payload: bytes | dict[str, Any], verdict: Verdict) -> bool:
        if verdict is Verdict.RESET:
            reset(self._request)
            raise Over
        if verdict is Verdict.CLOSE:
            await self.response.close(code=_close_code(turn))
            raise Over
        # Silence and omission block no reader: the client may still send, be billed, and close.
        if verdict is Verdict.GARBAGE:
            await self.response.send_str("\x16\x03 not the protocol")
        elif verdict is Verdict.SEND and isinstance(payload, bytes):
            await self.response.send_bytes(payload)
        elif verdict is Verdict.SEND:
            await self.response.send_str(msgspec.json.encode(payload).decode())
        return verdict is Verdict.SEND

    async def ping(self, every: float) -> None:
        """Ping each ``every`` seconds until cancelled, or until the client is gone."""
        with contextlib.suppress(ConnectionError):
            while True:
                await self.response.ping()
                await asyncio.sleep(every)


def _close_code(turn: Turn) -> int:
    """RFC 6455, section 7.4.1: 1000 clean, 1008 against the policy, 1011 a failure inside."""
    return {None: 1000, 500: 1011}.get(turn.status, 1008)
