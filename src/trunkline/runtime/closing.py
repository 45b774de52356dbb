"""The farewell of a provider's stream: bounded, in the background, and sometimes with its usage."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from ..core.models import Usage
from .line import ProviderStream

logger = logging.getLogger("trunkline")

CLOSE_SECONDS = 5.0

Rest = Coroutine[Any, Any, Usage | None]
"""What closing a stream leaves to wait for; it may bring the usage that came at the end."""


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
