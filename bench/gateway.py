"""What a chat over the network costs: the gateway, LiteLLM, and a bare pass-through, in one run.

    python -m bench gateway

One local upstream, the gateways before it one at a time and in turns, so that the machine's moods
meet all of them alike. They have a core of their own where there are two; load and upstream have
the other. Closed loops at 1 and 50 ask for answers that come at once, whole and streamed: CPU a
call and calls a second. Voice-shaped load begins streams at random times (Poisson), 300 ms to the
first token, 20 chunks 10 ms apart, a prompt of 1.5 kB: what a gateway adds to the first token of
the same load without one.

LiteLLM takes part in an environment of its own, which the first run installs and all keep: under
``~/.cache/trunkline``, or where TRUNKLINE_BENCH_LITELLM names its ``litellm`` command. Where it
cannot be installed, or does not answer, the rest is measured and a line says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import tempfile
import time
from pathlib import Path
from statistics import median

from bench.gateway_stage import Gateway, stage

ROUNDS = 3
WARM_UP_SECONDS = 3.0
LOOP_SECONDS = 2.0
VOICE_SECONDS = 8.0
RATES = (10, 20)
LOOPS = [(width, stream) for stream in (False, True) for width in (1, 50)]


class Client:
    """One connection that asks and reads as cheaply as a client can."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> float:
        """Send a request and read its answer to the end; returns the seconds to the first word."""
        begun = time.perf_counter()
        if self._streams is None or self._streams[0].at_eof():  # some close what is idle
            self._streams = await asyncio.open_connection("127.0.0.1", self._gateway.port)
        reader, writer = self._streams
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{self._gateway.name}: {head[:200]!r} {await reader.read(500)!r}")
        lower = head.lower()
        if b"content-length: " in lower:
            length = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            return time.perf_counter() - begun
        body, first = b"", 0.0
        while not body.endswith(b"0\r\n\r\n"):
            data = await reader.read(65536)
            if not data:
                raise RuntimeError(f"{self._gateway.name}: the answer was cut")
            body += data
            if not first and b"word0" in body:
                first = time.perf_counter() - begun
        return first

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()


async def closed_loop(gateway: Gateway, width: int, stream: bool, seconds: float) -> None:
    """As many calls as ``width`` callers get answered, one after the other each."""
    request = gateway.request("now", stream=stream)
    clients = [Client(gateway) for _ in range(width)]
    for client in clients:
        await client.ask(request)
    before, begun, calls = gateway.cpu_seconds(), time.perf_counter(), 0

    async def caller(client: Client) -> None:
        nonlocal calls
        while time.perf_counter() - begun < seconds:
            await client.ask(request)
            calls += 1
            gateway.calls += 1

    await asyncio.gather(*map(caller, clients))
    took = time.perf_counter() - begun
    name = f"{'stream' if stream else 'whole'} at {width}"
    gateway.cpu.setdefault(name, []).append((gateway.cpu_seconds() - before) / calls * 1e3)
    gateway.rate.setdefault(name, []).append(calls / took)
    for client in clients:
        client.close()


async def voices(gateway: Gateway, rate: int, seconds: float, draw: random.Random) -> None:
    """Streams that begin at random, ``rate`` a second on average."""
    request = gateway.request("voice", stream=True)
    idle: list[Client] = []
    firsts = gateway.first.setdefault(rate, [])

    async def call() -> None:
        client = idle.pop() if idle else Client(gateway)
        firsts.append(await client.ask(request))
        idle.append(client)

    begun, due = time.perf_counter(), 0.0
    async with asyncio.TaskGroup() as group:
        while (due := due + draw.expovariate(rate)) < seconds:
            await asyncio.sleep(max(0.0, begun + due - time.perf_counter()))
            group.create_task(call())
    for client in idle:
        client.close()


def percentile(values: list[float], of: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * of))] * 1e3


async def measure(gateways: list[Gateway]) -> None:
    for gateway in gateways:  # what is imported with the first call is no call's price
        await closed_loop(gateway, 1, True, WARM_UP_SECONDS)
        gateway.cpu.clear()
        gateway.rate.clear()
        gateway.warm = gateway.megabytes()
    for turn in range(ROUNDS):
        for gateway in gateways:
            for width, stream in LOOPS:
                await closed_loop(gateway, width, stream, LOOP_SECONDS)
            for rate in RATES:
                await voices(gateway, rate, VOICE_SECONDS, random.Random(turn))


def table(gateways: list[Gateway]) -> str:
    names = list(gateways[0].rate)
    titles = ["", *(f"{n}: ms CPU (of bare), calls/s" for n in names)]
    titles += [f"first token at {rate}/s: added p50, p99 ms" for rate in RATES]
    lines = [[*titles, "MB warm, at the end", "calls between", "ready s"]]
    direct, bare = gateways[:2]
    for gateway in gateways:
        row = [gateway.name]
        for n in names:
            ratio = median(gateway.cpu[n]) / median(bare.cpu[n])
            row.append(
                f"{median(gateway.cpu[n]):.2f} (x{ratio:.1f}), {median(gateway.rate[n]):.0f}"
            )
        for rate in RATES:
            added = [
                percentile(gateway.first[rate], of) - percentile(direct.first[rate], of)
                for of in (0.5, 0.99)
            ]
            row.append(", ".join(f"{ms:.1f}" for ms in added))
        memory = f"{gateway.warm:.0f}, {gateway.megabytes():.0f}"
        lines.append([*row, memory, str(gateway.calls), f"{gateway.ready:.1f}"])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> str:
    """The table: one row a gateway, the upstream itself first."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
        gateways = stack.enter_context(stage(Path(place)))
        if len(cores) > 1:
            os.sched_setaffinity(0, cores[:-1])
        stack.callback(os.sched_setaffinity, 0, cores)
        asyncio.run(measure(gateways))
        return table(gateways)
