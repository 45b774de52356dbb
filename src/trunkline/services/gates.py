"""What budgets and limits stand at, what they were, and what they would do to a given call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..clock import new_id, now_ns
from ..core.budgets import Action, Budget
from ..core.limits import Limit
from ..core.models import (
    Attempt,
    Candidate,
    Charge,
    Entry,
    Identity,
    Modality,
    Terms,
    Usage,
)
from ..core.names import did_you_mean
from ..core.ports import Ask, Change, GateStore, Level, Override, Used
from ..core.scopes import EACH, Unit
from ..core.windows import Kind
from ..errors import UsageError
from ..runtime.gate_rules import Audience, Rule, estimated, instant, strongest
from ..runtime.line import charged_on

_LONGEST_NS = 366 * 86400 * 1_000_000_000
_LAST_NS = 253_402_300_799 * 1_000_000_000
"""The last second of the year 9999."""


@dataclass(frozen=True)
class State:
    """One pool of a rule as it is now; ``part`` says whose it is where calls are counted apart."""

    rule: Budget | Limit
    part: str
    level: Level
    resets_ns: int | None
    unpriced: int = 0


@dataclass(frozen=True)
class Verdict:
    """What one rule would do to a call: let it pass, or refuse it for this reason.

    ``notice`` is what a refused caller is told.
    """

    rule: Budget | Limit
    passes: bool
    told: str
    notice: str = ""


def states(rules: Iterable[Budget | Limit], store: GateStore) -> Iterator[State]:
    """Every pool in use now, and those that are one for all calls. Raises StoreError."""
    now = now_ns()
    for one in rules:
        rule = Rule.made(one)
        base = f"{'budget' if isinstance(one, Budget) else 'limit'}:{one.name}"
        period = rule.period(now)
        found: dict[str, int] = {}
        for used in store.history(base):
            if used.slot_ns >= period.start_ns:
                found[used.pool] = found.get(used.pool, 0) + used.unpriced
        if not found and not any(value == EACH for _, value in one.scope.pairs):
            found = {base: 0}
        resets = one.window.resets_ns(now) if isinstance(one, Budget) else None
        for pool, unpriced in sorted(found.items()):
            (level,) = store.levels([rule.ask(pool, period, 0)])
            part = pool.removeprefix(base).lstrip(";")
            yield State(one, part, level, resets, unpriced)


def overspent(budgets: Iterable[Budget], store: GateStore) -> Iterator[str]:
    """A sentence on each pool that lets nothing pass, because its cap is spent. StoreError.

    The pools of single calls are left out: those calls are over, or know it.
    """
    blocking = [b for b in budgets if not b.shadow and b.window.kind is not Kind.CALL]
    for state in states(blocking, store):
        budget, level = state.rule, state.level
        assert isinstance(budget, Budget)
        cap, text = budget.cap(level.amount), budget.unit.text
        if cap is None or level.spent < cap:
            continue
        part = f" [{state.part}]" if state.part else ""
        until = f" until {instant(state.resets_ns)}" if state.resets_ns is not None else ""
        yield (
            f"budget {budget.name}{part} refuses every attempt{until}: {text(level.spent)} of "
            f"{text(cap)} {budget.window.told} are spent already"
        )


def history(budget: Budget, store: GateStore) -> Sequence[Used]:
    """The periods of a budget's pools, newest first. Raises StoreError."""
    return store.history(f"budget:{budget.name}")


def correct(
    budgets: Iterable[Budget], store: GateStore, attempt: Attempt, entry: Entry, *, prices: bool
) -> None:
    """Count ``entry``, which corrects the charge of ``attempt``, in the budgets of money it is in.

    It counts in the windows in which the attempt began, as far as they are kept, and once however
    often this is called. ``prices``: until this entry the attempt was unpriced. Raises StoreError.
    """
    changes = []
    for rule in map(Rule.made, budgets):
        pool = rule.pool(attempt.identity, attempt.modality)
        if rule.of.unit is Unit.USD and pool is not None and entry.charge is not None:
            slot = rule.period(attempt.started_ns).slot_ns
            changes.append(Change(pool, slot, spent=entry.charge.nanos, unpriced=-int(prices)))
    if changes:
        store.correct(entry.id, changes)


def override(budget: Budget, amount: str, until_ns: int, reason: str, store: GateStore) -> Override:
    """Have another amount stand for ``budget`` until then.

    Raises UsageError for what is no amount, less than is spent, or no future day; StoreError.
    """
    try:
        read = budget.unit.read(amount)
    except ValueError as error:
        raise UsageError(f"the amount {error}, and is {amount}") from None
    if not now_ns() < until_ns <= now_ns() + _LONGEST_NS:
        raise UsageError(
            "an override ends in the future, within 366 days, and not at "
            f"{instant(min(until_ns, _LAST_NS))}"
        )
    spent = max((state.level.spent for state in states([budget], store)), default=0)
    if read < spent:
        text = budget.unit.text
        raise UsageError(
            f"{text(spent)} of budget {budget.name} are spent already, more than {text(read)}: "
            "nothing could pass; give a greater amount"
        )
    made = Override(budget.name, read, until_ns, reason)
    store.override(made)
    return made


def end_override(budget: Budget, store: GateStore) -> None:
    """Let the budget's own amount stand again. Raises StoreError."""
    store.override(Override(budget.name, budget.amount, 0, ""))


def explain(
    rules: Iterable[Budget | Limit],
    store: GateStore,
    price: Callable[[Attempt], Charge | None],
    identity: Identity,
    modality: Modality,
    candidate: Candidate,
    usage: Usage,
) -> Iterator[Verdict]:
    """What each rule that is for such a call would do to it now. Raises StoreError."""
    now = now_ns()
    ref = candidate.ref
    attempt = Attempt(
        new_id(), identity, modality, ref.provider, ref.model, candidate.connection, now
    )
    tier = candidate.options.get("service_tier", "")
    language = ref.suffix if modality is Modality.STT else ""
    attempt.terms = charged_on(candidate, Terms(language=language, tier=tier), candidate.options)
    charge = price(estimated(attempt, usage))
    for one in rules:
        rule = Rule.made(one)
        pool = rule.pool(identity, modality)
        if pool is None:
            continue
        need = rule.needs(usage, charge)
        ask = rule.ask(pool, rule.period(now), need)
        (level,) = store.levels([ask])
        yield _verdict(rule, ask, level, attempt, now, unpriced=charge is None)


def _verdict(
    rule: Rule, ask: Ask, level: Level, attempt: Attempt, now: int, *, unpriced: bool
) -> Verdict:
    text, need = rule.of.unit.text, ask.need
    if level.wait_ns or (level.left is not None and level.left < need):
        refused = rule.refusal(attempt, need, level, now, Audience.CALLER)
        if rule.of.shadow:
            return Verdict(rule.of, True, f"in shadow, passes: {refused}")
        return Verdict(rule.of, False, str(refused), refused.notice)
    left = "without end" if level.left is None else f"{text(level.left)} left"
    told = f"passes, taking up to {text(need)} of {left}"
    if rule.is_money and unpriced:
        told = f"passes, and has no known price, so that it counts nothing: {left}"
    if isinstance(rule.of, Budget):
        steps = rule.of.reached(level.spent, level.amount)
        if throttle := strongest(steps, Action.THROTTLE):
            told += f"; waits {throttle.seconds:g} s"
        if downgrade := strongest(steps, Action.DOWNGRADE):
            told += f"; takes the route {downgrade.route}"
    return Verdict(rule.of, True, told)


def budget_named(name: str, budgets: Sequence[Budget]) -> Budget:
    """Raises UsageError, naming the nearest."""
    for budget in budgets:
        if budget.name == name:
            return budget
    known = [budget.name for budget in budgets]
    raise UsageError(f'there is no budget "{name}"{did_you_mean(name, known)}')


def state_text(state: State) -> str:
    """One line about a pool."""
    rule, level = state.rule, state.level
    text = rule.unit.text
    name = f"{rule.name} [{state.part}]" if state.part else rule.name
    shadow = ", shadow" if rule.shadow else ""
    if isinstance(rule, Limit):
        left = text(max(0, level.left or 0))
        per = f" every {rule.rate.window_ns / 1e9:g} s" if rule.rate else " at once"
        return f"{name} ({rule.scope}{shadow}): {left} left of {text(rule.amount)}{per}"
    share = f"{100 * level.spent / level.amount:.1f} %"
    told = f"{text(level.spent)} of {text(level.amount)} {rule.window.told} spent ({share})"
    if level.held:
        told += f", {text(level.held)} reserved"
    if state.unpriced:
        told += f", {state.unpriced} attempts unpriced"
    if level.amount != rule.amount:
        told += f", overridden from {text(rule.amount)}"
    if state.resets_ns is not None:
        told += f", resets {instant(state.resets_ns)}"
    return f"{name} ({rule.scope}{shadow}): {told}"
