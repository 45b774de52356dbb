"""What the engine adds to a chat that goes well: CPU a call over the bare client, in one run.

    python -m bench llm_overhead

Both rows are LiveKit LLMs on the same lean client and the same server: one runs it in ``_run``
and nothing else, the other is served by the engine with health, gate, meter and journal. ``call``
is the CPU time of the thread that runs the event loop, where a caller waits. ``in all`` is that of
the process with every thread, until what was settled is in the ledger, which no caller waits for.
Medians over rounds in which both rows take turns; what is added is the median of the differences.
``least`` is the round that other programs disturbed the least: CPU time grows with their load.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from bench.llm_client import Call, livekit_call, written

CALLS = 100
ROUNDS = 40


async def _nothing() -> None: ...


@dataclass
class Row:
    """One way to ask: seconds of CPU a call, of the call's thread and of the whole process."""

    name: str
    call: Call
    rest: Callable[[], Awaitable[object]] = _nothing
    """Ends what the calls have left to other threads."""
    thread: list[float] = field(default_factory=list)
    process: list[float] = field(default_factory=list)

    async def turn(self) -> None:
        gc.collect()
        whole, begun = time.process_time(), time.thread_time()
        for _ in range(CALLS):
            await self.call()
        self.thread.append((time.thread_time() - begun) / CALLS)
        await self.rest()
        self.process.append((time.process_time() - whole) / CALLS)


@contextlib.asynccontextmanager
async def bare(base_url: str) -> AsyncIterator[Row]:
    from livekit.agents import llm

    from trunkline.runtime.chat import ChatRequest
    from trunkline.runtime.livekit_chat import to_chunk
    from trunkline.runtime.wire_llm import WireLLM

    client = WireLLM(base_url=base_url, api_key="bench")

    class Stream(llm.LLMStream):
        async def _run(self) -> None:
            messages, _ = self._chat_ctx.to_provider_format("openai")
            async for delta in client.stream("bench", ChatRequest(messages)):
                chunk = to_chunk(delta)
                if chunk is not None:
                    self._event_ch.send_nowait(chunk)

    class Model(llm.LLM):  # type: ignore[type-arg]
        def chat(self, *, chat_ctx, tools=None, conn_options=None, **_):  # type: ignore
            from livekit.agents import DEFAULT_API_CONNECT_OPTIONS

            return Stream(
                self, chat_ctx=chat_ctx, tools=[], conn_options=DEFAULT_API_CONNECT_OPTIONS
            )

    yield Row("llm.LLM on the lean client", livekit_call(Model()))
    await client.aclose()


@contextlib.asynccontextmanager
async def served(base_url: str) -> AsyncIterator[Row]:
    import trunkline
    from trunkline import inference

    with tempfile.TemporaryDirectory() as place:
        house = trunkline.configure(written(Path(place), base_url), Path(place))
        model = inference.LLM("openai/bench")
        loaded = partial(asyncio.to_thread, house.recorder.flush_all, 30.0)
        yield Row("the same, served", livekit_call(model), loaded)
        await model.aclose()
        await trunkline.aclose()


async def measure(base_url: str) -> list[Row]:
    async with contextlib.AsyncExitStack() as stack:
        rows = [await stack.enter_async_context(one(base_url)) for one in (bare, served)]
        for _ in range(3):
            for row in rows:
                await row.turn()
        for row in rows:
            row.thread.clear()
            row.process.clear()
        for _ in range(ROUNDS):
            for row in rows:
                await row.turn()
        return rows


async def run() -> str:
    program = "import asyncio; from bench.llm_client import serve; asyncio.run(serve())"
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        port = int(await server.stdout.readline())
        rows = await measure(f"http://127.0.0.1:{port}/v1")
    finally:
        server.stdin.close()
        await server.wait()
    return table(rows)


def table(rows: list[Row]) -> str:
    """Microseconds of the median round, and of the one with the least other load."""
    lines = [f"{'CPU a call':28} {'call':>9} {'in all':>11} {'least':>9} {'in all':>11}"]
    figures = [
        [*map(median, (row.thread, row.process)), *map(min, (row.thread, row.process))]
        for row in rows
    ]
    bare, served = rows
    added = [b - a for a, b in zip(*figures, strict=True)]
    added[0] = median(b - a for a, b in zip(bare.thread, served.thread, strict=True))
    added[1] = median(b - a for a, b in zip(bare.process, served.process, strict=True))
    names = [*(row.name for row in rows), "added"]
    for name, figure in zip(names, [*figures, added], strict=True):
        cells = [f"{seconds * 1e6:6.0f} us" for seconds in figure]
        lines.append(f"{name:28} {'   '.join(cells)}")
    lines.append(f"added, of the bare call's {added[0] / figures[0][0]:18.0%}")
    return "\n".join(lines)


def main() -> str:
    return asyncio.run(run())
