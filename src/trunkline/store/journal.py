"""This process's append-only journal: where a settlement goes first, in one write.

A record is safe from the death of its process as soon as ``append`` returns: it is in the kernel's
page cache. A power cut is not covered; nothing here waits for a disk. While the disk refuses
writes, records wait in memory, in order, and every later ``append`` and ``flush`` tries again: only
then does a killed process lose what had not been written yet.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from pathlib import Path

from ..clock import new_id
from .process import own, try_lock
from .records import Record, encode

logger = logging.getLogger(__name__)

SUFFIX = ".journal"

_ROTATE_AT = 4 << 20
"""Bytes after which a file is left to the ingester, so that a long-lived process keeps none."""

_WRITES_PER_APPEND = 16
"""How much of a backlog one ``append`` may work off; the rest is left to ``flush``."""


class Journal:
    """Appends records to files of its own in ``directory``, one at a time.

    A file is locked (flock) while it is appended to; an unlocked one is complete and belongs to
    the ingester. A forked child goes on in a file of its own. Safe to use from several threads.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._begin()
        own(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[bytes] = deque()
        self._fd: int | None = None
        self._size = 0
        self._failing = False
        self._stem = f"{os.getpid()}-{new_id()}"
        self._files = 0

    def append(self, record: Record) -> None:
        """Write one record. Never raises for the disk, and never waits for it to recover."""
        line = encode(record)
        with self._lock:
            if self._fd is not None and not self._waiting:
                line = self._written(self._fd, line)
                if not line:
                    return
            self._waiting.append(line)
            self._drain(_WRITES_PER_APPEND)

    def flush(self) -> int:
        """Try to write what waits in memory; return how many records still wait."""
        with self._lock:
            self._drain(len(self._waiting))
            return len(self._waiting)

    def close(self) -> int:
        """Flush, and leave the file to the ingester; return how many records still wait.

        A later ``append`` opens another file. While records wait the file stays open, because the
        first of them may be half in it.
        """
        with self._lock:
            self._drain(len(self._waiting))
            if not self._waiting:
                self._leave()
            return len(self._waiting)

    def is_loaded(self) -> bool:
        """Whether nothing waits here and every file of this journal has been loaded and removed."""
        if self._waiting:
            return False
        return not any(self._directory.glob(f"{self._stem}-*{SUFFIX}"))

    def after_fork(self) -> None:
        """Leave the parent's file and what waits in its memory to the parent, which writes both."""
        if self._fd is not None:
            os.close(self._fd)
        self._begin()

    def _written(self, fd: int, line: bytes) -> bytes:
        """Write ``line`` in one go, as nearly always; returns what is left of it."""
        try:
            written = os.write(fd, line)
        except OSError:
            return line  # to be tried again, and then reported
        self._size += written
        if self._size >= _ROTATE_AT and written == len(line):
            self._leave()
        return line[written:]

    def _drain(self, most: int) -> None:
        try:
            for _ in range(most):
                if not self._waiting:
                    break
                self._write_first()
        except OSError as error:
            self._report(error)
            return
        if self._failing and not self._waiting:
            self._failing = False
            logger.info("the journal in %s is written again; nothing was lost", self._directory)

    def _write_first(self) -> None:
        """Write the first waiting line, or keep what is left of it and raise OSError."""
        fd = self._open() if self._fd is None else self._fd
        line = self._waiting[0]
        while line:
            written = os.write(fd, line)
            self._size += written
            line = line[written:]
            self._waiting[0] = line
        self._waiting.popleft()
        if self._size >= _ROTATE_AT:
            self._leave()

    def _open(self) -> int:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        while True:
            self._files += 1
            path = self._directory / f"{self._stem}-{self._files}{SUFFIX}"
            fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
            # Between open and lock the file looks like a dead process's: the ingester may have
            # locked it, or even removed it. Then it is not ours.
            try:
                ours = try_lock(fd) and os.fstat(fd).st_nlink > 0
            except OSError:
                os.close(fd)
                raise
            if ours:
                self._fd, self._size = fd, 0
                return fd
            os.close(fd)

    def _leave(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _report(self, error: OSError) -> None:
        if not self._failing:
            self._failing = True
            logger.warning(
                "the journal in %s cannot be written (%s); settlements wait in memory",
                self._directory,
                error.strerror,
            )
