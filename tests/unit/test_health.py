"""The breaker and the window as a table of what happened and what follows, then as properties."""

from __future__ import annotations

import math
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from trunkline import errors
from trunkline.core.health import (
    ALERTING,
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
from trunkline.core.models import Purpose
from trunkline.core.window import Sample, adaptive

S = 1_000_000_000
POLICY = HealthPolicy()
T0 = 1_000 * S

CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN

Step = tuple[float, Event]
"""Seconds after T0, and what happens then."""


def ended(
    outcome: str = "ok",
    begun: float = 0.0,
    *,
    purpose: Purpose = Purpose.SERVE,
    retry_after: float | None = None,
    blames: bool | None = None,
) -> AttemptEnded:
    """An attempt that began ``begun`` seconds after T0."""
    return AttemptEnded(
        outcome,
        blames=outcome not in {"ok", "cancelled", "rejected"} if blames is None else blames,
        started_ns=T0 + round(begun * S),
        retry_after=retry_after,
        purpose=purpose,
    )


def probe(outcome: str, begun: float, **more: float) -> AttemptEnded:
    return ended(outcome, begun, purpose=Purpose.PROBE, **more)


def play(*steps: Step, health: Health | None = None) -> tuple[Health, list[Transition | None]]:
    health = health or Health()
    told = []
    for at, event in steps:
        health, transition = advance(health, event, T0 + round(at * S), POLICY)
        told.append(transition)
    return health, told


FAULT = "provider_fault"
SET_OUT = ProbeStarted()

TABLE: dict[str, tuple[list[Step], State, float]] = {
    # what happened                                            state then, seconds until it is due
    "nothing": ([], CLOSED, 0),
    "an ok": ([(0, ended())], CLOSED, 0),
    "a cancelled attempt": ([(0, ended("cancelled"))], CLOSED, 0),
    "a cancelled attempt, blamed by mistake": ([(0, ended("cancelled", blames=True))], CLOSED, 0),
    "a rejected request": ([(0, ended("rejected"))], CLOSED, 0),
    "one failure": ([(0, ended(FAULT))], OPEN, 1),
    "a failure of a hedge": ([(0, ended(FAULT, purpose=Purpose.HEDGE))], OPEN, 1),
    "a failed probe of a closed one": ([(0, probe(FAULT, 0))], OPEN, 1),
    "a failure of a stream begun long ago": ([(0, ended("stream_cut", -900))], OPEN, 1),
    "calls under way fail as one": ([(0, ended(FAULT))] + [(0.1, ended(FAULT))] * 50, OPEN, 1),
    "calls without another candidate add nothing": (
        [(0, ended(FAULT)), (0.5, ended(FAULT, 0.4)), (0.9, ended(FAULT, 0.8))],
        OPEN,
        1,
    ),
    "an open one is cancelled": ([(0, ended(FAULT)), (0.1, ended("cancelled", 0.05))], OPEN, 1),
    "an open one rejects": ([(0, ended(FAULT)), (0.1, ended("rejected", 0.05))], OPEN, 1),
    "an ok, late": ([(0, ended(FAULT)), (0.5, ended("ok", -0.1))], OPEN, 1),
    "an ok, begun when it was open": ([(0, ended(FAULT)), (0.5, ended("ok", 0.1))], CLOSED, 0),
    "429": ([(0, ended("rate_limited"))], OPEN, 1),
    "429, and when": ([(0, ended("rate_limited", retry_after=7.5))], OPEN, 7.5),
    "429, sooner than we would": ([(0, ended("rate_limited", retry_after=0.2))], OPEN, 0.2),
    "429, next week": ([(0, ended("rate_limited", retry_after=6e5))], OPEN, 300),
    "429, never": ([(0, ended("rate_limited", retry_after=math.inf))], OPEN, 300),
    "429, not a number": ([(0, ended("rate_limited", retry_after=math.nan))], OPEN, 1),
    "429, yesterday": ([(0, ended("rate_limited", retry_after=-86400))], OPEN, 1),
    "429 while open": ([(0, ended(FAULT)), (0.1, ended("rate_limited", retry_after=9))], OPEN, 9.1),
    "429 again while open": (
        [(t, ended("rate_limited", t, retry_after=9)) for t in (0, 1, 2, 3)],
        OPEN,
        9,
    ),
    "401": ([(0, ended("unauthorized"))], OPEN, 60),
    "402": ([(0, ended("payment_required"))], OPEN, 60),
    "401 while open": ([(0, ended(FAULT)), (0.1, ended("unauthorized"))], OPEN, 60.1),
    "401 while a longer Retry-After runs": (
        [(0, ended("rate_limited", retry_after=200)), (1, ended("unauthorized"))],
        OPEN,
        200,
    ),
    "a timeout after 401": ([(0, ended("unauthorized")), (1, ended(FAULT, 0.5))], OPEN, 60),
    "a prober too early": ([(0, ended(FAULT)), (0.9, SET_OUT)], OPEN, 1),
    "a prober of a closed one": ([(0, SET_OUT)], CLOSED, 0),
    "a prober": ([(0, ended(FAULT)), (1, SET_OUT)], HALF_OPEN, 16),
    "a second prober": ([(0, ended(FAULT)), (1, SET_OUT), (5, SET_OUT)], HALF_OPEN, 16),
    "a prober after one that never answered": (
        [(0, ended(FAULT)), (1, SET_OUT), (16, SET_OUT)],
        HALF_OPEN,
        31,
    ),
    "the probe is ok": ([(0, ended(FAULT)), (1, SET_OUT), (2, probe("ok", 1))], CLOSED, 0),
    "the probe is ok after its lease": (
        [(0, ended(FAULT)), (1, SET_OUT), (20, probe("ok", 1))],
        CLOSED,
        0,
    ),
    "the probe fails": ([(0, ended(FAULT)), (1, SET_OUT), (2, probe(FAULT, 1))], OPEN, 4),
    "the probe is cancelled": (
        [(0, ended(FAULT)), (1, SET_OUT), (2, probe("cancelled", 1))],
        HALF_OPEN,
        2,
    ),
    "a former probe is cancelled": (
        [(0, ended(FAULT)), (1, SET_OUT), (16, SET_OUT), (17, probe("cancelled", 1))],
        HALF_OPEN,
        31,
    ),
    "the probe is rejected": (
        [(0, ended(FAULT)), (1, SET_OUT), (2, probe("rejected", 1))],
        HALF_OPEN,
        16,
    ),
    "a call is cancelled while the probe is out": (
        [(0, ended(FAULT)), (1, SET_OUT), (2, ended("cancelled", 1.5))],
        HALF_OPEN,
        16,
    ),
    "a late probe fails again": (
        [
            (0, ended(FAULT)),
            (1, SET_OUT),
            (16, SET_OUT),
            (17, probe(FAULT, 16)),
            (18, probe(FAULT, 1)),
        ],
        OPEN,
        19,
    ),
    "a call fails while the probe is out": (
        [(0, ended(FAULT)), (1, SET_OUT), (1.5, ended("unauthorized", 1.2))],
        HALF_OPEN,
        16,
    ),
    "a call is served while the probe is out": (
        [(0, ended(FAULT)), (1, SET_OUT), (1.5, ended("ok", 0.5))],
        CLOSED,
        0,
    ),
    "a late ok while the probe is out": (
        [(0, ended(FAULT)), (1, SET_OUT), (1.5, ended("ok", -0.5))],
        HALF_OPEN,
        16,
    ),
    "a failure after the probe's ok, before a caller's": (
        [(0, ended(FAULT)), (1, SET_OUT), (2, probe("ok", 1)), (3, ended(FAULT, 2.5))],
        OPEN,
        5,
    ),
    "a failure after a caller's ok": (
        [
            (0, ended(FAULT)),
            (1, SET_OUT),
            (2, probe("ok", 1)),
            (3, ended("ok", 2.5)),
            (4, ended(FAULT, 3.5)),
        ],
        OPEN,
        5,
    ),
    "a failure long after the probe's ok": (
        [(0, ended(FAULT)), (1, SET_OUT), (2, probe("ok", 1)), (400, ended(FAULT, 399))],
        OPEN,
        401,
    ),
}


@pytest.mark.parametrize(("steps", "state", "due"), TABLE.values(), ids=TABLE)
def test_the_table(steps: list[Step], state: State, due: float) -> None:
    health, _ = play(*steps)

    assert health.breaker.state is state
    moment = T0 + round(due * S)
    assert is_due(health.breaker, moment, POLICY) is (state is not CLOSED)
    assert not is_due(health.breaker, moment - 1, POLICY)


@pytest.mark.parametrize(("steps", "state", "due"), TABLE.values(), ids=TABLE)
def test_what_is_told_is_how_the_state_moved(steps: list[Step], state: State, due: float) -> None:
    _, told = play(*steps)

    at = CLOSED
    for one in filter(None, told):
        assert one.before is at
        assert (one.after is not at) or one.alert
        at = one.after
    assert at is state


def test_the_cooldown_doubles_with_each_failed_probe_up_to_its_longest() -> None:
    health, _ = play((0, ended(FAULT)))
    waits = []
    for _ in range(40):
        opened = (health.breaker.opened_ns - T0) / S
        due = (health.breaker.until_ns - T0) / S
        waits.append(due - opened)
        health, _ = play((due, SET_OUT), (due + 0.5, probe(FAULT, due)), health=health)
    assert waits == [1, 2, 4, 8, 16] + [30] * 35


def test_an_alert_is_raised_once_an_outage() -> None:
    steps = [
        (0, ended(FAULT)),
        (0.5, ended("unauthorized", 0.4)),
        (0.6, ended("unauthorized", 0.4)),
        (61, SET_OUT),
        (62, probe("unauthorized", 61)),
        (123, SET_OUT),
        (124, probe("ok", 123)),
        (125, ended("payment_required", 124.5)),
    ]
    _, told = play(*steps)

    assert [(one.after, one.alert) if one else None for one in told] == [
        (OPEN, False),
        (OPEN, True),
        None,
        (HALF_OPEN, False),
        (OPEN, False),
        (HALF_OPEN, False),
        (CLOSED, False),
        (OPEN, True),
    ]


def test_outcomes_named_here_are_those_of_the_error_tree() -> None:
    assert {errors.Unauthorized.outcome, errors.PaymentRequired.outcome} == ALERTING
    health, _ = play((0, ended(errors.RateLimited.outcome, retry_after=20)))
    assert health.breaker.until_ns == T0 + 20 * S


def test_what_changes_nothing_is_the_same_object() -> None:
    health, _ = play((0, ended(FAULT)))
    for event in (ended("cancelled", 0.1), ended("rejected", 0.1), SET_OUT):
        assert advance(health, event, T0 + 1, POLICY) == (health, None)
        assert advance(health, event, T0 + 1, POLICY)[0] is health


def test_a_clock_set_back_neither_locks_nor_outdates() -> None:
    health, _ = play((0, ended(FAULT)))

    assert is_due(health.breaker, T0 - 3600 * S, POLICY)
    for event in (ended("ok", -3600), probe("ok", -3600)):
        closed, told = play((-3599, event), health=health)
        assert told
        assert closed.breaker.state is CLOSED
        assert closed.breaker.since_ns > health.breaker.since_ns


# The window


def content(seconds: float, at: float, purpose: Purpose = Purpose.SERVE) -> Step:
    return at, replace(ended(purpose=purpose), first_output_after_ns=round(seconds * S))


def p95(health: Health, at: float) -> float | None:
    found = recent(health, T0 + round(at * S), POLICY).p95_ns
    return None if found is None else found / S


def test_p95_is_of_first_content_of_served_attempts_within_the_window() -> None:
    health, _ = play(*[content(0.1 * n, at=n) for n in range(1, 10)])
    assert p95(health, 9) is None, "nine are too few"

    health, _ = play(*[content(0.1 * n, at=n) for n in range(1, 21)])
    assert p95(health, 20) == pytest.approx(1.9)
    assert p95(health, 300 + 2.5) == pytest.approx(2.0), "two are too old"
    assert p95(health, 300 + 11.5) is None, "so many are too old that it is cold again"

    unheard = [content(9.0, at=21, purpose=p) for p in (Purpose.PROBE, Purpose.JUDGE)]
    after, _ = play(*unheard, health=health)
    assert p95(after, 21) == pytest.approx(1.9)


def test_failures_are_counted_and_do_not_poison_the_latencies() -> None:
    timeout = ended("first_content_timeout")
    health, _ = play(
        *[content(0.2, at=n) for n in range(20)], *[(20 + n, timeout) for n in range(20)]
    )

    found = recent(health, T0 + 40 * S, POLICY)
    assert (found.attempts, found.failures, found.p95_ns) == (40, 20, 0.2 * S)


def test_the_window_is_bounded_and_keeps_the_newest() -> None:
    health, _ = play(*[content(1 + n, at=n / 1000) for n in range(1000)])
    assert len(health.window) == POLICY.window_size
    assert health.window[-1].first_content_ns == 1000 * S


@pytest.mark.parametrize(
    ("known", "deadline"),
    [(None, 3.0), (0.01, 0.5), (0.4, 1.2), (9.0, 5.0)],
)
def test_an_adaptive_deadline_is_clamped(known: float | None, deadline: float) -> None:
    assert adaptive(known, 3.0, factor=3, low=0.5, high=5) == pytest.approx(deadline)


# Properties

outcomes = st.sampled_from(
    ["ok", "cancelled", "rejected", "rate_limited", "unauthorized", "payment_required", FAULT]
)
moments = st.integers(-4 * 3600 * S, 4 * 3600 * S)
attempts = st.builds(
    lambda outcome, ago, retry_after, purpose: (
        ago,
        ended(outcome, 0, retry_after=retry_after, purpose=purpose),
    ),
    outcomes,
    st.integers(0, 600 * S),
    st.none() | st.floats(),
    st.sampled_from(Purpose),
)
steps_of_time = st.one_of(st.integers(0, 2 * S), st.integers(0, 100 * S), moments)
events = st.lists(st.tuples(steps_of_time, st.just((0, SET_OUT)) | attempts), max_size=40)
LONGEST = round(POLICY.longest_wait * S)


def replay(happened: list[tuple[int, tuple[int, Event]]]) -> list[tuple[int, Health]]:
    """Every (time, health) on the way; the clock may have been set back in between."""
    now, health, way = T0 * 100, Health(), []
    for step, (ago, event) in happened:
        now += step
        if isinstance(event, AttemptEnded):
            event = replace(event, started_ns=now - ago)
        health, _ = advance(health, event, now, POLICY)
        way.append((now, health))
    return way


@given(events)
def test_whatever_happens_a_key_is_due_or_will_be(
    happened: list[tuple[int, tuple[int, Event]]],
) -> None:
    for now, health in replay(happened):
        if health.breaker.state is not CLOSED:
            due = now if is_due(health.breaker, now, POLICY) else now + LONGEST
            assert is_due(health.breaker, due, POLICY)
            probed, _ = advance(health, SET_OUT, due, POLICY)
            assert probed.breaker.state is HALF_OPEN
            closed, _ = advance(probed, probe_now(due), due, POLICY)
            assert closed.breaker.state is CLOSED, "and a probe's ok closes it"


def probe_now(now: int) -> AttemptEnded:
    return AttemptEnded("ok", False, now, purpose=Purpose.PROBE)


@given(st.lists(st.tuples(st.integers(0, S), attempts), min_size=1, max_size=200))
def test_traffic_does_not_put_off_the_probe(
    happened: list[tuple[int, tuple[int, AttemptEnded]]],
) -> None:
    served = [
        (
            step,
            (
                0,
                replace(
                    event,
                    purpose=Purpose.SERVE,
                    outcome="stream_cut" if event.outcome == "ok" else event.outcome,
                ),
            ),
        )
        for step, (_, event) in happened
    ]
    opened = None
    for now, health in replay(served):
        if health.breaker.state is OPEN:
            opened = opened or now
            assert is_due(health.breaker, max(now, opened + 3 * LONGEST), POLICY)


@given(events)
def test_since_grows_with_every_change(happened: list[tuple[int, tuple[int, Event]]]) -> None:
    before = Breaker()
    for _now, health in replay(happened):
        assert health.breaker == before or health.breaker.since_ns > before.since_ns
        before = health.breaker


breakers = st.builds(
    Breaker,
    state=st.sampled_from(State),
    since_ns=st.integers(0, 3),
    opened_ns=st.integers(0, 2),
    until_ns=st.integers(0, 2),
    failures=st.integers(0, 2),
    cause=st.sampled_from(["", FAULT, "unauthorized"]),
)
samples = st.builds(Sample, st.integers(0, 200), st.booleans(), st.integers(0, 3))
windows = st.lists(samples, max_size=POLICY.window_size).map(lambda many: tuple(sorted({*many})))
healths = st.builds(Health, breakers, windows)


@given(healths, healths, healths)
@settings(max_examples=300)
def test_merging_is_commutative_associative_and_idempotent(a: Health, b: Health, c: Health) -> None:
    def join(x: Health, y: Health) -> Health:
        return merge(x, y, POLICY)

    assert join(a, b) == join(b, a)
    assert join(a, join(b, c)) == join(join(a, b), c)
    assert join(a, a) == a
    assert join(a, b).breaker.since_ns == max(a.breaker.since_ns, b.breaker.since_ns)
    assert len(join(a, b).window) <= POLICY.window_size


@given(healths, healths)
def test_learning_tells_what_changed(a: Health, b: Health) -> None:
    after = merge(a, b, POLICY).breaker
    told = transition(a.breaker, after)
    if told:
        assert (told.before, told.after) == (a.breaker.state, after.state)
    else:
        assert after.state is a.breaker.state


def test_times_of_a_burst_are_in_order() -> None:
    """Attempts that end in the same nanosecond, or on a clock set back, keep the window sorted."""
    ticks = count()
    health = Health()
    for back in (0, 0, 5, 1, 0):
        event = replace(ended(), first_output_after_ns=next(ticks) + 1)
        health, _ = advance(health, event, T0 - back, POLICY)
    assert list(health.window) == sorted(health.window)
    assert len(health.window) == 5
