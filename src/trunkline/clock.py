"""Time and identity: the only place that reads the clock or draws randomness for an id.

Wall times are UTC nanoseconds since the epoch; durations are monotonic nanoseconds. Ids are UUID
version 7 (RFC 9562, section 5.7) as 36-character strings: they sort by the millisecond they were
made in, so the ledger's primary keys are appended, not scattered.
"""

from __future__ import annotations

import os
import random
import time

now_ns = time.time_ns
"""UTC nanoseconds since the epoch."""

monotonic_ns = time.monotonic_ns
"""Nanoseconds on a clock that never goes back; only differences mean anything."""

_draw = random.Random()
"""Ids must differ, not be secret; the system's randomness costs a call of its own each time."""
os.register_at_fork(after_in_child=_draw.seed)

_VERSION = 0x7 << 76
_VARIANT = 0b10 << 62
_RANDOM = ((1 << 12) - 1) << 64 | ((1 << 62) - 1)


def new_id() -> str:
    """Return a new UUIDv7 as text."""
    milliseconds = time.time_ns() // 1_000_000
    drawn = _draw.getrandbits(80) & _RANDOM
    text = f"{milliseconds << 80 | _VERSION | _VARIANT | drawn:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
