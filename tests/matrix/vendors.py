"""Three doubles of every vendor, each in a process of its own, and how a test talks to them.

Another process, so that the tasks and sockets counted here are the client's alone; one each, so
that a backup does not wait for what the primary is busy with.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import aiohttp
import msgspec

from trunkline.doubles import BillLine, Double, Pace, Provider, RequestLog

from . import lateness

ROOT = Path(__file__).parents[2]
VENDORS = ("openai", "deepgram", "cartesia", "elevenlabs")
NAMES = ("primary", "backup", "third")
TEXT = "Good morning, this is the front desk. Your room is ready and breakfast starts at seven."
"""What every model answers, and every voice is asked to say."""

PACE = Pace(first=0.05, between=0.005)
"""A voice at twenty times real time, a model at two hundred words a second."""

_READY_SECONDS = 90.0


@contextlib.contextmanager
def companion(module: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours that is told and tells by its standard streams, until the block ends."""
    command = [sys.executable, "-m", module]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe) as process:
        lateness.watch(process.pid)
        try:
            yield process
        finally:
            lateness.unwatch(process.pid)
            process.kill()


class Vendor:
    """One double, by its control endpoint."""

    def __init__(self, http: aiohttp.ClientSession, control: str, urls: dict[str, str]) -> None:
        self.urls = urls
        self._http = http
        self._control = control

    async def inject(self, *rules: dict[str, Any]) -> None:
        await self._ask("POST", "faults", list(rules))

    async def heal(self) -> None:
        await self._ask("DELETE", "faults")

    async def reset(self) -> None:
        """No rules, no books."""
        await self._ask("POST", "reset")

    async def bill(self) -> list[BillLine]:
        return msgspec.convert(await self._ask("GET", "bill"), list[BillLine])

    async def requests(self) -> list[RequestLog]:
        return msgspec.convert(await self._ask("GET", "requests"), list[RequestLog])

    async def _ask(self, method: str, what: str, body: object = None) -> Any:
        url = f"{self._control}/{what}"
        async with self._http.request(method, url, json=body) as answer:
            answer.raise_for_status()
            return await answer.json()


class Vendors:
    """The three doubles by the names that configurations here give them."""

    def __init__(self, vendors: dict[str, Vendor]) -> None:
        self._vendors = vendors

    def __getitem__(self, name: str) -> Vendor:
        return self._vendors[name]

    async def reset(self) -> None:
        for vendor in self._vendors.values():
            await vendor.reset()

    @classmethod
    @contextlib.asynccontextmanager
    async def serve(cls) -> AsyncIterator[Self]:
        """Serve them until the block ends."""
        async with contextlib.AsyncExitStack() as stack:
            doubles = [stack.enter_context(companion("tests.matrix.vendors")) for _ in NAMES]
            # no connection of ours is kept: in a long row a new one would look like a leak
            connector = aiohttp.TCPConnector(force_close=True)
            http = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
            made = {}
            for name, process in zip(NAMES, doubles, strict=True):
                assert process.stdout is not None
                async with asyncio.timeout(_READY_SECONDS):
                    told = json.loads(await asyncio.to_thread(process.stdout.readline))
                made[name] = Vendor(http, told["control"], told["urls"])
            yield cls(made)


async def main() -> None:
    # A port each, so that refusing one vendor closes it.
    providers = [Provider(name, port=0, replies=(TEXT,), pace=PACE) for name in VENDORS]
    async with Double.serve(providers) as double:
        urls = {name: double.url(name) for name in VENDORS}
        print(json.dumps({"control": double.control_url, "urls": urls}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
