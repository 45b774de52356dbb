"""Budgets: an amount for a scope and a window, and what is done as it is used up.

A budget's pool holds what is ``spent``, which is settled, and what is ``held``: reserved by
attempts in flight, or handed to a process in a slice that it reserves from without asking. An
attempt opens when its upper estimate fits under the block threshold together with both.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .scopes import Scope, Unit
from .windows import Kind, Window

MILLION = 1_000_000

FAREWELL = "I am sorry, I have to end this call here. Please call again later. Goodbye."
"""What a caller is told whose attempt is blocked, where the settings have no words for it."""


class Action(StrEnum):
    """What a threshold does: tell, make wait, take another route, refuse."""

    WARN = "warn"
    THROTTLE = "throttle"
    DOWNGRADE = "downgrade"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Step:
    """An action from a share of the amount on; ``at`` is in millionths of it.

    ``seconds`` is what a throttled attempt waits, ``route`` where a downgraded one goes.
    """

    at: int
    action: Action
    seconds: float = 0.0
    route: str = ""


@dataclass(frozen=True, slots=True)
class Budget:
    """``amount`` is in the unit's base. ``notice`` is said to a caller whose attempt is blocked.

    None is ``FAREWELL``, for those who are known to be in a call; empty is nothing.

    A ``shadow`` decides and tells, but hinders nobody. ``fail_open`` lets attempts pass while the
    store is away.
    """

    name: str
    scope: Scope
    window: Window
    unit: Unit
    amount: int
    steps: tuple[Step, ...]
    notice: str | None = None
    shadow: bool = False
    fail_open: bool = True

    def cap(self, amount: int) -> int | None:
        """What may be spent of ``amount``, which an override may have changed; None: no end."""
        blocks = [step.at for step in self.steps if step.action is Action.BLOCK]
        return amount * min(blocks) // MILLION if blocks else None

    def reached(self, spent: int, amount: int) -> tuple[Step, ...]:
        """The steps whose thresholds ``spent`` has come to, in order."""
        return tuple(step for step in self.steps if spent * MILLION >= step.at * amount)

    def pool(self, apart: str, call: str) -> str:
        """The name of the pool that a call's use goes to."""
        parts = [self.name, apart, f"call={call}" if self.window.kind is Kind.CALL else ""]
        return ";".join(part for part in parts if part)


def slice_of(need: int, left: int) -> int:
    """How much a process takes when it needs ``need`` and ``left`` is left, ``need`` included.

    A thirty-second of what is left, for at most 64 such needs: the nearer the end, the smaller,
    until it is just what is needed.
    """
    return max(need, min(left // 32, need * 64))


def downgrades(budgets: Iterable[Budget]) -> Mapping[str, set[str]]:
    """From each route to those that a later step of some budget replaces it by."""
    after: dict[str, set[str]] = {}
    for budget in budgets:
        routes = [step.route for step in budget.steps if step.action is Action.DOWNGRADE]
        for place, route in enumerate(routes):
            after.setdefault(route, set()).update(routes[place + 1 :])
    return after


def loops(after: Mapping[str, set[str]]) -> set[str]:
    """The routes from which downgrades lead back to themselves."""
    reachable = {route: set(direct) for route, direct in after.items()}
    for middle in after:
        for route in after:
            if middle in reachable[route]:
                reachable[route] |= reachable[middle]
    return {route for route, reached in reachable.items() if route in reached}
