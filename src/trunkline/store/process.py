"""What belongs to one process: locks that its death releases, and state a fork must not share."""

from __future__ import annotations

import fcntl
import os
import threading
from typing import Protocol
from weakref import WeakSet


class Owned(Protocol):
    """Something a forked child must not go on using as if it were its own."""

    def after_fork(self) -> None:
        """Let go, in the child, of what is the parent's: file descriptors, locks, threads."""


_owned: WeakSet[Owned] = WeakSet()


def own(thing: Owned) -> None:
    """Have ``thing.after_fork()`` called in every child forked while ``thing`` lives."""
    _owned.add(thing)


def _reset() -> None:
    for thing in list(_owned):
        thing.after_fork()


os.register_at_fork(after_in_child=_reset)


def try_lock(fd: int) -> bool:
    """Take the exclusive flock of an open file unless somebody else holds it.

    The kernel releases it when the last descriptor of this ``open`` is closed, however its process
    ended; that is why a child closes what it inherited.
    """
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Forking(Protocol):
    """Something that has to be closed before a fork, because no child may inherit it open."""

    def before_fork(self) -> None: ...
    def after_fork(self, *, in_child: bool) -> None: ...


_forking: WeakSet[Forking] = WeakSet()
_one_fork = threading.Lock()
_held: list[Forking] = []


def at_fork(thing: Forking) -> None:
    """Have ``thing`` told before and after every fork while it lives."""
    _forking.add(thing)


def _before_fork() -> None:
    _one_fork.acquire()
    _held.extend(_forking)
    for thing in _held:
        thing.before_fork()


def _after_fork(*, in_child: bool) -> None:
    for thing in _held:
        thing.after_fork(in_child=in_child)
    _held.clear()
    _one_fork.release()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(in_child=False),
    after_in_child=lambda: _after_fork(in_child=True),
)
