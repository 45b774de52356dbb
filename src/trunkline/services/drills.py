"""What a drill plays, and what may be said of it.

A drill is calls against the user's own routes, with doubles in the vendors' place: one healthy
call a line, then one for each fault. Everything here is plain data; the calls are the door's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import catalog
from ..config import THROWAWAY, Connection, Secret, Settings, resolve
from ..core.models import CASCADE, Candidate, Modality, Plan
from ..core.names import did_you_mean
from ..doubles.config import VENDORS
from ..doubles.faults import Kind, Rule
from ..errors import UsageError

__all__ = [
    "HEALTHY",
    "SCENARIOS",
    "Line",
    "Scenario",
    "Stand",
    "lines",
    "named_scenarios",
    "scenarios",
]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One call of a drill. ``kind`` None is the healthy one; ``everywhere``: all candidates fail.

    ``midway`` says that output has left before.
    """

    kind: Kind | None = None
    everywhere: bool = False

    @property
    def name(self) -> str:
        return ("all " if self.everywhere else "") + (self.kind or "healthy")

    @property
    def midway(self) -> bool:
        return self.kind in _MIDWAY and not self.everywhere

    def rule(self, modality: Modality, *, by_request: bool = False, model: str = "") -> Rule:
        """The double's rule; ``by_request``: an output is an utterance, so the second one fails."""
        given: dict[str, Any] = {"kind": self.kind, "every": 0.5, "model": model}
        if self.kind is Kind.DRIP and modality is not Modality.STT:
            given["every"] = 1.0  # a recogniser has several outputs for each word
        if self.midway and by_request:
            given["nth"] = tuple(range(2, 100))
        elif self.midway:
            given["after"] = _LEFT[modality]
        return Rule(**given)

    @property
    def strikes_account(self) -> bool:
        """Whether every model behind the same connection is struck, as these faults do in life."""
        return self.everywhere or self.kind in _OF_ACCOUNT


HEALTHY = Scenario()

_MIDWAY = frozenset({Kind.DIE, Kind.STALL, Kind.END, Kind.TRUNCATE, Kind.GARBAGE})
_LEFT = {Modality.STT: 4, Modality.LLM: 4, Modality.TTS: 14}
"""Outputs before a fault midway: a few words, or 1.4 s of a voice."""
_OF_ACCOUNT = frozenset(
    {Kind.REFUSE, Kind.BLACK_HOLE, Kind.UNAUTHORIZED, Kind.PAYMENT_REQUIRED, Kind.RATE_LIMITED}
)
_FITS = {
    Kind.WRONG_RATE: {Modality.TTS},
    Kind.TRUNCATE: {Modality.STT, Modality.TTS},  # of a model's text nobody can tell
}
_EVERYWHERE = (Kind.REFUSE, Kind.HANG)
"""The quickest and the slowest way for all to be down."""

SCENARIOS = (
    *(Scenario(kind) for kind in Kind),
    *(Scenario(kind, everywhere=True) for kind in _EVERYWHERE),
)
"""All that can be played, beside the healthy call."""


def named_scenarios(names: Sequence[str]) -> tuple[Scenario, ...]:
    """The scenarios of these names, all without any. Raises UsageError naming the nearest."""
    known = {_option(one): one for one in SCENARIOS}
    for name in names:
        if name not in known:
            raise UsageError(
                f'unknown fault "{name}"{did_you_mean(name, known)}; there are: {", ".join(known)}'
            )
    return tuple(one for name, one in known.items() if not names or name in names)


def _option(scenario: Scenario) -> str:
    return scenario.name.replace(" ", "_")


@dataclass(frozen=True, slots=True)
class Stand:
    """Who stands in a candidate's place: the ``double`` of a vendor, or itself where it is local.

    ``double`` is empty for both a local engine and a vendor without a double.
    """

    candidate: Candidate
    double: str
    local: bool

    @property
    def played(self) -> bool:
        return bool(self.double) or self.local

    @property
    def told(self) -> str:
        """What a person should know of it; empty when its own vendor's double stands in."""
        name = f"{self.candidate}@{self.candidate.connection}"
        if self.local:
            return f"{name} runs on this machine as it is: nobody can make it fail from outside"
        if not self.double:
            return f"{name} has no double: it is left out, and what it would do is not known"
        if self.double != self.candidate.ref.provider:
            return f"{name} is played by the double of {self.double}, whose protocol it speaks"
        return ""


@dataclass(frozen=True, slots=True)
class Line:
    """A route, or the member of a stack that is a model: ``asked`` is its name at the door."""

    name: str
    asked: str
    modality: Modality
    plan: Plan
    stands: tuple[Stand, ...]

    @property
    def played(self) -> tuple[Stand, ...]:
        return tuple(stand for stand in self.stands if stand.played)

    @property
    def whole(self) -> bool:
        return len(self.played) == len(self.stands)

    @property
    def first(self) -> Stand | None:
        return self.played[0] if self.played else None

    @property
    def patience(self) -> float:
        """Seconds after which a call that has not ended never will."""
        one = self.plan.deadlines
        waits = min(one.connect + one.first_content + one.idle, one.total)
        return (len(self.stands) + self.plan.retries) * waits + 40.0


def lines(settings: Settings, names: Sequence[str] = ()) -> list[Line]:
    """What is drilled: these routes or stacks, else every route and every stack of the file.

    A stack stands for its members. Raises UsageError for an unknown name, and when nothing is left.
    """
    own = [name for name in settings.stacks if name not in ("default", "local")]
    own += ["default"] if _is_of_routes(settings, "default") else []
    known = (*settings.routes, *settings.stacks)
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            raise UsageError(f'"{name}" is no route or stack of the settings{near}')
        if name in settings.routes and settings.routes[name].modality not in CASCADE:
            raise UsageError(f'route "{name}" is for realtime, which no drill plays')
    spoken = [name for name, route in settings.routes.items() if route.modality in CASCADE]
    chosen = tuple(dict.fromkeys(names)) or (*spoken, *own)
    found: dict[str, Line] = {}
    for name in chosen:
        for line in _lines_of(settings, name):
            found.setdefault(line.name, line)
    if not found:
        raise UsageError("the settings name no route and no stack: there is nothing to drill")
    return list(found.values())


def _is_of_routes(settings: Settings, stack: str) -> bool:
    """Whether a stack comes from the file: the built-in one names no routes."""
    return any(settings.stacks[stack].member(m) in settings.routes for m in CASCADE)


def _lines_of(settings: Settings, name: str) -> Iterable[Line]:
    if name in settings.routes:
        yield _line(settings, name, name, settings.routes[name].modality)
        return
    for modality in CASCADE:
        member = settings.stacks[name].member(modality)
        if member in settings.routes:
            yield _line(settings, member, member, modality)
        else:
            yield _line(settings, f"{name}.{modality}", name, modality)


def _line(settings: Settings, name: str, asked: str, modality: Modality) -> Line:
    plan = resolve(settings, asked, modality)
    stands = tuple(_stand(settings, candidate, modality) for candidate in plan.candidates)
    return Line(name, asked, modality, plan, stands)


def _stand(settings: Settings, candidate: Candidate, modality: Modality) -> Stand:
    connection = settings.connections[candidate.connection]
    double = double_of(connection, modality)
    return Stand(candidate, double, catalog.provider(connection.provider).local)


def double_of(connection: Connection, modality: Modality) -> str:
    """The vendor whose double speaks what this connection speaks; empty when there is none."""
    row = catalog.provider(connection.provider)
    if row.local or modality not in row.modalities:
        return ""
    if isinstance(catalog.served_by(row, modality), catalog.Wire):
        return "openai"
    return row.name if row.name in VENDORS else ""


def scenarios(line: Line, chosen: Sequence[Scenario]) -> list[Scenario]:
    """Those of ``chosen`` that can be played on ``line``."""
    if line.first is None or not line.first.double:
        return []
    local = any(stand.local for stand in line.played)
    return [
        one
        for one in chosen
        if line.modality in _FITS.get(one.kind or Kind.HANG, set(Modality))
        and not (one.everywhere and local)
    ]


def neighbours(settings: Settings, line: Line) -> dict[str, str]:
    """The connections that a call on ``line`` may reach, each with its double.

    Routes of the same modality are among them: a budget may send the call there.
    """
    plans = [
        resolve(settings, name, line.modality)
        for name, route in settings.routes.items()
        if route.modality is line.modality
    ]
    candidates = [one for plan in (line.plan, *plans) for one in plan.candidates]
    names = {one.connection for one in candidates}
    found = {name: double_of(settings.connections[name], line.modality) for name in names}
    return {name: double for name, double in found.items() if double}


def rehearsed(settings: Settings, line: Line, doubles: Mapping[str, str]) -> Settings:
    """The settings of a drill of ``line``: ``doubles`` are addresses by connection.

    What has neither a double nor runs on this machine is not in them, so that no vendor is called;
    nor are webhooks, since nothing has happened.
    """
    connections: dict[str, Connection] = {}
    for name, one in settings.connections.items():
        if name in doubles:
            given = dict.fromkeys(one.credentials or ["api_key"], Secret(THROWAWAY))
            connections[name] = replace(one, credentials=given, double=doubles[name])
        elif catalog.provider(one.provider).local:
            connections[name] = one
    routes = dict(settings.routes)
    if line.asked in routes:
        route = routes[line.asked]
        pairs = zip(route.candidates, line.stands, strict=True)
        kept = tuple(choice for choice, stand in pairs if stand.played)
        routes[line.asked] = replace(route, candidates=kept)
    return replace(settings, connections=connections, routes=routes, webhooks=())
