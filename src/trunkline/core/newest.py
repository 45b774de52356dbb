"""A mapping that cannot fill the memory, for keys that somebody else chooses."""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Newest(OrderedDict[K, V]):
    """Keeps the ``most`` entries that were set last, in that order.

    Clients name models, voices, rooms and options; a process that runs for months must not hold
    every name that it was ever told. Safe from several threads; whoever reads a key while another
    sets it may not find it.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __setitem__(self, key: K, value: V) -> None:
        self.pop(key, None)
        super().__setitem__(key, value)
        if len(self) > self.most:
            self.popitem(last=False)
