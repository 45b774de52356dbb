"""Where the engine settles: this process's journal, and the thread that sees it loaded."""

from __future__ import annotations

import atexit
import logging
import threading
import time
from pathlib import Path

from ..errors import TrunklineError
from .ingest import LEDGER_NAME, Ingester
from .journal import Journal
from .process import own
from .records import Record

logger = logging.getLogger(__name__)

_TICK = 1.0
_LONGEST_WAIT = 30.0
_BATCH = 50
_REST = 0.01
"""Records at once and seconds between: loading a backlog must leave the interpreter to the calls.
With these an event loop beside it was never more than 12 ms late, with 500 records 45 ms."""


class Recorder:
    """Appends settlements to a journal in ``directory`` and has them loaded into its ledger.

    One a process. Its thread starts with the first settlement; every second it writes what the
    disk refused before and, when this process is the elected one, loads all journals. Nothing that
    the thread meets, a locked database or a full disk, reaches ``append``.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._journal = Journal(directory)
        self._begin()
        own(self)

    def _begin(self) -> None:
        self._starting = threading.Lock()
        self._loader: _Loader | None = None

    @property
    def ledger_path(self) -> Path:
        """The ledger that the journals of ``directory`` are loaded into."""
        return self.directory / LEDGER_NAME

    def append(self, record: Record) -> None:
        """Write a settlement or a correction to the journal. Never raises for disk or database."""
        self._journal.append(record)
        if self._loader is None:
            self._start()

    def flush_all(self, timeout: float) -> bool:
        """Have everything appended so far in the ledger; False when ``timeout`` seconds are over.

        Nothing is lost by that: journals stay until some process loads them. Blocks; from an event
        loop call it in a thread.
        """
        deadline = time.monotonic() + timeout
        self._journal.close()
        while not self._journal.is_loaded():
            if time.monotonic() > deadline:
                return False
            self._start().wake.set()
            time.sleep(0.02)
            self._journal.close()
        return True

    def close(self, timeout: float = 2.0) -> None:
        """Leave the journal to be loaded and end the thread; a later ``append`` starts both.

        Waits at most ``timeout`` seconds. At the end of the interpreter this is done by itself.
        """
        atexit.unregister(self.close)
        with self._starting:
            loader, self._loader = self._loader, None
        if loader is not None:
            loader.stop(timeout)
        self._journal.close()

    def after_fork(self) -> None:
        """The thread stays in the parent; the child starts its own."""
        self._begin()

    def _start(self) -> _Loader:
        with self._starting:
            if self._loader is None:
                self._loader = _Loader(self.directory, self._journal)
                atexit.register(self.close)
                try:
                    self._loader.start()
                except RuntimeError as error:  # no thread to be had: the journal is enough
                    logger.warning("the ledger is not loaded by this process: %s", error)
            return self._loader


class _Loader(threading.Thread):
    """Retries the journal and loads all journals, once a second or when ``wake`` is set."""

    def __init__(self, directory: Path, journal: Journal) -> None:
        super().__init__(name="trunkline-ledger", daemon=True)
        self.wake = threading.Event()
        self._journal = journal
        self._ingester = Ingester(directory)
        self._stopping = threading.Event()
        self._wait = _TICK
        self._due = 0.0

    def stop(self, timeout: float) -> None:
        self._stopping.set()
        self.wake.set()
        if self.is_alive():
            self.join(timeout)

    def run(self) -> None:
        while True:
            asked = self.wake.wait(_TICK)
            self.wake.clear()
            if self._stopping.is_set():
                break
            self._journal.flush()
            if asked or time.monotonic() >= self._due:
                self._load()
        self._ingester.close()

    def _load(self) -> None:
        try:
            for _ in self._ingester.batches(_BATCH):
                if self._stopping.wait(_REST):
                    return
        except Exception as error:  # noqa: BLE001 - the thread's boundary: whatever it is, loading
            # is tried again later, and the settlements are safe in their journals meanwhile.
            self._back_off(error)
            return
        if self._wait > _TICK:
            logger.info("journals are loaded into the ledger again")
        self._wait = _TICK
        self._due = 0.0

    def _back_off(self, error: Exception) -> None:
        if self._wait == _TICK:
            expected = isinstance(error, TrunklineError)
            logger.warning(
                "journals wait to be loaded: %s", error, exc_info=None if expected else error
            )
        self._wait = min(self._wait * 2, _LONGEST_WAIT)
        self._due = time.monotonic() + self._wait
