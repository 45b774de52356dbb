"""The SQLite side of the shared state: one connection, its tables and its statements.

Everything here raises sqlite3.Error or OSError, after which the object is of no more use than to be
closed. It is used by one thread at a time.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from ..clock import now_ns
from ..core.ports import SharedRecord
from .process import try_lock

DAMAGED_SUFFIX = ".damaged"

KEPT = 4096
"""Records that are kept, those that changed last: some are named after what clients ask for."""

_FORGET_EVERY = 64
"""Writes of one connection, of which the first and then each of these drops what is too much."""

_PATIENCE = 0.25
"""Seconds to wait for another process's write, which takes a tenth of a millisecond."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    key TEXT PRIMARY KEY,
    value BLOB NOT NULL,
    version INTEGER NOT NULL,
    change INTEGER NOT NULL UNIQUE
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (
    name TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    granted_ns INTEGER NOT NULL,
    until_ns INTEGER NOT NULL
) WITHOUT ROWID;
"""

_PUT = """
INSERT INTO records (key, value, version, change)
VALUES (?, ?, ?, (SELECT coalesce(max(change), 0) + 1 FROM records))
ON CONFLICT (key) DO UPDATE
SET value = excluded.value, version = excluded.version, change = excluded.change
WHERE (excluded.version, excluded.value) > (version, value)
"""

_CHANGES = "SELECT key, value, version, change FROM records WHERE change > ? ORDER BY change"

# A lease granted in the future was granted by a clock that has been set back since.
_LEASE = """
INSERT INTO leases (name, owner, granted_ns, until_ns) VALUES (:name, :owner, :now, :until)
ON CONFLICT (name) DO UPDATE
SET owner = excluded.owner, granted_ns = excluded.granted_ns, until_ns = excluded.until_ns
WHERE owner = excluded.owner OR until_ns <= :now OR granted_ns > :now
"""

_RELEASE = "DELETE FROM leases WHERE name = ? AND owner = ?"

_FORGET = """
DELETE FROM records
WHERE change <= (SELECT change FROM records ORDER BY change DESC LIMIT 1 OFFSET ?)
"""
_FORGET_LEASES = "DELETE FROM leases WHERE until_ns <= ?"  # anybody may have those again

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_damage(error: Exception) -> bool:
    """Whether ``error`` says that the file itself is broken: not locked, not out of reach."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _DAMAGE


def set_aside(path: Path) -> Path | None:
    """Rename the damaged file at ``path`` and return its new name; None when another process did.

    Nothing in this process may have it open. Its journals go before it does: the next file would
    take them for its own. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY)
    try:
        is_ours = try_lock(fd) and os.stat(path).st_ino == os.fstat(fd).st_ino
        if not is_ours or _is_sound(path):  # it may be another process's new one
            return None
        for journal in ("-wal", "-shm"):
            Path(f"{path}{journal}").unlink(missing_ok=True)
        return path.replace(path.with_suffix(DAMAGED_SUFFIX))
    finally:
        os.close(fd)


def _is_sound(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(path, timeout=_PATIENCE)) as db:
            return bool(db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",))
    except sqlite3.Error as error:
        return not is_damage(error)


class SharedFile:
    """A connection to the file at ``path``, which is made when it is missing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data_version: int | None = None
        self._change = 0
        self._writes = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = sqlite3.connect(
            path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
            self._inode = path.stat().st_ino
            self._looked = time.monotonic()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        # No fsync for each write: a power cut ends every process that the records are for.
        self._db.execute("PRAGMA synchronous = NORMAL")
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.executescript(_SCHEMA)
            except sqlite3.OperationalError as error:
                # While another connection does the same, or is the last to close, SQLite refuses
                # at once where it otherwise waits.
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.005)
            else:
                return

    def write(
        self, records: Iterable[SharedRecord], released: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Put each record unless a newer one is there, then release the (name, owner) leases."""
        with self._transaction():
            self._db.executemany(_PUT, [(r.key, r.value, r.version) for r in records])
            self._db.executemany(_RELEASE, released)
            if self._writes % _FORGET_EVERY == 0:
                self._db.execute(_FORGET, (KEPT,))
                self._db.execute(_FORGET_LEASES, (now_ns(),))
            self._writes += 1

    def changes(self) -> list[SharedRecord]:
        """What this connection has not read yet. Cheap when no other one has written."""
        (data_version,) = self._db.execute("PRAGMA data_version").fetchone()
        if data_version == self._data_version:
            return []
        rows = self._db.execute(_CHANGES, (self._change,)).fetchall()
        self._data_version = data_version
        if rows:
            self._change = rows[-1][3]
        return [SharedRecord(key, value, version) for key, value, version, _ in rows]

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Whether ``owner`` now holds ``name``."""
        with self._transaction():
            now = (
                now_ns()
            )  # once nobody else can write: a lease from while we waited is no surprise
            until = now + round(seconds * 1e9)
            values = {"name": name, "owner": owner, "now": now, "until": until}
            return self._db.execute(_LEASE, values).rowcount == 1

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._db.rollback()
            raise

    def is_replaced(self) -> bool:
        """Whether ``path`` is not this file any more: somebody deleted it. Looks once a second."""
        now = time.monotonic()
        if now - self._looked < 1:
            return False
        self._looked = now
        try:
            return os.stat(self._path).st_ino != self._inode
        except FileNotFoundError:
            return True

    def close(self) -> None:
        self._db.close()
