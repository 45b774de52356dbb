"""Whether attempts of a process that is gone were settled: asked of the ledger, once it knows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.models import Attempt, Entry
from .ingest import LEDGER_NAME, Ingester
from .journal import SUFFIX
from .process import try_lock


def find_settled(
    directory: Path, pid: int, attempts: Sequence[Attempt]
) -> Mapping[str, Sequence[Entry]] | None:
    """The entries of ``attempts`` that the ledger holds, by attempt id.

    None while journals of the dead process ``pid`` wait to be loaded, which this tries to do unless
    another process is elected to. Raises StoreError.
    """
    ingester = Ingester(directory)
    try:
        ingester.run_once()
    finally:
        ingester.close()
    if any(_is_left(path) for path in directory.glob(f"{pid}-*{SUFFIX}")):
        return None
    path = directory / LEDGER_NAME
    if not path.exists():
        return {}
    from .ledger import Ledger  # imports the database: only where somebody died

    ledger = Ledger(path)
    try:
        ledger.open()
        wanted = {attempt.id for attempt in attempts}
        recorded = [
            one
            for call in {attempt.identity.call for attempt in attempts}
            for one in ledger.attempts(call=call)
        ]
    finally:
        ledger.close()
    return {one.attempt.id: one.entries for one in recorded if one.attempt.id in wanted}


def _is_left(journal: Path) -> bool:
    """Whether nobody writes to this journal any more: a process of the same id may be alive."""
    try:
        fd = os.open(journal, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return try_lock(fd)
    finally:
        os.close(fd)
