"""One user's Trunkline before three doubles, from its configuration to what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Self

import aiohttp

import trunkline
from trunkline.core.events import Failover, HealthChanged
from trunkline.core.models import Purpose, Settlement
from trunkline.store.ledger import Ledger

from .column import Column, Heard
from .faults import DEADLINE, Fault
from .vendors import NAMES, Vendors

ROUTES = {
    "alone": ("backup",),
    "last": ("third",),
    "both": ("primary", "backup"),
    "three": ("primary", "backup", "third"),
}
_LEAK_SECONDS = 2.0


def configuration(column: Column, fault: Fault, vendors: Vendors, *, both: bool = False) -> str:
    """trunkline.yaml (as JSON): three connections, three routes, short deadlines.

    A fault that is a plugin's is in the primary's connection, with ``both`` in the backup's too.
    """
    misbehaving = NAMES[: 2 if both else 1] if fault.kind else ()

    def candidate(name: str) -> object:
        named = f"{name}/{column.model}"
        options = {} if name in misbehaving else column.options
        return {"model": named, "options": options} if options else named

    deadlines = dict.fromkeys(("connect", "first_content", "idle"), DEADLINE)
    return json.dumps(
        {
            "version": 1,
            "providers": {
                name: column.connection(
                    vendors[name].urls[column.vendor], fault.kind if name in misbehaving else ""
                )
                for name in NAMES
            },
            "routes": {
                route: {
                    "modality": column.modality.value,
                    "candidates": [candidate(name) for name in names],
                    "deadlines": {**deadlines, "total": 5},
                }
                for route, names in ROUTES.items()
            },
        }
    )


class Stage:
    """Calls through the public door, and every event of them."""

    def __init__(self, column: Column, vendors: Vendors, directory: Path) -> None:
        self.column = column
        self.vendors = vendors
        self.config = directory / "trunkline.yaml"
        self.state = directory / "state"
        self.settled: list[Settlement] = []
        self.failovers: list[Failover] = []
        self.changes: list[HealthChanged] = []
        self.leaks: list[str] = []
        self.ledger: list[str] = []
        self.ledger_of_others: list[Settlement] = []

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, column: Column, fault: Fault, vendors: Vendors, *, both: bool = False
    ) -> AsyncIterator[Self]:
        """A new configuration and a new state directory, until the block ends."""
        await vendors.reset()
        with tempfile.TemporaryDirectory(prefix="matrix-") as place:
            stage = cls(column, vendors, Path(place))
            stage.config.write_text(configuration(column, fault, vendors, both=both))
            async with aiohttp.ClientSession() as stage.http:
                with stage._watched():
                    yield stage
                    await trunkline.aclose()
                await stage._look_for_leaks()
            stage._read_ledger()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        made = trunkline.configure(self.config, self.state)
        stops = [
            trunkline.on("settled", self.settled.append),
            trunkline.on("failover", self.failovers.append),
            trunkline.on("degraded", self.changes.append),
            trunkline.on("recovered", self.changes.append),
        ]
        self._made = made
        self._before = (asyncio.all_tasks(), _sockets())
        try:
            yield
        finally:
            for stop in stops:
                stop()

    async def call(self, route: str = "both", column: Column | None = None) -> Heard:
        """One call by a client of its own, as a new session makes it."""
        client = self.column.open(route, self.http)
        try:
            return await (column or self.column).call(client)
        finally:
            await client.aclose()

    async def until(self, done: Callable[[], object], seconds: float) -> bool:
        """Wait until ``done()``, at most so long."""
        for _ in range(round(seconds / 0.01)):
            if done():
                break
            await asyncio.sleep(0.01)
        return bool(done())

    @property
    def attempts(self) -> list[tuple[str, str]]:
        """(connection, outcome) of everything served so far, in order."""
        return [
            (one.attempt.connection, one.attempt.outcome)
            for one in self.settled
            if one.attempt.purpose is Purpose.SERVE
        ]

    def _read_ledger(self) -> None:
        """Note what is wrong with the ledger on disk: every attempt is in it once, and settled."""
        here = {one.attempt.id for one in self.settled}
        recorded = Ledger(self.state / "ledger.db").attempts()
        rows = Counter(one.attempt.id for one in recorded)
        if missing := here - rows.keys():
            self.ledger.append(f"{len(missing)} attempts are not in the ledger")
        if any(len(one.entries) != 1 for one in recorded):
            self.ledger.append("an attempt has not exactly one settlement")
        self.ledger_of_others = [
            Settlement(one.attempt, one.entries[0])
            for one in recorded
            if one.attempt.id not in here
        ]

    async def _look_for_leaks(self) -> None:
        tasks, sockets = self._before
        current = asyncio.current_task()

        def leaked() -> set[asyncio.Task[Any]]:
            return {t for t in asyncio.all_tasks() - tasks if t is not current and not t.done()}

        await self.http.close()
        await self.until(lambda: not leaked() and len(_sockets() - sockets) <= 0, _LEAK_SECONDS)
        self.leaks += [f"task {task.get_coro().__qualname__}" for task in leaked()]  # type: ignore[union-attr]
        self.leaks += [f"socket {one}" for one in _sockets() - sockets]


def settle_memory() -> None:
    """Take what has been imported out of the collector's sight.

    A full collection of it stops a process for some 100 ms, whatever is being measured then.
    """
    gc.collect()
    gc.freeze()


def _sockets() -> set[str]:
    """The inodes of this process's open sockets."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{entry}")
            if target.startswith("socket:"):
                found.add(target)
    return found
