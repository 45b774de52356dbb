"""Budgets and limits as the gate sees them: one kind of rule over pools, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

import msgspec

from ..core.budgets import FAREWELL, MILLION, Action, Budget, Step
from ..core.limits import PATIENCE, Limit
from ..core.models import Attempt, Charge, Entry, Identity, Modality, Usage, money
from ..core.ports import Ask, Level
from ..core.scopes import Unit, countable, counter
from ..core.windows import Period
from ..errors import Refused

_ALWAYS = Period(0, None, 0)

_MINUTE_NS = 60_000_000_000
_PER_MINUTE = {Unit.REQUESTS: "rpm", Unit.TOKENS: "tpm"}


class Audience(Enum):
    """Who hears what an attempt brings, and so what is said in its place when it is refused.

    ``NOBODY``: a program, which gets the error. ``ANYBODY``: it is not known; settings that have a
    notice know. ``CALLER``: a person in a call, who is told in any case.
    """

    NOBODY = "nobody"
    ANYBODY = "anybody"
    CALLER = "caller"


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A budget or a limit. Pools of the two never share a name."""

    of: Budget | Limit
    share: int | None
    counted: Callable[[Usage, int], int]
    is_money: bool
    is_streams: bool

    @classmethod
    def made(cls, of: Budget | Limit) -> Rule:
        share = MILLION if isinstance(of, Limit) else of.cap(MILLION)
        return cls(of, share, counter(of.unit), of.unit is Unit.USD, of.unit is Unit.STREAMS)

    def __str__(self) -> str:
        return f"{'budget' if isinstance(self.of, Budget) else 'limit'} {self.of.name}"

    @property
    def patience(self) -> float:
        """Seconds an attempt waits for room that is only waited for; see ``Purse``."""
        return self.of.wait if isinstance(self.of, Limit) else 0.0

    @property
    def hinders(self) -> bool:
        """Whether it can refuse an attempt."""
        return self.share is not None and not self.of.shadow

    @property
    def steps(self) -> tuple[Step, ...]:
        return self.of.steps if isinstance(self.of, Budget) else ()

    def pool(self, identity: Identity, modality: Modality) -> str | None:
        """The pool that such a call's use goes to; None when this rule is not for it."""
        apart = self.of.scope.matched(identity, modality)
        if apart is None:
            return None
        if isinstance(self.of, Budget):
            return f"budget:{self.of.pool(apart, identity.call)}"
        return f"limit:{self.of.pool(apart)}"

    def period(self, now_ns: int) -> Period:
        return self.of.window.at(now_ns) if isinstance(self.of, Budget) else _ALWAYS

    def ask(self, pool: str, period: Period, need: int) -> Ask:
        budget = isinstance(self.of, Budget)
        return Ask(
            pool,
            period.slot_ns,
            period.start_ns,
            need,
            self.of.amount,
            self.share,
            rate=self.of.rate if isinstance(self.of, Limit) else None,
            budget=self.of.name if budget else "",
            hinders=not self.of.shadow,
        )

    def needs(self, usage: Usage, charge: Charge | None) -> int:
        """The most that an attempt of this usage can count. Without a price it needs something."""
        if self.is_money and charge is None:
            return 1
        return countable(self.counted(usage, charge.nanos if charge else 0))

    def counts(self, usage: Usage, charge: Charge | None) -> int:
        """What an attempt that has ended counts; a stream that is closed counts no more."""
        if self.is_streams:
            return 0
        return countable(self.counted(usage, charge.nanos if charge else 0))

    def adds(self, entry: Entry) -> int:
        """What a further entry adds to what its attempt has counted; a limit is not paid back."""
        if isinstance(self.of, Limit) or self.of.unit is Unit.REQUESTS:
            return 0
        return self.counted(entry.usage, entry.charge.nanos if entry.charge else 0)

    def notice(self, audience: Audience) -> str:
        """What is said to whoever is refused; empty for nothing."""
        if audience is Audience.NOBODY:
            return ""
        if self.of.notice is None and audience is Audience.CALLER:
            return FAREWELL if isinstance(self.of, Budget) else PATIENCE
        return self.of.notice or ""

    def refusal(
        self,
        attempt: Attempt,
        need: int,
        level: Level,
        now_ns: int,
        audience: Audience = Audience.ANYBODY,
    ) -> Refused:
        """Why ``attempt`` may not open: the rule, its state and when it has room again."""
        text = self.of.unit.text
        if isinstance(self.of, Limit):
            told, after = self._limited(self.of, need, level)
        else:
            resets = self.of.window.resets_ns(now_ns)
            after = (resets - now_ns) / 1e9 if resets is not None else None
            held = f" and {text(level.held)} reserved by attempts in flight" if level.held else ""
            until = f"; it resets at {instant(resets)}" if resets is not None else ""
            cap = level.amount * (self.share or MILLION) // MILLION
            if need > cap:
                told = f"more than all of its {text(cap)} {self.of.window.told}"
                return self._refused(attempt, need, level, told, None, audience)
            told = (
                f"of {text(level.amount)} {self.of.window.told} "
                f"{text(level.spent)} are spent{held}{until}"
            )
        return self._refused(attempt, need, level, told, after, audience)

    def _refused(
        self,
        attempt: Attempt,
        need: int,
        level: Level,
        told: str,
        after: float | None,
        audience: Audience,
    ) -> Refused:
        return Refused(
            f"{self} ({self.of.scope}) does not allow this {attempt.modality} attempt, which may "
            f"take {self.of.unit.text(need)}: {told}",
            retry_after=after,
            rule=str(self),
            notice=self.notice(audience),
            ends_call=isinstance(self.of, Budget),
            quotas=self._quotas(level),
        )

    def _quotas(self, level: Level) -> dict[str, tuple[str, str]]:
        """The limit and what is used of it, for rules that agents know a name for."""
        of = self.of
        if isinstance(of, Budget):
            if of.unit is not Unit.USD:
                return {}
            return {"credits": (money(level.amount), money(level.spent + level.held))}
        name = _PER_MINUTE.get(of.unit)
        if name is None or of.rate is None:
            return {}
        limit = of.rate.amount * _MINUTE_NS // of.rate.window_ns
        return {name: (str(limit), str(max(0, limit - max(0, level.left or 0))))}

    @staticmethod
    def _limited(limit: Limit, need: int, level: Level) -> tuple[str, float | None]:
        text = limit.unit.text
        if limit.rate is None:
            return f"{text(level.held)} of {text(limit.amount)} are open", None
        told = f"{text(limit.amount)} every {limit.rate.window_ns / 1e9:g} s"
        if need > limit.rate.burst:
            return f"{told} never leave room for more than {text(limit.rate.burst)} at once", None
        after = level.wait_ns / 1e9
        return f"of {told} {text(max(0, level.left or 0))} are left; room in {after:.1f} s", after


def estimated(attempt: Attempt, usage: Usage, open_ns: int = 0) -> Attempt:
    """``attempt`` as it would be priced if it used this, and were open for so long.

    Audio takes at least its own time.
    """
    open_ns = max(attempt.duration_ns, usage.audio_in_ns, open_ns)
    return msgspec.structs.replace(attempt, usage=usage, duration_ns=open_ns)


def strongest(steps: Iterable[Step], action: Action) -> Step | None:
    """The last step of those that does ``action``."""
    found = [step for step in steps if step.action is action]
    return found[-1] if found else None


def instant(at_ns: int) -> str:
    """A UTC instant for people, to the second."""
    return f"{datetime.fromtimestamp(at_ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S} UTC"
