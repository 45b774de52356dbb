"""Words that are not final yet, no faster than a client can hang up between two of them.

On Node 20 a message that meets a client which has just closed its stream ends the whole process.
Nobody can call back what is on its way, but a burst, of which each piece only says more than the
one before, need not be.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

GAP_SECONDS = 0.1
"""Between two interims; recognisers that hear at the pace of life leave more."""


class Interims:
    """Lets the first one out at once, and of those that follow too soon the newest."""

    def __init__(self, send: Callable[[str], Awaitable[None]]) -> None:
        self._send = send
        self._clock = asyncio.get_running_loop().time
        self._free_at = 0.0
        self._newest: str | None = None
        self._waits = asyncio.Event()

    async def offer(self, message: str) -> None:
        """Send ``message``, or keep it until its time in the place of the one that waits."""
        self._newest = message
        if self._clock() >= self._free_at:
            await self._tell()
        else:
            self._waits.set()

    def drop(self) -> None:
        """Forget the one that waits: something follows that says more."""
        self._newest = None

    async def run(self) -> None:
        """Send what waits when its time has come; never ends."""
        while True:
            await self._waits.wait()
            self._waits.clear()
            await asyncio.sleep(self._free_at - self._clock())
            await self._tell()

    async def _tell(self) -> None:
        message, self._newest = self._newest, None
        if message is not None:
            self._free_at = self._clock() + GAP_SECONDS
            await self._send(message)
