"""The ledger's file as its one writer knows it: by sqlite3 alone.

Whoever serves calls may be elected to load journals, and should not carry a toolkit for databases
because of that: it is as large as the rest of a process that serves chats. Reading, where questions
are put together, is ``ledger.py``. The statements follow the columns that ``rows.py`` writes.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from ..core.models import Settlement
from ..errors import StoreError, UsageError
from .process import at_fork
from .records import Record
from .rows import ATTEMPT_COLUMNS, ENTRY_COLUMNS, attempt_row, entry_row

REVISION = "0004"
"""The newest migration, with which ``ledger.sql`` begins."""

_NEW = Path(__file__).with_name("ledger.sql")


def _insert(table: str, columns: Sequence[str]) -> str:
    """An insert that passes over rows already there, and over nothing else."""
    names = ", ".join(f'"{name}"' for name in columns)
    values = ", ".join("?" * len(columns))
    return f"INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT (id) DO NOTHING"


_INSERT_ATTEMPTS = _insert("attempts", ATTEMPT_COLUMNS)
_INSERT_ENTRIES = _insert("entries", ENTRY_COLUMNS)
_MOVE_POSITION = """
INSERT INTO journals (name, "offset", damaged) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET
"offset" = max("offset", excluded."offset"), damaged = max(damaged, excluded.damaged)
"""

_writing = threading.Lock()
"""Held by this process's one writer."""


class Connected(Protocol):
    """What holds connections to a ledger."""

    def let_go(self) -> None:
        """Close those that nobody uses."""


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
        self._ledgers: WeakSet[Connected] = WeakSet()
        at_fork(self)

    def add(self, ledger: Connected) -> None:
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


forks = _Forks()


@contextmanager
def told(path: Path, *kinds: type[Exception]) -> Iterator[None]:
    """Raise what SQLite, or one of ``kinds``, complains of as a StoreError."""
    complaints: tuple[type[Exception], ...] = (sqlite3.Error, *kinds)
    try:
        yield
    except complaints as error:
        reason = getattr(error, "orig", None) or error
        raise StoreError(f"the ledger {path} cannot be used: {reason}") from error


@dataclass(frozen=True, slots=True)
class Position:
    """How far a journal file is loaded, in bytes, and how many damaged lines it had until there."""

    offset: int = 0
    damaged: int = 0


class LedgerFile:
    """The ledger at ``path``. ``patience`` is how long a locked database is waited for, seconds."""

    def __init__(self, path: Path, *, patience: float = 1.0) -> None:
        self.path = path
        self._patience = patience
        self._connection: sqlite3.Connection | None = None
        forks.add(self)

    def open(self) -> None:
        """Create the file and its directory when missing, and bring its schema up to date.

        Raises UsageError when the path cannot be written to, StoreError when the file is no ledger,
        was written by a newer version, or stays locked.
        """
        _check_writable(self.path)
        with forks.kept_off(), told(self.path):
            _use_wal(self.path, self._patience)
        with self._write() as connection:
            at = _revision(connection)
            if at is None and not _tables(connection):
                for statement in _NEW.read_text("utf-8").split(";"):
                    connection.execute(statement)
                connection.execute("INSERT INTO alembic_version VALUES (?)", (REVISION,))
            elif at != REVISION:
                self._migrate(connection, at)

    def close(self) -> None:
        """Close the connection; the next use opens a new one."""
        with forks.kept_off(), _writing:
            self.let_go()

    def let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def add(self, records: Sequence[Record], journal: str, position: Position) -> None:
        """Add what is not there yet, and remember that ``journal`` is loaded to ``position``.

        Both happen or neither. Raises StoreError, after which the same call can be repeated.
        """
        attempts = [attempt_row(r.attempt) for r in records if isinstance(r, Settlement)]
        entries = [entry_row(r.entry if isinstance(r, Settlement) else r) for r in records]
        with self._write() as connection:
            connection.executemany(_INSERT_ATTEMPTS, attempts)
            connection.executemany(_INSERT_ENTRIES, entries)
            connection.execute(_MOVE_POSITION, (journal, position.offset, position.damaged))

    def positions(self) -> dict[str, Position]:
        """Return how far each journal is loaded, by file name."""
        with self._write("BEGIN") as connection:
            rows = connection.execute('SELECT name, "offset", damaged FROM journals').fetchall()
        return {name: Position(offset, damaged) for name, offset, damaged in rows}

    def forget(self, journal: str) -> None:
        """Drop the position of a journal file that is gone."""
        with self._write() as connection:
            connection.execute("DELETE FROM journals WHERE name = ?", (journal,))

    @contextmanager
    def _write(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[sqlite3.Connection]:
        with forks.kept_off(), _writing, told(self.path):
            connection = self._connected()
            try:
                connection.execute(begin)
                yield connection
                connection.commit()
            except BaseException:
                with suppress(sqlite3.Error):
                    connection.rollback()
                self.let_go()
                raise

    def _migrate(self, connection: sqlite3.Connection, at: str | None) -> None:
        # The database's toolkit takes half a second and 30 MB: it is for an older ledger alone.
        from alembic.util import CommandError
        from sqlalchemy.exc import DBAPIError

        from .migrations import upgrade_file

        try:
            with told(self.path, DBAPIError):
                upgrade_file(connection)
        except CommandError as error:
            raise StoreError(
                f"the ledger {self.path} has schema {at}, which this version of trunkline does not "
                f"know (it knows up to {REVISION}): upgrade trunkline, or choose another ledger"
            ) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            # Transactions are begun by hand: so they cover what sqlite3 leaves out, DDL and reads.
            connection = self._connection = sqlite3.connect(
                self.path, timeout=self._patience, isolation_level=None, check_same_thread=False
            )
            prepare(connection)
        return self._connection


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


def prepare(connection: sqlite3.Connection) -> None:
    # Safe against the death of a process at any time; a power cut may cost the last transactions.
    connection.execute("PRAGMA synchronous = NORMAL")


def _tables(connection: sqlite3.Connection) -> int:
    found: int = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    return found


def _revision(connection: sqlite3.Connection) -> str | None:
    table = "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
    if connection.execute(table).fetchone() is None:
        return None
    found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return found[0] if found is not None else None
