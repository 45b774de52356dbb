"""Loading journals into the ledger, exactly once, by one elected process at a time."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..errors import StoreError
from .journal import SUFFIX
from .ledger_file import LedgerFile, Position
from .process import own, try_lock
from .records import read_records

logger = logging.getLogger(__name__)

LEDGER_NAME = "ledger.db"
LOCK_NAME = "ingester.lock"
DAMAGED_SUFFIX = ".damaged"

_BATCH = 500
"""Records in one transaction where nothing else is waiting for the interpreter."""


class Ingester:
    """Loads the journals of every process that writes to ``directory`` into the ledger there.

    Whoever holds the lock file is elected, until ``close`` or the end of its process. A journal
    whose owner is gone is removed once all of it is in the ledger; one with damaged lines is
    loaded as well but kept under another name, for a person to look at. ``damaged`` and ``torn``
    count lines passed over: torn ones were never finished, so their ``append`` did not return, or
    said in the log that they only wait in memory.
    """

    def __init__(self, directory: Path) -> None:
        self.damaged = 0
        self.torn = 0
        self._directory = directory
        self._lock: int | None = None
        self._ledger: LedgerFile | None = None
        self._positions: dict[str, Position] = {}
        self._unreadable: set[str] = set()
        own(self)

    def elect(self) -> LedgerFile | None:
        """Become, or stay, the one that loads, and return its ledger; None while another is.

        Raises StoreError or UsageError when the
        directory cannot be written or the ledger not be opened.
        """
        if self._ledger is None and self._take_lock():
            try:
                self._ledger = self._open_ledger()
            except BaseException:
                self.close()
                raise
        return self._ledger

    def run_once(self) -> int:
        """Load everything there is; return the number of records, 0 when not elected."""
        return sum(self.batches())

    def batches(self, size: int = _BATCH) -> Iterator[int]:
        """Load everything there is, yielding after each transaction how many records it loaded.

        A transaction holds at most ``size`` records. Raises as ``elect`` does, and StoreError when
        the ledger cannot be written. Nothing is lost or doubled by that; the next call goes on
        where this one ended.
        """
        ledger = self.elect()
        if ledger is None:
            return
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            try:
                yield from self._load(ledger, path, size)
            except OSError as error:
                self._pass_over(path, error)

    def close(self) -> None:
        """Let another process be elected."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def after_fork(self) -> None:
        """The parent stays elected; the child is not."""
        self._ledger = None
        self.close()

    def _take_lock(self) -> bool:
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
            taken = try_lock(self._lock)
        except OSError as error:
            self.close()
            raise StoreError(
                f"the journals in {self._directory} cannot be loaded: {error.strerror}"
            ) from error
        if not taken:
            self.close()
        return taken

    def _open_ledger(self) -> LedgerFile:
        ledger = LedgerFile(self._directory / LEDGER_NAME)
        ledger.open()
        self._positions = ledger.positions()
        for name in [n for n in self._positions if not (self._directory / n).exists()]:
            # An ingester was killed between removing the file and forgetting it.
            ledger.forget(name)
            del self._positions[name]
        return ledger

    def _load(self, ledger: LedgerFile, path: Path, size: int) -> Iterator[int]:
        with path.open("rb") as file:
            is_dead = try_lock(file.fileno())  # asked before reading: the dead add nothing
            at = self._positions.get(path.name, Position())
            records = read_records(file, at.offset)
            while batch := list(islice(records, size)):
                whole = [record for record, _ in batch if record is not None]
                damaged = len(batch) - len(whole)
                at = Position(batch[-1][1], at.damaged + damaged)
                ledger.add(whole, path.name, at)
                self._positions[path.name] = at
                self.damaged += damaged
                yield len(whole)
            if is_dead:
                self._retire(ledger, path, at, os.fstat(file.fileno()).st_size)

    def _retire(self, ledger: LedgerFile, path: Path, at: Position, size: int) -> None:
        if at.offset < size:
            self.torn += 1
            logger.warning("journal %s ends within a record, which is dropped", path.name)
        if at.damaged:
            kept = path.with_suffix(DAMAGED_SUFFIX)
            path.rename(kept)
            logger.error("journal %s has %d damaged records, kept as it is", kept, at.damaged)
        else:
            path.unlink()
        if self._positions.pop(path.name, None) is not None:
            ledger.forget(path.name)

    def _pass_over(self, path: Path, error: OSError) -> None:
        if path.name not in self._unreadable:
            self._unreadable.add(path.name)
            logger.warning("journal %s cannot be loaded: %s", path, error.strerror)
