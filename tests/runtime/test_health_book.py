"""What a process knows of its candidates, and how the other processes come to know it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trunkline.core.health import HealthPolicy, Transition
from trunkline.core.models import Candidate, ModelRef, Purpose
from trunkline.core.ports import Follower, SharedState
from trunkline.runtime import health
from trunkline.runtime.health import HealthBook
from trunkline.store.shared import SQLiteSharedState
from trunkline.store.shared_local import InMemorySharedState

S = 1_000_000_000
FAULT = "provider_fault"

A, B, C = (Candidate(ModelRef(name, "model"), "env") for name in "abc")
PLAN = (A, B, C)


@dataclass
class Clock:
    """A clock that goes when it is told to."""

    ns: int = 1_000_000 * S

    def __call__(self) -> int:
        return self.ns

    def forward(self, seconds: float) -> None:
        self.ns += round(seconds * S)


@dataclass
class Told:
    """A listener that keeps what it hears, in short."""

    heard: list[tuple[str, str, bool]] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def __call__(self, key: str, transition: Transition, *, remote: bool) -> None:
        self.heard.append((key, f"{transition.before} > {transition.after}", remote))
        self.transitions.append(transition)
        self.threads.add(threading.current_thread().name)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def shared() -> SharedState:
    return InMemorySharedState()


def record(book: HealthBook, candidate: Candidate, outcome: str, **more: object) -> None:
    """An attempt at ``candidate`` that began after all that is known, and has ended."""
    blames = outcome not in {"ok", "cancelled", "rejected"}
    book.record(candidate.key, outcome, blames=blames, started_ns=2**62, **more)


def wait_until(holds: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.002)


def test_a_plan_keeps_its_order_without_what_is_open_and_is_never_empty(clock: Clock) -> None:
    book = HealthBook(now=clock)
    assert book.order(PLAN) == PLAN

    record(book, A, FAULT)
    assert [book.allows(candidate.key) for candidate in PLAN] == [False, True, True]
    assert book.order(PLAN) == (B, C)
    record(book, C, FAULT)
    assert book.order(PLAN) == (B,)
    record(book, B, FAULT)
    assert book.order(PLAN) == PLAN, "all are tried when none is left"

    clock.forward(1)
    record(book, B, "ok")
    assert book.order(PLAN) == (B,), "and who serves is back"
    assert book.order(()) == ()


def test_time_alone_lets_nobody_back_and_a_probe_does(clock: Clock) -> None:
    book = HealthBook(now=clock)
    assert not book.begin_probe(A.key)
    record(book, A, FAULT)
    assert (book.due_for_probe(), book.begin_probe(A.key)) == ([], False)
    clock.forward(3600)
    assert not book.allows(A.key)
    assert book.due_for_probe() == [A.key]
    assert book.begin_probe(A.key)
    assert (book.due_for_probe(), book.begin_probe(A.key)) == ([], False)
    assert not book.allows(A.key)

    record(book, A, "ok", purpose=Purpose.PROBE)
    assert book.allows(A.key)


def test_adaptive_deadlines_have_a_p95_once_enough_was_seen(clock: Clock) -> None:
    book = HealthBook(now=clock)
    for _ in range(9):
        record(book, A, "ok", first_output_after_ns=400_000_000)
        clock.forward(1)
    assert book.latency_p95(A.key) is None
    record(book, A, "ok", first_output_after_ns=500_000_000)
    assert book.latency_p95(A.key) == 0.5
    assert book.latency_p95(B.key) is None


def test_what_one_process_finds_out_all_know(clock: Clock, shared: SharedState) -> None:
    here, there = HealthBook(shared, now=clock), HealthBook(shared, now=clock)
    told_here, told_there = Told(), Told()
    here.on_transition(told_here)
    stop = there.on_transition(told_there)

    record(here, A, "unauthorized")
    assert (here.allows(A.key), there.allows(A.key)) == (False, False)
    clock.forward(61)
    assert there.begin_probe(A.key)
    record(there, A, "ok", purpose=Purpose.PROBE)
    assert (here.allows(A.key), there.allows(A.key)) == (True, True)

    way = ["closed > open", "open > half_open", "half_open > closed"]
    assert told_here.heard == [(A.key, step, n > 0) for n, step in enumerate(way)]
    assert told_there.heard == [(A.key, step, n == 0) for n, step in enumerate(way)]
    assert [t.alert for t in told_there.transitions] == [True, False, False]

    stop()
    record(here, A, FAULT)
    assert len(told_there.heard) == 3


def test_who_starts_later_knows_it_before_its_first_call(clock: Clock, shared: SharedState) -> None:
    here = HealthBook(shared, now=clock)
    for _ in range(20):
        record(here, B, "ok", first_output_after_ns=300_000_000)
        clock.forward(1)
    record(here, A, FAULT)

    late = HealthBook(shared, now=clock)
    assert late.order(PLAN) == (B, C)
    assert late.latency_p95(B.key) == 0.3, "nor is it cold"


@dataclass
class Counting:
    """Passes on to ``shared`` and counts the puts."""

    shared: SharedState
    puts: list[str] = field(default_factory=list)

    def put(self, key: str, value: bytes, version: int) -> None:
        self.puts.append(key)
        self.shared.put(key, value, version)

    def follow(self, follower: Follower) -> Callable[[], object]:
        return self.shared.follow(follower)

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        return self.shared.lease(name, owner, seconds)

    def release(self, name: str, owner: str) -> None:
        self.shared.release(name, owner)

    def close(self) -> None:
        self.shared.close()


def test_served_calls_wake_the_others_seldom_however_many_processes_serve(
    clock: Clock, shared: SharedState
) -> None:
    counting = Counting(shared)
    books = [HealthBook(counting, now=clock) for _ in range(5)]
    for _ in range(100):
        for book in books:
            record(book, A, "ok", first_output_after_ns=300_000_000)
        clock.forward(0.1)
    assert len(counting.puts) == 5, "one every two seconds of ten"


def test_one_prober_a_machine(clock: Clock, shared: SharedState) -> None:
    books = [HealthBook(shared, now=clock) for _ in range(3)]
    record(books[0], A, FAULT)
    clock.forward(2)
    assert [book.begin_probe(A.key) for book in books] == [True, False, False]


class Deaf(InMemorySharedState):
    """Hands nothing on: processes that have not heard yet. What they know comes with the lease."""

    def __init__(self) -> None:
        super().__init__()
        self.late: list[Callable[[], None]] = []

    def follow(self, follower: Follower) -> Callable[[], object]:
        return super().follow(lambda records: self.late.append(lambda: follower(records)))

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        granted = super().lease(name, owner, seconds)
        if granted:
            self.hear()
        return granted

    def hear(self) -> None:
        late, self.late = self.late, []
        for news in late:
            news()


def test_a_prober_that_has_not_heard_of_the_last_ones_success_learns_it_with_the_lease(
    clock: Clock,
) -> None:
    shared = Deaf()
    one, two = HealthBook(shared, now=clock), HealthBook(shared, now=clock)
    record(one, A, FAULT)
    shared.hear()
    clock.forward(2)
    assert one.begin_probe(A.key)
    assert two.due_for_probe() == [A.key], "it has not heard that one is out"
    assert not two.begin_probe(A.key)
    record(one, A, "ok", purpose=Purpose.PROBE)
    assert two.due_for_probe() == [A.key], "nor that it is back"
    assert not two.begin_probe(A.key)
    assert two.allows(A.key)


def test_a_prober_that_is_called_off_is_replaced_at_once(clock: Clock, shared: SharedState) -> None:
    one, two = HealthBook(shared, now=clock), HealthBook(shared, now=clock)
    record(one, A, FAULT)
    clock.forward(2)
    assert one.begin_probe(A.key)
    record(one, A, "cancelled", purpose=Purpose.PROBE)
    assert two.begin_probe(A.key)


def test_a_prober_that_died_is_replaced_when_its_lease_is_over(
    clock: Clock, shared: SharedState
) -> None:
    policy = HealthPolicy(probe_lease=0.05)
    dead, book = (HealthBook(shared, policy, now=clock) for _ in range(2))
    record(dead, A, FAULT)
    clock.forward(2)
    assert dead.begin_probe(A.key)
    clock.forward(0.1)
    assert book.due_for_probe() == [A.key]
    wait_until(lambda: book.begin_probe(A.key))


def test_lost_contact_means_alone_and_the_newer_news_afterwards(clock: Clock) -> None:
    shared = Deaf()
    one, two = HealthBook(shared, now=clock), HealthBook(shared, now=clock)
    record(one, A, FAULT)
    record(two, B, FAULT)
    assert (one.order(PLAN), two.order(PLAN)) == ((B, C), (A, C))
    clock.forward(1)
    record(two, A, FAULT)
    clock.forward(1)
    record(one, A, "ok")

    shared.hear()
    shared.hear()

    assert one.order(PLAN) == two.order(PLAN) == (A, C)
    assert one.health(A.key) == two.health(A.key)


def test_what_cannot_be_read_is_passed_over(
    clock: Clock, shared: SharedState, caplog: pytest.LogCaptureFixture
) -> None:
    book = HealthBook(shared, now=clock)
    shared.put(f"breaker:{A.key}", b"from the future", 1)
    shared.put(f"window:{A.key}", b'[["x"]]', 1)
    shared.put("something else", b"", 1)
    shared.put(f"breaker:{B.key}", b'{"state":"open","since_ns":1,"more":2}', 1)
    assert book.order(PLAN) == (A, C)
    shared.put(f"breaker:{C.key}", b'{"state":"open","since_ns":18446744073709551616}', 1)
    assert book.order(PLAN) == (A, C), "a number that no store could keep"
    assert len(caplog.records) == 3


def test_a_failing_listener_harms_neither_the_call_nor_the_others(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    book, told = HealthBook(now=clock), Told()

    def fail(key: str, transition: Transition, *, remote: bool) -> None:
        raise ValueError("a listener's mistake")

    book.on_transition(fail)
    book.on_transition(told)
    record(book, A, FAULT)
    assert len(told.heard) == 1
    assert [r.levelno for r in caplog.records] == [logging.ERROR]


def test_of_many_names_those_are_known_that_came_last(
    clock: Clock, shared: SharedState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_KEPT", 8)
    one, two = (HealthBook(shared, now=clock) for _ in range(2))
    named = [Candidate(ModelRef("a", f"model-{number}"), "env") for number in range(100)]
    for candidate in named:
        record(one, A, FAULT)
        record(one, candidate, FAULT)
        record(one, A, "ok")
        clock.forward(1.0)
    for book in (one, two):
        assert [candidate for candidate in named if not book.allows(candidate.key)] == named[-7:]
        assert book.health(A.key).window, "who is called all the time is not forgotten"
        clock.forward(3600)
        assert len(book.due_for_probe()) == 7


def test_cancelled_attempts_leave_no_trace(clock: Clock) -> None:
    book, told = HealthBook(now=clock), Told()
    book.on_transition(told)
    record(book, A, "cancelled", first_output_after_ns=1)
    assert book.health(A.key).window == ()
    assert told.heard == []


# Over the file


@pytest.fixture
def two_books(tmp_path: Path) -> Iterator[Sequence[HealthBook]]:
    states = [SQLiteSharedState(tmp_path) for _ in range(2)]
    yield [HealthBook(state) for state in states]
    for state in states:
        state.close()


def test_remote_transitions_come_from_the_shared_states_thread(
    two_books: Sequence[HealthBook],
) -> None:
    here, there = two_books
    told_here, told_there = Told(), Told()
    here.on_transition(told_here)
    there.on_transition(told_there)
    record(here, A, FAULT)
    wait_until(lambda: told_there.heard)
    assert told_here.threads == {"MainThread"}
    assert told_there.threads == {"trunkline-shared"}
    there.close()
    record(here, B, FAULT)
    time.sleep(0.2)
    assert there.allows(B.key), "closed: it learns nothing more"


def test_many_threads_that_record_at_once_lose_no_sample(two_books: Sequence[HealthBook]) -> None:
    here, _ = two_books

    def serve() -> None:
        for _ in range(10):
            record(here, A, "ok", first_output_after_ns=1_000)

    threads = [threading.Thread(target=serve) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(here.health(A.key).window) == 60


FORKING = """
    import os, sys, time
    from pathlib import Path
    from trunkline.clock import now_ns
    from trunkline.runtime.health import HealthBook
    from trunkline.store.shared import SQLiteSharedState

    def wait_until(holds):
        deadline = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < deadline, os.getpid()
            time.sleep(0.002)

    state = SQLiteSharedState(Path(sys.argv[1]))
    book = HealthBook(state)
    book.record("before", "provider_fault", blames=True, started_ns=now_ns())
    if (child := os.fork()) == 0:
        assert not book.allows("before")
        book.order(())
        wait_until(lambda: not book.allows("parent"))
        book.record("child", "provider_fault", blames=True, started_ns=now_ns())
        state.close()
        os._exit(0)
    book.record("parent", "provider_fault", blames=True, started_ns=now_ns())
    wait_until(lambda: not book.allows("child"))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    state.close()
    sys.exit(code or ("livekit" in sys.modules))
"""


def test_a_forked_child_goes_on_with_what_was_known(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(FORKING), str(tmp_path)],
        timeout=60,
        check=False,
        env=os.environ,
    )
    assert run.returncode == 0
