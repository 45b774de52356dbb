"""A shared state for the threads and tests of one process: nothing is written anywhere."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..clock import monotonic_ns
from ..core.ports import Follower, SharedRecord


class InMemorySharedState:
    """``SharedState`` among those who hold the same object. News is handed on within ``put``."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._followers: dict[object, Follower] = {}
        self._records: dict[str, SharedRecord] = {}
        self._leases: dict[str, tuple[str, int]] = {}

    def put(self, key: str, value: bytes, version: int) -> None:
        record = SharedRecord(key, value, version)
        with self._lock:
            if not record.newer_than(self._records.get(key)):
                return
            self._records[key] = record
        for follower in list(self._followers.values()):
            follower([record])

    def follow(self, follower: Follower) -> Callable[[], object]:
        self._followers[ticket := object()] = follower
        with self._lock:
            known = list(self._records.values())
        if known:
            follower(known)
        return lambda: self._followers.pop(ticket, None)

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        now = monotonic_ns()
        with self._lock:
            holder, until = self._leases.get(name, (owner, now))
            if holder != owner and now < until:
                return False
            self._leases[name] = (owner, now + round(seconds * 1e9))
            return True

    def release(self, name: str, owner: str) -> None:
        with self._lock:
            if self._leases.get(name, ("", 0))[0] == owner:
                del self._leases[name]

    def close(self) -> None:
        """Nothing is held: what was put stays for whoever uses this next."""
