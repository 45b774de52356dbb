"""The ledger: one SQLite file that many processes read and one at a time writes.

Journals are loaded with ``add``; everything else here reads. What cannot be opened, read or written
is a StoreError, or a UsageError when another path would help, in one sentence.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from weakref import WeakSet

from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from ..core.models import Attempt, Entry, Modality, Settlement, Usage
from ..core.pricing import count_unpriced
from ..errors import StoreError, UsageError
from . import statements as sql
from .process import at_fork
from .records import Record
from .rows import attempt_of, attempt_row, entry_of, entry_row, usage_of
from .schema import REVISION

_writing = threading.Lock()
"""Held by this process's one writer."""


class _Forks:
    """No connection is open while this process forks.

    SQLite keeps a process's locks on a file once for all its connections, and believes what it
    kept. A child that inherits them holds none of them: the next process to close the file takes
    itself for the last one, and removes what the child reads.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._users = 0
        self._is_near = False
        self._ledgers: WeakSet[Ledger] = WeakSet()
        at_fork(self)

    def add(self, ledger: Ledger) -> None:
        with self._changed:
            self._ledgers.add(ledger)

    @contextmanager
    def kept_off(self) -> Iterator[None]:
        """Have forks wait until the end of the block, and the block until the end of a fork."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_near)  # two busy threads would never end
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                self._changed.notify_all()

    def before_fork(self) -> None:
        self._changed.acquire()
        self._is_near = True
        self._changed.wait_for(lambda: not self._users)
        for ledger in list(self._ledgers):
            ledger.let_go()

    def after_fork(self, *, in_child: bool) -> None:
        self._is_near = False
        if in_child:
            self._changed = threading.Condition()  # those who wait for the other one are not here
            return
        self._changed.notify_all()
        self._changed.release()


_forks = _Forks()


@dataclass(frozen=True, slots=True)
class Position:
    """How far a journal file is loaded, in bytes, and how many damaged lines it had until there."""

    offset: int = 0
    damaged: int = 0


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


class Ledger:
    """The ledger at ``path``. ``patience`` is how long a locked database is waited for, seconds."""

    def __init__(self, path: Path, *, patience: float = 1.0) -> None:
        self.path = path
        self._patience = patience
        self._engine = create_engine(
            URL.create("sqlite", database=str(path)),
            connect_args={"timeout": patience, "check_same_thread": False},
        )
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        _forks.add(self)

    def open(self) -> None:
        """Create the file and its directory when missing, and bring its schema up to date.

        Raises UsageError when the path cannot be written to, StoreError when the file is no ledger,
        was written by a newer version, or stays locked.
        """
        _check_writable(self.path)
        with _forks.kept_off(), self._told():
            _use_wal(self.path, self._patience)
        with self._write() as connection:
            self._migrate(connection)

    def close(self) -> None:
        """Close every connection; the ledger opens new ones when it is used again."""
        with _forks.kept_off():
            self.let_go()

    def let_go(self) -> None:
        """Close the connections that nobody uses."""
        self._engine.dispose()

    def add(self, records: Sequence[Record], journal: str, position: Position) -> None:
        """Add what is not there yet, and remember that ``journal`` is loaded to ``position``.

        Both happen or neither. Raises StoreError, after which the same call can be repeated.
        """
        attempts = [attempt_row(r.attempt) for r in records if isinstance(r, Settlement)]
        entries = [entry_row(r.entry if isinstance(r, Settlement) else r) for r in records]
        with self._write() as connection:
            if attempts:
                connection.exec_driver_sql(sql.INSERT_ATTEMPTS, attempts)
            if entries:
                connection.exec_driver_sql(sql.INSERT_ENTRIES, entries)
            connection.exec_driver_sql(
                sql.MOVE_POSITION, (journal, position.offset, position.damaged)
            )

    def positions(self) -> dict[str, Position]:
        """Return how far each journal is loaded, by file name."""
        with self._read() as connection:
            rows = connection.execute(sql.POSITIONS)
            return {row.name: Position(row.offset, row.damaged) for row in rows}

    def forget(self, journal: str) -> None:
        """Drop the position of a journal file that is gone."""
        with self._write() as connection:
            connection.execute(sql.FORGET_POSITION, {"name": journal})

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
        with _forks.kept_off(), self._told(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        with (
            _forks.kept_off(),
            _writing,
            self._told(),
            self._engine.connect() as connection,
            connection.execution_options(immediate=True).begin(),
        ):
            yield connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (DBAPIError, sqlite3.Error) as error:
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise StoreError(f"the ledger {self.path} cannot be used: {reason}") from error

    def _migrate(self, connection: Connection) -> None:
        at = _revision(connection)
        if at == REVISION:
            return
        # Alembic takes 0.2 s to import, and an up-to-date ledger does not need it.
        from alembic.util import CommandError

        from .migrations import upgrade

        try:
            upgrade(connection)
        except CommandError as error:
            raise StoreError(
                f"the ledger {self.path} has schema {at}, which this version of trunkline does not "
                f"know (it knows up to {REVISION}): upgrade trunkline, or choose another ledger"
            ) from error


def _check_writable(path: Path) -> None:
    """Look, but never open the file: to close it would end this process's locks on it (POSIX)."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        for needed in (path.parent, path):
            if needed.exists() and not os.access(needed, os.R_OK | os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise UsageError(
            f"the ledger {path} cannot be written ({error.strerror}): choose another directory, "
            "or change its permissions"
        ) from error


def _use_wal(path: Path, patience: float) -> None:
    """Switch the file to WAL, which stays with it. SQLite does not wait here for another switch."""
    deadline = time.monotonic() + patience
    with closing(sqlite3.connect(path, timeout=patience)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


def _revision(connection: Connection) -> str | None:
    table = text("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'")
    if connection.scalar(table) is None:
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def _prepare(dbapi: sqlite3.Connection, _record: object) -> None:
    # Transactions are begun by _begin, so that they cover what sqlite3 leaves out: DDL and reads.
    dbapi.isolation_level = None
    # Safe against the death of a process at any time; a power cut may cost the last transactions.
    dbapi.execute("PRAGMA synchronous = NORMAL")


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
