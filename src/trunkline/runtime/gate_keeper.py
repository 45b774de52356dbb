"""The thread that does the purse's I/O: slices when asked for, and the books every 50 ms."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from ..core.ports import Level
from ..errors import StoreError, TrunklineError
from ..store.process import own
from .gate_holding import Holding, Opening, Shortage
from .gate_purse import Purse

logger = logging.getLogger("trunkline")

TICK = 0.05
"""Seconds between two looks while anything is held: how long others wait for a spare slice."""

_LOOK = 0.2
_EXTEND = 0.5
_RECOVER = 1.0
_IDLE = 5.0

GRACE = 30.0
"""Seconds that a stream in flight goes on after its budget has no more: time for the notice."""

Answer = TypeVar("Answer")
Asked = Callable[[], object]


class Keeper:
    """Runs what is asked of it, one thing at a time, and keeps the books in between.

    The thread starts when it is first needed. What the store may suffer reaches the log, once, and
    whoever waits gets the answer for a store that is away.
    """

    def __init__(self, purse: Purse, recover: Callable[[], object]) -> None:
        self.purse = purse
        self._recover = recover
        self._begin()
        own(self)

    def after_fork(self) -> None:
        """Begin anew in the child: what is held, and the thread, are the parent's."""
        self.purse.clear()
        self._begin()

    def _begin(self) -> None:
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._asked: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self._due = dict.fromkeys((TICK, _LOOK, _EXTEND, _RECOVER), 0.0)
        self._failing = False

    def take(self, opening: Opening) -> Future[Shortage | None]:
        """Have ``opening`` reserved; the answer is what there is none of."""
        return self._ask(lambda: self.purse.take(opening))

    def look(self, holdings: list[Holding]) -> Future[None]:
        """Have the levels of ``holdings`` known."""
        return self._ask(lambda: self.purse.look(holdings))

    def levels(self, holdings: list[Holding]) -> Future[Sequence[Level]]:
        """What is left of the pools of ``holdings``; what is awaited raises StoreError."""
        return self._ask(lambda: self.purse.store.levels([holding.ask(1) for holding in holdings]))

    def recover(self) -> Future[object]:
        """Have those taken care of who died; what is awaited raises StoreError."""
        return self._ask(self._recover)

    def wake(self) -> None:
        """See to it that the books are kept."""
        if self._thread is None:
            self._start()

    def close(self, timeout: float = 2.0) -> None:
        """Hand over what was spent, give everything back, end the thread; bounded in time."""
        atexit.unregister(self.close)
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is None:
            self._finish()
        elif thread.is_alive():
            self._asked.put(None)
            thread.join(timeout)

    def _ask(self, work: Callable[[], Answer]) -> Future[Answer]:
        future: Future[Answer] = Future()

        def run() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except Exception as error:  # noqa: BLE001 - whoever waits gets it, whatever it is
                    future.set_exception(error)

        self._asked.put(run)
        self.wake()
        return future

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="trunkline-gate", daemon=True
                )
                atexit.register(self.close)
                self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                work = self._asked.get(timeout=_IDLE if self.purse.is_empty else TICK)
            except queue.Empty:
                work = self._keep
            if work is None:
                break
            work()
            if time.monotonic() >= self._due[TICK]:
                self._keep()
        self._finish()

    def _keep(self) -> None:
        try:
            if self._is_due(TICK):
                self.purse.flush()
            if self._is_due(_LOOK) and self.purse.news():
                self.purse.look()
            if self._is_due(_EXTEND):
                self._extend()
            if self._is_due(_RECOVER):
                self._recover()
        except TrunklineError as error:
            if not self._failing:
                logger.warning("budgets and limits are not kept with other processes: %s", error)
            self._failing = True
        except Exception:  # the thread's boundary: without it nobody would ever be let through
            logger.exception("the gate's keeper failed; it goes on")
        else:
            if self._failing:
                logger.info("budgets and limits are kept with other processes again")
            self._failing = False

    def _is_due(self, every: float) -> bool:
        now = time.monotonic()
        if now < self._due[every]:
            return False
        self._due[every] = now + every
        return True

    def _extend(self) -> None:
        """Reserve more for what goes on; interrupt what has gone on too long without."""
        for opening in self.purse.followed():
            assert opening.metered is not None
            shortage = self.purse.grow(opening, opening.metered().usage)
            if shortage is not None and opening.ends_at is None:
                opening.doom(shortage.refusal(opening), GRACE)
                opening.starved = True
            elif shortage is None and opening.starved:
                opening.ends_at, opening.starved = None, False
            if opening.ends_at is not None and time.monotonic() >= opening.ends_at:
                opening.end()

    def _finish(self) -> None:
        try:
            self.purse.flush(everything=True)
        except StoreError as error:
            logger.warning("the gate's books are left to be closed by others: %s", error)
        self.purse.store.close()
