"""``GateStore`` for the processes of one machine: the SQLite file ``gate.db``, and notes beside it.

A file of its own, for it is written by whoever reserves while ``shared.db`` is read by everybody at
every tick, and because it may not be deleted: it holds what is spent. sqlite3 of the standard
library, as there, for the first attempt waits for it.

A process is dead when the lock on its file of notes is free; the kernel sees to that however it
ended. So nothing a stopped or starved process holds is taken from it, and no clock is believed.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from ..clock import new_id, now_ns
from ..core.budgets import MILLION, slice_of
from ..core.ports import Ask, Change, Level, Orphan, Override, Said, Taken, Used
from ..errors import StoreError
from . import gates_sql as sql
from .gate_notes import Notes, left_by
from .process import at_fork

logger = logging.getLogger(__name__)

GATE_NAME = "gate.db"

_PATIENCE = 2.0
"""Seconds to wait for the writes of other processes, each of which takes a tenth of a millisecond:
more than any queue of them, less than a caller's patience."""

_DEMAND_NS = 1_000_000_000
_LAST_NS = 2**62
"""An instant after which nobody waits for a rate: the year 2116."""
_CALLS_KEPT_NS = 7 * 86400 * 1_000_000_000
"""How long the budgets of single calls are remembered."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[bytes]).decode


class SQLiteGateStore:
    """The gate's books in ``directory``; nothing is opened before it is used.

    Whoever is ``only_reading`` joins nobody and waits for nobody; the file must be there.
    """

    def __init__(self, directory: Path, *, only_reading: bool = False) -> None:
        self.path = directory / GATE_NAME
        self._directory = directory
        self._only_reading = only_reading
        self._begin()
        at_fork(self)

    def _begin(self) -> None:
        self._using = threading.RLock()
        self.holder = new_id()
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._version: int | None = None
        self._notes = Notes(self._directory, self.holder)
        self._burying: dict[str, Notes] = {}

    def take(self, asks: Sequence[Ask], said: Said | None = None) -> Taken:
        now = now_ns()
        with self._writing() as db:
            if said is not None:
                self._say(db, said, now)
            levels = [self._level(db, ask, now) for ask in asks]
            if not all(_fits(ask, level) for ask, level in zip(asks, levels, strict=True)):
                db.executemany(
                    sql.DEMAND,
                    [
                        (ask.pool, now + _DEMAND_NS)
                        for ask, level in zip(asks, levels, strict=True)
                        if not _fits(ask, level)
                    ],
                )
                return Taken((0,) * len(asks), tuple(levels))
            granted = [
                self._grant(db, ask, level, now) for ask, level in zip(asks, levels, strict=True)
            ]
        return Taken(tuple(granted), tuple(levels))

    def _level(self, db: sqlite3.Connection, ask: Ask, now: int) -> Level:
        if ask.rate is not None:
            (tat,) = db.execute(sql.TAT, (ask.pool, ask.slot_ns)).fetchone()
            wait = ask.rate.wait(tat, now, ask.need)
            return Level(0, 0, 0, ask.amount, ask.rate.left(tat, now), wait)
        (spent,) = db.execute(sql.SPENT, (ask.pool, ask.since_ns)).fetchone()
        held, free = db.execute(sql.HELD, (self.holder, ask.pool, ask.since_ns)).fetchone()
        amount = ask.amount
        if ask.budget:
            row = db.execute(sql.OVERRIDDEN, (ask.budget, now)).fetchone()
            amount = row[0] if row else amount
        left = None if ask.share is None else amount * ask.share // MILLION - spent - held
        return Level(spent, held, free or 0, amount, left)

    def _grant(self, db: sqlite3.Connection, ask: Ask, level: Level, now: int) -> int:
        left = level.left or 0
        if ask.rate is not None:
            (tat,) = db.execute(sql.TAT, (ask.pool, ask.slot_ns)).fetchone()
            units = ask.rate.slice_of(ask.need, left)
            db.execute(sql.SET_TAT, (ask.pool, ask.slot_ns, _kept(ask.rate.taken(tat, now, units))))
            return units
        units = ask.need if level.left is None else slice_of(ask.need, left)
        db.execute(sql.GRANT, (ask.pool, ask.slot_ns, self.holder, units, units - ask.need))
        if ask.since_ns < ask.slot_ns:  # a rolling window: what has left it is of no more use
            db.execute(sql.FORGET_SLOTS, (ask.pool, ask.since_ns))
        return units

    def note(self, number: int, record: bytes) -> None:
        self._notes.write(number, record)

    def flush(self, said: Said) -> None:
        now = now_ns()
        with self._writing() as db:
            self._say(db, said, now)
            db.execute(sql.FORGET_DEMANDS, (now,))
        self._notes.forget(said.number)

    def _say(self, db: sqlite3.Connection, said: Said, now: int) -> None:
        for change in said.changes:
            self._apply(db, change, self.holder, now)
        db.execute(sql.NOTES, (said.number, _encode(said.notes), self.holder))

    def _apply(self, db: sqlite3.Connection, change: Change, holder: str, now: int) -> None:
        where = (change.pool, change.slot_ns)
        if change.attempts or change.spent:
            parts = (change.spent, change.attempts, change.unpriced, now)
            db.execute(sql.SPEND, (*where, *parts))
        if change.rate is not None:
            if change.back:
                (tat,) = db.execute(sql.TAT, where).fetchone()
                tat = change.rate.taken(tat, now, -change.back)
                db.execute(sql.SET_TAT, (*where, _kept(tat)))
        elif change.held:
            db.execute(sql.HOLD, (*where, holder, change.held, change.free))
        else:
            db.execute(sql.DROP, (*where, holder))

    def wanted(self) -> Sequence[str]:
        with self._told():
            return [pool for (pool,) in self._opened().execute(sql.DEMANDS, (now_ns(),))]

    def levels(self, asks: Sequence[Ask]) -> Sequence[Level]:
        with self._told():
            db = self._opened()
            return [self._level(db, ask, now_ns()) for ask in asks]

    def changed(self) -> bool:
        with self._told():
            (version,) = self._opened().execute("PRAGMA data_version").fetchone()
            known, self._version = self._version, version
            return bool(known != version)

    def orphans(self) -> Sequence[Orphan]:
        found = []
        with self._told():
            rows = self._opened().execute(sql.HOLDERS, (self.holder,)).fetchall()
        for holder, pid, number, notes in rows:
            left = self._burying.get(holder) or left_by(self._directory, holder)
            if left is not None:
                self._burying[holder] = left
                found.append(Orphan(holder, pid, (*_decode(notes), *left.after(number))))
        return found

    def bury(self, orphan: Orphan, changes: Sequence[Change]) -> None:
        now = now_ns()
        with self._writing() as db:
            # else another process was faster, before this one had the lock
            if db.execute(sql.IS_HOLDER, (orphan.holder,)).fetchone():
                for change in changes:
                    parts = (change.spent, change.attempts, change.unpriced, now)
                    db.execute(sql.SPEND, (change.pool, change.slot_ns, *parts))
            db.execute(sql.DROP_ALL, (orphan.holder,))
            db.execute(sql.LEAVE, (orphan.holder,))
        self._burying.pop(orphan.holder).remove()

    def correct(self, entry: str, changes: Sequence[Change]) -> None:
        now = now_ns()
        with self._writing() as db:
            for change in changes:
                where = (change.pool, change.slot_ns)
                if db.execute(sql.IS_KEPT, where).fetchone() is None:
                    continue
                if db.execute(sql.CORRECTED, (entry, change.pool)).rowcount:
                    parts = (change.spent, change.attempts, change.unpriced, now)
                    db.execute(sql.SPEND, (*where, *parts))

    def history(self, pool: str) -> Sequence[Used]:
        with self._told():
            rows = self._opened().execute(sql.HISTORY, (pool, f"{pool};", f"{pool}<")).fetchall()
        return [Used(p, slot, s, a, u, held, tat) for p, slot, s, a, u, tat, held in rows]

    def override(self, override: Override) -> None:
        values = (override.budget, override.amount, override.until_ns, override.reason)
        with self._writing() as db:
            db.execute(sql.OVERRIDE, values)

    def overrides(self) -> Sequence[Override]:
        with self._told():
            return [Override(*row) for row in self._opened().execute(sql.OVERRIDES, (now_ns(),))]

    def close(self) -> None:
        try:
            db = None if self._only_reading else self._db
            if db is not None and not self._holds_anything(db):
                db.execute(sql.LEAVE, (self.holder,))
                self._notes.remove()
        except sqlite3.Error as error:
            logger.warning("the gate's books are left as they are: %s: %s", self.path, error)
        finally:
            self._let_go()
            self._notes.close()
            for left in self._burying.values():
                left.close()
            self._begin()

    def _holds_anything(self, db: sqlite3.Connection) -> bool:
        return db.execute(sql.HOLDS, {"holder": self.holder}).fetchone() is not None

    def before_fork(self) -> None:
        """Close the file: a handle of SQLite in two processes would betray the locks of both."""
        self._using.acquire()
        self._let_go()

    def after_fork(self, *, in_child: bool) -> None:
        """The child holds nothing yet: what the parent holds stays the parent's."""
        self._using.release()
        if in_child:
            self._notes.abandon()
            for left in self._burying.values():
                left.abandon()
            self._begin()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._told():
            db = self._opened()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.rollback()
                raise

    @contextmanager
    def _told(self) -> Iterator[None]:
        with self._using:
            try:
                yield
            except (sqlite3.Error, OSError) as error:
                self._let_go()
                raise StoreError(f"the gate's books {self.path} cannot be used: {error}") from error

    def _let_go(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
            self._version = None

    def _opened(self) -> sqlite3.Connection:
        if self._db is None and self._only_reading:
            self._db = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)
        if self._db is None:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._notes.open()
            db = sqlite3.connect(
                self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            try:
                _prepare(db)
                db.execute(sql.JOIN, (self.holder, os.getpid()))
                db.execute(sql.FORGET_CALLS, (now_ns() - _CALLS_KEPT_NS,))
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db


def _kept(tat: int) -> int:
    """``tat`` as far as a column holds it: providers may tell of any number of tokens."""
    return min(max(tat, 0), _LAST_NS)


def _fits(ask: Ask, level: Level) -> bool:
    if not ask.hinders or not ask.need:
        return True
    return level.wait_ns == 0 if ask.rate else level.left is None or ask.need <= level.left


def _prepare(db: sqlite3.Connection) -> None:
    # No fsync for each write: safe against the death of a process; a power cut may cost the last.
    db.execute("PRAGMA synchronous = NORMAL")
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(sql.SCHEMA)
        except sqlite3.OperationalError as error:
            # While another connection does the same SQLite refuses where it otherwise waits.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
        else:
            return
