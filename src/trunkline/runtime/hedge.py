"""A second attempt beside a first one that takes long to begin: whoever has content first serves.

The other one is called off, and written down with the purpose ``hedge``: what it cost is what the
hedge did. Until one of the two has content, neither of them has been heard, so nothing has to be
taken back. Free of livekit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..core.models import Attempt, Candidate, Purpose
from ..errors import TrunklineError
from .line import Line

Out = TypeVar("Out")

_SAVED = 3.0
"""Duplicates that a route may save up while everybody is quick."""


class Outrun(TrunklineError):
    """Another attempt at the same request had content first."""


class Allowance:
    """How many duplicates a route may make: a share of its requests, counted by this process."""

    def __init__(self) -> None:
        self._saved: dict[str, float] = {}

    def ask(self, route: str, share: float) -> None:
        """Count a request that may come to a hedge."""
        self._saved[route] = min(self._saved.get(route, 1.0) + share, _SAVED)

    def take(self, route: str) -> bool:
        """Whether one duplicate may be made now."""
        saved = self._saved.get(route, 0.0)
        if saved < 1.0:
            return False
        self._saved[route] = saved - 1.0
        return True


class Side:
    """What an attempt tells of itself; one that runs alone has nobody to tell."""

    def opened(self) -> None:
        """The provider has been asked."""

    def ahead(self) -> None:
        """There is content, or a whole answer without any."""

    def ended(self) -> None:
        """The attempt is over."""


ALONE = Side()


class Race(Side, Generic[Out]):
    """The first attempt's side of a race, and what there is to know of the rival's.

    ``attempts`` are the first and the rival's, which is made at ``candidate`` by ``run``, after
    ``seconds`` and if ``may_start``.
    """

    def __init__(
        self,
        line: Line[Out],
        seconds: float,
        attempts: tuple[Attempt, Attempt],
        candidate: Candidate,
        run: Callable[[Line[Out], Side], asyncio.Task[bool]],
        may_start: Callable[[], bool],
    ) -> None:
        self.candidate = candidate
        self._first, self.attempt = attempts
        self._line = line
        self._seconds = seconds
        self._run = run
        self._may_start = may_start
        self._timer: asyncio.TimerHandle | None = None
        self._rival: Line[Out] | None = None
        self._task: asyncio.Task[bool] | None = None
        self._first_is_on = True

    @property
    def is_on(self) -> bool:
        """Whether the rival has set out."""
        return self._task is not None

    def opened(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._start)

    def ahead(self) -> None:
        self.stop()

    def ended(self) -> None:
        self._first_is_on = False
        if self._timer is not None:
            self._timer.cancel()
        if self._rival is not None:
            self._line.feed(self._rival)

    def stop(self) -> None:
        """Call the rival off, or let none set out any more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()
        if self._rival is not None:
            self._line.feed(self._line)
            self._rival = None

    def _start(self) -> None:
        rival = self._line.rival()
        if rival is not None and self._may_start():
            self._rival = rival
            self._line.feed(self._line, rival)
            self._task = self._run(rival, _Rival(self))
            self._task.add_done_callback(_consumed)

    def overtaken(self) -> None:
        """The rival has content, and serves from here on."""
        assert self._rival is not None
        self.attempt.purpose = Purpose.SERVE
        self._rival.wins()
        if self._first_is_on and self._line.watch is not None:
            self._first.purpose = Purpose.HEDGE
            self._line.watch.interrupt(Outrun("another attempt had content first"))

    def fallen(self) -> None:
        """The rival is over; what is said meanwhile waits in the line for whoever comes next."""
        if self._rival is not None:
            self._line.feed(*([self._line] if self._first_is_on else []))

    async def result(self) -> bool:
        """What becomes of the rival, now that the first one is out of the race."""
        task, rival = self._task, self._rival
        assert task is not None
        assert rival is not None
        if not task.done():
            self.attempt.purpose = Purpose.SERVE
        try:
            return await task
        finally:
            self._line.adopt(rival)


class _Rival(Side):
    def __init__(self, race: Race[Any]) -> None:
        self._race = race

    def ahead(self) -> None:
        self._race.overtaken()

    def ended(self) -> None:
        self._race.fallen()


class Held:
    """Calls that wait until it is known who serves."""

    def __init__(self) -> None:
        self._kept: list[Callable[[], object]] | None = []

    @property
    def is_released(self) -> bool:
        return self._kept is None

    def keep(self, call: Callable[[], object]) -> None:
        """Call when released, or now if that has been."""
        if self._kept is None:
            call()
        else:
            self._kept.append(call)

    def release(self) -> None:
        """Make every call that was kept, in order, and keep no further one."""
        kept, self._kept = self._kept or [], None
        for call in kept:
            call()


def _consumed(task: asyncio.Task[bool]) -> None:
    """An error of a rival that nobody waits for has been settled, and is nobody's any more."""
    if not task.cancelled():
        task.exception()
