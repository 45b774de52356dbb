"""From a name that a person wrote to a plan: a route, a stack, a provider or a model reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import urlsplit

from ..catalog import Plugin, canonical, is_provider, names, provider, served_by
from ..core.models import CASCADE, Candidate, Deadlines, Modality, ModelRef, Plan
from ..core.names import did_you_mean
from ..errors import MissingCredential, UnknownModel
from .settings import Connection, ModelChoice, Settings, after_output_of

AUTO = "auto"
DEFAULT = "default"

_PATIENT = Deadlines(connect=30.0, first_content=30.0, idle=30.0)
"""For an engine of this machine that nobody takes over from: it is late when the machine is busy,
and giving it up would only make it begin again."""


def resolve(
    settings: Settings,
    name: str | ModelChoice,
    modality: Modality,
    *,
    fallback: Sequence[str | ModelChoice] = (),
) -> Plan:
    """The plan that ``name`` stands for; the candidates of ``fallback`` are tried after its own.

    ``name`` is looked up as a route, then as a stack, then as ``provider/model[:suffix]`` or a bare
    provider, which serves its default model. ``auto`` is the stack ``default``.

    Raises UnknownModel (naming the nearest name) or MissingCredential.
    """
    plan = _named(settings, name, modality)
    more = [c for other in fallback for c in _named(settings, other, modality).candidates]
    return followed(plan, more)


def followed(plan: Plan, more: Sequence[Candidate]) -> Plan:
    """``plan`` with further candidates behind its own, which makes patience no virtue."""
    if not more:
        return plan
    deadlines = Deadlines() if plan.deadlines == _PATIENT else plan.deadlines
    return replace(plan, candidates=(*plan.candidates, *more), deadlines=deadlines)


def in_language(
    connections: Mapping[str, Connection], language: str, candidates: Sequence[Candidate]
) -> list[Candidate]:
    """Recognisers with ``language`` where they take one and name none: callers speak no other.

    ``multi`` is a word of a single vendor for any of some languages, and goes to nobody else.
    """

    def hearing(one: Candidate) -> Candidate:
        how = served_by(provider(connections[one.connection].provider), Modality.STT)
        how = how.variant(one.ref.model) if isinstance(how, Plugin) else how
        takes = isinstance(how, Plugin) and how.suffix not in (None, how.model)
        if not takes or one.ref.suffix or "language" in one.options:
            return one
        return replace(one, ref=replace(one.ref, suffix=language))

    return list(candidates) if language in ("", "multi") else [hearing(one) for one in candidates]


def connection_for(connections: Mapping[str, Connection], name: str) -> Connection:
    """The connection that serves a reference's provider.

    A connection of that name comes first, then the first one declared with that provider. Raises
    MissingCredential for a provider that is known and not configured, else UnknownModel.
    """
    own = canonical(name)
    for connection in (connections.get(name), connections.get(own)):
        if connection is not None:
            return connection
    for connection in connections.values():
        if connection.provider == own and connection.base_url is None:
            return connection
    if not is_provider(own):
        near = did_you_mean(name, (*connections, *names()))
        raise UnknownModel(f'unknown provider "{name}"{near}')
    needed = provider(own).credentials[0]
    raise MissingCredential(
        f"{own} is not configured: set providers.{own}.{needed.name} "
        f"or the variable {needed.variables[0]}"
    )


def candidate(
    connections: Mapping[str, Connection], choice: ModelChoice, modality: Modality
) -> Candidate:
    """A candidate ready to try: its model named, the connection's options beneath its own.

    Its provider is the catalogue's name, except for a connection with a ``base_url`` of its own,
    which is nobody's price list: there it is the connection's name.
    """
    if choice.ref.provider not in connections and is_provider(choice.ref.provider):
        served_by(provider(choice.ref.provider), modality)  # asked before its credentials are
    connection = connection_for(connections, choice.ref.provider)
    how = served_by(provider(connection.provider), modality)
    named = connection.provider if connection.base_url is None else connection.name
    model = choice.ref.model or how.default_model
    options = {**connection.options.get(modality, {}), **choice.options}
    return Candidate(
        ModelRef(named, model, choice.ref.suffix),
        connection.name,
        options,
        tier=connection.tier,
        region=connection.region or _region(connection),
        surcharges=how.surcharges,
    )


def _region(connection: Connection) -> str:
    """Where the connection's own address is, as far as its provider's prices tell regions apart."""
    ending = provider(connection.provider).regional
    host = urlsplit(connection.base_url or "").hostname or ""
    return "regional" if ending and host.endswith(ending) else ""


def _named(settings: Settings, name: str | ModelChoice, modality: Modality) -> Plan:
    if isinstance(name, ModelChoice):
        return _single(settings, name, modality)
    if name in settings.routes:
        return _routed(settings, name, modality)
    stack = settings.stacks.get(DEFAULT if name == AUTO else name)
    if stack is not None:
        if modality not in CASCADE:
            raise UnknownModel(
                f'"{name}" is a stack, which has no {modality} model: name a route or a model'
            )
        member = stack.member(modality)
        if member in settings.routes:
            return _routed(settings, member, modality, stack=stack.name)
        choice = ModelChoice.of(member, modality)
        return _single(settings, choice, modality, stack=stack.name)
    choice = ModelChoice.of(name, modality)
    try:
        return _single(settings, choice, modality)
    except UnknownModel:
        if choice.ref.model or is_provider(name):
            raise
    known = (*settings.routes, *settings.stacks, *settings.connections, *names())
    near = did_you_mean(name, known)
    raise UnknownModel(f'"{name}" is no route, stack, provider or model{near}')


def _routed(settings: Settings, name: str, modality: Modality, *, stack: str = "") -> Plan:
    route = settings.routes[name]
    if route.modality is not modality:
        raise UnknownModel(f'route "{name}" is for {route.modality}, not for {modality}')
    candidates = tuple(candidate(settings.connections, c, modality) for c in route.candidates)
    return Plan(
        candidates,
        route.deadlines,
        route.after_output,
        route=name,
        stack=stack,
        probe=route.probe,
        apology=route.apology,
        hedge=route.hedge,
    )


def _single(
    settings: Settings, choice: ModelChoice, modality: Modality, *, stack: str = ""
) -> Plan:
    one = candidate(settings.connections, choice, modality)
    row = provider(connection_for(settings.connections, choice.ref.provider).provider)
    deadlines = _PATIENT if row.local else Deadlines()
    return Plan((one,), deadlines, after_output_of(modality), stack=stack)
