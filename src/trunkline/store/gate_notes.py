"""A process's notes of what it has begun: ``<holder>.gate``, locked while the process lives.

A record is 8 bytes of its number, 4 of its length, then itself. It is safe from the death of the
process as soon as it is written, being in the kernel's page cache; one cut short by it is dropped.
"""

from __future__ import annotations

import logging
import os
import struct
import threading
from pathlib import Path

from .process import try_lock

logger = logging.getLogger(__name__)

SUFFIX = ".gate"

_HEAD = struct.Struct("<QI")
_TRIM_AT = 1 << 20


class Notes:
    """The file of notes of ``holder``; ``fd`` is that of a file which is open and locked."""

    def __init__(self, directory: Path, holder: str, fd: int | None = None) -> None:
        self._path = directory / f"{holder}{SUFFIX}"
        self._lock = threading.Lock()
        self._fd = fd
        self._last = 0
        self._size = 0
        self._failing = False

    def open(self) -> None:
        """Make the file, once. Raises OSError."""
        if self._fd is None:
            fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try_lock(fd)
            self._fd = fd

    def write(self, number: int, record: bytes) -> None:
        """Add a record; a disk that refuses costs its safety, and reaches the log once."""
        with self._lock:
            if self._fd is None:
                return
            self._last = number
            try:
                self._size += os.write(self._fd, _HEAD.pack(number, len(record)) + record)
            except OSError as error:
                if not self._failing:
                    logger.warning("the gate's notes cannot be written: %s", error.strerror)
                self._failing = True

    def forget(self, number: int) -> None:
        """Drop what was written up to ``number``, when that is all and worth the while."""
        with self._lock:
            if self._fd is not None and self._last <= number and self._size > _TRIM_AT:
                os.ftruncate(self._fd, 0)
                self._size = 0

    def after(self, number: int) -> list[bytes]:
        """The records with greater numbers, in order."""
        assert self._fd is not None
        data = os.pread(self._fd, os.fstat(self._fd).st_size, 0)
        found, at = [], 0
        while at + _HEAD.size <= len(data):
            own, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size + length
            if own > number and at <= len(data):
                found.append(data[at - length : at])
        return found

    def remove(self) -> None:
        """Delete the file and let its lock go."""
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def abandon(self) -> None:
        """Close what a forked child inherited; the lock stays its parent's."""
        self.close()


def left_by(directory: Path, holder: str) -> Notes | None:
    """What ``holder`` left when it died, locked by us from now on; None while it lives."""
    try:
        fd = os.open(directory / f"{holder}{SUFFIX}", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError:
        return None
    try:
        if try_lock(fd):
            return Notes(directory, holder, fd)
    except OSError:
        pass
    os.close(fd)
    return None
