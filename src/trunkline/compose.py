"""Settings to wired objects: the waist of the house, and the only reader of the environment.

One ``Trunkline`` a process. It is made when it is first asked for, from ``TRUNKLINE_CONFIG`` or
``trunkline.yaml`` in the working directory, else from defaults. A forked child goes on with its
parent's settings; journal, threads and connections, whose owners notice the fork, are its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from . import catalog
from .catalog.pricelist import shipped
from .clock import new_id
from .config import (
    Connection,
    Settings,
    defaults,
    followed,
    in_language,
    load,
    resolve,
    without_secrets,
)
from .core.budgets import Budget
from .core.events import EventName, HealthChanged
from .core.health import State, Transition
from .core.models import Attempt, Candidate, Charge, Identity, Modality, Plan
from .errors import ConfigError, StoreError, UsageError
from .runtime.attempt import Engine
from .runtime.gate import Gate
from .runtime.gate_keeper import Keeper
from .runtime.gate_lost import Lost
from .runtime.gate_purse import Purse
from .runtime.gate_rules import Rule
from .runtime.health import HealthBook
from .runtime.listeners import Callback, Listeners
from .runtime.webhooks import Webhooks
from .runtime.wire_llm import WireLLM
from .runtime.wire_realtime import talks
from .services.gates import overspent
from .store import Recorder
from .store.gates import GATE_NAME, SQLiteGateStore
from .store.settled import find_settled
from .store.shared import SQLiteSharedState

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger("trunkline")

_STREAM_SECONDS = 2.0
_FLUSH_SECONDS = 5.0
"""Together, and with a second for webhooks, less than the ten after which LiveKit kills the process
of an ended job."""

_TOLD_OUTSIDE = (EventName.FAILOVER, EventName.DEGRADED, EventName.RECOVERED, EventName.BUDGET)
"""The events that webhooks may be asked for."""


class Wanted(msgspec.Struct, frozen=True):
    """What a caller asks a modality for: a name, and what it adds to the reference.

    ``suffix`` (language or voice) outranks the name's own; ``options`` are the provider's.
    """

    name: str
    suffix: str = ""
    options: dict[str, Any] = {}


@dataclass
class _Client:
    """A lean chat client that every user of one connection shares."""

    client: WireLLM
    connection: Connection
    users: int = 0


class Trunkline:
    """Everything one process needs between its agents and their providers."""

    def __init__(self, settings: Settings, state: Path, source: Path | None = None) -> None:
        self.settings = settings
        self.source = source
        self.state = state
        self.recorder = Recorder(state)
        self._listeners = Listeners()
        self._clients: dict[str, _Client] = {}
        self.shared = SQLiteSharedState(state)
        self.health = HealthBook(self.shared)
        self.health.on_transition(self._health_changed)
        tell = self._listeners.tell
        self.gate = Gate(
            self.recorder,
            self.price,
            partial(tell, EventName.SETTLED),
            self._keeper(),
            partial(tell, EventName.REFUSED),
            partial(tell, EventName.LATE),
        )
        self._cheaper: dict[str, tuple[Plan, Callable[[], Awaitable[None]]] | None] = {}
        self.webhooks = Webhooks(settings.webhooks, self._lease)
        if settings.webhooks:
            for name in _TOLD_OUTSIDE:
                self._listeners.on(name, self.webhooks.tell)
        self.engine = Engine(
            self.gate, self.health, partial(tell, EventName.FAILOVER), self._routed
        )

    def _lease(self, name: str, seconds: float) -> bool:
        return self.shared.lease(name, new_id(), seconds)

    def _routed(self, modality: Modality, names: Sequence[str]) -> Plan | None:
        """The plan of the last of these routes that is for ``modality``, built once and kept."""
        routes = self.settings.routes  # a reload may have taken one away
        fitting = [n for n in names if n in routes and routes[n].modality is modality]
        if not fitting:
            return None
        name = fitting[-1]
        if name not in self._cheaper:
            try:
                plan = resolve(self.settings, name, modality)
                self._cheaper[name] = self.build(modality, plan)
            except UsageError as error:  # found at a threshold, in mid-call: it goes on as it is
                logger.error('route "%s" cannot take over for a budget: %s', name, error)
                self._cheaper[name] = None
        built = self._cheaper[name]
        return built[0] if built else None

    @staticmethod
    def price(attempt: Attempt) -> Charge | None:
        """The charge of an attempt by its usage; None: unpriced."""
        return _price(attempt)

    def _keeper(self) -> Keeper | None:
        """What keeps the budgets and limits, where there are any."""
        rules = [
            *map(Rule.made, self.settings.budgets),
            *map(Rule.made, self.settings.limits),
        ]
        if not rules:
            return None
        store = SQLiteGateStore(self.state)
        reached = partial(self._listeners.tell, EventName.BUDGET)
        lost = Lost(store, self.recorder, self.price, partial(find_settled, self.state))
        return Keeper(Purse(rules, store, self.price, reached), lost)

    def on(self, event: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` with each ``event`` of this process; returns how to stop that.

        ``settled`` brings a Settlement, ``late`` one with a further entry, ``failover`` a Failover,
        ``degraded`` and ``recovered`` a HealthChanged, ``budget`` a BudgetReached, ``refused`` an
        AttemptRefused. Callbacks must not block. Raises UsageError for an unknown event.
        """
        return self._listeners.on(event, callback)

    def _health_changed(self, key: str, transition: Transition, *, remote: bool) -> None:
        available = transition.after is State.CLOSED
        if transition.alert:
            logger.error("%s needs a person: %s", key, transition.cause)
        if available or transition.before is State.CLOSED or transition.alert:
            name = EventName.RECOVERED if available else EventName.DEGRADED
            cause, alert = transition.cause, transition.alert
            self._listeners.tell(name, HealthChanged(key, available, cause, alert, remote))

    def reload(self) -> None:
        """Read the settings again from where they came; plans made from now on follow them.

        What is built stays as it is, and so do the directory of the state, budgets and limits.
        Belongs on the event loop. Raises ConfigError, and then nothing has changed.
        """
        self.settings = _settings(self.source)
        cheaper, self._cheaper = self._cheaper, {}
        for built in filter(None, cheaper.values()):
            self.engine.retire(*built)

    def plan(self, modality: Modality, wanted: Wanted, fallback: Iterable[Wanted] = ()) -> Plan:
        """The plan a name stands for, then the fallbacks; nothing is built yet.

        A fallback that names no language hears that of the first recogniser.

        Raises UsageError when a name is unknown or a credential is missing.
        """
        first, *others = (self._resolved(modality, one) for one in (wanted, *fallback))
        more = [one for other in others for one in other.candidates]
        if modality is Modality.STT:
            language = first.candidates[0].ref.suffix
            more = in_language(self.settings.connections, language, more)
        return followed(first, more)

    def _resolved(self, modality: Modality, wanted: Wanted) -> Plan:
        plan = resolve(self.settings, wanted.name, modality)
        if not wanted.suffix and not wanted.options:
            return plan
        candidates = tuple(
            replace(
                candidate,
                ref=replace(candidate.ref, suffix=wanted.suffix or candidate.ref.suffix),
                options={**candidate.options, **wanted.options},
            )
            for candidate in plan.candidates
        )
        return replace(plan, candidates=candidates)

    def build(
        self,
        modality: Modality,
        plan: Plan,
        http_session: aiohttp.ClientSession | None = None,
        sample_rate: int | None = None,
    ) -> tuple[Plan, Callable[[], Awaitable[None]]]:
        """Build what serves each candidate; returns the plan with it, and how to close it all.

        ``http_session`` and ``sample_rate`` are for the plugins that take them.

        Every candidate is built now, so that a backup that cannot work is found before it is
        needed. Raises UsageError.
        """
        closing = contextlib.AsyncExitStack()
        candidates = tuple(
            candidate
            if candidate.live is not None
            else self._built(modality, candidate, closing, http_session, sample_rate)
            for candidate in plan.candidates
        )
        return replace(plan, candidates=candidates), closing.aclose

    def _built(
        self,
        modality: Modality,
        candidate: Candidate,
        closing: contextlib.AsyncExitStack,
        http_session: aiohttp.ClientSession | None,
        sample_rate: int | None,
    ) -> Candidate:
        connection = self.settings.connections[candidate.connection]
        row = catalog.provider(connection.provider)
        how = catalog.served_by(row, modality)
        ref = candidate.ref
        if isinstance(how, catalog.Wire):
            options = catalog.chat_options(row, how, candidate.options)
            model = ref.model or how.default_model
            live: Any = self._client(candidate.connection, how, closing)
            ref = replace(ref, model=how.models.get(model, model))
            return replace(candidate, ref=ref, options=options, live=live, shared=True)
        if isinstance(how, catalog.Realtime):
            catalog.no_options(row, candidate.options)
            key = connection.credentials.get("api_key")
            talking = talks(candidate, how, connection.address, key.reveal() if key else None)
            closing.push_async_callback(talking.live.aclose)
            return talking
        live = catalog.build(
            row,
            modality,
            ref.model,
            ref.suffix,
            credentials={name: s.reveal() for name, s in connection.credentials.items()},
            options=candidate.options,
            base_url=connection.address,
            http_session=http_session,
            sample_rate=sample_rate,
        )
        closing.push_async_callback(_close_plugin, live)
        model = ref.model or how.default_model
        how = how.variant(model)
        return replace(
            candidate,
            ref=replace(ref, model=model),
            live=live,
            replay_speed=how.replay_speed,
            turn_seconds=how.turn_seconds(candidate.options),
            flush_is_final=how.flush_is_final,
        )

    def _client(self, name: str, how: catalog.Wire, closing: contextlib.AsyncExitStack) -> WireLLM:
        connection = self.settings.connections[name]
        shared = self._clients.get(name)
        if shared is None or shared.connection != connection:
            key = connection.credentials.get("api_key")
            client = WireLLM(
                base_url=connection.address or how.base_url,
                api_key=key.reveal() if key else None,
                quirks=how.quirks,
            )
            shared = self._clients[name] = _Client(client, connection)
        shared.users += 1
        closing.push_async_callback(self._release, shared)
        return shared.client

    async def _release(self, shared: _Client) -> None:
        shared.users -= 1
        if not shared.users:
            if self._clients.get(shared.connection.name) is shared:
                del self._clients[shared.connection.name]
            await self.engine.unused(shared.client)
            await shared.client.aclose()

    async def aclose(self) -> None:
        """Close every stream and bring this process's journal into the ledger, bounded in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STREAM_SECONDS):
                cheaper, self._cheaper = self._cheaper, {}
                for built in filter(None, cheaper.values()):
                    self.engine.retire(*built)
                await self.engine.aclose()
        await asyncio.to_thread(self._rest)

    def _rest(self) -> None:
        """Hand over what others should know; using this process's Trunkline again wakes it."""
        self.gate.close()
        self.recorder.flush_all(_FLUSH_SECONDS)
        self.webhooks.flush()
        self.health.close()
        self.shared.close()


async def _close_plugin(plugin: Any) -> None:
    from .runtime.livekit_compat import close_client  # with a plugin, livekit is here already

    try:
        await plugin.aclose()
        await close_client(plugin)
    except Exception:  # the boundary to a plugin's farewell: the others must still be closed
        logger.exception("a plugin failed to close")


def _price(attempt: Attempt) -> Charge | None:
    """The charge of a settlement, None without a price: also when prices cannot be read."""
    try:
        quoted = shipped().quote(attempt)
    except ConfigError as error:
        logger.error("settlements stay unpriced: %s", error)
        return None
    if isinstance(quoted, Charge):
        return quoted
    logger.debug("attempt %s is unpriced: %s", attempt.id, quoted.reason)
    return None


_TOLD = 5
"""Spent budgets that are named one by one: one that is counted apart may have hundreds of parts."""

_current: Trunkline | None = None


def configure(config: Path | str | None = None, state: Path | str | None = None) -> Trunkline:
    """Make this process's Trunkline from a file of settings and a directory for its state.

    Raises ConfigError with every mistake in the file.
    """
    path = _path("config", config) or _config_path()
    settings = _settings(path)
    directory = _path("state", state) or settings.state_dir or _default_state()
    made = use(settings, directory, path)
    _tell_of_spent(settings.budgets, directory)
    return made


def use(settings: Settings, state: Path, source: Path | None = None) -> Trunkline:
    """Make this process's Trunkline from settings that are read already."""
    global _current
    _current = Trunkline(settings, state, source)
    return _current


def _tell_of_spent(budgets: Sequence[Budget], directory: Path) -> None:
    """Warn of budgets that refuse from the start: their cap may be lower than it was."""
    if not budgets or not (directory / GATE_NAME).exists():
        return
    with contextlib.closing(SQLiteGateStore(directory, only_reading=True)) as store:
        try:
            told = list(overspent(budgets, store))
            for sentence in told[:_TOLD]:
                logger.warning("%s", sentence)
            if len(told) > _TOLD:
                logger.warning("and %d more: see trunkline budgets state", len(told) - _TOLD)
        except StoreError as error:  # without_store says what becomes of attempts
            logger.warning("%s", error)


def _settings(source: Path | None) -> Settings:
    return load(source, os.environ) if source is not None else defaults(os.environ)


def read_settings(config: Path | str | None = None) -> Settings:
    """The settings that ``configure`` would take, with nothing made of them. Raises ConfigError."""
    return _settings(_path("config", config) or _config_path())


def read_for_drill(config: Path | str | None = None) -> Settings:
    """The same with a throw-away in place of every secret. Raises ConfigError, or UsageError."""
    path = _path("config", config) or _config_path()
    if path is None:
        raise UsageError("there is no trunkline.yaml here: name a file of settings with --config")
    return load(path, without_secrets(path, os.environ))


def current() -> Trunkline:
    """This process's Trunkline, made now if there is none yet."""
    return _current if _current is not None else configure()


def new_identity() -> Identity:
    """An identity for a call that no session or job owns."""
    settings = current().settings
    return Identity(call=new_id(), org=settings.org, project=settings.project)


def _path(what: str, value: object) -> Path | None:
    if value is None:
        return None
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise UsageError(f"{what} is the path of a file or directory, not {value!r}")
    return Path(value)


def _config_path() -> Path | None:
    if named := os.environ.get("TRUNKLINE_CONFIG"):
        return Path(named)
    here = Path("trunkline.yaml")
    return here if here.exists() else None


def _default_state() -> Path:
    named = os.environ.get("TRUNKLINE_STATE")
    if named:
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "trunkline"
