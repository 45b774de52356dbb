"""One HTTP request and its answer, in raw ASGI: limits on the way in, back-pressure on the way out.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from ..clock import new_id
from .auth import Principal
from .refusal import Headers, Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = b"application/json"

BODY_SECONDS = 30.0
"""A body has this long to arrive, however slowly it is sent."""

SILENCE_SECONDS = 6.0
"""After so long without a byte a keep-alive goes out. LiveKit's clients give up after ten."""

STALL_SECONDS = 30.0
"""A client that takes nothing for so long is gone."""

_TICK_SECONDS = 2.0
_DISCARD_SECONDS = 1.0
_CLOSE = (b"connection", b"close")


class ClientGone(Exception):
    """Whoever asked has hung up: there is nobody to answer."""


class Exchange:
    """A request with an id of its own, and the answer as far as it has left."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.id = new_id()
        self.method: str = scope["method"]
        self.path = clean_path(scope["path"])
        self.headers = decoded_headers(scope)
        self.principal = Principal("")
        """Who asks, once it is known."""
        self.started = False
        """Whether the status has left: from then on an error can only be told in the body."""
        self.written_at = 0.0
        """The loop time of the last write, or of now while one waits for the client."""
        self._receive = receive
        self._send = send
        self._read = False
        self._writing = False
        self._gone = False

    @property
    def last_write(self) -> float:
        """The loop time of the last write; now, as long as the client takes none."""
        return asyncio.get_running_loop().time() if self._writing else self.written_at

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises Refusal (413, 408) and ClientGone."""
        self._read = True
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            await self._discard()
            raise _too_large(limit)
        data = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGone
                    data += message.get("body", b"")
                    if len(data) > limit:
                        await self._discard()
                        raise _too_large(limit)
                    if not message.get("more_body"):
                        return bytes(data)
        except TimeoutError:
            told = f"the body did not arrive within {BODY_SECONDS:g} s"
            raise Refusal(408, told, headers=(_CLOSE,)) from None

    async def answer(
        self, status: int, body: bytes, content_type: bytes = JSON, headers: Headers = ()
    ) -> None:
        """Send a whole answer."""
        if not (self._read or await self._discard()):
            headers = (*headers, _CLOSE)
        length = (b"content-length", str(len(body)).encode())
        await self.start(status, content_type, (*headers, length))
        await self._send({"type": "http.response.body", "body": body})

    async def refuse(self, refusal: Refusal) -> None:
        """Send an error as the whole answer."""
        await self.answer(refusal.status, refusal.json(self.id), headers=refusal.headers)

    async def start(self, status: int, content_type: bytes, headers: Headers = ()) -> None:
        """Send the status; ``write`` and ``end`` follow."""
        self.started = True
        own = ((b"content-type", content_type), (b"x-request-id", self.id.encode()))
        await self._send(
            {"type": "http.response.start", "status": status, "headers": [*own, *headers]}
        )

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; waits while the client takes none."""
        self._writing = True
        self.written_at = asyncio.get_running_loop().time()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._writing = False

    async def end(self, data: bytes = b"") -> None:
        """End the body, with ``data``. One that is not ended is cut: so a failure is told."""
        self._writing = True
        self.written_at = asyncio.get_running_loop().time()
        await self._send({"type": "http.response.body", "body": data})

    @contextlib.asynccontextmanager
    async def attended(
        self, keep_alive: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[None]:
        """Watch the client while the block works for it.

        The block is cancelled and ClientGone raised when the client hangs up or takes nothing for
        STALL_SECONDS. ``keep_alive`` is called in silences, also before the answer has started.
        """
        task = asyncio.current_task()
        assert task is not None
        self.written_at = asyncio.get_running_loop().time()
        watcher = asyncio.create_task(self._watch(task, keep_alive))
        try:
            yield
        except asyncio.CancelledError:
            if not self._gone or task.uncancel() > 0:
                raise
            raise ClientGone from None
        finally:
            watcher.cancel()

    async def _watch(
        self, task: asyncio.Task[Any], keep_alive: Callable[[], Awaitable[None]] | None
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    if (await self._receive())["type"] == "http.disconnect":
                        break
            silent = loop.time() - self.written_at
            if self._writing:
                if silent > STALL_SECONDS:
                    break
            elif keep_alive is not None and silent > SILENCE_SECONDS:
                try:
                    async with asyncio.timeout(STALL_SECONDS):
                        await keep_alive()
                except TimeoutError:
                    break
        self._gone = True
        task.cancel()

    async def _discard(self) -> bool:
        """Take what is left of a body, for a moment: a client that still sends reads no answer.

        False when that was not all of it. A client that asks first sends none.
        """
        if "expect" in self.headers:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while (message := await self._receive()).get("more_body"):
                    pass
                if message["type"] == "http.disconnect":
                    raise ClientGone
                return True
        return False


def clean_path(path: str) -> str:
    """``path`` without doubled and trailing slashes: clients append theirs to any base URL."""
    return "/" + "/".join(part for part in path.split("/") if part)


def decoded_headers(scope: Scope) -> dict[str, str]:
    """The headers by lower-case name; of a name that comes twice the last counts."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _too_large(limit: int) -> Refusal:
    told = f"the body is larger than {limit:,} bytes"
    return Refusal(413, told, code="too_large", headers=(_CLOSE,))
