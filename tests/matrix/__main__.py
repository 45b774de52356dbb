"""``python -m tests.matrix``: play the matrix, print it, fail when a cell falls short."""

from __future__ import annotations

import argparse
import pickle
import sys
from pathlib import Path

from .columns import COLUMNS
from .playing import play_all
from .report import Row, page
from .vendors import ROOT

PAGE = ROOT / "docs" / "fault-matrix.md"
JOBS = 3


def kept(file: Path, played: list[Row]) -> list[Row]:
    """``played`` in the place of the same columns in ``file``, and the other columns of it."""
    by = {str(row.column) for row in played}
    before = pickle.loads(file.read_bytes()) if file.exists() else []
    rows = [row for row in before if str(row.column) not in by] + played
    order = [str(column) for column in COLUMNS]
    rows.sort(key=lambda row: order.index(str(row.column)))
    file.write_bytes(pickle.dumps(rows))
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("faults", nargs="*", help="rows, by a part of their name")
    parser.add_argument("--column", default="", help="columns, by a part of their name")
    parser.add_argument("--jobs", type=int, default=JOBS, help="columns played at a time")
    parser.add_argument("--write", action="store_true", help="write docs/fault-matrix.md")
    parser.add_argument("--keep", type=Path, help="add what was played to this file")
    given = parser.parse_args()
    columns = [column for column in COLUMNS if given.column in str(column)]
    played = play_all(columns, given.faults, given.jobs)
    if given.keep:
        played = kept(given.keep, played)
    if given.write:
        PAGE.write_text(page(played), encoding="utf-8")
    short = sum(bool(cell.shortfall) for row in played for cell in row.cells)
    print(f"{sum(len(row.cells) for row in played)} cells, {short or 'none'} short")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
