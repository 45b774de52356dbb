"""What the client does when the wire misbehaves, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
import traceback

import pytest
from llm_server import CUT, DONE, NO_ANSWER, STALL, Answer, ChatServer, delta, event, say

from trunkline.errors import (
    ConnectFailed,
    DeadlineExceeded,
    ProtocolViolation,
    ProviderError,
    ProviderFault,
    RateLimited,
    RequestRejected,
    StreamCut,
    Unauthorized,
)
from trunkline.runtime.chat import ChatRequest
from trunkline.runtime.sse import EVENT_LIMIT
from trunkline.runtime.wire_llm import WireLLM, WireStream

KEY = "sk-secret-0123456789"
ASK = ChatRequest([{"role": "user", "content": "my words"}])
HI = delta(content="Hi")


@contextlib.asynccontextmanager
async def connected(*answers, **options):
    """A server with these answers and a client for it; the test fails after 30 s."""
    async with asyncio.timeout(30), ChatServer(*answers) as server:
        client = WireLLM(base_url=server.base_url, api_key=KEY, **options)
        try:
            yield server, client
        finally:
            await client.aclose()


async def said(stream: WireStream) -> str:
    return "".join([delta.text async for delta in stream])


async def collect(stream: WireStream, pieces: list[str]) -> None:
    async for piece in stream:
        pieces.append(piece.text)


async def until(condition, seconds: float = 20.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the server's counters have no event
            await asyncio.sleep(0.005)


def refused(status: int, body: bytes = b"{}", **headers: str) -> Answer:
    return Answer([body], status, headers, "application/json", length=True)


LONG = [b"data: " + b"x" * (EVENT_LIMIT // 4)] + [b"x" * (EVENT_LIMIT // 4)] * 4
FAULTS = {
    # name: (answer, text before the error, error, part of its message)
    "cut in the middle of a chunk": ([HI, HI[:20], CUT], "Hi", StreamCut, "cut"),
    "cut between chunks": ([HI, CUT], "Hi", StreamCut, "cut"),
    "clean end without [DONE]": ([HI], "Hi", StreamCut, "whole"),
    "clean end inside an event": ([HI, HI[:30]], "Hi", StreamCut, "whole"),
    "nothing at all": ([], "", StreamCut, "whole"),
    "garbage": ([HI, b"data: {nonsense\n\n"], "Hi", ProtocolViolation, "not a chat"),
    "not an object": ([HI, b"data: [1]\n\n"], "Hi", ProtocolViolation, "not a chat"),
    "not UTF-8": ([b'data: {"id": "\xff"}\n\n'], "", ProtocolViolation, "not a chat"),
    "nested without end": ([b"data: " + b"[" * 9999 + b"\n\n"], "", ProtocolViolation, "not a"),
    "wrong type": ([delta(content=7)], "", ProtocolViolation, "content"),
    "stray tool arguments": (
        [delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}])],
        "",
        ProtocolViolation,
        "not open",
    ),
    "an endless line": ([HI, *LONG], "Hi", ProtocolViolation, "longer than"),
    "endless data lines": (
        [HI, *[b"data: " + b"x" * 65536 + b"\n"] * 20],
        "Hi",
        ProtocolViolation,
        "longer",
    ),
    "an endless JSON answer": (
        Answer([b" " * 65536] * 20, content_type="application/json"),
        "",
        ProtocolViolation,
        "longer",
    ),
    "a web page": (Answer([b"<p>"], content_type="text/html"), "", ProtocolViolation, "base_url"),
    "error event": ([HI, event(error={"message": "boom"})], "Hi", ProviderFault, "boom"),
    "error event with a code": (
        [event(error={"message": "slow", "code": 429})],
        "",
        RateLimited,
        "slow",
    ),
    "error as text": ([event(error="boom")], "", ProviderFault, "boom"),
    "finish reason error": ([HI, delta("error")], "Hi", ProviderFault, "'error'"),
    "not HTTP": (Answer(status=-1), "", ProtocolViolation, "HTTP"),
    "a redirect": (refused(307, Location="http://127.0.0.1:1/"), "", RequestRejected, "redirects"),
    "401": (refused(401, b'{"error": {"message": "bad key"}}'), "", Unauthorized, "bad key"),
    "an error whose body stalls": (
        Answer([b'{"error": "over', STALL], 503),
        "",
        ProviderFault,
        "503",
    ),
    "cut JSON": (
        Answer([b'{"choices": [', CUT], content_type="application/json"),
        "",
        StreamCut,
        "cut",
    ),
}


@pytest.mark.parametrize(("answer", "before", "kind", "told"), FAULTS.values(), ids=FAULTS)
async def test_a_fault_is_one_error_after_the_text_before_it(answer, before, kind, told):
    async with connected(answer) as (server, client):
        stream = client.stream("m", ASK)
        pieces: list[str] = []
        with pytest.raises(ProviderError, match=told) as caught:
            await collect(stream, pieces)
        await stream.aclose()
        await stream.aclose()
        assert (type(caught.value), "".join(pieces)) == (kind, before)
        assert stream.text_chars == len(before)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert KEY not in shown
        assert "my words" not in shown
        assert [d async for d in stream] == []
        assert len(server.requests) == 1


async def test_429_carries_the_wait_and_the_request_id_and_keeps_the_connection():
    answer = refused(
        429, b'{"error": {"message": "slow"}}', **{"Retry-After": "7", "x-request-id": "r1"}
    )
    async with connected(answer, say("ok")) as (server, client):
        with pytest.raises(RateLimited) as caught:
            await said(client.stream("m", ASK))
        assert (caught.value.retry_after, caught.value.request_id, caught.value.status) == (
            7.0,
            "r1",
            429,
        )
        assert await said(client.stream("m", ASK)) == "ok"
        assert server.connections == 1


async def test_nobody_listening_is_a_failed_connection():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = WireLLM(base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1", api_key=KEY)
        with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1"):
            await said(client.stream("m", ASK))
        await client.prewarm()
        await client.aclose()


async def test_an_endless_handshake_is_a_connect_deadline():
    with socket.create_server(("127.0.0.1", 0)) as mute:
        client = WireLLM(
            base_url=f"https://127.0.0.1:{mute.getsockname()[1]}", api_key=KEY, connect_timeout=0.2
        )
        with pytest.raises(DeadlineExceeded) as caught:
            await said(client.stream("m", ASK))
        assert (caught.value.phase, caught.value.seconds) == ("connect", 0.2)
        await client.aclose()


async def test_a_pooled_connection_that_died_is_replaced_once_unnoticed():
    async with connected(say("a"), NO_ANSWER, say("b")) as (server, client):
        assert await said(client.stream("m", ASK)) == "a"
        assert await said(client.stream("m", ASK)) == "b"
        assert [r.connection for r in server.requests] == [0, 0, 1]


async def test_a_fresh_connection_that_dies_is_not_tried_again():
    async with connected(NO_ANSWER) as (server, client):
        with pytest.raises(ConnectFailed, match="closed"):
            await said(client.stream("m", ASK))
        assert len(server.requests) == 1


async def test_prewarming_saves_the_first_request_its_connection():
    async with connected(say("a")) as (server, client):
        await client.prewarm()
        assert await said(client.stream("m", ASK)) == "a"
        assert [r.method for r in server.requests] == ["HEAD", "POST"]
        assert server.connections == 1


async def test_a_whole_answer_gives_its_connection_back_even_if_the_end_drips():
    slow_end = Answer([*say("a"), 0.05])
    async with connected(slow_end, say("b")) as (server, client):
        stream = client.stream("m", ASK)
        assert await said(stream) == "a"
        await stream.aclose()
        await asyncio.sleep(0.15)
        assert await said(client.stream("m", ASK)) == "b"
        assert server.connections == 1


async def test_an_answer_that_never_ends_after_done_is_hung_up_on():
    async with connected(Answer([*say("a"), STALL])) as (server, client):
        assert await said(client.stream("m", ASK)) == "a"
        await until(lambda: server.open == 0)


async def test_giving_up_in_the_middle_hangs_up_and_leaves_nothing():
    async with connected([HI, STALL]) as (server, client):
        before = asyncio.all_tasks()
        stream = client.stream("m", ASK)
        assert (await anext(stream)).text == "Hi"
        await stream.aclose()
        await until(lambda: server.open == 0)
        assert {t for t in asyncio.all_tasks() - before if "_connected" not in str(t)} == set()
        assert [d async for d in stream] == []


@pytest.mark.parametrize("answer", [[HI, STALL], Answer([STALL])], ids=["body", "first byte"])
async def test_a_cancelled_wait_leaves_neither_socket_nor_task(answer):
    async with connected(answer) as (server, client):
        stream = client.stream("m", ASK)
        task = asyncio.create_task(said(stream))
        await until(lambda: server.requests)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await stream.aclose()
        await until(lambda: server.open == 0)
        assert len(asyncio.all_tasks()) <= 2


async def test_a_wait_cancelled_in_the_body_can_be_taken_up_again():
    async with connected([HI, 1.0, HI, DONE]) as (_, client):
        stream = client.stream("m", ASK)
        await anext(stream)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(stream), 0.05)
        assert await said(stream) == "Hi"


async def test_a_request_cancelled_before_its_answer_is_not_sent_again():
    async with connected(NO_ANSWER) as (_, client):
        stream = client.stream("m", ASK)
        task = asyncio.create_task(said(stream))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(StreamCut, match="given up"):
            await anext(stream)


async def test_twenty_at_once_each_get_their_own_answer():
    async with connected([HI, 0.02, HI, 0.02, *say("!")]) as (server, client):
        assert (
            await asyncio.gather(*(said(client.stream("m", ASK)) for _ in range(20)))
            == ["HiHi!"] * 20
        )
        assert server.connections == 20
        await asyncio.gather(*(said(client.stream("m", ASK)) for _ in range(20)))
        assert server.connections == 20
    assert server.open == 0


async def test_compression_nobody_asked_for_is_read_all_the_same():
    body = gzip.compress(b"".join(say("a")))
    answer = Answer([body], headers={"Content-Encoding": "gzip"}, length=True)
    async with connected(answer) as (_, client):
        assert await said(client.stream("m", ASK)) == "a"


async def test_closing_the_client_cuts_its_streams_and_refuses_new_ones():
    async with connected([HI, STALL]) as (server, client):
        stream = client.stream("m", ASK)
        await anext(stream)
        await client.aclose()
        await client.aclose()
        with pytest.raises(StreamCut):
            await anext(stream)
        with pytest.raises(ConnectFailed, match="closed"):
            await said(client.stream("m", ASK))
        await until(lambda: server.open == 0)


async def test_a_closed_client_answers_nothing():
    client = WireLLM(base_url="http://127.0.0.1:9/v1", api_key=None)
    await client.aclose()
    await client.prewarm()
    with pytest.raises(ConnectFailed, match="closed"):
        await said(client.stream("m", ASK))
