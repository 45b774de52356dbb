"""An event loop whose time passes only while nobody has anything to do.

A wait of a minute costs nothing, a schedule of waits always plays the same way, and a wait that
nothing will ever end is an error at once instead of a hung test.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

import pytest

T = TypeVar("T")

_EPOCH_NS = 1_800_000_000_000_000_000
_BUSY_ROUNDS = 20_000
"""Rounds of the loop without any time passing after which it runs in circles."""
_THREAD_SECONDS = 5.0


class NeverEnds(RuntimeError):
    """Everybody waits, and nothing is due: outside a test, this is a caller hearing silence."""


class _Skips(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    """Passes the time of a wait instead of waiting, unless a thread is at work for the loop."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        loop = self.loop
        if ready or timeout == 0:
            loop.rounds += 1
            if loop.rounds > _BUSY_ROUNDS:
                raise NeverEnds(f"{_BUSY_ROUNDS} rounds of the loop took no time")
            return ready
        loop.rounds = 0
        if loop.threads:
            return super().select(_THREAD_SECONDS if timeout is None else 0.001)
        if timeout is None:
            raise NeverEnds("every task waits for another")
        loop.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """``now`` is its time in seconds; ``run`` makes one for a coroutine."""

    def __init__(self) -> None:
        self.now = 0.0
        self.rounds = 0
        self.threads = 0
        selector = _Skips()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def time_ns(self) -> int:
        """The loop's time as the wall clock and the monotonic clock of the code under test."""
        return _EPOCH_NS + round(self.now * 1e9)

    def run_in_executor(
        self, executor: Executor | None, func: Any, *args: Any
    ) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        self.threads += 1
        future.add_done_callback(self._back)
        return future

    async def shutdown_default_executor(self) -> None:
        self.threads += 1
        await super().shutdown_default_executor()

    def _back(self, _: asyncio.Future[Any]) -> None:
        self.threads -= 1


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` in virtual time to its end, with no task left behind.

    Raises NeverEnds when it would wait for ever.
    """
    loop = VirtualLoop()
    with pytest.MonkeyPatch.context() as patch:
        # The one module that stamps attempts: their times are the loop's, as health's are.
        for name in ("now_ns", "monotonic_ns"):
            patch.setattr(f"trunkline.runtime.attempt.{name}", loop.time_ns)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(work)
