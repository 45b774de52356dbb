"""Whether a candidate is worth a call: a circuit breaker, with a window of what callers saw.

One ``Health`` per key; what a key distinguishes (provider, model, connection, endpoint) is its
maker's choice. Everything here is a function of plain data with ``now_ns`` (UTC) passed in.

    closed ──blamed failure──▶ open ──probe started, once due──▶ half_open
      ▲                         ▲ │                                │ │
      │                         └─┼──────── the probe fails ───────┘ │
      └───────────────────────────┴──── an ok that is not late ──────┘

One blamed failure opens: no second call pays for what the first one found out. Served traffic is
never sent to an open candidate to try it out; a prober is. When a plan has no closed candidate it
is tried anyway, and then its ok closes as well.

Copies of one key that several processes kept apart are merged, in any order, to the same result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from .models import Int64, Purpose
from .window import Recent, Sample, Window, added, joined, summed_up

_SECOND = 1_000_000_000

ALERTING = frozenset({"payment_required", "unauthorized"})
"""Outcomes that stay until a person does something."""

_HEARD = frozenset({Purpose.SERVE, Purpose.HEDGE})
"""Purposes whose latency is that of a caller: a probe is smaller, a judge's prompt is larger."""


class State(StrEnum):
    """Closed lets calls through, as in an electric circuit."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class HealthPolicy:
    """Seconds and counts that the breaker and the window go by.

    The cool-down doubles from ``cooldown`` to ``longest_cooldown`` with each failure in a row; it
    is ``alert_cooldown`` where waiting alone does not help, and what the provider asks for, up to
    ``longest_retry_after``, where it asks. A probe has ``probe_lease`` to answer. The window holds
    ``window_size`` attempts of the last ``window`` seconds; with fewer than ``warm`` latencies in
    it there is no p95.
    """

    cooldown: float = 1.0
    longest_cooldown: float = 30.0
    alert_cooldown: float = 60.0
    longest_retry_after: float = 300.0
    probe_lease: float = 15.0
    window: float = 300.0
    window_size: int = 64
    warm: int = 10

    @property
    def longest_wait(self) -> float:
        """The longest that a key can be anything but closed without being due for a probe."""
        return max(
            self.cooldown,
            self.longest_cooldown,
            self.alert_cooldown,
            self.longest_retry_after,
            self.probe_lease,
        )


class Breaker(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of health that decides.

    ``since_ns`` is when it last changed in any field and grows with every change, even when the
    clock goes back: of two copies the one with the greater is newer. ``opened_ns`` is the last
    opening, ``until_ns`` the end of the cool-down (open) or of the probe's lease (half open),
    ``failures`` how many in a row, ``cause`` the outcome that opened.
    """

    state: State = State.CLOSED
    since_ns: Int64 = 0
    opened_ns: Int64 = 0
    until_ns: Int64 = 0
    failures: int = 0
    cause: str = ""


class Health(msgspec.Struct, frozen=True):
    """What is known of one key. A new one is closed and knows no latency."""

    breaker: Breaker = Breaker()
    window: Window = ()


class AttemptEnded(msgspec.Struct, frozen=True):
    """An attempt with its outcome and times, as ``Attempt`` and its ``ProviderError`` have them.

    ``retry_after`` is in seconds. ``first_output_after_ns`` is None where there was none, or where
    it would measure the caller, such as the time until somebody speaks.
    """

    outcome: str
    blames: bool
    started_ns: int
    first_output_after_ns: int | None = None
    retry_after: float | None = None
    purpose: Purpose = Purpose.SERVE


@dataclass(frozen=True, slots=True)
class ProbeStarted:
    """A prober, the only one of the machine, sets out."""


Event = AttemptEnded | ProbeStarted


@dataclass(frozen=True, slots=True)
class Transition:
    """A change that somebody may want to hear of.

    ``alert`` marks the opening, once an outage, that waits for a person: a key that is wrong, an
    account without credit. That may happen to a breaker that is open already.
    """

    before: State
    after: State
    at_ns: int
    cause: str
    alert: bool = False


def advance(
    health: Health, event: Event, now_ns: int, policy: HealthPolicy
) -> tuple[Health, Transition | None]:
    """Return the health after ``event``; the same object when the event changes nothing.

    A cancelled attempt, and an error that does not blame, say nothing; a probe that was cancelled
    leaves its place to the next.
    """
    before, window = health.breaker, health.window
    if isinstance(event, ProbeStarted):
        after = _half_opened(before, now_ns, policy)
    elif event.outcome == "ok":
        is_well = before.state is State.CLOSED and not before.failures
        after = before if is_well else _proved(before, event, now_ns)
        window = _noted(window, event, now_ns, policy)
    elif event.blames and event.outcome != "cancelled":
        after = _failed(before, event, now_ns, policy)
        window = _noted(window, event, now_ns, policy)
    else:
        after = _given_back(before, event, now_ns)
    if after is not before:
        return Health(after, window), transition(before, after)
    return (health if window is health.window else Health(before, window)), None


def transition(before: Breaker, after: Breaker) -> Transition | None:
    """What there is to tell when ``after`` takes the place of ``before``; None when nothing."""
    alert = after.cause in ALERTING and before.cause not in ALERTING
    if before.state is after.state and not alert:
        return None
    return Transition(before.state, after.state, after.since_ns, after.cause, alert)


def is_due(breaker: Breaker, now_ns: int, policy: HealthPolicy) -> bool:
    """Whether a probe should be sent: the cool-down is over, or a prober never answered.

    A wait longer than any there is comes from a clock that was set back; it is over, too.
    """
    if breaker.state is State.CLOSED:
        return False
    return not 0 < breaker.until_ns - now_ns <= _ns(policy.longest_wait)


def merge(a: Health, b: Health, policy: HealthPolicy) -> Health:
    """Join two copies of one key: the newer breaker, and the newest samples of both.

    Commutative, associative, idempotent: copies meet in any order and any number of times.
    """
    return Health(newer(a.breaker, b.breaker), joined(a.window, b.window, policy.window_size))


def newer(a: Breaker, b: Breaker) -> Breaker:
    """The one that changed last; of two that changed in the same nanosecond, always the same.

    Bytes break the tie, because that is what a shared store can compare without understanding.
    """
    if a.since_ns != b.since_ns:
        return a if a.since_ns > b.since_ns else b
    return max(a, b, key=msgspec.json.encode)


def recent(health: Health, now_ns: int, policy: HealthPolicy) -> Recent:
    """What callers saw of late."""
    return summed_up(health.window, now_ns - _ns(policy.window), policy.warm)


def _half_opened(breaker: Breaker, now_ns: int, policy: HealthPolicy) -> Breaker:
    if not is_due(breaker, now_ns, policy):
        return breaker
    return msgspec.structs.replace(
        breaker,
        state=State.HALF_OPEN,
        since_ns=_later(breaker, now_ns),
        until_ns=now_ns + _ns(policy.probe_lease),
    )


def _given_back(breaker: Breaker, event: AttemptEnded, now_ns: int) -> Breaker:
    # A call that ends takes its prober with it, and the key need not wait for the lease. One whose
    # probe is rejected does wait: the next would be rejected as well.
    abandoned = event.purpose is Purpose.PROBE and event.outcome == "cancelled"
    if not abandoned or breaker.state is not State.HALF_OPEN or event.started_ns < breaker.since_ns:
        return breaker
    return msgspec.structs.replace(breaker, since_ns=_later(breaker, now_ns), until_ns=now_ns)


def _proved(breaker: Breaker, event: AttemptEnded, now_ns: int) -> Breaker:
    if _is_late(breaker, event, now_ns):
        return breaker
    # What a probe proves is little: failures are in a row until a caller was served again, so
    # that a candidate which only answers probes is not offered to a call every second.
    failures = breaker.failures if event.purpose is Purpose.PROBE else 0
    if breaker.state is State.CLOSED and breaker.failures == failures:
        return breaker
    return Breaker(since_ns=_later(breaker, now_ns), opened_ns=breaker.opened_ns, failures=failures)


def _failed(breaker: Breaker, event: AttemptEnded, now_ns: int, policy: HealthPolicy) -> Breaker:
    # A failure is news whenever its attempt began: a stream of an hour that breaks breaks now.
    if breaker.state is State.CLOSED:
        fresh = now_ns - breaker.since_ns > _ns(policy.window)
        return _opened(breaker, event, 1 if fresh else breaker.failures + 1, now_ns, policy)
    if event.purpose is Purpose.PROBE and not _is_late(breaker, event, now_ns):
        return _opened(breaker, event, breaker.failures + 1, now_ns, policy)
    # Calls that were under way, or that had no other candidate, fail as one: they do not add up.
    # Only a graver cause is news, so at most two of them put off the probe.
    if breaker.state is State.OPEN and _gravity(event.outcome) > _gravity(breaker.cause):
        graver = _opened(breaker, event, breaker.failures, now_ns, policy)
        return msgspec.structs.replace(graver, until_ns=max(graver.until_ns, breaker.until_ns))
    return breaker


def _opened(
    breaker: Breaker, event: AttemptEnded, failures: int, now_ns: int, policy: HealthPolicy
) -> Breaker:
    return Breaker(
        state=State.OPEN,
        since_ns=_later(breaker, now_ns),
        opened_ns=now_ns,
        until_ns=now_ns + _ns(_cooldown(event, failures, policy)),
        failures=failures,
        cause=event.outcome,
    )


def _cooldown(event: AttemptEnded, failures: int, policy: HealthPolicy) -> float:
    if event.outcome in ALERTING:
        return policy.alert_cooldown
    # A provider may send anything: nothing, zero, not a number, a week.
    if event.outcome == "rate_limited" and event.retry_after and event.retry_after > 0:
        return min(event.retry_after, policy.longest_retry_after)
    doublings = min(failures - 1, 32)  # far beyond any cool-down, near enough for a float
    return min(math.ldexp(policy.cooldown, doublings), policy.longest_cooldown)


def _gravity(outcome: str) -> int:
    return 2 if outcome in ALERTING else int(outcome == "rate_limited")


def _is_late(breaker: Breaker, event: AttemptEnded, now_ns: int) -> bool:
    """Whether the attempt began before the breaker opened, and so says nothing about today.

    An opening in the future is the work of a clock that was set back; nothing is late for it.
    """
    return event.started_ns < breaker.opened_ns <= now_ns


def _later(breaker: Breaker, now_ns: int) -> int:
    return max(now_ns, breaker.since_ns + 1)


def _noted(window: Window, event: AttemptEnded, now_ns: int, policy: HealthPolicy) -> Window:
    if event.purpose not in _HEARD:
        return window
    sample = Sample(now_ns, event.outcome != "ok", max(event.first_output_after_ns or 0, 0))
    return added(window, sample, policy.window_size)


def _ns(seconds: float) -> int:
    return round(seconds * _SECOND)
