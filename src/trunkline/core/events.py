"""What a process tells its listeners of: ``trunkline.on(name, callback)`` gets one of these."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .budgets import Action
from .models import Identity, Modality, Settlement
from .scopes import Unit


class EventName(StrEnum):
    """The names that ``trunkline.on`` takes."""

    SETTLED = "settled"
    LATE = "late"
    FAILOVER = "failover"
    DEGRADED = "degraded"
    RECOVERED = "recovered"
    BUDGET = "budget"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Failover:
    """An attempt failed and the next candidate takes over. ``outcome`` says how it failed."""

    identity: Identity
    modality: Modality
    turn: str
    attempt: str
    failed: str
    outcome: str
    next: str


@dataclass(frozen=True, slots=True)
class HealthChanged:
    """A candidate is no longer, or again, offered to calls.

    ``key`` is provider/model@connection; ``cause`` the outcome behind it; ``alert`` marks what
    waits for a person (a refused key, an empty account); ``remote`` what another process found out.
    """

    key: str
    available: bool
    cause: str
    alert: bool
    remote: bool


@dataclass(frozen=True, slots=True)
class BudgetReached:
    """A threshold of a budget was reached, told once a process, pool and period.

    ``pool`` says whose it is where calls are counted apart; ``share`` is the threshold's part of
    ``amount``, which like ``spent`` is in the unit's base. ``shadow``: nobody is hindered by it.
    ``since_ns`` is when the period began, UTC.
    """

    budget: str
    pool: str
    action: Action
    share: float
    spent: int
    amount: int
    unit: Unit
    route: str = ""
    shadow: bool = False
    since_ns: int = 0


@dataclass(frozen=True, slots=True)
class AttemptRefused:
    """The gate did not allow an attempt, or would not have where ``shadow`` is set.

    ``rule`` names the budget or limit, ``reason`` its state; ``retry_after`` is in seconds.
    """

    identity: Identity
    modality: Modality
    turn: str
    rule: str
    reason: str
    retry_after: float | None = None
    notice: str = ""
    shadow: bool = False


Event = Settlement | Failover | HealthChanged | BudgetReached | AttemptRefused
