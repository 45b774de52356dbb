"""A gateway serves tens of thousands of chats of every kind, and is no larger afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml

BEARER = "bearer-of-a-test"
WARM, CHATS = 10_000, 50_000
LANES = 16
MAIN = "from trunkline.cli import main; main()"
DONE = b"0\r\n\r\n"


def event(**fields: object) -> bytes:
    data = b"data: " + json.dumps({"id": "c", **fields}).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def word(text: str, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": finish}])


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FAILED = b"HTTP/1.1 500 No\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
ANSWER = STREAM + word("Good ") * 20 + word("day.", "stop") + DONE


async def provide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request as its model says: well, with an error, cut, or slowly."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length))
            if b'"model":"fail' in body:
                writer.write(FAILED)
            elif b'"model":"cut' in body:
                writer.write(STREAM + word("Good "))
                break
            elif b'"model":"slow' in body:
                writer.write(STREAM + word("Good "))
                await asyncio.sleep(0.2)
                writer.write(word("day.", "stop") + DONE)
            else:
                writer.write(ANSWER)
            await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def served(place: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """``trunkline serve``, a process of its own."""
    upstream = await asyncio.start_server(provide, "127.0.0.1", 0, limit=1 << 20)
    port = upstream.sockets[0].getsockname()[1]
    vendor = {"kind": "openai", "api_key": "x", "base_url": f"http://127.0.0.1:{port}/v1"}
    said = {
        "version": 1,
        "state": str(place / "state"),
        "gateway": {"bearer": [BEARER]},
        "providers": {"vendor": vendor},
        "routes": {"shaky": {"modality": "llm", "candidates": ["vendor/fail", "vendor/now"]}},
    }
    (place / "trunkline.yaml").write_text(yaml.safe_dump(said), "utf-8")
    with (place / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", MAIN, "serve", "--port", "0"),
            cwd=place,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)
        upstream.close()


def asks(chance: random.Random) -> Iterator[tuple[bytes, bool]]:
    """Requests with names that never came before, and whether the client hangs up half way."""
    while True:
        name = f"{chance.getrandbits(48):x}"
        model = chance.choices(
            ["vendor/now", f"vendor/now-{name}", "shaky", f"vendor/fail-{name}", "vendor/cut",
             f"nobody/{name}", "vendor/slow"],
            [50, 25, 5, 5, 3, 4, 8],
        )[0]  # fmt: skip
        words = "x" * int(10 ** chance.uniform(1, 5))
        stream = model == "vendor/slow" or chance.random() < 0.5
        body = json.dumps(
            {"model": model, "messages": [{"role": "user", "content": words}], "stream": stream}
        ).encode()
        key = BEARER if chance.random() < 0.98 else name
        ids = "".join(f"X-LiveKit-{x}-ID: {name}\r\n" for x in ("Room", "Job", "Session", "Agent"))
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n"
            f"{ids}Content-Length: {len(body)}\r\n\r\n"
        )
        yield head.encode() + body, model == "vendor/slow"


async def lane(port: int, requests: Iterator[tuple[bytes, bool]], seen: Counter[bytes]) -> None:
    """Ask one after the other, on a connection as long as it lasts."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request, leaves in requests:
        if reader.at_eof() or writer.is_closing():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            seen[head[9:12]] += 1
            if leaves:
                writer.transport.abort()
            elif found := re.search(rb"content-length: (\d+)", head):
                await reader.readexactly(int(found[1]))
            else:
                await reader.readuntil(b"\r\n" + DONE)
        except (asyncio.IncompleteReadError, ConnectionError):  # a stream that was cut is told so
            seen[b"cut"] += 1
        if reader.at_eof():
            writer.close()
    writer.close()


@pytest.mark.soak
async def test_fifty_thousand_chats_leave_a_gateway_as_large_as_ten_thousand(
    tmp_path: Path,
) -> None:
    seen: Counter[bytes] = Counter()
    sizes = []
    async with served(tmp_path) as process:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        found = re.search(rb":(\d+)/v1", line)
        assert found, (tmp_path / "log").read_text("utf-8")
        port = int(found[1])
        requests = asks(random.Random(1))
        for _ in range(CHATS // WARM):
            part = iter([next(requests) for _ in range(WARM)])
            await asyncio.gather(*(lane(port, part, seen) for _ in range(LANES)))
            sizes.append(resident(process.pid))
    print([f"{size / 1000:.1f} MB" for size in sizes], dict(seen))
    assert {b"200", b"401", b"404", b"502"} <= seen.keys()
    assert sizes[-1] - sizes[0] < 8_000, "kilobytes: what comes and goes moves it by five"
    assert sizes[-1] < 90_000


def resident(pid: int) -> int:
    """Kilobytes of memory that a process has."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("utf-8"))
    assert found
    return int(found[1])
