"""The client for every endpoint that speaks OpenAI's Realtime API: a WebSocket, text by text.

https://developers.openai.com/api/docs/guides/realtime-websocket. What the texts say is not looked
at here. A stream is open once its socket is, and its connect deadline is kept here; a server that
goes away without a word is found by pings.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from typing import Any, Self

import aiohttp

from .._version import __version__
from ..catalog import Realtime
from ..core.models import Candidate, Usage
from ..errors import ConnectFailed, DeadlineExceeded, ProtocolViolation, StreamCut
from .wire_errors import from_status, from_transport
from .wire_request import endpoint, header_value

MESSAGE_LIMIT = 16 << 20
"""Bytes of a message; OpenAI takes 15 MiB of audio in one."""

_PING_SECONDS = 40.0
"""Half of it is how long a pong may take: nobody reads one while a client takes nothing."""
_CLOSE_SECONDS = 1.0
_PART_SECONDS = 2.0
_CLEAN = frozenset({1000, 1001})
"""Close codes of a server that has nothing more to say (RFC 6455, section 7.4.1)."""


class WireRealtime:
    """One endpoint with one key; its connections belong to the event loop that uses it.

    ``base_url`` is what precedes ``/realtime``. Raises UsageError for a base_url or key that cannot
    be used.
    """

    def __init__(self, *, base_url: str, api_key: str | None) -> None:
        self._url = endpoint(base_url).joinpath("realtime")
        self._headers = {"User-Agent": f"trunkline/{__version__}"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {header_value('api_key', api_key)}"
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def stream(
        self,
        model: str,
        *,
        connect_timeout: float,
        before_wait: Callable[[], Awaitable[None]],
        farewell: Callable[[RealtimeStream], Awaitable[Usage | None]],
    ) -> RealtimeStream:
        """Return what ``model`` says, as an iterator; it connects at the first ``anext``.

        ``before_wait`` is awaited before each wait for the server, ``farewell`` once before the
        connection is closed: it may go on with it, and bring usage.
        """
        return RealtimeStream(self, model, connect_timeout, before_wait, farewell)

    async def connect(self, model: str) -> aiohttp.ClientWebSocketResponse:
        """Open a socket. Raises ConnectFailed when this client is closed, and aiohttp's errors."""
        if self._closed:
            raise ConnectFailed("no connection: the client is closed")
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
            )
        return await self._session.ws_connect(
            self._url.update_query(model=model),
            headers=self._headers,
            heartbeat=_PING_SECONDS,
            max_msg_size=MESSAGE_LIMIT,
            timeout=aiohttp.ClientWSTimeout(ws_close=_CLOSE_SECONDS),
        )

    async def aclose(self) -> None:
        """Close every connection. Idempotent."""
        self._closed = True
        if self._session is not None:
            await self._session.close()


def talks(
    candidate: Candidate, how: Realtime, address: str | None, api_key: str | None
) -> Candidate:
    """``candidate`` with a client of its own, which is its user's to close. Raises UsageError."""
    live = WireRealtime(base_url=address or how.base_url, api_key=api_key)
    model = candidate.ref.model or how.default_model
    ref = replace(candidate.ref, model=how.models.get(model, model))
    return replace(candidate, ref=ref, live=live)


class RealtimeStream:
    """One conversation with a provider. Raises ProviderError; ends when the server does, cleanly.

    ``close`` must be called in every case.
    """

    def __init__(
        self,
        client: WireRealtime,
        model: str,
        connect_timeout: float,
        before_wait: Callable[[], Awaitable[None]],
        farewell: Callable[[RealtimeStream], Awaitable[Usage | None]],
    ) -> None:
        self._client = client
        self._model = model
        self._connect_timeout = connect_timeout
        self._before_wait = before_wait
        self._farewell = farewell
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._waiting: asyncio.Task[Any] | None = None
        self._is_ended = self._has_parted = False
        self.request_id = ""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        await self._before_wait()
        if self._is_ended:
            await self._part()
            raise StopAsyncIteration
        if self._socket is None:
            self._socket = await self._connect()
        self._waiting = asyncio.current_task()
        try:
            text = await self.receive()
        except asyncio.CancelledError:
            if self._is_ended and self._waiting is not None and self._waiting.uncancel() == 0:
                await self._part()
                raise StopAsyncIteration from None
            raise
        finally:
            self._waiting = None
        if text is None:
            raise StopAsyncIteration
        return text

    async def receive(self) -> str | None:
        """The next text; None at a clean end. Raises StreamCut or ProtocolViolation."""
        assert self._socket is not None
        frame = await self._socket.receive()
        if frame.type is aiohttp.WSMsgType.TEXT:
            text: str = frame.data
            return text
        if frame.type is aiohttp.WSMsgType.BINARY:
            raise ProtocolViolation("the provider sent a binary message")
        code = self._socket.close_code
        if code in _CLEAN and not isinstance(self._socket.exception(), Exception):
            return None
        told = code or "without a code"
        raise StreamCut(f"the provider's socket was closed ({told})", status=code)

    async def send(self, text: str) -> None:
        """Send a text; waits while the server takes none.

        What meets a closed socket is dropped: whoever reads is told.
        """
        if self._socket is not None:
            with contextlib.suppress(ConnectionError, aiohttp.ClientError):
                await self._socket.send_str(text)

    def end(self) -> None:
        """Have iterating end: nobody wants more."""
        self._is_ended = True
        if self._waiting is not None:
            self._waiting.cancel()

    def close(self) -> Coroutine[Any, Any, Usage | None] | None:
        """Close the connection; the usage is what ``farewell`` brings."""
        return self._close() if self._socket is not None else None

    async def _close(self) -> Usage | None:
        assert self._socket is not None
        try:
            return await self._farewell(self) if not self._has_parted else None
        finally:
            await self._socket.close()

    async def _part(self) -> None:
        """Say farewell before the end, while what it brings still counts."""
        self._has_parted = True
        if self._socket is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PART_SECONDS):
                    await self._farewell(self)

    async def _connect(self) -> aiohttp.ClientWebSocketResponse:
        try:
            async with asyncio.timeout(self._connect_timeout):
                socket = await self._client.connect(self._model)
        except TimeoutError:
            raise DeadlineExceeded("connect", self._connect_timeout) from None
        except aiohttp.WSServerHandshakeError as error:
            headers = {k.lower(): v for k, v in (error.headers or {}).items()}
            if error.status == 101 or error.status < 300:
                raise ProtocolViolation("the answer to the upgrade is not a WebSocket's") from None
            raise from_status(error.status, b"", headers) from None
        except (aiohttp.ClientError, OSError) as error:
            told = from_transport(error, answered=False, connect_timeout=self._connect_timeout)
            raise told from None
        return socket
