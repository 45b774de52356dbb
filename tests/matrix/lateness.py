"""How late the machine was: how long our processes were ready to run and were kept waiting.

Linux counts it (``/proc/<pid>/schedstat``, the second figure, in nanoseconds; Documentation/
scheduler/sched-stats.rst). What a busy machine adds to a call is at most this, so a cell is judged
without it; what we do ourselves is not in it. Where nobody counts, it is nothing.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_watched = {os.getpid()}


def watch(*pids: int) -> None:
    """Count these processes too: whatever has a part in a call."""
    _watched.update(pids)


def unwatch(pid: int) -> None:
    """Count it no more."""
    _watched.discard(pid)


def watched() -> list[int]:
    """The processes that are counted, this one first."""
    return sorted(_watched, key=lambda pid: pid != os.getpid())


def delayed() -> float:
    """Seconds that the main threads of the watched processes have waited for a processor."""
    total = 0
    for pid in _watched:
        with contextlib.suppress(OSError, IndexError, ValueError):
            total += int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[1])
    return total / 1e9
