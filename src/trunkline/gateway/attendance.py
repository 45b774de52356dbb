"""Looking after those who are being answered, all of them with one timer.

A task and a few timers of its own for each request would cost more than reading it.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

TICK_SECONDS = 2.0
"""How late a look may be."""


class Attended(Protocol):
    """Somebody who may have waited too long."""

    def look(self, now: float) -> None:
        """Do what is due at the loop time ``now``. Called every TICK_SECONDS."""


class Attendance:
    """Looks after whoever came and has not left yet. One an event loop."""

    def __init__(self) -> None:
        self._here: set[Attended] = set()
        self._timer: asyncio.TimerHandle | None = None

    def come(self, who: Attended) -> None:
        """Look after ``who`` from now on."""
        self._here.add(who)
        if self._timer is None:
            self._wait()

    def leave(self, who: Attended) -> None:
        """Look after ``who`` no more."""
        self._here.discard(who)

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for who in list(self._here):
            who.look(now)
        if self._here:
            self._wait()
