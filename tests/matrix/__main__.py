"""``python -m tests.matrix``: play the matrix, print it, fail when a cell falls short."""

from __future__ import annotations

import argparse
import pickle
import sys
from pathlib import Path

from .columns import COLUMNS
from .faults import FAULTS
from .playing import play_all
from .report import Row, page
from .vendors import ROOT

PAGE = ROOT / "docs" / "fault-matrix.md"
JOBS = 3


def kept(file: Path, played: list[Row]) -> list[Row]:
    """``played`` in the place of the same rows in ``file``, and the other rows of it."""
    by = {(str(row.column), row.fault.name) for row in played}
    before = pickle.loads(file.read_bytes()) if file.exists() else []
    rows = [row for row in before if (str(row.column), row.fault.name) not in by] + played
    rows.sort(key=_place)
    file.write_bytes(pickle.dumps(rows))
    return rows


def _place(row: Row) -> tuple[int, int]:
    faults = [fault.name for fault in FAULTS[row.column.modality]]
    name = row.fault.name
    place = faults.index(name) if name in faults else len(faults)  # who cuts in comes last
    return [str(column) for column in COLUMNS].index(str(row.column)), place


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("faults", nargs="*", help="rows, by a part of their name")
    parser.add_argument("--column", default="", help="columns, by a part of their name")
    parser.add_argument("--jobs", type=int, default=JOBS, help="columns played at a time")
    parser.add_argument("--write", action="store_true", help="write docs/fault-matrix.md")
    parser.add_argument("--keep", type=Path, help="add the rows that were played to this file")
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
