"""The short way of a WebSocket reads and writes what uvicorn's own protocol would."""

from __future__ import annotations

import asyncio
import struct
from itertools import pairwise
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.utils import apply_mask

from trunkline.gateway.protocol import SocketProtocol
from trunkline.gateway.short_way import SHORT_WAY

LIMIT = 66_000
MASK = b"\x01\x80\xfe\x37"
UPGRADE = (
    b"GET /v1/stt HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)


def frame(first: int, payload: bytes, *, masked: bool = True) -> bytes:
    """RFC 6455, section 5.2; ``first`` holds FIN, the reserved bits and the opcode."""
    bit, size = 0x80 if masked else 0, len(payload)
    if size < 126:
        head = struct.pack(">BB", first, bit | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, bit | 126, size)
    else:
        head = struct.pack(">BBQ", first, bit | 127, size)
    return head + MASK + apply_mask(payload, MASK) if masked else head + payload


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self._closing = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self._closing = True

    def is_closing(self) -> bool:
        return self._closing

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str) -> Any:
        return None

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Side:
    """A server's side of one connection; ``seen`` is what its application got, by either way.

    It leaves texts that begin with a digit to the long way, and those that are none.
    """

    def __init__(self, protocol: type[WebSocketsSansIOProtocol]) -> None:
        self.seen: list[Any] = []
        self.taken = 0
        self.wire = Wire()
        self._over = asyncio.Event()
        config = uvicorn.Config(
            self._app,
            interface="asgi3",
            log_config=None,
            ws_max_size=LIMIT,
            ws_ping_interval=None,
            ws_per_message_deflate=False,
        )
        config.loaded, config.loaded_app = True, self._app
        self.protocol: Any = protocol(config, ServerState(), {}, asyncio.get_running_loop())
        self.protocol.connection_made(self.wire)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if SHORT_WAY in scope["extensions"]:
            scope["extensions"][SHORT_WAY].offer_to(self._take)
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            self.seen.append(message.get("text", message.get("bytes")))
        self.seen.append(message.get("code"))
        await self._over.wait()

    def _take(self, text: bytes) -> bool:
        try:
            said = text.decode()
        except UnicodeDecodeError:
            return False
        if said[:1].isdigit():
            return False
        self.seen.append(said)
        self.taken += 1
        return True

    async def open(self) -> None:
        self.protocol.data_received(UPGRADE)
        await self.settled()
        assert self.wire.written.startswith(b"HTTP/1.1 101")
        self.wire.written = b""

    async def settled(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def feed(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            if not self.wire.is_closing():
                self.protocol.data_received(piece)
                await self.settled()

    async def end(self) -> None:
        self._over.set()
        self.protocol.connection_lost(None)
        await self.settled()


payloads = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.binary(max_size=140),
    st.sampled_from([125, 126, 127, 65535, 65536, LIMIT, LIMIT + 1]).map(lambda n: b"x" * n),
)
control = st.binary(max_size=125)
frames = st.one_of(
    payloads.map(lambda p: frame(0x81, p)),
    payloads.map(lambda p: frame(0x81, b"word " + p)),
    payloads.map(lambda p: frame(0x81, b"7 " + p)),
    st.tuples(st.sampled_from([0x82, 0x01, 0x02, 0x00, 0x80]), payloads).map(lambda f: frame(*f)),
    st.tuples(st.sampled_from([0x89, 0x8A]), control).map(lambda f: frame(*f)),
    st.sampled_from(
        [
            frame(0x88, b"\x03\xe8"),
            frame(0x88, b""),
            frame(0xC1, b"an extension nobody agreed on"),
            frame(0x83, b"a reserved opcode"),
            frame(0x81, b"no mask", masked=False),
        ]
    ),
)


@settings(deadline=None)
@given(st.lists(frames, max_size=8), st.lists(st.floats(0, 1), max_size=6))
def test_what_arrives_is_read_as_the_library_reads_it(sent: list[bytes], cuts: list[float]) -> None:
    """However it is cut on its way: the messages and answers of the library, a frame at a time."""
    data = b"".join(sent)
    at = [0, *sorted(int(cut * len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(at) if a < b]

    async def played() -> list[Side]:
        sides = [Side(WebSocketsSansIOProtocol), Side(SocketProtocol)]
        for side, parts in zip(sides, (sent, pieces), strict=True):
            await side.open()
            await side.feed(parts)
            await side.end()
        return sides

    theirs, ours = asyncio.run(played())
    assert ours.seen == theirs.seen
    assert ours.wire.written == theirs.wire.written
    assert ours.wire.is_closing() == theirs.wire.is_closing()


async def test_whole_texts_are_taken_at_once_and_in_order() -> None:
    """One that is left waits for its reader, and so does what comes behind it meanwhile."""
    side = Side(SocketProtocol)
    await side.open()
    texts = ["one", "two", "3 waits", "four", "five"]
    side.protocol.data_received(b"".join(frame(0x81, text.encode()) for text in texts))
    assert side.seen == ["one", "two"]
    await side.settled()
    assert side.seen == texts
    side.protocol.data_received(frame(0x81, b"six"))
    assert side.seen[-1] == "six"
    assert side.taken == 3
    await side.end()


async def test_who_speaks_before_the_upgrade_is_answered_goes_the_long_way() -> None:
    """Half a frame may have come by then: nobody knows where the next one begins."""
    side = Side(SocketProtocol)
    side.protocol.data_received(UPGRADE)
    whole = frame(0x81, b"early")
    side.protocol.data_received(whole[:7])
    await side.settled()
    await side.feed([whole[7:], frame(0x81, b"late")])
    assert (side.seen, side.taken) == (["early", "late"], 0)
    await side.end()


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
async def test_a_text_leaves_as_the_library_would_frame_it(size: int) -> None:
    sides = [Side(WebSocketsSansIOProtocol), Side(SocketProtocol)]
    for side in sides:
        await side.open()
    theirs, ours = sides
    await theirs.protocol.send({"type": "websocket.send", "text": "x" * size})
    assert ours.protocol.write("x" * size)
    assert ours.wire.written == theirs.wire.written
    for side in sides:
        await side.end()


async def test_nothing_is_written_that_would_have_to_wait_or_is_late() -> None:
    side = Side(SocketProtocol)
    await side.open()
    side.protocol.pause_writing()
    assert not side.protocol.write("the client takes nothing")
    side.protocol.resume_writing()
    assert side.protocol.write("in time")
    await side.protocol.send({"type": "websocket.close", "code": 1000, "reason": ""})
    assert not side.protocol.write("too late")
    await side.end()
    lost = Side(SocketProtocol)
    await lost.open()
    await lost.end()
    assert not lost.protocol.write("nobody is there")
    assert lost.wire.written == b""
