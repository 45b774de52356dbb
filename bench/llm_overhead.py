"""What the engine adds to a chat that goes well: CPU a call over the bare client, in one run.

    python -m bench llm_overhead

Both rows are LiveKit LLMs on the same lean client and the same server: one runs it in ``_run``
and nothing else, the other is served by the engine with health, gate, meter and journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

from bench.llm_client import Call, Row, livekit_call, written

CALLS = 200
ROUNDS = 15


@contextlib.asynccontextmanager
async def bare(base_url: str) -> AsyncIterator[Call]:
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

    yield livekit_call(Model())
    await client.aclose()


@contextlib.asynccontextmanager
async def served(base_url: str) -> AsyncIterator[Call]:
    import trunkline
    from trunkline import inference

    with tempfile.TemporaryDirectory() as place:
        trunkline.configure(written(Path(place), base_url), Path(place))
        model = inference.LLM("openai/bench")
        yield livekit_call(model)
        await model.aclose()
        await trunkline.aclose()


async def measure(base_url: str) -> list[Row]:
    async with contextlib.AsyncExitStack() as stack:
        rows = [
            Row("llm.LLM on the lean client", await stack.enter_async_context(bare(base_url))),
            Row("the same, served", await stack.enter_async_context(served(base_url))),
        ]
        for row in rows:
            await row.turn(CALLS)
            row.first.clear()
            row.cpu.clear()
        for _ in range(ROUNDS):
            for row in rows:
                await row.turn(CALLS)
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
    lines = [f"{'':28}  first token    CPU a call"]
    for row in rows:
        first, cpu = median(row.first) * 1e3, median(row.cpu) * 1e6
        lines.append(f"{row.name:28} {first:9.3f} ms {cpu:10.0f} us")
    added = [(b - a) * 1e6 for a, b in zip(rows[0].cpu, rows[1].cpu, strict=True)]
    lines.append(f"{'added':28} {'':12} {median(added):10.0f} us")
    return "\n".join(lines)


def main() -> str:
    return asyncio.run(run())
