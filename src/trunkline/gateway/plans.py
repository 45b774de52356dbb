"""Built plans by what was asked for: made when first asked, shared by all, renewed by a reload."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import msgspec
from msgspec import structs

from .. import catalog
from ..compose import Trunkline, Wanted
from ..core.models import Candidate, Modality, Plan
from ..errors import MissingCredential, UnknownModel, UnsupportedOption, UsageError
from ..runtime.inlet_socket import InletSocket
from ..runtime.prober import Prober
from .preload import Target, target_of

logger = logging.getLogger("trunkline")

_KEPT = 256
"""Plans kept at once: clients choose names, and each may hold connections."""

_LONGEST_NAME = 200
_LARGEST_ASK = 64 << 10
_KEEP_ALIVE_SECONDS = 120.0
_VOICE, _LANGUAGE = "voice", "language"
_BARRED = frozenset("\\%?#")

Probe = Callable[[Candidate, Plan], Awaitable[None]]


class Ask(msgspec.Struct, frozen=True):
    """What a client asks a modality for. ``sample_rate`` is for the voices that take one.

    ``provider`` names who must serve: of a route's candidates those it serves, else the provider
    in whose name the model is asked. ``language`` is a voice's, for the candidates that take one:
    some clients always send it. ``wishes`` are options for the candidates that have them, which the
    others go without; a ``voice`` among them is for those whose provider names it in its API.
    """

    modality: Modality
    wanted: Wanted
    fallback: tuple[Wanted, ...] = ()
    provider: str = ""
    sample_rate: int | None = None
    language: str = ""
    wishes: dict[str, Any] = {}

    @property
    def key(self) -> bytes:
        return msgspec.json.encode(self)


@dataclass
class _Built:
    ask: Ask
    plan: Plan
    closing: Callable[[], Awaitable[None]]
    prober: Prober | None
    users: int = 0
    retired: bool = False


class Lease:
    """A plan that stays open for as long as the block needs it."""

    __slots__ = ("_built", "_done")

    def __init__(self, built: _Built, done: Callable[[_Built], None]) -> None:
        self._built = built
        self._done = done

    def __enter__(self) -> Plan:
        built = self._built
        built.users += 1
        if built.prober is not None:
            built.prober.look(built.plan)
        return built.plan

    def __exit__(self, *_: object) -> None:
        self._built.users -= 1
        self._done(self._built)


@dataclass
class Plans:
    """The plans of this process. ``probes`` is how each modality finds out that one is well."""

    trunkline: Trunkline
    probes: dict[Modality, Probe] = field(default_factory=dict)
    renewed: set[Callable[[], None]] = field(default_factory=set)
    """Called after a reload, by whom a lease lasts longer than a request."""
    _built: dict[bytes, _Built] = field(default_factory=dict)
    _http: aiohttp.ClientSession | None = None

    def lease(self, ask: Ask) -> Lease:
        """The plan for ``ask``, which stays open for as long as the block needs it.

        Lease anew for each request or utterance: so an operator's change reaches running calls.
        Raises UsageError when nothing here serves what is asked.
        """
        return Lease(self._find(ask), self._close_if_done)

    def own(self, ask: Ask) -> Lease:
        """The same for options that nobody shares, such as words of a call: it is not kept."""
        built = self._build(ask)
        built.retired = True
        return Lease(built, self._close_if_done)

    @property
    def in_use(self) -> int:
        """How many leases there are."""
        return sum(built.users for built in self._built.values())

    def targets(self, ask: Ask) -> set[Target]:
        """What must be imported before a plan for ``ask`` can be built without stopping the loop.

        Nothing for one that is built. Raises UsageError when nothing here serves what is asked.
        """
        return set() if ask.key in self._built else self._targets(ask)

    def targets_of_renewal(self) -> set[Target]:
        """What must be imported before ``renew``, for the same reason."""
        found: set[Target] = set()
        for built in self._built.values():
            with contextlib.suppress(UsageError):
                found |= self._targets(built.ask)
        return found

    def _targets(self, ask: Ask) -> set[Target]:
        connections = self.trunkline.settings.connections
        candidates = self._plan(ask).candidates
        rows = [catalog.provider(connections[one.connection].provider) for one in candidates]
        return {target for row in rows for target in target_of(row, ask.modality)}

    def renew(self) -> None:
        """Make every plan anew from the settings as they are now.

        The new ones are built before the old ones close, so what both use stays connected.
        """
        before, self._built = self._built, {}
        for built in before.values():
            with contextlib.suppress(UsageError):  # whoever asks for it again is told
                self._find(built.ask)
        for built in before.values():
            self._retire(built)
        for renewed in list(self.renewed):
            renewed()

    async def aclose(self) -> None:
        """Close what no request uses, bounded in time by the engine."""
        before, self._built = self._built, {}
        for built in before.values():
            self._retire(built)
        await self.trunkline.engine.settled()
        if self._http is not None:
            await self._http.close()
            self._http = None

    def _find(self, ask: Ask) -> _Built:
        key = ask.key
        built = self._built.pop(key, None) or self._build(ask)
        self._built[key] = built  # the last one asked for is the last one to be forgotten
        if len(self._built) > _KEPT:
            self._retire(self._built.pop(next(iter(self._built))))
        return built

    def _build(self, ask: Ask) -> _Built:
        if len(ask.key) > _LARGEST_ASK:
            raise UsageError(f"the options are larger than {_LARGEST_ASK:,} bytes")
        plan = self._fitting(self._plan(ask, tells=True), ask)
        if ask.language:
            _check_suffix(ask.language)
            plan = self._in_language(plan, ask.language)
        if ask.wishes:
            plan = self._wishing(plan, ask)
        brings_own = ask.modality in (Modality.LLM, Modality.REALTIME)
        session = None if brings_own else self._session()
        plan, closing = self.trunkline.build(ask.modality, plan, session, ask.sample_rate)
        probe = self.probes.get(ask.modality)
        prober = Prober(self.trunkline.engine, probe) if probe else None
        return _Built(ask, plan, closing, prober)

    def _plan(self, ask: Ask, *, tells: bool = False) -> Plan:
        for wanted in (ask.wanted, *ask.fallback):
            check_name(wanted.name)
            _check_suffix(wanted.suffix)
            _check_options(wanted.options)
        fallback = [one for one in ask.fallback if self._is_served(ask.modality, one, tells)]
        settings, name, provider = self.trunkline.settings, ask.wanted.name, ask.provider
        if not provider:
            return self.trunkline.plan(ask.modality, ask.wanted, fallback)
        check_name(provider)
        if name in settings.routes or name in settings.stacks or name == "auto":
            plan = self.trunkline.plan(ask.modality, ask.wanted, fallback)
            own = tuple(c for c in plan.candidates if provider in (c.ref.provider, c.connection))
            if not own:
                raise UnknownModel(f'provider "{provider}" serves no candidate of "{name}"')
            return replace(plan, candidates=own)
        if name.partition("/")[0] != provider:
            name = f"{provider}/{name}"
        wanted = structs.replace(ask.wanted, name=name)
        return self.trunkline.plan(ask.modality, wanted, fallback)

    def _is_served(self, modality: Modality, fallback: Wanted, tells: bool) -> bool:
        """Whether a client's fallback is served here; its call need not suffer when it is not."""
        try:
            self.trunkline.plan(modality, fallback)
        except (UnknownModel, MissingCredential) as error:
            if tells:
                logger.warning('the fallback "%s" is left out: %s', fallback.name, error)
            return False
        return True

    def _in_language(self, plan: Plan, language: str) -> Plan:
        """``plan`` with every voice in ``language`` that takes one and has none of its own."""
        connections = self.trunkline.settings.connections

        def spoken(candidate: Candidate) -> Candidate:
            how = catalog.provider(connections[candidate.connection].provider).tts
            takes = isinstance(how, catalog.Plugin) and (how.language or how.voices)
            if not takes or "language" in candidate.options:
                return candidate
            options: dict[str, Any] = {**candidate.options, "language": language}
            return replace(candidate, options=options)

        return replace(plan, candidates=tuple(map(spoken, plan.candidates)))

    def _fitting(self, plan: Plan, ask: Ask) -> Plan:
        """``plan`` with every option of a client where it is of a type that is taken.

        One that nobody takes stays, and is refused where the plugin is built.
        """
        found = list(plan.candidates)
        asked = [pair for one in (ask.wanted, *ask.fallback) for pair in one.options.items()]
        for name, value in asked:
            having = [at for at, one in enumerate(found) if one.options.get(name) is value]
            misfits = [at for at in having if not self._fits(found[at], ask, name, value)]
            for at in misfits if len(misfits) < len(having) else ():
                rest = {n: v for n, v in found[at].options.items() if n != name}
                found[at] = replace(found[at], options=rest)
        return replace(plan, candidates=tuple(found))

    def _fits(self, candidate: Candidate, ask: Ask, name: str, value: Any) -> bool:
        row = catalog.provider(self.trunkline.settings.connections[candidate.connection].provider)
        return catalog.fits(row, ask.modality, candidate.ref.model, name, value)

    def _wishing(self, plan: Plan, ask: Ask) -> Plan:
        """``plan`` with every wish where it is understood."""
        connections, modality = self.trunkline.settings.connections, ask.modality

        def wished(candidate: Candidate) -> Candidate:
            row = catalog.provider(connections[candidate.connection].provider)
            how, model = catalog.served_by(row, modality), candidate.ref.model
            taken = {
                name: value
                for name, value in ask.wishes.items()
                if name != _VOICE
                and catalog.takes(row, modality, model, name)
                and catalog.fits(row, modality, model, name, value)
            }
            voice = ask.wishes.get(_VOICE)
            if isinstance(how, catalog.Plugin) and voice in how.named_voices:
                candidate = replace(candidate, ref=replace(candidate.ref, suffix=voice))
            return replace(candidate, options={**candidate.options, **taken})

        return replace(plan, candidates=tuple(map(wished, plan.candidates)))

    def _session(self) -> aiohttp.ClientSession:
        """What the plugins of all calls connect through; there is no job here that has one."""
        if self._http is None or self._http.closed:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS)
            self._http = aiohttp.ClientSession(connector=connector, ws_response_class=InletSocket)
        return self._http

    def _retire(self, built: _Built) -> None:
        built.retired = True
        self._close_if_done(built)

    def _close_if_done(self, built: _Built) -> None:
        if built.retired and not built.users:

            async def close() -> None:
                if built.prober is not None:
                    await built.prober.aclose()
                await built.closing()

            self.trunkline.engine.retire(built.plan, close)


def check_name(name: str) -> None:
    """Refuse what no model is called and some provider's URL might obey. Raises UnknownModel."""
    parts = name.split("/")
    if (
        len(name) > _LONGEST_NAME
        or not name.isprintable()
        or _BARRED.intersection(name)
        or any(part in ("", ".", "..") or part != part.strip() for part in parts)
    ):
        raise UnknownModel(f"model {name[:_LONGEST_NAME]!r} is not of the form provider/model")


def _check_suffix(suffix: str) -> None:
    """Refuse what no voice or language is called. Raises UnknownModel."""
    if (
        len(suffix) > _LONGEST_NAME
        or not suffix.isprintable()
        or _BARRED.intersection(suffix)
        or ".." in suffix.split("/")
    ):
        raise UnknownModel(f"{suffix[:_LONGEST_NAME]!r} is no voice or language")


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse what is not for clients, and no voice or language by the way of an option.

    Raises UnsupportedOption and UnknownModel.
    """
    catalog.check_for_clients(options)
    for name in (_VOICE, _LANGUAGE):
        named = options.get(name) or ""
        if not isinstance(named, str):
            raise UnsupportedOption(f"{name} is a text, not {type(named).__name__}")
        _check_suffix(named)
