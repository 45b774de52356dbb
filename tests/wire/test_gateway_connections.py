"""Connections that are not as they should be: none stays, and none costs who is served."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from gateway_house import BEARER, House, serving, until
from gateway_speech import NOVA, SONIC, speech
from llm_server import DONE, STALL, Answer, delta, say
from test_gateway_server import BODY, HEAD, REQUEST

from trunkline.gateway import attendance, exchange, protocol, tts_line, websocket

KEY = b"Authorization: Bearer %b\r\n" % BEARER.encode()
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
VERSION = b"Sec-WebSocket-Version: 13\r\n"
NONCE = b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
SOUND = UPGRADE + VERSION + NONCE
STT = b"GET /v1/stt?model=ears HTTP/1.1\r\nHost: x\r\n"
PATIENT = {"deadlines": {"first_content": 60, "idle": 60, "total": 120}}

NO_UPGRADE = [
    ("another method", b"POST /v1/stt HTTP/1.1\r\nHost: x\r\n" + KEY + SOUND + b"\r\n", 405),
    ("a body", STT + KEY + SOUND + b"Content-Length: 3\r\n\r\nabc", 400),
    ("a body in chunks", STT + KEY + SOUND + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("an endless token", STT + b"Authorization: Bearer " + b"a" * 9000 + b"\r\n" + SOUND, 400),
    ("an endless query", STT.replace(b"ears", b"e" * 9000) + KEY + SOUND, 400),
    ("many headers", STT + KEY + b"X-A: b\r\n" * 200 + SOUND, 400),
    ("no nonce", STT + KEY + UPGRADE + VERSION, 400),
    ("a nonce that is none", STT + KEY + SOUND.replace(b"AAAA", b"A"), 400),
    ("another version", STT + KEY + SOUND.replace(b"13", b"8"), 400),
    ("no upgrade where only that is served", STT + KEY, 426),
]


async def test_a_socket_outlives_the_time_for_a_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    async with speech(tmp_path, tts=[SONIC]) as house:
        wire = await house.connect("tts")
        await wire.create()
        await asyncio.sleep(0.9)
        assert await wire.spoken("Good day.") == ["good", "day"]
        await wire.close()


@pytest.mark.parametrize(
    ("data", "status"), [row[1:] for row in NO_UPGRADE], ids=[row[0] for row in NO_UPGRADE]
)
async def test_an_upgrade_that_is_none_is_refused_at_once(
    tmp_path: Path, data: bytes, status: int
) -> None:
    async with speech(tmp_path, stt=[NOVA]) as house:
        data = data if b"\r\n\r\n" in data else data + b"\r\n"
        if status == 426:
            data = data[:-2] + b"Connection: close\r\n\r\n"
        head, _, body = (await house.raw(data)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        error = json.loads(body)["error"]
        assert error["request_id"].encode() in head
        wire = await house.connect("stt")
        await wire.create()
        await wire.close()


async def test_an_offer_of_http_2_is_not_taken_and_harms_nothing(tmp_path: Path) -> None:
    """As Java's own client makes it with every request."""
    offer = (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAA\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
    )
    async with serving(tmp_path, say("Hi")) as (house, servers):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        async with asyncio.timeout(30):
            for _ in range(2):
                writer.write(HEAD + offer)
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
                await reader.readuntil(DONE + b"\r\n0\r\n\r\n")
            writer.write(HEAD + offer + REQUEST)
            assert (await reader.read()).count(DONE) == 2
        writer.close()
        assert len(servers[0].requests) == 4


async def test_who_asks_before_he_sends_a_body_is_told_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_DISCARD_SECONDS", 1000.0)
    expect = b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY)
    async with serving(tmp_path, say("Hi")) as (house, _):
        assert (await house.raw(HEAD.replace(KEY, b"") + expect)).startswith(b"HTTP/1.1 401 ")
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        async with asyncio.timeout(30):
            writer.write(HEAD + b"Connection: close\r\n" + expect)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(BODY)
            assert DONE in await reader.read()
        writer.close()


RESTING = [
    ("a line end after an answer", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n"),
    ("the rest of a body that nobody read", REQUEST.replace(KEY, b"")[:-20], b"x"),
]


@pytest.mark.parametrize(
    ("first", "then"), [row[1:] for row in RESTING], ids=[row[0] for row in RESTING]
)
async def test_a_connection_that_rests_in_the_middle_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: bytes, then: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.4)
    monkeypatch.setattr(exchange, "_DISCARD_SECONDS", 0.1)
    async with serving(tmp_path, say("Hi")) as (house, _):
        first = first.replace(b"Connection: close\r\n", b"")
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        async with asyncio.timeout(30):
            writer.write(first)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 ")
            with contextlib.suppress(ConnectionError):
                writer.write(then)
                await reader.read()
        writer.close()


async def test_who_hangs_up_with_a_request_in_the_queue_costs_no_more(tmp_path: Path) -> None:
    """The server knows of the last request of a connection only."""
    answer = Answer([delta(content="Hi"), STALL])
    async with serving(tmp_path, answer, route=PATIENT) as (house, servers):
        one = REQUEST.replace(b"Connection: close\r\n", b"")
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(one + one)
        await reader.readuntil(b"data: ")
        writer.transport.abort()
        await until(lambda: house.attempts and servers[0].open == 0)
        assert [attempt.outcome for attempt in house.attempts] == ["cancelled"]


async def test_who_takes_nothing_is_given_up_though_the_provider_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for the client then is the keep-alive."""
    monkeypatch.setattr(exchange, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(exchange, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(attendance, "TICK_SECONDS", 0.1)
    answer = Answer([delta(content="x" * 500_000)] * 16 + [STALL])
    async with serving(tmp_path, answer, route=PATIENT) as (house, servers):
        client = await never_reading(house, REQUEST)
        await until(lambda: house.attempts and servers[0].open == 0)
        assert [attempt.outcome for attempt in house.attempts] == ["cancelled"]
        await until(lambda: not house.connections)
        client.close()


async def test_what_nobody_takes_is_dropped_with_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is closed in good order waits for who never reads, as long as he likes."""
    monkeypatch.setattr(exchange, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(websocket, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(tts_line, "_LEAD_SECONDS", 1e6)
    async with speech(tmp_path, tts=[SONIC]) as house:
        client = await never_reading(
            house, STT.replace(b"stt?model=ears", b"tts?model=mouth") + KEY + SOUND + b"\r\n"
        )
        await asyncio.sleep(0.5)  # frames may follow the answer to the upgrade only
        loop = asyncio.get_running_loop()
        text = "word " * 300
        for message in (
            {"type": "session.create", "sample_rate": "48000"},
            *[{"type": "input_transcript", "transcript": text}] * 8,
            {"type": "session.flush"},
        ):
            await loop.sock_sendall(client, frame(message))
        await until(lambda: [a.outcome for a in house.attempts] == ["cancelled"])
        await until(lambda: not house.connections)
        client.close()


async def test_a_whole_answer_that_nobody_takes_is_dropped_with_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "STALL_SECONDS", 0.5)
    async with serving(tmp_path, say(*["x" * 500_000] * 16)) as (house, _):
        body = BODY.replace(b'"stream": true, ', b"")
        head = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        client = await never_reading(house, head + body)
        await until(lambda: house.attempts)
        await until(lambda: not house.connections)
        client.close()
        assert DONE in await house.raw(REQUEST)


@pytest.mark.parametrize("model", ["ears", "nobody/here"])
async def test_who_hangs_up_before_the_answer_to_an_upgrade_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    """The application is called as its server calls it, which says by an error that he is gone."""

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(event: Any) -> None:
        raise ConnectionResetError

    scope = {
        "type": "websocket",
        "path": "/v1/stt",
        "query_string": f"model={model}".encode(),
        "headers": [(b"authorization", f"Bearer {BEARER}".encode())],
    }
    async with speech(tmp_path, stt=[NOVA]) as house:
        await house.gateway(scope, receive, send)
        assert not house.gateway.house.plans.in_use
    assert not [record for record in caplog.records if record.exc_info]


async def never_reading(house: House, data: bytes) -> socket.socket:
    """A client with little room for what it is sent, which it leaves where it is."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client, ("127.0.0.1", house.port))
    await loop.sock_sendall(client, data)
    return client


def frame(message: dict[str, Any]) -> bytes:
    """A client's frame, masked with zeros."""
    text = json.dumps(message).encode()
    return bytes([0x81, 0xFE]) + len(text).to_bytes(2, "big") + bytes(4) + text
