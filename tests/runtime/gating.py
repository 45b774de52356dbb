"""Processes that share budgets and limits, as a test has them: each a gate, in one interpreter."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from plugins import Ledger

from trunkline.clock import new_id, now_ns
from trunkline.core.budgets import MILLION, Action, Budget, Step
from trunkline.core.events import AttemptRefused, BudgetReached
from trunkline.core.limits import Limit
from trunkline.core.models import Attempt, Charge, Identity, Modality, Quality, Usage
from trunkline.core.scopes import Scope, Unit
from trunkline.core.windows import Kind, Window
from trunkline.runtime.gate import Gate
from trunkline.runtime.gate_keeper import Keeper
from trunkline.runtime.gate_purse import Purse
from trunkline.runtime.gate_rules import Rule
from trunkline.runtime.meter import Metered
from trunkline.store.gates import GATE_NAME, SQLiteGateStore

BLOCK = (Step(MILLION, Action.BLOCK),)
TOKENS = Budget("tokens", Scope(), Window(Kind.TOTAL), Unit.TOKENS, 1000, BLOCK)
MONEY = replace(TOKENS, name="money", unit=Unit.USD)


def per_token(attempt: Attempt) -> Charge | None:
    """A nano-dollar a token; for others one a second that they are open, or no known price."""
    if attempt.model == "unpriced":
        return None
    if attempt.model == "connected":
        seconds = attempt.duration_ns // 1_000_000_000
        return Charge(seconds, "1", "test") if seconds else None
    return Charge(attempt.usage.tokens_in + attempt.usage.tokens_out, "1", "test")


class Process:
    """One process's gate over a directory that others use too, and how to pass it."""

    def __init__(self, directory: Path, *rules: Budget | Limit) -> None:
        self.reached: list[BudgetReached] = []
        self.refused: list[AttemptRefused] = []
        self.ledger = Ledger()
        self.purse = Purse(
            [Rule.made(rule) for rule in rules],
            SQLiteGateStore(directory),
            per_token,
            self.reached.append,
        )
        self.gate = Gate(
            self.ledger,
            per_token,
            lambda _: None,
            Keeper(self.purse, lambda: 0),
            self.refused.append,
        )

    async def open(self, estimate: int = 0, model: str = "m", **who: Any) -> Attempt:
        attempt = an_attempt(model, **who)
        await self.gate.reserve(attempt, lambda: Usage(tokens_out=estimate))
        return attempt

    async def use(self, estimate: int, used: int, **who: Any) -> Attempt:
        attempt = await self.open(estimate, **who)
        self.settle(attempt, used)
        return attempt

    def settle(self, attempt: Attempt, used: int) -> None:
        self.gate.settle(attempt, Metered(Usage(tokens_out=used), Quality.EXACT))


def an_attempt(model: str = "m", modality: Modality = Modality.LLM, **who: Any) -> Attempt:
    identity = Identity(**{"call": "call", **who})
    return Attempt(new_id(), identity, modality, "p", model, "c", now_ns())


def spent(tmp_path: Path) -> dict[str, int]:
    db = sqlite3.connect(tmp_path / "state" / GATE_NAME)
    try:
        return dict(db.execute("SELECT pool, sum(spent) FROM pools GROUP BY pool"))
    finally:
        db.close()


async def until(holds: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.01)
