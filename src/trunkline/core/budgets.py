"""Budgets: an amount for a scope and a window, and what is done as it is used up.

A budget's pool holds what is ``spent``, which is settled, and what is ``held``: reserved by
attempts in flight, or handed to a process in a slice that it reserves from without asking. An
attempt opens when its upper estimate fits under the block threshold together with both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from .models import Modality
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


def downgrades(
    budgets: Iterable[Budget], modality_of: Callable[[str], Modality]
) -> Mapping[str, Mapping[str, list[str]]]:
    """From each route to those that the next step replaces it by, and in which budgets."""
    after: dict[str, dict[str, list[str]]] = {}
    for budget in budgets:
        before: dict[Modality, str] = {}
        for step in budget.steps:
            if not step.route:
                continue
            modality = modality_of(step.route)
            if modality in before:
                known = after.setdefault(before[modality], {}).setdefault(step.route, [])
                known.append(budget.name)
            before[modality] = step.route
    return after


def loop(after: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    """A way from a route back to itself, it at both ends; empty when there is none."""
    done: set[str] = set()

    def back(path: tuple[str, ...]) -> tuple[str, ...]:
        for route in sorted(after.get(path[-1], ())):
            if route in path:
                return (*path[path.index(route) :], route)
            if route not in done and (found := back((*path, route))):
                return found
        done.add(path[-1])
        return ()

    return next((found for route in sorted(after) if (found := back((route,)))), ())
