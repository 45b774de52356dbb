"""What this process holds of every pool: reserving from it takes no I/O, and no waiting.

Two sides use it. Event loops reserve and settle, in memory. The keeper's thread gets slices from
the store, hands spending over to it, and gives back what is not needed. One lock, held for
microseconds, is between them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ..clock import now_ns
from ..core.budgets import Action
from ..core.events import BudgetReached
from ..core.models import Attempt, Charge, Entry, Identity, Modality, Quality, Usage
from ..core.newest import Newest
from ..core.ports import GateStore, Level, Said
from ..core.scopes import Unit
from ..errors import StoreError
from .gate_holding import Holding, Opening, Shortage
from .gate_rules import Rule, estimated, strongest
from .meter import Metered, held

Price = Callable[[Attempt], Charge | None]
"""The charge of an attempt whose usage is known, or None: unpriced."""

Done = TypeVar("Done")
Spare = Callable[[Holding, int], bool]

_REMEMBERED = 4096
"""Callers whose pools are known without matching scopes again."""

_TOLD = 16_384
"""Thresholds of pools that are known to have been told; a pool a call makes ever new ones."""

_AWAY_SECONDS = 1.0
"""How long a store that could not be used is not asked again, so that nobody waits for it."""


class Purse:
    """The holdings of one process under ``rules``, filled from ``store``."""

    def __init__(
        self,
        rules: Sequence[Rule],
        store: GateStore,
        price: Price,
        reached: Callable[[BudgetReached], None],
    ) -> None:
        self.store = store
        self._rules = rules
        self._price = price
        self._reached = reached
        self.clear()

    def clear(self) -> None:
        """Hold nothing, as a forked child does."""
        self._lock = threading.Lock()
        self._matches: dict[tuple[Identity, Modality], list[tuple[Rule, str]]] = {}
        self._holdings: dict[str, Holding] = {}
        self._earlier: list[Holding] = []
        self._openings: dict[str, Opening] = {}
        self._told: Newest[tuple[str, int, int], None] = Newest(_TOLD)
        self._number = 0
        self._away_until = 0.0
        self._is_news = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing is held, reserved or unsaid."""
        return not (self._holdings or self._earlier or self._openings)

    # ---- the event loops' side

    def holdings(self, identity: Identity, modality: Modality) -> list[Holding]:
        """This process's slices of the pools that such a call's use goes to."""
        matches = self._matches.get((identity, modality))
        if matches is None:
            matches = self._match(identity, modality)
        if not matches:
            return []
        now, known, found = now_ns(), self._holdings.get, []
        for rule, pool in matches:
            holding = known(pool)
            if holding is None or now >= holding.ends_ns:
                holding = self._renewed(rule, pool, holding, now)
            found.append(holding)
        return found

    def _match(self, identity: Identity, modality: Modality) -> list[tuple[Rule, str]]:
        found = [(rule, rule.pool(identity, modality)) for rule in self._rules]
        matches = [(rule, pool) for rule, pool in found if pool is not None]
        if len(self._matches) >= _REMEMBERED:
            self._matches.clear()
        self._matches[identity, modality] = matches
        return matches

    def _renewed(self, rule: Rule, pool: str, before: Holding | None, now: int) -> Holding:
        with self._lock:
            if before is not None:
                self._earlier.append(before)
            holding = self._holdings[pool] = Holding(rule, pool, rule.period(now), used_ns=now)
        return holding

    def opening(self, attempt: Attempt, estimate: Callable[[], Usage]) -> Opening | None:
        """What ``attempt`` has to reserve; None when no rule is for it."""
        holdings = self.holdings(attempt.identity, attempt.modality)
        if not holdings:
            return None
        usage = held(Metered(estimate(), Quality.ESTIMATED)).usage
        charge = None
        for holding in holdings:
            if holding.rule.is_money and charge is None:
                charge = self._price(estimated(attempt, usage))
            if holding.period.slot_ns > attempt.started_ns:
                # begun since: the attempt begins in the periods that it is counted in
                attempt.started_ns = holding.period.slot_ns
        takes = [(holding, holding.rule.needs(usage, charge)) for holding in holdings]
        return Opening(attempt, usage, takes)

    def apply(self, opening: Opening, *, force: bool = False) -> bool:
        """Reserve all that ``opening`` takes, or nothing. ``force`` reserves what is not there."""
        with self._lock:
            return self._apply(opening, force)

    def _apply(self, opening: Opening, force: bool = False) -> bool:
        if opening.abandoned:
            return True
        for holding, need in opening.takes:
            if not holding.has(need):
                if not force:
                    return False
                holding.grant(need - holding.free)
        now = now_ns()
        for holding, need in opening.takes:
            holding.reserve(need, now)
        self._openings[opening.attempt.id] = opening
        opening.applied = True
        self._number += 1
        opening.record = opening.note()
        if opening.record:
            self.store.note(self._number, opening.record)
        return True

    def abandon(self, opening: Opening) -> None:
        """Give back what an attempt reserved that will not open, now or as soon as it is known."""
        with self._lock:
            opening.abandoned = True
            if opening.applied:
                del self._openings[opening.attempt.id]
                for holding, need in opening.takes:
                    holding.cancel(need)

    def opened(self, attempt: str) -> Opening | None:
        return self._openings.get(attempt)

    def settle(self, attempt: Attempt, charge: Charge | None) -> None:
        """Count what ``attempt`` has used in place of what it reserved."""
        with self._lock:
            opening = self._openings.pop(attempt.id, None)
            if opening is None:
                return
            for holding, need in opening.takes:
                actual = holding.rule.counts(attempt.usage, charge)
                holding.settle(need, actual, unpriced=charge is None)

    def settle_late(self, attempt: Attempt, entry: Entry) -> None:
        """Count what ``entry`` adds to ``attempt`` in the budgets that it was counted in."""
        for rule, pool in self._match(attempt.identity, attempt.modality):
            more = rule.adds(entry)
            if more:
                slot_ns = rule.period(attempt.started_ns).slot_ns
                with self._lock:
                    self._holding_of(rule, pool, slot_ns, attempt.started_ns).add(more)

    def _holding_of(self, rule: Rule, pool: str, slot_ns: int, at_ns: int) -> Holding:
        current = self._holdings.get(pool)
        for holding in (*([current] if current else []), *self._earlier):
            if (holding.pool, holding.period.slot_ns) == (pool, slot_ns):
                return holding
        self._earlier.append(Holding(rule, pool, rule.period(at_ns), used_ns=now_ns()))
        return self._earlier[-1]

    # ---- the keeper's side

    def take(self, opening: Opening) -> Shortage | None:
        """Reserve what ``opening`` takes, getting slices as needed; else what there is none of."""
        for _ in range(100):  # others may be faster, every time, with what was got for this one
            with self._lock:
                if self._apply(opening):
                    return None
                short = [
                    (holding, need, need - holding.free)
                    for holding, need in opening.takes
                    if not holding.has(need)
                ]
            try:
                shortage = self._get(short, opening.shadowed)
            except StoreError:
                return self._without_store(opening, [holding for holding, _, _ in short])
            if shortage is not None:
                return shortage
        return self._without_store(opening, [])

    def _get(
        self, short: Sequence[tuple[Holding, int, int]], shadowed: list[Shortage]
    ) -> Shortage | None:
        """Get slices for each (holding, need, what is short of it); a shadow's shortage is noted.

        Raises StoreError.
        """
        if time.monotonic() < self._away_until:
            raise StoreError("the store was away a moment ago")
        asks = [holding.ask(more) for holding, _, more in short]
        taken = self._telling(lambda said: self.store.take(asks, said))
        with self._lock:
            for (holding, _, _), units, level in zip(
                short, taken.granted, taken.levels, strict=True
            ):
                holding.grant(units, level)
        for (holding, need, more), level in zip(short, taken.levels, strict=True):
            self._learn(holding, level)
            if level.wait_ns or (level.left is not None and level.left < more):
                shortage = Shortage(holding, need, level)
                if not holding.rule.of.shadow:
                    return shortage
                shadowed.append(shortage)
        return None

    def _telling(self, use: Callable[[Said | None], Done], *, spare: Spare | None = None) -> Done:
        """Use the store while telling it what it does not know yet; None when it knows it all."""
        now = now_ns()
        with self._lock:
            self._end_periods(now)
            known = (*self._holdings.values(), *self._earlier)
            told = [
                (holding, holding.change(give_back=goes_back))
                for holding in known
                if (goes_back := spare is not None and spare(holding, now)) or holding.dirty
            ]
            notes = tuple(one.record for one in self._openings.values() if one.record)
            said = Said(tuple(change for _, change in told), notes, self._number)
        try:
            done = use(said if told else None)
        except BaseException as error:
            if isinstance(error, StoreError):
                self._away_until = time.monotonic() + _AWAY_SECONDS
            with self._lock:
                for holding, change in told:
                    holding.undo(change)
            raise
        self._is_news = self._is_news or bool(told)
        return done

    def _end_periods(self, now: int) -> None:
        for pool, holding in list(self._holdings.items()):
            if now >= holding.ends_ns:
                self._earlier.append(self._holdings.pop(pool))

    def _without_store(self, opening: Opening, short: Iterable[Holding]) -> Shortage | None:
        closed = [h for h in short if not h.rule.of.fail_open and not h.rule.of.shadow]
        if closed:
            return Shortage(closed[0], 0, None)
        self.apply(opening, force=True)
        return None

    def flush(self, *, everything: bool = False) -> None:
        """Hand over what was spent and give back what is spare, or all. Raises StoreError."""
        if self.is_empty:
            return
        wanted = set(self.store.wanted())

        def spare(holding: Holding, now: int) -> bool:
            return everything or holding.pool in wanted or holding.is_spare(now)

        self._telling(lambda said: self.store.flush(said) if said else None, spare=spare)
        self._forget(now_ns())

    def _forget(self, now: int) -> None:
        """Drop holdings with nothing in them that nobody has used for a while."""
        with self._lock:
            in_use = {id(h) for opening in self._openings.values() for h, _ in opening.takes}
            self._earlier = [h for h in self._earlier if h.dirty or id(h) in in_use]
            for pool, holding in list(self._holdings.items()):
                unused = not holding.dirty and id(holding) not in in_use and not holding.free
                if unused and now - holding.used_ns > 60_000_000_000:
                    del self._holdings[pool]

    def news(self) -> bool:
        """Whether anybody has written to the store since this was last asked. Raises StoreError."""
        own, self._is_news = self._is_news, False
        return self.store.changed() or own

    def look(self, holdings: Sequence[Holding] | None = None) -> None:
        """Learn how far the budgets are used, of these holdings or all. Raises StoreError."""
        with self._lock:
            asked = list(holdings or self._holdings.values())
        asked = [holding for holding in asked if holding.rule.steps]
        if asked:
            levels = self.store.levels([holding.ask(0) for holding in asked])
            for holding, level in zip(asked, levels, strict=True):
                self._learn(holding, level)

    def _learn(self, holding: Holding, level: Level) -> None:
        holding.level = level
        rule, budget = holding.rule, holding.rule.of
        if not rule.steps:
            return
        spent = level.spent + holding.spent
        steps = [s for s in rule.steps if spent * 1_000_000 >= s.at * level.amount]
        if not budget.shadow:
            throttle = strongest(steps, Action.THROTTLE)
            holding.delay = throttle.seconds if throttle else 0.0
            holding.routes = tuple([step.route for step in steps if step.route])
        for step in steps:
            said = (holding.pool, holding.period.start_ns, step.at)
            is_news = said not in self._told
            self._told[said] = None
            if is_news:
                self._reached(
                    BudgetReached(
                        budget=budget.name,
                        pool=holding.pool,
                        action=step.action,
                        share=step.at / 1_000_000,
                        spent=spent,
                        amount=level.amount,
                        unit=budget.unit,
                        route=step.route,
                        shadow=budget.shadow,
                        since_ns=holding.period.start_ns,
                    )
                )

    def followed(self) -> list[Opening]:
        """The open attempts that can be asked how much they have used."""
        with self._lock:
            return [o for o in self._openings.values() if o.metered is not None]

    def grow(self, opening: Opening, usage: Usage) -> Shortage | None:
        """Reserve more for a stream that has used most of what it took."""
        attempt = opening.attempt
        charge = self._price(estimated(attempt, usage, now_ns() - attempt.started_ns))
        shortage: Shortage | None = None
        for place, (holding, taken) in enumerate(opening.takes):
            if holding.rule.of.unit in (Unit.STREAMS, Unit.REQUESTS):
                continue
            if not opening.base:
                opening.base = [need for _, need in opening.takes]
            used, base = holding.rule.needs(usage, charge), opening.base[place]
            if taken - used >= base // 2:
                continue
            more = used + base - taken
            short = self._more(holding, more)
            if short is not None:
                shortage = short
                more = max(0, used - taken)  # used already, whether there was room or not
            with self._lock:
                if attempt.id in self._openings:
                    holding.extend(more)
                    opening.takes[place] = (holding, taken + more)
        opening.estimate = usage
        opening.record = opening.note()
        return shortage

    def _more(self, holding: Holding, more: int) -> Shortage | None:
        if holding.rule.share is None or holding.free >= more or holding.ask(0).rate:
            return None  # a rate is not broken off: what it is short of, later attempts wait for
        try:
            return self._get([(holding, more, more - holding.free)], [])
        except StoreError:
            return None if holding.rule.of.fail_open else Shortage(holding, more, None)
