"""Running an event loop that Ctrl-C cannot catch half made."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

_CTRL_C = {signal.SIGINT}


def run(main: Coroutine[Any, Any, T]) -> T:
    """``asyncio.run`` with a Ctrl-C during its own start kept until ``main`` can be cancelled.

    An interrupt while the loop is being made would leave a broken loop and a coroutine that nobody
    awaited, and both print tracebacks on their way out.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _CTRL_C)
    try:
        return asyncio.run(_unmasked(main, before))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


async def _unmasked(main: Coroutine[Any, Any, T], mask: set[int | signal.Signals]) -> T:
    task = asyncio.ensure_future(main)
    await asyncio.sleep(0)  # its first step sets its own handlers
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return await task
