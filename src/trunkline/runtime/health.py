"""What this process knows of every candidate's health, in memory, and shares with the others.

Reading costs a call no I/O and takes no lock. The memory changes with the outcomes of attempts
here, at once, and from the shared state's thread with what other processes found out. Breakers are
put there under ``breaker:<key>`` with every change; windows under ``window:<key>``, seldom, so that
a new process is not cold.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

import msgspec

from ..clock import new_id, now_ns
from ..core.health import (
    AttemptEnded,
    Breaker,
    Event,
    Health,
    HealthPolicy,
    ProbeStarted,
    State,
    Transition,
    advance,
    is_due,
    merge,
    recent,
    transition,
)
from ..core.models import Purpose
from ..core.ports import SharedRecord, SharedState
from ..core.window import Window
from ..store.process import own

logger = logging.getLogger("trunkline")

_WINDOW_EVERY_NS = 2_000_000_000
"""Between two puts of one key's window, by whichever process: each wakes every other one."""

_KEPT = 1024
"""Keys that are remembered: a client may name any model, and one that nobody has is ill, too."""

_BREAKER = "breaker"
_WINDOW = "window"
_POLICY = HealthPolicy()
_UNKNOWN = Health()

_encode = msgspec.json.Encoder().encode
_breaker_of = msgspec.json.Decoder(Breaker).decode
_window_of = msgspec.json.Decoder(Window).decode


class Keyed(Protocol):
    """A candidate, as far as health is concerned."""

    @property
    def key(self) -> str: ...


C = TypeVar("C", bound=Keyed)


class Listener(Protocol):
    """Told of transitions. ``remote`` is True for those that another process found out.

    Those arrive on the shared state's thread, the others where the outcome was recorded. It must
    not block; an event loop is reached with ``call_soon_threadsafe``.
    """

    def __call__(self, key: str, transition: Transition, *, remote: bool) -> None: ...


class HealthBook:
    """The health of every key. One a process; without ``shared`` it knows only its own attempts."""

    def __init__(
        self,
        shared: SharedState | None = None,
        policy: HealthPolicy = _POLICY,
        *,
        now: Callable[[], int] = now_ns,
    ) -> None:
        self.policy = policy
        self._shared = shared
        self._now = now
        self._healths: OrderedDict[str, Health] = OrderedDict()
        self._barred: frozenset[str] = frozenset()
        self._listeners: dict[object, Listener] = {}
        self._unfollow: Callable[[], object] | None = None
        self._begin()
        self._follow()
        own(self)

    def _begin(self) -> None:
        self._writing = threading.Lock()
        self._windows_put: dict[str, int] = {}
        self._probes: dict[str, str] = {}
        self._is_stale = False

    def allows(self, key: str) -> bool:
        """Whether a call should go to ``key``: its breaker is closed, or it was never heard of."""
        return key not in self._barred

    def allows_any(self, candidates: Sequence[Keyed]) -> bool:
        """Whether one of them is allowed."""
        return any(self.allows(candidate.key) for candidate in candidates)

    def all_allowed(self, candidates: Sequence[Keyed]) -> bool:
        """Whether a call may go to each of them."""
        barred = self._barred
        return not barred or barred.isdisjoint([candidate.key for candidate in candidates])

    def ranked(self, candidates: Sequence[C]) -> tuple[C, ...]:
        """All of them: those that are allowed first, then the others."""
        allowed = self.order(candidates)
        if len(allowed) == len(candidates):
            return allowed
        return (*allowed, *(one for one in candidates if one not in allowed))

    def order(self, candidates: Sequence[C]) -> tuple[C, ...]:
        """Those that are allowed, in their order; all of them when none is.

        So a plan never comes out empty, and what recovers first is found even without a prober.
        """
        if self._is_stale:
            self._follow()
        barred = self._barred
        if barred:
            allowed = tuple([candidate for candidate in candidates if candidate.key not in barred])
            if allowed:
                return allowed
        return tuple(candidates)

    def record(
        self,
        key: str,
        outcome: str,
        *,
        blames: bool = False,
        started_ns: int,
        first_output_after_ns: int | None = None,
        retry_after: float | None = None,
        purpose: Purpose = Purpose.SERVE,
    ) -> None:
        """Take note of an attempt that ended; the arguments are those of ``AttemptEnded``.

        The outcome of a probe gives back the lease that ``begin_probe`` took.
        """
        event = AttemptEnded(
            outcome, blames, started_ns, first_output_after_ns, retry_after, purpose
        )
        self._apply(key, event)
        if purpose is Purpose.PROBE:
            self._end_probe(key)

    def latency_p95(self, key: str) -> float | None:
        """Seconds to first content that 95 % of recent attempts stayed within; None when cold."""
        p95 = recent(self.health(key), self._now(), self.policy).p95_ns
        return None if p95 is None else p95 / 1e9

    def health(self, key: str) -> Health:
        """All that is known of ``key``."""
        return self._healths.get(key, _UNKNOWN)

    def due_for_probe(self) -> list[str]:
        """Keys whose cool-down is over, or whose prober has not answered within its lease."""
        now = self._now()
        return sorted(k for k in self._barred if is_due(self.health(k).breaker, now, self.policy))

    def begin_probe(self, key: str) -> bool:
        """Whether to probe ``key`` now: it is due, and nobody else of this machine is at it.

        Asks the shared state, for up to half a second; from an event loop call it in a thread.
        What comes of the probe is recorded with its purpose, whatever it is.
        """
        if not is_due(self.health(key).breaker, self._now(), self.policy):
            return False
        owner = new_id()
        if self._shared is not None and not self._shared.lease(
            _lease_of(key), owner, self.policy.probe_lease
        ):
            return False
        self._probes[key] = owner
        # With the lease came whatever the last prober put before it gave the lease back.
        if self._apply(key, ProbeStarted()):
            return True
        self._end_probe(key)
        return False

    def abandon_probe(self, key: str) -> None:
        """Leave a probe that was begun here, and has no outcome, to the next prober."""
        if key in self._probes:
            self.record(key, "cancelled", started_ns=self._now(), purpose=Purpose.PROBE)

    def on_transition(self, listener: Listener) -> Callable[[], object]:
        """Call ``listener`` with every transition, of all processes; returns how to stop that.

        Transitions of another process that follow each other at once may arrive as one.
        """
        self._listeners[ticket := object()] = listener
        return lambda: self._listeners.pop(ticket, None)

    def close(self) -> None:
        """Learn nothing more from the shared state, which is its owner's to close."""
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None

    def after_fork(self) -> None:
        """The child goes on with what was known; it follows again with its next attempt."""
        self._begin()
        self._unfollow = None
        self._is_stale = True

    def _follow(self) -> None:
        self._is_stale = False
        if self._shared is not None:
            self._unfollow = self._shared.follow(self._learn)

    def _apply(self, key: str, event: Event) -> bool:
        """Advance ``key`` by what happened here; whether that changed anything."""
        with self._writing:
            now = self._now()
            before = self._healths.get(key, _UNKNOWN)
            after, told = advance(before, event, now, self.policy)
            if after is before:
                return False
            self._keep(key, after)
        if self._shared is not None:
            self._share(self._shared, key, before, after, now)
        if told is not None:
            self._tell(key, told, remote=False)
        return True

    def _learn(self, records: Iterable[SharedRecord]) -> None:
        """Merge what other processes put."""
        for record in records:
            kind, _, key = record.key.partition(":")
            try:
                if kind == _BREAKER:
                    heard = Health(breaker=_breaker_of(record.value))
                elif kind == _WINDOW:
                    heard = Health(window=_window_of(record.value))
                    self._windows_put[key] = self._now()
                else:
                    continue
            except msgspec.DecodeError as error:  # of another version, perhaps
                logger.warning("the shared health of %s cannot be read: %s", key, error)
                continue
            with self._writing:
                before = self.health(key)
                after = merge(before, heard, self.policy)
                self._keep(key, after)
            told = transition(before.breaker, after.breaker)
            if told is not None:
                self._tell(key, told, remote=True)

    def _keep(self, key: str, health: Health) -> None:
        self._healths[key] = health
        self._healths.move_to_end(key)
        is_barred = health.breaker.state is not State.CLOSED
        if is_barred != (key in self._barred):
            self._barred ^= {key}
        if len(self._healths) > _KEPT:
            longest_ago, _ = self._healths.popitem(last=False)
            self._barred -= {longest_ago}
            self._windows_put.pop(longest_ago, None)

    def _share(
        self, shared: SharedState, key: str, before: Health, after: Health, now: int
    ) -> None:
        if after.breaker is not before.breaker:
            breaker = after.breaker
            shared.put(f"{_BREAKER}:{key}", _encode(breaker), breaker.since_ns)
        if after.window and not 0 <= now - self._windows_put.get(key, 0) < _WINDOW_EVERY_NS:
            self._windows_put[key] = now
            window = after.window
            shared.put(f"{_WINDOW}:{key}", _encode(window), window[-1].at_ns)

    def _end_probe(self, key: str) -> None:
        owner = self._probes.pop(key, None)
        if owner is not None and self._shared is not None:
            self._shared.release(_lease_of(key), owner)

    def _tell(self, key: str, told: Transition, *, remote: bool) -> None:
        for listener in list(self._listeners.values()):
            try:
                listener(key, told, remote=remote)
            except Exception:  # the boundary to the listener: a call must not die of it
                logger.exception("a listener of health transitions failed")


def _lease_of(key: str) -> str:
    return f"probe:{key}"
