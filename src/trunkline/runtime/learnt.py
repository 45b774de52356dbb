"""What calls have taught about a candidate, kept from one call of this process to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from ..core.models import Candidate

T = TypeVar("T")


class Learnt(Generic[T]):
    """One ``T`` for whatever answers alike: a model over one connection, with the same options.

    Instances that a user built may differ in ways that nobody can see, such as their address; each
    has one of its own, as long as it lives.
    """

    def __init__(self, new: Callable[[], T]) -> None:
        self._new = new
        self._named: dict[tuple[str, str, str], T] = {}
        self._own: WeakKeyDictionary[Any, T] = WeakKeyDictionary()

    def about(self, candidate: Candidate) -> T:
        """What is known of ``candidate``; at first, nothing."""
        found: T | None
        if candidate.own:
            found = self._own.get(candidate.live)
            if found is None:
                found = self._own[candidate.live] = self._new()
            return found
        key = (candidate.key, candidate.ref.suffix, repr(candidate.options))
        found = self._named.get(key)
        if found is None:
            found = self._named[key] = self._new()
        return found
