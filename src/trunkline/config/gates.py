"""``budgets`` and ``limits``: what the table of keys cannot say about them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import TypeVar

from ..core.budgets import MILLION, Action, Budget, Step, downgrades, loop
from ..core.limits import Limit, Rate
from ..core.models import Modality
from ..core.names import did_you_mean
from ..core.scopes import EACH, Dimension, Scope, Unit
from ..core.windows import NANOS, Kind, Window
from .schema_gate import WithoutStore
from .schema_kinds import Read
from .settings import Route
from .yaml_nodes import Node, Problems

Made = TypeVar("Made")

_STEPS = (Step(800_000, Action.WARN), Step(MILLION, Action.BLOCK))
_DELAY = 0.5
_LONGEST_DELAY = 10.0
_LONGEST_WAIT = 60.0
_CALENDAR = (Kind.HOUR, Kind.DAY, Kind.WEEK, Kind.MONTH)


def budgets(
    read: Read | None, routes: Mapping[str, Route], problems: Problems
) -> tuple[Budget, ...]:
    """The budgets of a file; every mistake goes to ``problems``."""
    found = _each(read, problems, lambda name, entry: _budget(name, entry, routes, problems))
    after = downgrades(found, lambda route: routes[route].modality)
    if path := loop(after):
        assert read is not None
        by = {name for first, then in pairwise(path) for name in after[first][then]}
        problems.at(
            read.node,
            f'downgrades lead back to the route "{path[0]}": '
            f"{', '.join(map(' to '.join, pairwise(path)))}, by {' and '.join(sorted(by))}: "
            "let each lead to a cheaper one",
        )
    return tuple(found)


def limits(read: Read | None, problems: Problems) -> tuple[Limit, ...]:
    """The limits of a file; every mistake goes to ``problems``."""
    return tuple(_each(read, problems, lambda name, entry: _limit(name, entry, problems)))


def _each(
    read: Read | None, problems: Problems, make: Callable[[str, Read], Made | None]
) -> list[Made]:
    made = []
    for name, entry in (read.value if read else {}).items():
        if not name or any(c in "/:;" or c.isspace() or not c.isprintable() for c in name):
            problems.at(entry.node, "a name holds no blank, slash, colon or semicolon")
        elif (one := make(name, entry)) is not None:
            made.append(one)
    return made


def _budget(
    name: str, entry: Read, routes: Mapping[str, Route], problems: Problems
) -> Budget | None:
    fields: Mapping[str, Read] = entry.value
    amount = _one_amount(fields.get("amount"), problems)
    steps = _steps(fields.get("steps"), routes, problems)
    zone = fields.get("time_zone")
    if amount is None or "window" not in fields:
        return None
    window: Window = fields["window"].value
    if zone is not None and window.kind not in _CALENDAR:
        problems.at(zone.node, f"means nothing for the window {window}")
    blocks = any(step.action is Action.BLOCK for step in steps)
    if "notice" in fields and not blocks:
        problems.at(fields["notice"].node, "is never said: no step blocks")
    scope = _scope(fields.get("scope"), problems)
    _check_routes(steps, scope, routes, entry.node, problems)
    return Budget(
        name,
        scope,
        replace(window, zone=zone.value) if zone else window,
        *amount,
        steps,
        notice=fields["notice"].value if "notice" in fields else None,
        shadow="shadow" in fields and fields["shadow"].value,
        fail_open=_fail_open(fields),
    )


def _check_routes(
    steps: tuple[Step, ...],
    scope: Scope,
    routes: Mapping[str, Route],
    node: Node,
    problems: Problems,
) -> None:
    """A downgrade of calls that the budget is not for would never be taken."""
    wanted = dict(scope.pairs).get(Dimension.MODALITY, EACH)
    for step in steps:
        if step.route and wanted not in (EACH, modality := routes[step.route].modality):
            problems.at(
                node,
                f'a downgrade goes to the route "{step.route}" for {modality}, and the budget is '
                f"for {wanted}: name a route for {wanted}",
            )


def _limit(name: str, entry: Read, problems: Problems) -> Limit | None:
    fields: Mapping[str, Read] = entry.value
    amount = _one_amount(fields.get("amount"), problems)
    wait = _bounded(fields.get("wait"), _LONGEST_WAIT, problems)
    if amount is None:
        return None
    unit, most = amount
    rate = None
    if unit is Unit.STREAMS:
        for key in ("per", "burst"):
            if key in fields:
                problems.at(fields[key].node, "means nothing for streams")
    elif "per" not in fields:
        if "per" not in getattr(entry.node, "entries", ()):  # else it has been told of
            problems.at(entry.node, f'the key "per" is missing: the time {unit} are counted in')
        return None
    else:
        burst = _burst(fields.get("burst"), unit, most, problems)
        rate = Rate(most, fields["per"].value * NANOS, burst)
    return Limit(
        name,
        _scope(fields.get("scope"), problems),
        unit,
        most,
        rate,
        wait=wait,
        notice=fields["notice"].value if "notice" in fields else None,
        shadow="shadow" in fields and fields["shadow"].value,
        fail_open=_fail_open(fields),
    )


def _one_amount(read: Read | None, problems: Problems) -> tuple[Unit, int] | None:
    if read is None:
        return None
    given: Mapping[str, Read] = read.value
    if len(given) == 1:
        ((unit, amount),) = given.items()
        return Unit(unit), amount.value
    if given or not getattr(read.node, "entries", None):  # else its one entry has been told of
        problems.at(read.node, f"must be in one unit, and is in {len(given)}")
    return None


def _burst(read: Read | None, unit: Unit, most: int, problems: Problems) -> int:
    if read is None:
        return most
    try:
        return unit.read(read.value)
    except ValueError as error:
        problems.at(read.node, f"{error}, and is {read.node}")
    return most


def _scope(read: Read | None, problems: Problems) -> Scope:
    pairs: list[tuple[Dimension, str]] = []
    for entry in read.value if read else ():
        if not getattr(entry.node, "entries", None):
            problems.at(entry.node, "must be a pair such as agent: ann, and is empty")
        for key, value in entry.value.items():
            dimension = Dimension(key)
            known = [m.value for m in Modality]
            if dimension is Dimension.MODALITY and value.value not in (*known, EACH):
                near = did_you_mean(value.value, known)
                problems.at(value.node, f"must be one of {', '.join(known)}{near}")
            elif dimension is Dimension.TAG and value.value == EACH:
                problems.at(value.node, "a call has many tags: name one")
            elif dimension is not Dimension.TAG and dimension in dict(pairs):
                problems.at(value.node, f"a call has one {dimension}, and two are named")
            else:
                pairs.append((dimension, value.value))
    return Scope(tuple(pairs))


def _steps(read: Read | None, routes: Mapping[str, Route], problems: Problems) -> tuple[Step, ...]:
    if read is None:
        return _STEPS
    found: dict[tuple[int, Action, str], Step] = {}
    for entry in read.value:
        fields: Mapping[str, Read] = entry.value
        if "do" not in fields:
            continue
        step = Step(
            fields["at"].value if "at" in fields else MILLION,
            fields["do"].value,
            _delay(fields, entry.node, problems),
            _route(fields, entry.node, routes, problems),
        )
        if (step.at, step.action, step.route) in found:
            problems.at(entry.node, "the same step is there already")
        found[step.at, step.action, step.route] = step
    return tuple(sorted(found.values(), key=lambda step: step.at))


def _delay(fields: Mapping[str, Read], node: Node, problems: Problems) -> float:
    throttles = fields["do"].value is Action.THROTTLE
    if "seconds" in fields and not throttles:
        problems.at(fields["seconds"].node, f"means nothing for {fields['do'].value}")
    if not throttles:
        return 0.0
    return _bounded(fields.get("seconds"), _LONGEST_DELAY, problems) or _DELAY


def _route(
    fields: Mapping[str, Read], node: Node, routes: Mapping[str, Route], problems: Problems
) -> str:
    downgrade = fields["do"].value is Action.DOWNGRADE
    named = fields.get("route")
    if named is None:
        if downgrade:
            problems.at(node, 'the key "route" is missing: the cheaper route')
    elif not downgrade:
        problems.at(named.node, f"means nothing for {fields['do'].value}")
    elif named.value not in routes:
        near = did_you_mean(named.value, routes)
        problems.at(named.node, f'there is no route "{named.value}"{near}')
    else:
        return str(named.value)
    return ""


def _bounded(read: Read | None, most: float, problems: Problems) -> float:
    if read is None:
        return 0.0
    seconds: float = read.value
    if seconds > most:
        problems.at(read.node, f"must be at most {most:g} seconds: a caller is waiting")
    return seconds


def _fail_open(fields: Mapping[str, Read]) -> bool:
    read = fields.get("without_store")
    return read is None or read.value is WithoutStore.ALLOW
