"""What a chat costs the caller: first token and CPU, four clients against one server, in one run.

    python -m bench llm_client

The server is a process of its own that answers every request at once with the same 20 chunks. The
clients take turns, so that the machine's moods meet all of them alike. Rows: aiohttp without any
reading of the chunks (the floor), our client, our ``inference.LLM`` with engine, meter and journal,
and the stock plugin ``livekit.plugins.openai``, which the ratios refer to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

CHUNKS = 20
CALLS = 300
ROUNDS = 10
WARM_UP = 20
MESSAGES = [
    {"role": "system", "content": "You are the receptionist of a small hotel. Be brief."},
    {"role": "user", "content": "Have you got a quiet room for two nights, please?"},
]

Call = Callable[[], Awaitable[float]]
"""Makes one call and returns the time (perf_counter) at which its first text was there."""


def body() -> bytes:
    def event(**fields: object) -> bytes:
        chunk = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1}
        return b"data: " + json.dumps({**chunk, "model": "bench", **fields}).encode() + b"\n\n"

    def choice(finish: str | None = None, **delta: str) -> bytes:
        return event(choices=[{"index": 0, "delta": delta, "finish_reason": finish}])

    usage = {"prompt_tokens": 30, "completion_tokens": CHUNKS, "total_tokens": 30 + CHUNKS}
    events = [
        choice(role="assistant", content=""),
        *(choice(content=f"word{n} ") for n in range(CHUNKS)),
        choice("stop"),
        event(choices=[], usage=usage),
        b"data: [DONE]\n\n",
    ]
    chunked = b"".join(b"%x\r\n%b\r\n" % (len(e), e) for e in events)
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        + chunked
        + b"0\r\n\r\n"
    )


async def serve() -> None:
    """Print the port, then answer until the standard input ends."""
    answer = body()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)


@dataclass
class Row:
    """One client's figures: seconds to the first text and CPU seconds, per call."""

    name: str
    call: Call
    first: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    async def turn(self, calls: int) -> None:
        begun = time.process_time()
        for _ in range(calls):
            start = time.perf_counter()
            self.first.append(await self.call() - start)
        self.cpu.append((time.process_time() - begun) / calls)


@contextlib.asynccontextmanager
async def bare(base_url: str) -> AsyncIterator[Call]:
    import aiohttp

    payload = json.dumps({"model": "bench", "messages": MESSAGES, "stream": True}).encode()
    async with aiohttp.ClientSession() as session:

        async def call() -> float:
            first = 0.0
            async with session.post(f"{base_url}/chat/completions", data=payload) as response:
                while await response.content.readany():
                    first = first or time.perf_counter()
            return first

        yield call


@contextlib.asynccontextmanager
async def wire(base_url: str) -> AsyncIterator[Call]:
    from trunkline.runtime.chat import ChatRequest
    from trunkline.runtime.wire_llm import WireLLM

    client = WireLLM(base_url=base_url, api_key="bench")

    async def call() -> float:
        first = 0.0
        stream = client.stream("bench", ChatRequest(MESSAGES))
        async for delta in stream:
            if not first and delta.content:
                first = time.perf_counter()
        await stream.aclose()
        return first

    yield call
    await client.aclose()


def livekit_call(model: object) -> Call:
    from livekit.agents import llm

    assert isinstance(model, llm.LLM)
    chat = llm.ChatContext.empty()
    for message in MESSAGES:
        chat.add_message(role=message["role"], content=message["content"])  # type: ignore[arg-type]

    async def call() -> float:
        first = 0.0
        async with model.chat(chat_ctx=chat) as stream:
            async for chunk in stream:
                if not first and chunk.delta and chunk.delta.content:
                    first = time.perf_counter()
        return first

    return call


@contextlib.asynccontextmanager
async def stock(base_url: str) -> AsyncIterator[Call]:
    from livekit.plugins import openai

    model = openai.LLM(model="bench", base_url=base_url, api_key="bench")
    yield livekit_call(model)
    await model.aclose()


@contextlib.asynccontextmanager
async def whole(base_url: str) -> AsyncIterator[Call]:
    """Door 1 with a configuration, a journal and a ledger of this run."""
    import trunkline
    from trunkline import inference

    with tempfile.TemporaryDirectory() as place:
        trunkline.configure(written(Path(place), base_url), Path(place))
        model = inference.LLM("openai/bench")
        yield livekit_call(model)
        await model.aclose()
        await trunkline.aclose()


def written(place: Path, base_url: str) -> Path:
    config = place / "trunkline.yaml"
    server = {"base_url": base_url, "api_key": "bench"}
    config.write_text(json.dumps({"version": 1, "providers": {"openai": server}}))
    return config


async def measure(base_url: str) -> list[Row]:
    clients = {
        "aiohttp, chunks unread": bare,
        "trunkline WireLLM": wire,
        "trunkline inference.LLM": whole,
        "livekit.plugins.openai": stock,
    }
    async with contextlib.AsyncExitStack() as stack:
        rows = [
            Row(name, await stack.enter_async_context(client(base_url)))
            for name, client in clients.items()
        ]
        for row in rows:
            await row.turn(WARM_UP)
            row.first.clear()
            row.cpu.clear()
        for _ in range(ROUNDS):
            for row in rows:
                await row.turn(CALLS // ROUNDS)
    return rows


def table(rows: list[Row]) -> str:
    reference = rows[-1]
    lines = [f"{'client':<26}{'first token':>14}{'of stock':>10}{'CPU a call':>14}{'of stock':>10}"]
    for row in rows:
        first, cpu = median(row.first), median(row.cpu)
        lines.append(
            f"{row.name:<26}{first * 1e3:>11.3f} ms{first / median(reference.first):>10.2f}"
            f"{cpu * 1e3:>11.3f} ms{cpu / median(reference.cpu):>10.2f}"
        )
    return "\n".join(lines)


def main() -> str:
    """Measure and return the table: medians, and their ratio to the stock plugin's."""
    with subprocess.Popen(
        [sys.executable, __file__, "--serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        try:
            return table(asyncio.run(measure(f"http://127.0.0.1:{port}/v1")))
        finally:
            server.communicate(timeout=10)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        asyncio.run(serve())
    else:
        print(main())
