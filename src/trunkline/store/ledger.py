"""The ledger: one SQLite file that many processes read and one at a time writes.

Journals are loaded by ``ledger_file.py``; everything here reads. What cannot be opened, read or
written is a StoreError, or a UsageError when another path would help, in one sentence.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from ..core.models import Attempt, Entry, Modality, Usage
from ..core.pricing import count_unpriced
from . import statements as sql
from .ledger_file import LedgerFile, Position, forks, prepare, told
from .rows import attempt_of, entry_of, usage_of

__all__ = ["Ledger", "Position", "Recorded", "Total"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """An attempt with every entry it has, in the order they were recorded."""

    attempt: Attempt
    entries: tuple[Entry, ...]

    @property
    def nanos(self) -> int | None:
        """What it cost in nano-dollars, None while any of its entries is unpriced."""
        if not self.entries or count_unpriced(self.entries):
            return None
        return sum(entry.charge.nanos for entry in self.entries if entry.charge)


@dataclass(frozen=True, slots=True)
class Total:
    """What one model was used for and cost; ``nanos`` leaves out ``unpriced`` entries."""

    modality: Modality
    provider: str
    model: str
    attempts: int
    usage: Usage
    nanos: int
    unpriced: int


class Ledger(LedgerFile):
    """The same file with everything that is asked of it."""

    def __init__(self, path: Path, *, patience: float = 1.0) -> None:
        self._engine = create_engine(
            URL.create("sqlite", database=str(path)),
            connect_args={"timeout": patience, "check_same_thread": False},
        )
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        super().__init__(path, patience=patience)

    def let_go(self) -> None:
        super().let_go()
        self._engine.dispose()

    def attempts(
        self,
        *,
        call: str | None = None,
        room: str | None = None,
        org: str | None = None,
        project: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> list[Recorded]:
        """Return the attempts asked for, oldest first; ``until_ns`` is exclusive, both are UTC."""
        where = sql.chosen(
            call=call, room=room, org=org, project=project, since_ns=since_ns, until_ns=until_ns
        )
        entries: dict[str, list[Entry]] = {}
        with self._read() as connection:
            for row in connection.execute(sql.ENTRIES.where(where)):
                entries.setdefault(row.attempt_id, []).append(entry_of(row))
            attempts = [attempt_of(row) for row in connection.execute(sql.ATTEMPTS.where(where))]
        return [Recorded(attempt, tuple(entries.get(attempt.id, ()))) for attempt in attempts]

    def summary(
        self,
        *,
        call: str | None = None,
        room: str | None = None,
        org: str | None = None,
        project: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
    ) -> list[Total]:
        """Return one total a model of the attempts asked for, by modality, provider and model."""
        where = sql.chosen(
            call=call, room=room, org=org, project=project, since_ns=since_ns, until_ns=until_ns
        )
        with self._read() as connection:
            return [
                Total(
                    modality=Modality(row.modality),
                    provider=row.provider,
                    model=row.model,
                    attempts=row.attempts,
                    usage=usage_of(row),
                    nanos=row.nanos,
                    unpriced=row.unpriced,
                )
                for row in connection.execute(sql.TOTALS.where(where))
            ]

    def next_begun(self, since_ns: int) -> int | None:
        """When the first attempt from ``since_ns`` on began, UTC ns; None when there is none."""
        with self._read() as connection:
            found: int | None = connection.scalar(sql.NEXT_BEGUN, {"since_ns": since_ns})
            return found

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with forks.kept_off(), told(self.path, DBAPIError), self._engine.begin() as connection:
            yield connection


def _prepare(dbapi: sqlite3.Connection, _record: object) -> None:
    # Transactions are begun by _begin, so that they cover what sqlite3 leaves out: DDL and reads.
    dbapi.isolation_level = None
    prepare(dbapi)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")
