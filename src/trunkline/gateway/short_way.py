"""uvicorn's WebSocket with a short way for what streams of audio are made of: whole text frames.

A caller's audio comes in frames of some 2 kB, twenty a second. The library reads each by a parser
for every case, and uvicorn hands it to a task through a queue, the connection paused meanwhile.
Here a frame that is whole is read in one step and offered to whoever takes it at once. Everything
else goes the long way, and so does what is not taken. What leaves is framed in one step as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import OPEN

try:
    from websockets.speedups import apply_mask
except ImportError:  # a platform without its wheel
    from websockets.utils import apply_mask

SHORT_WAY = "trunkline.short_way"
"""The extension of a scope that is the ``ShortWay`` itself."""

Take = Callable[[bytes], bool]
"""Takes a text, or leaves it: False. Neither waits nor raises."""

_TEXT = 0x81
"""A frame that is a whole message of text, without extensions (RFC 6455, section 5.2)."""
_MASKED = 0x80
_SIZE_IN_16, _SIZE_IN_64 = 126, 127
"""Sizes that say how many bits of the real one follow."""


class ShortWay(WebSocketsSansIOProtocol):
    """Finds the frames in what arrives, to know where one begins."""

    _take: Take | None = None
    _head = b""
    """The beginning of a frame, too short to tell its size."""
    _left = 0
    """Bytes still to come of a frame that goes the long way."""
    _is_early = False
    """Whether the client spoke before the upgrade was answered: nobody has counted its frames."""

    def offer_to(self, take: Take) -> None:
        """Offer each text to ``take`` as it arrives, while none before it waits to be received."""
        self._take = take

    def write(self, text: str) -> bool:
        """Send a text at once; False when it has to wait, or cannot be sent."""
        if self.conn.state is not OPEN or self.disconnected or not self.writable.is_set():
            return False
        payload = text.encode()
        size = len(payload)
        if size < _SIZE_IN_16:
            head = bytes((_TEXT, size))
        elif size < 1 << 16:
            head = bytes((_TEXT, _SIZE_IN_16, size >> 8, size & 0xFF))
        else:
            head = bytes((_TEXT, _SIZE_IN_64)) + size.to_bytes(8, "big")
        self.transport.write(head + payload)
        return True

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.handshake_complete:  # else it was refused
            cast(Any, self.scope["extensions"])[SHORT_WAY] = self

    def data_received(self, data: bytes) -> None:
        if not self.handshake_complete or self._is_early:
            self._is_early = self.handshake_initiated
            super().data_received(data)
            return
        if self._head:
            data, self._head = self._head + data, b""
        at, end = 0, len(data)
        while at < end and not self.transport.is_closing():
            if not self._left:
                head, size = _extent(data, at)
                if not head:
                    self._head = data[at:]
                    return
                if at + head + size <= end and self._is_taken(data, at, head, size):
                    at += head + size
                    continue
                self._left = head + size
            part = data[at : at + self._left]
            at += len(part)
            self._left -= len(part)
            super().data_received(part)

    def _is_taken(self, data: bytes, at: int, head: int, size: int) -> bool:
        """Whether the frame at ``at`` is a text that somebody has taken."""
        if (
            self._take is None
            or data[at] != _TEXT
            or not data[at + 1] & _MASKED
            or size > self.config.ws_max_size
            or not self.queue.empty()  # it would overtake what waits there
            or self.conn.current_size is not None  # between the parts of a message: a mistake
            or self.conn.state is not OPEN
        ):
            return False
        payload = at + head
        return self._take(apply_mask(data[payload : payload + size], data[payload - 4 : payload]))


def _extent(data: bytes, at: int) -> tuple[int, int]:
    """(bytes of the head, bytes of the payload) of the frame at ``at``; (0, 0): more is needed."""
    left = len(data) - at
    if left < 2:
        return 0, 0
    masked, size = divmod(data[at + 1], _MASKED)
    head = 6 if masked else 2
    if size == _SIZE_IN_16 and left >= 4:
        head += 2
        size = data[at + 2] << 8 | data[at + 3]
    elif size == _SIZE_IN_64 and left >= 10:
        head += 8
        size = int.from_bytes(data[at + 2 : at + 10], "big")
    elif size >= _SIZE_IN_16:
        return 0, 0
    return (head, size) if left >= head else (0, 0)
