"""What calls have taught about a candidate, kept from one call of this process to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from ..core.models import Candidate
from ..core.newest import Newest

T = TypeVar("T")

_KEPT = 1024
"""Of what is named: callers may ask for any voice with any options."""


class Learnt(Generic[T]):
    """One ``T`` for whatever answers alike: a model over one connection, with the same options.

    Instances that a user built may differ in ways that nobody can see, such as their address; each
    has one of its own, as long as it lives.
    """

    def __init__(self, new: Callable[[], T]) -> None:
        self._new = new
        self._named: Newest[tuple[str, str, bytes], T] = Newest(_KEPT)
        self._own: WeakKeyDictionary[Any, T] = WeakKeyDictionary()

    def about(self, candidate: Candidate) -> T:
        """What is known of ``candidate``; at first, nothing."""
        found: T | None
        if candidate.own:
            found = self._own.get(candidate.live)
            if found is None:
                found = self._own[candidate.live] = self._new()
            return found
        options = repr(candidate.options).encode("utf-8", "replace")  # of any length
        digest = hashlib.blake2b(options, digest_size=16).digest()
        key = (candidate.key, candidate.ref.suffix, digest)
        found = self._named.get(key)
        if found is None:
            found = self._named[key] = self._new()
        return found
