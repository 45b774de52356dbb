"""The deadlines of one attempt, enforced by us: a look at the clock that interrupts a wait.

A timer per wait would cost every output, and one per attempt is dear enough for a short answer. So
an output only moves a number, and all attempts of an event loop share one timer, which is set for
whoever is due first. When it fires it looks whether that deadline has moved on meanwhile. It looks
soon enough for the deadline that the first output brings, so that a quick answer never sets it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from math import inf

from ..core.models import Deadlines
from ..errors import DeadlineExceeded, TrunklineError


class Alarm:
    """The one timer of an event loop. It rings for a watch when, or after, its time has come."""

    __slots__ = ("_at", "_timer", "_watches", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._watches: dict[Watch, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = inf

    def set(self, watch: Watch, when: float) -> None:
        """Ring ``watch`` at ``when``, and no more at another time."""
        self._watches[watch] = when
        if when < self._at:
            if self._timer is not None:
                self._timer.cancel()
            self._at = when
            self._timer = self.loop.call_at(when, self._ring)

    def clear(self, watch: Watch) -> None:
        """Ring ``watch`` no more; the timer stays, for whoever comes next."""
        self._watches.pop(watch, None)

    def _ring(self) -> None:
        self._timer, self._at = None, inf
        now = self.loop.time()
        for watch, when in list(self._watches.items()):
            if when <= now:
                watch.look()
        if self._watches:
            watch, when = min(self._watches.items(), key=lambda item: item[1])
            self.set(watch, when)


_here = threading.local()


def _alarm_of(loop: asyncio.AbstractEventLoop) -> Alarm:
    """The alarm of the loop that runs in this thread."""
    alarm: Alarm | None = getattr(_here, "alarm", None)
    if alarm is None or alarm.loop is not loop:
        alarm = _here.alarm = Alarm(loop)
    return alarm


class Watch:
    """Interrupts ``task`` when its provider owes output and lets a deadline pass.

    ``owed_since`` returns the loop time from which the provider has owed something, or None while
    it owes nothing; whoever feeds the provider calls ``poke`` when that changes to a time. An
    interrupted task sees CancelledError, and ``reason`` then holds why.
    """

    __slots__ = (
        "_alarm",
        "_deadlines",
        "_last",
        "_owed_since",
        "_phase",
        "_start",
        "_task",
        "_time",
        "_when",
        "reason",
    )

    def __init__(
        self,
        task: asyncio.Task[object],
        deadlines: Deadlines,
        owed_since: Callable[[], float | None],
    ) -> None:
        self._task = task
        loop = task.get_loop()
        self._alarm = _alarm_of(loop)
        self._time = loop.time
        self._deadlines = deadlines
        self._owed_since = owed_since
        self._start = self._last = self._time()
        self._phase = "first_content"
        self._when = inf
        self.reason: TrunklineError | None = None

    @property
    def idle(self) -> float:
        """Seconds without content, while more is owed, after which a provider is given up."""
        return self._deadlines.idle

    def content(self) -> None:
        """Note that content came: from here on the idle deadline counts."""
        self._last = last = self._time()
        if self._phase != "idle":
            self._phase = "idle"
            if last + self._deadlines.idle < self._when:
                self.poke()

    def poke(self) -> None:
        """Look at the deadlines again: the provider may have begun to owe something."""
        if self.reason is None:
            self._look_by(self._due())

    def stop(self) -> None:
        """Interrupt no more."""
        if self._when != inf:
            self._alarm.clear(self)
            self._when = inf

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
            idle = self._phase == "idle"
            seconds = self._deadlines.idle if idle else self._deadlines.first_content
            due = min(due, (max(since, self._last) + seconds, self._phase, seconds))
        return due

    def _look_by(self, due: tuple[float, str, float]) -> None:
        """Look when ``due`` passes, or sooner."""
        when, phase, _ = due
        if phase == "first_content":
            when = min(when, self._time() + self._deadlines.idle)
        if when < self._when:
            self._when = when
            self._alarm.set(self, when)

    def look(self) -> None:
        """Interrupt the task if a deadline has passed, else look again when the next one does."""
        self.stop()
        due = self._due()
        if due[0] <= self._time():
            self.interrupt(DeadlineExceeded(due[1], due[2]))
        else:
            self._look_by(due)
