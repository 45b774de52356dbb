"""Records that every process of the machine knows: a small SQLite file, and a thread that follows.

The file is ``shared.db`` in the state directory. sqlite3 of the standard library, without
SQLAlchemy: the first attempt of every process waits for it, and SQLAlchemy's import alone takes
0.3 s. It holds nothing that is not known elsewhere, so it may be deleted at any time.
"""

from __future__ import annotations

import atexit
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ..core.newest import Newest
from ..core.ports import Follower, SharedRecord
from .process import at_fork
from .shared_file import KEPT, SharedFile, is_damage, set_aside

logger = logging.getLogger(__name__)

SHARED_NAME = "shared.db"

_TICK = 0.05
"""Seconds between two looks at the file: the longest that news takes. Half of it would double what
looking costs, which is 0.4 % of a core, most of it for waking up."""

_PAUSE = 0.25
"""Seconds between two attempts to get in touch again."""

_LOOK_EVERY = 1.0
_REPLACE_EVERY = 60.0
"""Seconds between two looks whether a file is to be put aside, and between two files that are: on a
failing disk more would be noise."""

_SAID_AFTER = 1.0
"""Seconds without contact before the log says so: a busy disk is not worth a line."""


class SQLiteSharedState:
    """``SharedState`` for the processes of one machine. One a process and directory.

    Its thread starts when it is first followed or put to, in a forked child anew. What the file
    does, being locked, read-only or deleted, reaches the log, once, and nobody else. A damaged one
    is put aside and made anew.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / SHARED_NAME
        self._followers: dict[object, Follower] = {}
        self._known: Newest[str, SharedRecord] = Newest(KEPT)
        self._begin()
        at_fork(self)

    def _begin(self) -> None:
        self._using = threading.Lock()  # held while SQLite works; never by put and release
        self._queueing = threading.Lock()  # held for a moment; guards the next three
        self._unsaid: Newest[str, SharedRecord] = Newest(KEPT)
        self._released: deque[tuple[str, str]] = deque(maxlen=KEPT)
        self._thread: _Following | None = None
        self._file: SharedFile | None = None
        self._lost_at: float | None = None
        self._told = False
        self._may_replace_at = 0.0

    def put(self, key: str, value: bytes, version: int) -> None:
        record = SharedRecord(key, value, version)
        with self._queueing:
            if not record.newer_than(self._known.get(key)):
                return
            self._known[key] = self._unsaid[key] = record
        self._started().wake.set()

    def follow(self, follower: Follower) -> Callable[[], object]:
        self._exchange()
        self._followers[ticket := object()] = follower
        with self._queueing:
            known = list(self._known.values())
        if known:
            follower(known)
        self._started()
        return lambda: self._followers.pop(ticket, None)

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        return self._exchange((name, owner, seconds))

    def release(self, name: str, owner: str) -> None:
        with self._queueing:
            self._released.append((name, owner))
        self._started().wake.set()

    def close(self) -> None:
        atexit.unregister(self.close)
        with self._queueing:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()
            self._exchange()
        with self._using:
            self._let_go()

    def tick(self) -> float:
        """Exchange news with the file; return the seconds to wait before the next time."""
        self._exchange()
        return _PAUSE if self._told else _TICK

    def _exchange(self, wanted: tuple[str, str, float] | None = None) -> bool:
        """Read what is new, write what was put, ask for the lease that is ``wanted``.

        Returns whether the lease was given, True without contact.
        """
        granted = True
        learned: list[SharedRecord] = []
        with self._using:
            try:
                file = self._opened()
                learned += self._news(file.changes())  # first, for a locked file can be read
                self._write(file)
                if wanted is not None:
                    granted = file.lease(*wanted)
                    learned += self._news(file.changes())
            except (sqlite3.Error, OSError) as error:
                self._let_go()
                self._miss(error)
                if is_damage(error):
                    self._replace()
            else:
                self._regain()
        if learned:
            self._hand_on(learned)
        return granted

    def _opened(self) -> SharedFile:
        if self._file is not None and self._file.is_replaced():
            self._let_go()
        if self._file is None:
            self._file = SharedFile(self.path)
            # To a file that was out of reach, or is new, everything is news. So nothing has to be
            # remembered of a write that failed.
            with self._queueing:
                self._unsaid.update(self._known)
        return self._file

    def _write(self, file: SharedFile) -> None:
        with self._queueing:
            records, released = list(self._unsaid.values()), list(self._released)
            self._unsaid.clear()
            self._released.clear()
        if records or released:
            file.write(records, released)

    def _news(self, read: Sequence[SharedRecord]) -> list[SharedRecord]:
        with self._queueing:
            learned = [record for record in read if record.newer_than(self._known.get(record.key))]
            self._known.update((record.key, record) for record in learned)
        return learned

    def _hand_on(self, learned: Sequence[SharedRecord]) -> None:
        for follower in list(self._followers.values()):
            try:
                follower(learned)
            except Exception:  # the boundary to whoever follows: the others must still hear
                logger.exception("a follower of the shared state failed")

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _replace(self) -> None:
        """Put a damaged file aside: what it held, this process and every other one still knows."""
        now = time.monotonic()
        if now < self._may_replace_at:
            return
        self._may_replace_at = now + _LOOK_EVERY
        try:
            kept = set_aside(self.path)
        except OSError as error:
            logger.debug("%s cannot be put aside: %s", self.path, error)
            return
        if kept is not None:
            self._may_replace_at = now + _REPLACE_EVERY
            logger.warning("%s was damaged: it is made anew, the old one is %s", self.path, kept)

    def _miss(self, error: Exception) -> None:
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        if not self._told and now - self._lost_at >= _SAID_AFTER:
            self._told = True
            logger.warning(
                "this process goes on alone, without the health that others see: %s: %s",
                self.path,
                error,
            )

    def _regain(self) -> None:
        if self._told:
            logger.info("health is shared with other processes again")
        self._lost_at = None
        self._told = False

    def _started(self) -> _Following:
        with self._queueing:
            if self._thread is None:
                self._thread = _Following(self)
                atexit.register(self.close)
                try:
                    self._thread.start()
                except RuntimeError as error:  # no thread to be had: the process goes on alone
                    logger.warning("health is not shared by this process: %s", error)
            return self._thread

    def before_fork(self) -> None:
        """Close the file: a handle of SQLite in two processes would betray the locks of both."""
        self._using.acquire()
        self._let_go()

    def after_fork(self, *, in_child: bool) -> None:
        """Go on in the parent; in the child begin anew, with nobody following yet."""
        self._using.release()
        if in_child:
            self._followers.clear()
            self._begin()


class _Following(threading.Thread):
    """Exchanges news every tick, and at once when ``wake`` is set."""

    def __init__(self, state: SQLiteSharedState) -> None:
        super().__init__(name="trunkline-shared", daemon=True)
        self.wake = threading.Event()
        self._state = state
        self._stopping = False

    def stop(self, timeout: float = 2.0) -> None:
        self._stopping = True
        self.wake.set()
        if self.is_alive() and threading.current_thread() is not self:
            self.join(timeout)

    def run(self) -> None:
        while not self._stopping:
            pause = self._state.tick()
            self.wake.wait(pause)
            self.wake.clear()
