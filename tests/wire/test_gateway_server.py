"""The server around the doors: what it costs to start, whom it hangs up on, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from gateway_house import (
    ASK,
    AUTH,
    BEARER,
    House,
    events,
    running,
    serving,
    settings,
    text_of,
    until,
)
from llm_server import DONE, Answer, ChatServer, delta, say
from yarl import URL

from trunkline.doubles import Double
from trunkline.gateway import attendance, exchange, protocol
from trunkline.gateway.server import listen
from trunkline.store.ingest import LEDGER_NAME

MAIN = "import sys; from trunkline.cli import main; main()"
BODY = json.dumps({"model": "answer", "stream": True, **ASK}).encode()
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n" % (
    BEARER.encode()
)
REQUEST = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Process:
    """``trunkline serve`` as a user starts it."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url

    async def ask(self, session: aiohttp.ClientSession) -> str:
        body = {"model": "answer", "stream": True, **ASK}
        url = f"{self.url}/chat/completions"
        async with session.post(url, json=body, headers=AUTH) as answer:
            assert answer.status == 200, await answer.text()
            return text_of(events(await answer.read()))

    async def ended(self, seconds: float = 60.0) -> tuple[int, str]:
        """(status, what it wrote) after it has ended by itself."""
        out, _ = await asyncio.wait_for(self.process.communicate(), seconds)
        return self.process.returncode or 0, out.decode()


@contextlib.asynccontextmanager
async def started(
    tmp_path: Path, *arguments: str, code: str = MAIN, **said: Any
) -> AsyncIterator[Process]:
    (tmp_path / "trunkline.yaml").write_text(yaml.safe_dump(said), "utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, "serve", "--port", "0", *arguments),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
        url = re.search(r"http://\S+", line)
        assert url, line + (await process.stdout.read()).decode()
        yield Process(process, url[0])
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as one:
        yield one


async def test_what_speaks_openais_protocols_never_loads_livekit_and_stays_small(
    tmp_path: Path, session: aiohttp.ClientSession, state_dir: Path
) -> None:
    heavy = {"livekit", "sqlalchemy", "alembic", "pydantic", "typer"}
    told = f"sorted({heavy} & sys.modules.keys())"
    code = f"import atexit, sys; atexit.register(lambda: print({told}, flush=True)); {MAIN}"
    async with ChatServer(say("Hi")) as server, Double.serve(["openai"]) as talks:
        said = settings({"openai": server})
        url = talks.base_url("openai")
        said["providers"]["talks"] = {"kind": "openai", "api_key": "sk", "base_url": url}
        async with started(tmp_path, code=code, **said) as gateway:
            assert await gateway.ask(session) == "Hi"
            url = f"{gateway.url}/realtime?model=talks/gpt-realtime"
            async with session.ws_connect(url, headers=AUTH) as wire:
                assert "session.created" in await wire.receive_str()
            memory = resident(gateway.process.pid)
            question = {"type": "noul", "instructions": "Is it over?"}
            asked = {"state": "user: Bye.", "questions": {"over": question}}
            url = f"{gateway.url}/decisions"
            async with session.post(url, json=asked, headers=AUTH) as answer:
                assert (answer.status, "JSON" in await answer.text()) == (502, True)
            gateway.process.send_signal(signal.SIGTERM)
            status, out = await gateway.ended()
    assert (status, out.splitlines()[-1]) == (0, "[]")
    assert (state_dir / LEDGER_NAME).exists(), "it was written without them"
    assert memory < 90 << 10


def resident(pid: int) -> int:
    """Kilobytes of memory that a process has."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("utf-8"))
    assert found
    return int(found[1])


PATIENT = {"deadlines": {"first_content": 20, "idle": 20}}


async def listens(session: aiohttp.ClientSession, gateway: Process) -> bool:
    """Whether somebody new is let in."""
    try:
        async with session.get(f"{gateway.url}/models", headers=AUTH):
            return True
    except aiohttp.ClientConnectorError:
        return False


async def test_the_end_waits_for_what_runs_and_for_what_it_cost(
    tmp_path: Path, session: aiohttp.ClientSession, state_dir: Path
) -> None:
    slow = Answer([delta(content="Good "), 3.0, *say("day.")])
    async with (
        ChatServer(slow) as server,
        started(tmp_path, **settings({"openai": server}, PATIENT)) as gateway,
    ):
        running = asyncio.create_task(gateway.ask(session))
        await until(lambda: server.requests)
        gateway.process.send_signal(signal.SIGTERM)
        while await listens(session, gateway):
            assert not running.done(), "nobody new is let in while the old is served"
        assert await running == "Good day."
        status, _ = await gateway.ended()
        assert status == 0
    with contextlib.closing(sqlite3.connect(state_dir / LEDGER_NAME)) as ledger:
        [outcome] = ledger.execute("select outcome from attempts").fetchone()
    assert outcome == "ok"


@pytest.mark.parametrize("told_by", ["SIGHUP", "the file"])
async def test_a_reload_drops_no_stream(
    tmp_path: Path, session: aiohttp.ClientSession, told_by: str
) -> None:
    slow = Answer([delta(content="a"), 1.5, *say("b")])
    async with (
        ChatServer(slow, say("old")) as first,
        ChatServer(say("new")) as second,
        started(tmp_path, **settings({"openai": first}, PATIENT)) as gateway,
    ):
        running = asyncio.create_task(gateway.ask(session))
        await until(lambda: first.requests)
        changed = settings({"openai": second}, PATIENT)
        changed["gateway"]["bearer"].append("one-more")
        replaced = tmp_path / "new.yaml"
        replaced.write_text(yaml.safe_dump(changed), "utf-8")
        replaced.rename(tmp_path / "trunkline.yaml")
        if told_by == "SIGHUP":
            gateway.process.send_signal(signal.SIGHUP)
        for _ in range(300):
            if (answer := await gateway.ask(session)) == "new":
                break
            await asyncio.sleep(0.1)
        assert answer == "new"
        assert await running == "ab"
        more = {"Authorization": "Bearer one-more"}
        async with session.get(f"{gateway.url}/models", headers=more) as answer:
            assert answer.status == 200


async def test_workers_share_the_port_and_one_that_dies_is_replaced(
    tmp_path: Path, session: aiohttp.ClientSession
) -> None:
    async with ChatServer(say("Hi")) as server:
        said = settings({"openai": server})
        async with started(tmp_path, "--workers", "2", **said) as gateway:
            assert await gateway.ask(session) == "Hi"
            children = Path(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children")

            def workers() -> list[int]:
                return [int(pid) for pid in children.read_text("utf-8").split()]

            await until(lambda: len(workers()) == 2)
            await asyncio.sleep(1.2)
            victim, other = workers()
            os.kill(victim, signal.SIGKILL)
            await until(lambda: victim not in workers() and len(workers()) == 2)
            assert other in workers()
            async with aiohttp.ClientSession() as fresh:
                assert await gateway.ask(fresh) == "Hi"
            gateway.process.send_signal(signal.SIGTERM)
            status, _ = await gateway.ended()
            assert status == 0


async def test_workers_are_reloaded_and_drained_together(tmp_path: Path) -> None:
    slow = Answer([delta(content="Good "), 2.0, *say("day.")])
    async with ChatServer(say("old")) as first, ChatServer(slow, slow, say("new")) as second:
        said = settings({"openai": first}, PATIENT)
        async with started(tmp_path, "--workers", "2", **said) as gateway:
            file = tmp_path / "trunkline.yaml"
            await asyncio.gather(*[told(gateway, "old") for _ in range(8)])
            file.write_text("version: 1\nroutes: [", "utf-8")
            gateway.process.send_signal(signal.SIGHUP)
            await asyncio.gather(*[told(gateway, "old") for _ in range(8)])
            file.write_text(yaml.safe_dump(settings({"openai": second}, PATIENT)), "utf-8")
            gateway.process.send_signal(signal.SIGHUP)
            running = [asyncio.create_task(answered(gateway)) for _ in range(8)]
            await until(lambda: len(second.requests) >= 2)
            gateway.process.send_signal(signal.SIGTERM)
            answers = [await one for one in running]
            status, out = await gateway.ended()
    assert status == 0
    assert answers.count("Good day.") == 2
    assert set(answers) <= {"Good day.", "new", "old"}
    assert "the settings were not reloaded: trunkline.yaml:3: not valid YAML" in out
    assert "Traceback" not in out


async def answered(gateway: Process) -> str:
    """The answer on a connection of its own: the next one may reach another worker."""
    async with aiohttp.ClientSession() as session:
        return await gateway.ask(session)


async def told(gateway: Process, text: str) -> None:
    assert await answered(gateway) == text


@pytest.mark.parametrize(
    ("arguments", "said", "told"),
    [
        (["--host", "0.0.0.0"], {}, "secrets of your own"),
        (["--host", "0.0.0.0"], {"gateway": {"keys": {"APIx": "secret"}}}, "secrets of your own"),
        (["--host", "no.such.host.invalid"], {"gateway": {"bearer": ["x" * 20]}}, "cannot listen"),
        (["--workers", "0"], {}, "--workers"),
        ([], {"gateway": {"port": 70000}}, "gateway.port"),
        ([], {"gateway": {"keys": ["x"]}}, "gateway.keys"),
        ([], {"gateway": {"barer": ["x"]}}, "bearer"),
    ],
    ids=str,
)
async def test_what_cannot_be_served_is_one_sentence(
    tmp_path: Path, arguments: list[str], said: dict[str, Any], told: str
) -> None:
    with pytest.raises(AssertionError) as failed:
        async with started(tmp_path, *arguments, version=1, **said):
            pass
    assert "error: " in str(failed.value)
    assert told in str(failed.value)
    assert "Traceback" not in str(failed.value)


SLOW = [
    ("nothing at all", b"", 0),
    ("half a head", b"POST /v1/chat/comp", 0),
    ("a head that never ends", HEAD, 0),
    ("half a body", HEAD + b"Content-Length: 900\r\n\r\n{", 408),
]


async def test_whoever_is_too_slow_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.4)
    monkeypatch.setattr(exchange, "BODY_SECONDS", 0.4)
    monkeypatch.setattr(attendance, "TICK_SECONDS", 0.1)
    async with serving(tmp_path, say("Hi")) as (house, servers):
        for name, data, status in SLOW:
            got = await house.raw(data)
            assert (status == 0 and got == b"") or b" %d " % status in got[:16], name
        assert servers[0].requests == []
        second = REQUEST.replace(b"Connection: close\r\n", b"") + b"GET /v1/mod"
        got = await house.raw(second)
        assert got.count(b"HTTP/1.1 ") == 1
        assert DONE in got


async def test_a_head_that_drips_is_cut_off_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
    async with serving(tmp_path, say("Hi")) as (house, _):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(HEAD)
        begun = time.monotonic()
        while time.monotonic() - begun < 30 and not reader.at_eof():
            with contextlib.suppress(ConnectionError):
                writer.write(b"X-A: b\r\n")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), 0.1)
        assert reader.at_eof()
        writer.close()


WRONG_HTTP = [
    ("no HTTP", b"hello\r\n\r\n", b"400"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 64, b"400"),
    ("an endless head", HEAD + b"X-A: " + b"a" * 100_000, b"400"),
    ("two lengths", HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", b"400"),
    (
        "a length and chunks",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"400",
    ),
    ("a broken chunk", HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"400"),
    ("a line end in a header", HEAD + b"X-LiveKit-Room-ID: a\rb\r\n\r\n", b"400"),
    ("a zero byte in a header", HEAD + b"X-LiveKit-Room-ID: a\x00b\r\n\r\n", b"400"),
    ("too large by its length", HEAD + b"Content-Length: 99999999\r\n\r\n", b"413"),
    (
        "traversal in the path",
        b"GET /v1/../healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"404",
    ),
    ("a path that is none", b"GET /\xff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"40"),
]


async def test_what_is_no_request_is_refused_and_hurts_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path, say("Hi")) as (house, servers):
        for name, data, status in WRONG_HTTP:
            got = await house.raw(data)
            assert got.startswith(b"HTTP/1.1 " + status), (name, got[:80])
            head, _, body = got.partition(b"\r\n\r\n")
            error = json.loads(body)["error"]
            assert error["request_id"].encode() in head, name
        assert servers[0].requests == []
        assert text_of(events(await house.raw(REQUEST))) == "Hi"


async def test_a_body_without_a_length_has_the_same_limit(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield b" " * (1 << 19)

    async with serving(tmp_path, say("Hi")) as (house, _):
        url = f"{house.url}/chat/completions"
        async with house.session.post(url, data=endless(), headers=AUTH) as answer:
            assert answer.status == 413


async def test_a_client_that_never_reads_slows_its_provider_and_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "STALL_SECONDS", 1.0)
    monkeypatch.setattr(attendance, "TICK_SECONDS", 0.2)
    piece = delta(content="x" * 500_000)
    async with serving(tmp_path, (Answer([piece] * 60), say("Hi"))) as (house, servers):
        _, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1024)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(REQUEST)
        await until(lambda: servers[0].requests)
        async with house.ask(stream=True) as other:
            assert text_of(events(await other.read())) == "Hi"
        await until(lambda: len(house.attempts) == 2, 10)
        assert {attempt.outcome for attempt in house.attempts} == {"ok", "cancelled"}
        writer.transport.abort()


async def test_no_answer_waits_for_an_acknowledgement() -> None:
    with (
        listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()),
        listening.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_sockets_without_a_door_are_404(tmp_path: Path) -> None:
    async with serving(tmp_path, say("Hi")) as (house, _):
        for path in ("eot", "bargein", "nowhere"):
            for headers in (AUTH, {}):
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await house.session.ws_connect(f"{house.url}/{path}", headers=headers)
                assert refused.value.status == 404
                assert refused.value.headers
                assert refused.value.headers["x-request-id"]
        async with house.session.post(f"{house.url}/bargein", headers=AUTH, data=b"x") as answer:
            assert answer.status == 404


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/nowhere", "under '/v1/nowhere'"),
        ("/chat/completions", "the base URL of a client ends in /v1"),
        ("/stt", "the base URL of a client ends in /v1"),
        ("/a%0Db%C3%A9", r"under '/a\rb\xe9'"),
    ],
)
async def test_what_is_not_found_is_named(tmp_path: Path, path: str, told: str) -> None:
    async with running(tmp_path, {"version": 1}) as house:
        url = URL(house.url.removesuffix("/v1") + path, encoded=True)
        async with house.session.get(url, headers=AUTH) as answer:
            assert answer.status == 404
            assert told in (await answer.json())["error"]["message"]


async def test_a_load_balancer_is_told_when_to_stop(tmp_path: Path) -> None:
    async with running(tmp_path, {"version": 1}) as house:
        url = house.url.replace("/v1", "/healthz")
        async with house.session.get(url) as answer:
            assert (answer.status, await answer.json()) == (200, {"status": "ok"})
        house.gateway.house.draining.set()
        async with house.session.get(url) as answer:
            assert answer.status == 503
        async with house.session.delete(url) as answer:
            assert (answer.status, answer.headers["allow"]) == (405, "GET")


async def test_connections_are_kept_and_paths_are_read_generously(tmp_path: Path) -> None:
    async with serving(tmp_path, say("Hi")) as (house, _):
        for path in ("//chat/completions", "/chat/completions/", "//chat//completions"):
            url = f"{house.url}{path}"
            async with house.session.post(url, data=BODY, headers=AUTH) as answer:
                assert answer.status == 200
                await answer.read()
        assert connections(house) == 1


def connections(house: House) -> int:
    connector = house.session.connector
    assert isinstance(connector, aiohttp.TCPConnector)
    return sum(map(len, connector._conns.values()))
