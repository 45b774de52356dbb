"""Limits: so much a time, or so many streams at once.

What comes at a rate is counted by the generic cell rate algorithm: one number, the theoretical
arrival time, ``tat``. An amount moves it by the time that the rate takes for it, and fits while
``tat`` is no further ahead of now than the burst takes. Times are nanoseconds, amounts integers.
"""

from __future__ import annotations

from dataclasses import dataclass

from .scopes import Scope, Unit

PATIENCE = "I am sorry, I cannot answer that right now. Please try again in a moment."
"""What a caller is told whose attempt is refused, where the settings have no words for it."""

SLICE_NS = 100_000_000
"""How much of the rate a process takes at once: what it does not use it gives back about then."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``amount`` in every ``window_ns``, ``burst`` of it at once."""

    amount: int
    window_ns: int
    burst: int

    def time(self, units: int) -> int:
        """How long the rate takes for ``units``, rounded up: rounding never lets more pass."""
        return -(-units * self.window_ns // self.amount)

    def taken(self, tat: int, now: int, units: int) -> int:
        """The ``tat`` after ``units``; negative ones are given back."""
        return (max(tat, now) if units >= 0 else tat) + self.time(units)

    def left(self, tat: int, now: int) -> int:
        """What fits now; negative when more has been taken than should."""
        return self.burst - -(-max(0, tat - now) * self.amount // self.window_ns)

    def wait(self, tat: int, now: int, units: int) -> int:
        """The nanoseconds until ``units`` fit; 0 when they do."""
        return max(0, self.taken(tat, now, units) - now - self.time(self.burst))

    def slice_of(self, units: int, left: int) -> int:
        """How much a process takes when it needs ``units`` and ``left`` fits."""
        return max(units, min(self.amount * SLICE_NS // self.window_ns, left // 16))


@dataclass(frozen=True, slots=True)
class Limit:
    """``rate`` is None for a limit of ``amount`` streams at once.

    An attempt that finds no room waits up to ``wait`` seconds for it and is then refused, with
    ``notice`` for the caller: None is ``PATIENCE``, for those who are known to be in a call, and
    empty is nothing. ``shadow`` and ``fail_open`` mean what they mean for a budget.
    """

    name: str
    scope: Scope
    unit: Unit
    amount: int
    rate: Rate | None = None
    wait: float = 0.0
    notice: str | None = None
    shadow: bool = False
    fail_open: bool = True

    def pool(self, apart: str) -> str:
        """The name of the pool that a call's use goes to."""
        return f"{self.name};{apart}" if apart else self.name
