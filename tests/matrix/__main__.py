"""``python -m tests.matrix``: play the matrix, print it, fail when a cell falls short."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import median

from . import adapters, misbehaving
from .cells import BARGE_INS, Play
from .columns import COLUMNS, Column
from .faults import FAULTS, Fault
from .judge import Cell
from .report import Row, lines, page
from .vendors import ROOT

PAGE = ROOT / "docs" / "fault-matrix.md"
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
        one.gap = median(cell.gap for cell in same)
        firsts = [cell.first for cell in same if cell.first is not None]
        one.first = median(firsts) if firsts else None
        seen = Counter(problem for cell in same for problem in set(cell.problems))
        one.problems = [problem for problem, times in seen.items() if 3 * times > len(same)]
        flaky += [f"{one.situation}: {p}" for p in seen if p not in one.problems]
        cells.append(one)
    return cells, flaky


async def play_row(matrix: Play, column: Column, fault: Fault) -> Row:
    """Play a row, again when it falls short."""
    plays = [await matrix.row(column, fault)]
    while any(cell.shortfall for cell in plays[-1]) and len(plays) < PLAYS:
        plays.append(await matrix.row(column, fault))
    cells, flaky = merged(plays)
    beside = await adapters.first_call(column, fault, matrix.vendors)
    return Row(column, fault, cells, beside, len(plays), flaky)


async def play(columns: list[Column], names: list[str]) -> list[Row]:
    rows = []
    async with Play.open() as matrix:
        for column in columns:
            await matrix.warm_up(column)
            print(f"== {column}", flush=True)
            for fault in FAULTS[column.modality]:
                if not names or any(name in fault.name for name in names):
                    row = await play_row(matrix, column, fault)
                    print("\n".join(lines(row)), flush=True)
                    rows.append(row)
            if not names or "barge-in" in names:
                plays = [await matrix.barge_in(column, one) for one in BARGE_INS]
                row = Row(column, Fault("barge-in", frozenset()), plays)
                print("\n".join(lines(row)), flush=True)
                rows.append(row)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("faults", nargs="*", help="rows, by a part of their name")
    parser.add_argument("--column", default="", help="columns, by a part of their name")
    parser.add_argument("--write", action="store_true", help="write docs/fault-matrix.md")
    given = parser.parse_args()
    logging.disable(logging.CRITICAL)
    columns = [column for column in COLUMNS if given.column in str(column)]
    with tempfile.TemporaryDirectory() as rows:
        misbehaving.install(Path(rows))
        played = asyncio.run(play(columns, given.faults))
    if given.write:
        PAGE.write_text(page(played), encoding="utf-8")
    short = sum(bool(cell.shortfall) for row in played for cell in row.cells)
    print(f"{sum(len(row.cells) for row in played)} cells, {short or 'none'} short")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
