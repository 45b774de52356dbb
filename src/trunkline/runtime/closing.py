"""The farewell of a provider's stream: bounded, in the background, and sometimes with its usage.

And when that of what serves streams may come: once nobody uses it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Set
from typing import Any

from ..core.models import Usage
from .line import ProviderStream

logger = logging.getLogger("trunkline")

CLOSE_SECONDS = 5.0

Rest = Coroutine[Any, Any, Usage | None]
"""What closing a stream leaves to wait for; it may bring the usage that came at the end."""


class InUse:
    """How often each of the things that serve is in use, by ``id``; of one event loop."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}
        self._waiting: list[asyncio.Future[None]] = []

    def add(self, live: int) -> None:
        self._counts[live] = self._counts.get(live, 0) + 1

    def remove(self, live: int) -> None:
        left = self._counts.pop(live, 1) - 1
        if left:
            self._counts[live] = left
            return
        for free in self._waiting:
            if not free.done():
                free.set_result(None)
        self._waiting.clear()

    async def none_of(self, lives: Set[int]) -> None:
        """Wait until nobody uses any of ``lives``."""
        while not lives.isdisjoint(self._counts):
            free = asyncio.get_running_loop().create_future()
            self._waiting.append(free)
            await free


async def say_farewell(
    stream: ProviderStream[Any], rest: Rest, late: Callable[[Usage], None]
) -> None:
    """Wait for ``rest`` of closing ``stream``; ``late`` hears of the usage it brings."""
    try:
        if await _ends(rest, late):
            return
        # A cancellation can be lost: Python 3.11's wait_for, through which plugins connect,
        # drops one that meets its result. The stream would go on for ever.
        again = stream.close()
        if again is not None and not await _ends(again, late):
            logger.warning("a provider stream did not close within %g s", CLOSE_SECONDS)
    except Exception:  # a plugin's boundary: the attempt is settled, this changes nothing
        logger.debug("a provider stream failed to close", exc_info=True)


async def _ends(rest: Rest, late: Callable[[Usage], None]) -> bool:
    """Wait half of the time that closing may take; whether that was enough."""
    try:
        async with asyncio.timeout(CLOSE_SECONDS / 2):
            usage = await rest
    except TimeoutError:
        return False
    if usage is not None:
        late(usage)
    return True
