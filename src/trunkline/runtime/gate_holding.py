"""What one process holds of a pool, and what one attempt has reserved of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ..clock import now_ns
from ..core.budgets import Budget
from ..core.models import Attempt, Usage
from ..core.ports import Ask, Change, Level
from ..core.windows import Period
from ..errors import Refused
from .gate_rules import Audience, Rule
from .meter import Metered

_NEVER_NS = 2**63
_IDLE_NS = 1_000_000_000
"""How long a slice lies unused before it is given back."""


@dataclass(slots=True, eq=False)
class Holding:
    """A slice of a pool in one period. ``held`` is unspent, ``free`` the unreserved part of it.

    A rate has no ``held``: what was taken of it is gone, unless it is given ``back``. ``spent``,
    ``attempts`` and ``unpriced`` are what the store does not know yet.
    """

    rule: Rule
    pool: str
    period: Period
    held: int = 0
    free: int = 0
    back: int = 0
    spent: int = 0
    attempts: int = 0
    unpriced: int = 0
    dirty: bool = False
    used_ns: int = 0
    level: Level | None = None
    delay: float = 0.0
    routes: tuple[str, ...] = ()
    noted: tuple[str, int, str] | None = None
    ends_ns: int = _NEVER_NS

    def __post_init__(self) -> None:
        self.ends_ns = self.period.end_ns or self.ends_ns
        if isinstance(self.rule.of, Budget):
            self.noted = (self.pool, self.period.slot_ns, self.rule.of.unit.value)

    def has(self, need: int) -> bool:
        return self.free >= need or not need or self.rule.share is None

    def reserve(self, need: int, now_ns: int) -> None:
        self.used_ns, self.dirty = now_ns, True
        if self.rule.share is None:
            self.held += need
        else:
            self.free -= need

    def grant(self, units: int, level: Level | None = None) -> None:
        self.held += units
        self.free += units
        self.level = level or self.level

    def cancel(self, need: int) -> None:
        self.dirty = True
        if self.rule.share is None:
            self.held -= need
        else:
            self.free += need

    def settle(self, need: int, actual: int, *, unpriced: bool) -> None:
        """Turn a reservation of ``need`` into ``actual``, which may be more."""
        self.dirty = True
        self.spent += actual
        self.attempts += 1
        self.unpriced += unpriced
        if self.rule.share is None:
            self.held -= need
            return
        self.held -= actual
        self.free += need - actual
        self._overdrawn()

    def add(self, more: int) -> None:
        """Count ``more``, or less where it is negative, of what is settled already."""
        self.dirty = True
        self.spent += more
        if self.rule.share is not None:
            self.held -= more
            self.free -= more
            self._overdrawn()

    def extend(self, more: int) -> None:
        """Reserve ``more`` whether it is there or not."""
        self.dirty = True
        if self.rule.share is None:
            self.held += more
        else:
            self.free -= more
            self._overdrawn()

    def _overdrawn(self) -> None:
        if self.free < 0:
            self.back += self.free
            self.held -= self.free
            self.free = 0

    def is_spare(self, now_ns: int) -> bool:
        """Whether the free part of the slice should go back: unused, over, or the last of it."""
        if not self.free:
            return False
        over = now_ns >= self.ends_ns
        level = self.level
        tight = level is not None and level.left is not None and level.left < 8 * self.free
        return over or tight or now_ns - self.used_ns > _IDLE_NS

    def ask(self, need: int) -> Ask:
        return self.rule.ask(self.pool, self.period, need)

    def change(self, *, give_back: bool) -> Change:
        """What the store is to know; afterwards it is taken to know it."""
        rate = self.ask(0).rate
        if give_back:
            self.back += self.free
            self.held -= self.free
            self.free = 0
        change = Change(
            self.pool,
            self.period.slot_ns,
            self.spent,
            self.attempts,
            self.unpriced,
            self.held,
            self.free,
            self.back if rate else 0,
            rate,
        )
        self.spent = self.attempts = self.unpriced = self.back = 0
        self.dirty = False
        return change

    def undo(self, change: Change) -> None:
        """The store does not know ``change`` after all."""
        self.spent += change.spent
        self.attempts += change.attempts
        self.unpriced += change.unpriced
        self.back += change.back
        self.dirty = True


@dataclass(frozen=True, slots=True, eq=False)
class Shortage:
    """A rule has no room: how much was needed and the pool's level, None if it is not known."""

    holding: Holding
    need: int
    level: Level | None

    def refusal(self, opening: Opening) -> Refused:
        """The answer to ``opening``, which is refused for it."""
        rule, audience = self.holding.rule, opening.audience
        if self.level is not None:
            return rule.refusal(opening.attempt, self.need, self.level, now_ns(), audience)
        return Refused(
            f"{rule} cannot be looked up, and is set to refuse what it cannot count",
            retry_after=1.0,
            rule=str(rule),
            notice=rule.notice(audience),
            ends_call=isinstance(rule.of, Budget),
        )


class Note(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of an open attempt for the case of this process's death.

    ``pools`` are pool, slot and unit of each budget.
    """

    attempt: Attempt
    estimate: Usage
    pools: tuple[tuple[str, int, str], ...]


encode_note = msgspec.msgpack.Encoder().encode
decode_note = msgspec.msgpack.Decoder(Note).decode


@dataclass(slots=True, eq=False)
class Opening:
    """An attempt between ``reserve`` and ``settle``: what it took of each holding."""

    attempt: Attempt
    estimate: Usage
    takes: list[tuple[Holding, int]]
    audience: Audience = Audience.ANYBODY
    applied: bool = False
    abandoned: bool = False
    record: bytes = b""
    metered: Callable[[], Metered] | None = None
    interrupt: Callable[[Refused], object] | None = None
    loop: asyncio.AbstractEventLoop | None = None
    ends_at: float | None = None
    starved: bool = False
    refused: Refused | None = None
    base: list[int] = field(default_factory=list)
    shadowed: list[Shortage] = field(default_factory=list)

    def doom(self, refused: Refused, seconds: float) -> None:
        """Have this stream end in some time, because there is no more for it."""
        self.refused, self.ends_at = refused, time.monotonic() + seconds

    def end(self) -> None:
        """Interrupt the stream, on its own loop and once."""
        self.metered = None
        assert self.interrupt is not None
        assert self.loop is not None
        assert self.refused is not None
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.interrupt, self.refused)

    def note(self) -> bytes:
        """The record of this opening, empty when no budget is concerned."""
        pools = tuple([holding.noted for holding, _ in self.takes if holding.noted is not None])
        return encode_note(Note(self.attempt, self.estimate, pools)) if pools else b""
