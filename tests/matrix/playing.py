"""Playing columns, each in a process of its own, and rows again that fall short."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

from . import adapters, misbehaving
from .cells import BARGE_INS, Play, Unplayable
from .column import Column
from .columns import COLUMNS
from .faults import FAULTS, Fault
from .judge import Cell
from .report import Row, lines

BARGE_IN = "barge-in"

PLAYS = 3
"""A row that falls short is played so often: the machine may have been busy elsewhere."""


def merged(plays: list[list[Cell]]) -> tuple[list[Cell], list[str]]:
    """The same cells played several times, and what was wrong only once.

    Times are medians; a problem counts when it came in more than a third of the plays.
    """
    cells, flaky = [], []
    for same in zip(*plays, strict=True):
        one = same[0]
        one.late = median(cell.late for cell in same)
        one.machine = median(cell.machine for cell in same)
        one.gap = median(cell.gap for cell in same)
        firsts = [cell.first for cell in same if cell.first is not None]
        one.first = median(firsts) if firsts else None
        seen = Counter(problem for cell in same for problem in set(cell.problems))
        one.problems = [problem for problem, times in seen.items() if 3 * times > len(same)]
        flaky += [f"{one.situation}: {p}" for p in seen if p not in one.problems]
        cells.append(one)
    return cells, flaky


async def judged(play: Callable[[], Awaitable[list[Cell]]]) -> tuple[list[Cell], list[str], int]:
    """Play cells, again when one falls short; how often they were played is told as well."""
    plays: list[list[Cell]] = []
    for _ in range(PLAYS):
        try:
            plays.append(await play())
        except Unplayable as error:
            given_up = Cell("first call", problems=[str(error)])
            continue
        if not any(cell.shortfall for cell in plays[-1]):
            break
    cells, flaky = merged(plays) if plays else ([given_up], [])
    return cells, flaky, len(plays)


async def play_row(matrix: Play, column: Column, fault: Fault) -> Row:
    """One fault in all situations, beside LiveKit's adapter."""
    cells, flaky, plays = await judged(lambda: matrix.row(column, fault))
    beside = await adapters.first_call(column, fault, matrix.vendors)
    return Row(column, fault, cells, beside, plays, flaky)


async def play_barge_ins(matrix: Play, column: Column) -> Row:
    """A caller who cuts in, at each moment."""

    async def play() -> list[Cell]:
        return [await matrix.barge_in(column, one) for one in BARGE_INS]

    cells, flaky, plays = await judged(play)
    return Row(column, Fault(BARGE_IN, frozenset()), cells, plays=plays, flaky=flaky)


async def play(column: Column, names: list[str]) -> list[Row]:
    """The rows of one column, those named or all, printed as they come."""
    rows = []
    async with Play.open() as matrix:
        await matrix.warm_up(column)
        for fault in FAULTS[column.modality]:
            if not names or any(name in fault.name for name in names):
                rows.append(await play_row(matrix, column, fault))
                print("\n".join(lines(rows[-1])), flush=True)
        if not names or BARGE_IN in names:
            rows.append(await play_barge_ins(matrix, column))
            print("\n".join(lines(rows[-1])), flush=True)
    return rows


def play_column(name: str, names: list[str]) -> list[Row]:
    """The same, in a process that does nothing else."""
    logging.disable(logging.CRITICAL)
    column = next(one for one in COLUMNS if str(one) == name)
    with tempfile.TemporaryDirectory() as rows:
        misbehaving.install(Path(rows))
        return asyncio.run(play(column, names))


def play_all(columns: list[Column], names: list[str], jobs: int) -> list[Row]:
    """Several columns at a time, the long ones first: they wait more than they work."""
    order = sorted(columns, key=lambda one: ("stt", "tts", "llm").index(one.modality))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        played = {str(one): pool.submit(play_column, str(one), names) for one in order}
        return [row for one in columns for row in played[str(one)].result()]
