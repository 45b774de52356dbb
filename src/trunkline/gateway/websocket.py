"""One WebSocket in raw ASGI: a real status for a refusal, back-pressure, silence after the end.

https://asgi.readthedocs.io/en/latest/specs/www.html#websocket
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from urllib.parse import parse_qs

import msgspec

from ..clock import new_id
from .auth import NOBODY
from .exchange import JSON, STALL_SECONDS, ClientGone, Message, Receive, Scope, Send, clean_path
from .exchange import decoded_headers as headers_of
from .names import model_of
from .refusal import Refusal
from .short_way import SHORT_WAY, ShortWay, Take

NORMAL, GOING_AWAY, REFUSED, FAILED = 1000, 1001, 1008, 1011
"""Close codes of RFC 6455, section 7.4. No client looks at them; people who debug do."""


class Socket:
    """A WebSocket with an id of its own. Once it is closed from either side nothing is sent.

    A frame that arrives after the client shut its side down ends the process of a client on
    Node 20, so ``send`` after an end is silent, not an error.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.id = new_id()
        self.path = clean_path(scope["path"])
        self.headers = headers_of(scope)
        self.query: bytes = scope["query_string"]
        self.principal = NOBODY
        self.accepted = False
        self.is_over = False
        self.error_of: Callable[[str, Refusal], str] = _error
        """How this door's clients are told what is wrong; the first is the socket's id."""
        self._receive = receive
        self._send = send
        self._short_way: ShortWay | None = scope.get("extensions", {}).get(SHORT_WAY)

    @property
    def model(self) -> str:
        """The model that the query names."""
        return model_of(parse_qs(self.query.decode("latin-1")).get("model", [""])[-1])

    async def accept(self) -> None:
        """Answer the upgrade. Until then a refusal is a status, and only 4xx there is final."""
        message = await self._receive()
        if message["type"] != "websocket.connect":
            raise ClientGone
        self.accepted = True
        own = [(b"x-request-id", self.id.encode())]
        await self._tell({"type": "websocket.accept", "headers": own})

    async def refuse(self, refusal: Refusal) -> None:
        """Tell what is wrong and end: a status while the upgrade is open, then an ``error``.

        After an ``error`` nothing may follow, so the socket is closed as well.
        """
        if self.accepted:
            await self.send(self.error_of(self.id, refusal))
            await self.close(REFUSED if refusal.status < 500 else FAILED)
            return
        self.is_over = True
        own = [(b"content-type", JSON), (b"x-request-id", self.id.encode())]
        await self._tell(
            {
                "type": "websocket.http.response.start",
                "status": refusal.status,
                "headers": [*own, *refusal.headers],
            }
        )
        body = refusal.json(self.id)
        await self._tell({"type": "websocket.http.response.body", "body": body})

    def offer_to(self, take: Take) -> None:
        """Offer each text to ``take`` as it arrives where the server can; ``receive`` has the rest.

        It is asked only while nothing waits to be received, so that the order stays.
        """
        if self._short_way is not None:
            self._short_way.offer_to(take)

    async def receive(self) -> str | bytes | None:
        """The next message, text or bytes; None once the client has closed."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self.is_over = True
            return None
        text: str | None = message.get("text")
        return text if text is not None else bytes(message["bytes"])

    async def send(self, text: str) -> None:
        """Send a text frame; waits while the client takes none. Raises ClientGone at the stall."""
        if self.is_over or (self._short_way is not None and self._short_way.write(text)):
            return
        await self._tell({"type": "websocket.send", "text": text})

    async def close(self, code: int = NORMAL, reason: str = "") -> None:
        """End it from here. Idempotent."""
        if not self.is_over:
            self.is_over = True
            with contextlib.suppress(ClientGone):
                await self._tell({"type": "websocket.close", "code": code, "reason": reason})

    async def _tell(self, event: Message) -> None:
        try:
            async with asyncio.timeout(STALL_SECONDS):
                await self._send(event)
        except (TimeoutError, OSError):  # OSError is ASGI's word for a client that has gone
            self.is_over = True
            raise ClientGone from None


def _error(socket_id: str, refusal: Refusal) -> str:
    """The error of LiveKit's speech protocols: its id is in the text too, which clients log."""
    return msgspec.json.encode(
        {
            "type": "error",
            "message": f"{refusal} (request {socket_id})",
            "code": refusal.status,
            "session_id": socket_id,
            "request_id": socket_id,
        }
    ).decode()
