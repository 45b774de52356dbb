"""What hearing over the network costs: callers on ``/v1/stt``, and the official plugin alone.

    python -m bench gateway_ears

Callers send 20 frames of audio a second to ``trunkline serve``, which hands them to Deepgram's
official plugin, whose socket ends at a vendor that only counts. Callers and vendor share a process,
the gateway has a core of its own. Beside it the plugin alone on that core, fed in its own process.

CPU is the whole process's, for a frame: a second of a stream is 20 of them, words included. It is
that of the best second, the one with the least other load. ``up`` is the age of audio when the
vendor gets it, ``down`` that of words when the caller does. ``load`` is how much of its core the
process of callers and vendor used: near 1 it is that process which is measured.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.ears_stage import FRAME_SECONDS, TURN, Caller, Vendor, rest_of_frames
from bench.gateway_stage import KEY, cpu_ns, free_port, started, trunkline, wait_for

STREAMS = (50, 200, 350, 600)
RAMP_STREAMS = 100
"""Begun a second, but spread over a turn of speech and quiet."""
SETTLE_SECONDS = 2.0
WINDOWS = 12
"""Of a second."""


@dataclass
class Heard:
    """One row of the table."""

    name: str
    streams: int
    costs: list[float]
    """CPU a frame, in microseconds, window by window."""
    load: float
    up: list[float]
    down: list[float]
    due: float
    """Frames."""

    def row(self) -> str:
        up, down = (
            f"{percentile(ages, 0.5):7.2f} {percentile(ages, 0.99):8.2f}"
            for ages in (self.up, self.down)
        )
        cost = min(self.costs)
        rate = 1 / FRAME_SECONDS
        busy = sum(self.costs) / len(self.costs) * self.streams * rate / 1e6
        return (
            f"{self.name:16} {self.streams:7} {cost:8.1f} {1e6 / rate / cost:9.0f} {busy:5.2f} "
            f"{self.load:5.2f} {up} {down} {1 - len(self.up) / self.due:8.2%}"
        )


HEAD = f"{'':16} streams  CPU, us  a core of  busy  load  up p50, p99 ms  down p50, p99 ms  missing"


def percentile(values: list[float], of: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * of))] if ordered else float("nan")


def ramp_seconds(streams: int) -> float:
    return max(TURN * FRAME_SECONDS, streams / RAMP_STREAMS)


class Stage:
    """The vendor, listening, and what it measures."""

    def __init__(self, core: int) -> None:
        self.core = core
        self.up: list[float] = []
        self.url = ""

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Vendor(self.up), "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    async def gateway(self, pid: int, port: int, streams: int) -> Heard:
        """Callers through the gateway, for a while."""
        loop = asyncio.get_running_loop()
        down: list[float] = []
        rests = [base64.b64encode(rest) for rest in rest_of_frames()]
        callers = [Caller(KEY, "ear", rests, down) for _ in range(streams)]
        for caller in callers:
            await loop.create_connection(lambda one=caller: one, "127.0.0.1", port)  # type: ignore[misc]
            await asyncio.sleep(ramp_seconds(streams) / streams)
        await asyncio.sleep(SETTLE_SECONDS)
        down.clear()
        heard = await self._measured("trunkline serve", pid, streams)
        heard.down += down
        gone = sum(caller.is_gone for caller in callers)
        assert not gone, f"{gone} callers were hung up on"
        for caller in callers:
            caller.hang_up()
        await asyncio.sleep(SETTLE_SECONDS)
        return heard

    async def bare(self, streams: int) -> Heard:
        """The plugin alone, in a process of its own."""
        self.up.clear()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.ears_stage", f"{self.url}/v1/listen", str(streams)),
            str(ramp_seconds(streams)),
            stdout=asyncio.subprocess.PIPE,
            preexec_fn=lambda: os.sched_setaffinity(0, {self.core}),
        )
        while not self.up:  # noqa: ASYNC110 - imports of a process that has no other way to tell
            await asyncio.sleep(0.01)
        await asyncio.sleep(ramp_seconds(streams) + SETTLE_SECONDS)
        process.send_signal(signal.SIGUSR1)
        heard = await self._measured("bare plugin", process.pid, streams)
        process.send_signal(signal.SIGUSR2)
        assert process.stdout is not None
        heard.down += json.loads(await process.stdout.read())
        await process.wait()
        return heard

    async def _measured(self, name: str, pid: int, streams: int) -> Heard:
        self.up.clear()
        load, begun = time.process_time(), time.monotonic()
        costs = []
        for _ in range(WINDOWS):
            before, frames = cpu_ns(pid), len(self.up)
            await asyncio.sleep(1.0)
            used, frames = cpu_ns(pid) - before, len(self.up) - frames
            costs.append(used / frames / 1e3)
        took, load = time.monotonic() - begun, time.process_time() - load
        due = streams * took / FRAME_SECONDS
        return Heard(name, streams, costs, load / took, self.up.copy(), [], due)


@contextmanager
def serving(place: Path, url: str, core: int) -> Iterator[tuple[int, int]]:
    """The process id and the port of ``trunkline serve``, whose route ``ear`` hears by ``url``."""
    words = trunkline(place, "http://127.0.0.1:1")
    (place / "trunkline.yaml").write_text(
        f"version: 1\nstate: {place}/state\ngateway: {{bearer: [{KEY}]}}\n"
        f"providers: {{deepgram: {{api_key: x, base_url: {url}}}}}\n"
        "routes: {ear: {modality: stt, candidates: [deepgram/nova-3]}}\n",
        "utf-8",
    )
    port = free_port()
    with started([word.format(port=port) for word in words], place, core) as process:
        wait_for("trunkline serve", port, process)
        while _is_loading(port):
            time.sleep(0.1)
        yield process.pid, port


def _is_loading(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz") as answer:
        return "loading" in json.load(answer)


async def measured(place: Path, core: int) -> list[Heard]:
    stage = Stage(core)
    await stage.open()
    heard = [await stage.bare(streams) for streams in STREAMS]
    with serving(place, stage.url, core) as (pid, port):
        heard += [await stage.gateway(pid, port, streams) for streams in STREAMS]
    return heard


def main() -> str:
    """The table: the plugin alone, then the gateway, each with more and more streams."""
    import uvloop

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, cores[:-1])
    with tempfile.TemporaryDirectory() as place:
        heard = uvloop.run(measured(Path(place), cores[-1]))
    return "\n".join([HEAD, *(one.row() for one in heard)])
