"""One HTTP request and its answer, in raw ASGI: limits on the way in, back-pressure on the way out.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ..clock import new_id
from .auth import NOBODY
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

HUNG_UP = "trunkline.hung_up"
"""Where a request's scope holds what the server calls when its client hangs up."""

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
        self.principal = NOBODY
        """Who asks, once it is known."""
        self.started = False
        """Whether the status has left: from then on an error can only be told in the body."""
        self.written_at = 0.0
        """The loop time of the last write, or of now while one waits for the client."""
        self.keep_alive: Callable[[], Awaitable[None]] | None = None
        """What breaks a silence, also before the answer has started."""
        self.form: Callable[[Refusal, str], bytes] = Refusal.json
        """How a refusal is written for this client, with the id of the request."""
        self.heads: Headers = ()
        """Headers of every answer, beside the usual."""
        self._receive = receive
        self._send = send
        self._read = False
        self._reads_since: float | None = None
        self._writing = False
        task = asyncio.current_task()
        assert task is not None
        self._task: asyncio.Task[Any] = task
        self._clock = task.get_loop().time
        self._over: Exception | None = None
        self._speaking: asyncio.Task[None] | None = None
        self._scope = scope
        scope[HUNG_UP] = self.hang_up

    @property
    def last_write(self) -> float:
        """The loop time of the last write; now, as long as the client takes none."""
        return self._clock() if self._writing else self.written_at

    async def body(self, limit: int) -> bytes:
        """The whole body. Raises Refusal (413, 408) and ClientGone."""
        self._read = True
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            await self._discard()
            raise _too_large(limit)
        data = bytearray()
        self._reads_since = self._clock()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            data += message.get("body", b"")
            if len(data) > limit:
                self._reads_since = None
                await self._discard()
                raise _too_large(limit)
            if not message.get("more_body"):
                self._reads_since = None
                return bytes(data)

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
        self.keep_alive = None
        await self.answer(refusal.status, self.form(refusal, self.id), headers=refusal.headers)

    async def start(self, status: int, content_type: bytes, headers: Headers = ()) -> None:
        """Send the status; ``write`` and ``end`` follow."""
        self.started = True
        own = ((b"content-type", content_type), (b"x-request-id", self.id.encode()))
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*own, *self.heads, *headers],
            }
        )

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; waits while the client takes none."""
        self._writing = True
        self.written_at = self._clock()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._writing = False

    async def end(self, data: bytes = b"") -> None:
        """End the body, with ``data``. One that is not ended is cut: so a failure is told."""
        self._writing = True
        self.written_at = self._clock()
        await self._send({"type": "http.response.body", "body": data})

    def begin(self, keep_alive: Callable[[], Awaitable[None]] | None = None) -> None:
        """Begin to work for the client; ``keep_alive`` is called in silences from now on."""
        self.written_at = self._clock()
        self.keep_alive = keep_alive

    def look(self, now: float) -> None:
        """Give up a client that takes or sends nothing, and tell one that waits that we live."""
        if self._reads_since is not None:
            if now - self._reads_since > BODY_SECONDS:
                self._call_off(_too_slow())
        elif self._writing:
            if now - self.written_at > STALL_SECONDS:
                self.hang_up()
        elif self.keep_alive is not None and now - self.written_at > SILENCE_SECONDS:
            self._speaking = asyncio.ensure_future(self.keep_alive())

    def hang_up(self) -> None:
        """End what is done for the client: nobody is there to be answered."""
        self._call_off(ClientGone())

    def called_off(self) -> Exception | None:
        """Why the request's task was cancelled here; None when that was somebody else."""
        return self._over if self._over is not None and self._task.uncancel() == 0 else None

    def close(self) -> None:
        """Have nothing more leave."""
        self._scope.pop(HUNG_UP, None)  # else request and exchange would wait for a collection
        self.keep_alive = None
        if self._speaking is not None:
            self._speaking.cancel()

    def _call_off(self, over: Exception) -> None:
        if self._over is None:
            self._over = over
            self._task.cancel()

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
    if "//" not in path and not path.endswith("/"):
        return path  # as nearly all are
    return "/" + "/".join(part for part in path.split("/") if part)


def decoded_headers(scope: Scope) -> dict[str, str]:
    """The headers by lower-case name; of a name that comes twice the last counts."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


def _too_slow() -> Refusal:
    told = f"the body did not arrive within {BODY_SECONDS:g} s"
    return Refusal(408, told, headers=(_CLOSE,))


def _too_large(limit: int) -> Refusal:
    told = f"the body is larger than {limit:,} bytes"
    return Refusal(413, told, code="too_large", headers=(_CLOSE,))
