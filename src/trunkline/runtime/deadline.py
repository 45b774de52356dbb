"""The deadlines of one attempt, enforced by us: one timer that interrupts a wait.

A timer per wait would cost every output; here an output only moves a number, and the one timer,
when it fires, looks whether the deadline has moved with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

from ..core.models import Deadlines
from ..errors import DeadlineExceeded, TrunklineError


class Watch:
    """Interrupts ``task`` when its provider owes output and lets a deadline pass.

    ``owed_since`` returns the loop time from which the provider has owed something, or None while
    it owes nothing; whoever feeds the provider calls ``poke`` when that changes to a time. An
    interrupted task sees CancelledError, and ``reason`` then holds why.
    """

    __slots__ = (
        "_deadlines",
        "_last",
        "_loop",
        "_owed_since",
        "_phase",
        "_start",
        "_task",
        "_timer",
        "reason",
    )

    def __init__(
        self,
        task: asyncio.Task[object],
        deadlines: Deadlines,
        owed_since: Callable[[], float | None],
    ) -> None:
        self._task = task
        self._loop = task.get_loop()
        self._deadlines = deadlines
        self._owed_since = owed_since
        self._start = self._last = self._loop.time()
        self._phase = "first_content"
        self._timer: asyncio.TimerHandle | None = None
        self.reason: TrunklineError | None = None

    @property
    def idle(self) -> float:
        """Seconds without content, while more is owed, after which a provider is given up."""
        return self._deadlines.idle

    def content(self) -> None:
        """Note that content came: from here on the idle deadline counts."""
        self._last = self._loop.time()
        if self._phase != "idle":
            self._phase = "idle"
            self.poke()

    def poke(self) -> None:
        """Look at the deadlines again: the provider may have begun to owe something."""
        if self.reason is not None:
            return
        due = self._due()
        if self._timer is None or due[0] < self._timer.when():
            self.stop()
            self._arm(due)

    def stop(self) -> None:
        """Interrupt no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def interrupt(self, reason: TrunklineError) -> None:
        """End the task's wait now; the first reason counts."""
        if self.reason is None:
            self.stop()
            self.reason = reason
            self._task.cancel()

    def _due(self) -> tuple[float, str, float]:
        """When which deadline passes: (loop time, phase, seconds)."""
        total = self._deadlines.total
        due = (self._start + total, "total", total)
        since = self._owed_since()
        if since is not None:
            seconds = float(getattr(self._deadlines, self._phase))
            due = min(due, (max(since, self._last) + seconds, self._phase, seconds))
        return due

    def _arm(self, due: tuple[float, str, float]) -> None:
        self._timer = self._loop.call_at(due[0], self._fire) if due[0] != inf else None

    def _fire(self) -> None:
        self._timer = None
        due = self._due()
        if due[0] <= self._loop.time():
            self.interrupt(DeadlineExceeded(due[1], due[2]))
        else:
            self._arm(due)
