"""What an outage costs a caller, with LiveKit's FallbackAdapters and with this engine.

    python -m bench failover

Official plugins (and for chat our own client) before doubles, a primary with a fault and a backup.
Both sides have the same deadlines where LiveKit's adapters take one; the backup alone answers in
about 60 ms. The caller of a recogniser speaks as fast as people do, and times count from the end of
the first word. *First* is the first call that meets the fault, *next* a new session in the same
process, *other* one in another process. Times are to the first output, medians of ``ROUNDS``, then
what became of the rest.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path
from statistics import median

from tests.matrix import adapters, misbehaving
from tests.matrix.cells import Play
from tests.matrix.column import Column, Heard
from tests.matrix.columns import COLUMNS
from tests.matrix.ears import Ears
from tests.matrix.faults import FAULTS, Fault
from tests.matrix.judge import Cell
from tests.matrix.report import theirs

ROUNDS = 3
WANTED = ("500", "hang", "keep-alives only", "die midway", "stall midway")
IN = ("llm our client", "tts deepgram", "tts openai", "stt deepgram flux", "stt elevenlabs")


def first(same: list[Cell]) -> str:
    found = [cell.first for cell in same if cell.first is not None]
    told = f"{median(found) * 1e3:.0f} ms" if found else "nothing"
    gap = median(cell.gap for cell in same)
    said = [f"gap {gap * 1e3:.0f} ms"] * (gap > 0.2) + ["error"] * bool(same[0].ended)
    return ", ".join([told, *said])


def middle(column: Column, calls: list[Heard]) -> str:
    never = float("inf")
    ordered = sorted(calls, key=lambda one: one.first if one.first is not None else never)
    return theirs(column, ordered[len(ordered) // 2])


async def measure(matrix: Play, column: Column, fault: Fault) -> str:
    """One line of the table."""
    ours = [await matrix.outage(column, fault) for _ in range(ROUNDS)]
    # a new adapter knows nothing of the first one's failures: the next session is a first one
    livekit = [await adapters.first_call(column, fault, matrix.vendors) for _ in range(ROUNDS)]
    by = dict(zip([cell.situation for cell in ours[0]], zip(*ours, strict=True), strict=True))
    cells = [first(list(by[name])) for name in ("first call", "next call", "another process")]
    told = "".join(f"{cell:<26}" for cell in [cells[0], *cells[1:]])
    return f"{column!s:<19}{fault.name:<18}{told}{middle(column, livekit)}"


async def table() -> str:
    lines = [
        f"{'client':<19}{'fault':<18}{'first':<26}{'next':<26}{'other':<26}"
        "LiveKit: first, next and other"
    ]
    async with Play.open() as matrix:
        for one in (one for one in COLUMNS if str(one) in IN):
            column = one.at_speed(1.0) if isinstance(one, Ears) else one
            await matrix.warm_up(column)
            for fault in (one for one in FAULTS[column.modality] if one.name in WANTED):
                lines.append(await measure(matrix, column, fault))
    return "\n".join(lines)


def main() -> str:
    """Measure and return the table."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as rows:
        misbehaving.install(Path(rows))
        return asyncio.run(table())
