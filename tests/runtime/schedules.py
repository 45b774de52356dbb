"""Random plans of misbehaving candidates, and what has to be true whatever they do.

Everything plays in virtual time. What a candidate does is a list of steps (see ``plugins``); what
an attempt at it should come to is worked out from the same steps, without the engine.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError
from plugins import END, HANG, Ledger
from virtual_time import VirtualLoop

from trunkline.core.events import Failover
from trunkline.core.health import HealthPolicy
from trunkline.core.models import (
    Attempt,
    Candidate,
    Deadlines,
    Identity,
    ModelRef,
    Purpose,
    Usage,
)
from trunkline.runtime.attempt import Engine
from trunkline.runtime.gate import Gate
from trunkline.runtime.gate_rules import Audience
from trunkline.runtime.health import HealthBook
from trunkline.runtime.meter import Metered

DEADLINES = Deadlines(connect=0.2, first_content=0.215, idle=0.155, total=1.005)
"""Never the sum of some of ``WAITS``, so that no wait ends just when a deadline passes."""
WAITS = (0.03, 0.07, 0.13, 0.31)
PAUSE = 0.1
CALL = Identity(call="call")

FAULTS: tuple[tuple[BaseException, str], ...] = (
    (APIConnectionError("away"), "connect_failed"),
    (APITimeoutError("slow"), "connect_failed"),
    (ConnectionResetError("reset"), "connect_failed"),
    (TimeoutError("slow"), "connect_failed"),
    (APIStatusError("no", status_code=401), "unauthorized"),
    (APIStatusError("no", status_code=402), "payment_required"),
    (APIStatusError("no", status_code=422), "rejected"),
    (APIStatusError("no", status_code=429), "rate_limited"),
    (APIStatusError("no", status_code=503), "provider_fault"),
    (APIError("no"), "provider_fault"),
    (ZeroDivisionError("a bug"), "provider_fault"),
    (EOFError("cut"), "stream_cut"),
)
OUTCOME_OF = {id(error): outcome for error, outcome in FAULTS}
RETRIED = {"connect_failed", "provider_fault"}
BLAMELESS = {"ok", "cancelled", "moved", "rejected"}

seeded = settings(
    max_examples=100,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)

waits = st.sampled_from(WAITS)
ends = st.sampled_from([HANG, END, *(error for error, _ in FAULTS)])
moments = st.integers(1, 120).map(lambda n: n / 100 + 0.001)
"""Seconds into a request, at which no step and no deadline falls."""


@dataclass(frozen=True)
class Played:
    """What an attempt at a list of steps comes to: how much of them was let out, and its end."""

    outputs: list[Any]
    outcome: str


def played(steps: Sequence[Any], limits: Deadlines = DEADLINES) -> Played:
    """Work out, by the deadlines alone, where in ``steps`` an attempt ends and how."""
    outputs: list[Any] = []
    gap = elapsed = 0.0
    for step in steps:
        if isinstance(step, float) or step is HANG:
            wait = 3600.0 if step is HANG else step
            phase = "idle" if outputs else "first_content"
            due = {phase: getattr(limits, phase) - gap, "total": limits.total - elapsed}
            first = min(due, key=due.__getitem__)
            if wait > due[first]:
                return Played(outputs, f"{first}_timeout")
            gap, elapsed = gap + wait, elapsed + wait
        elif step is END:
            break
        elif isinstance(step, BaseException):
            return Played(outputs, OUTCOME_OF[id(step)])
        else:
            outputs.append(step)
            gap = 0.0
    return Played(outputs, "ok" if outputs else "empty_output")


class Witness(Gate):
    """A gate that remembers what it let through, in order."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger, lambda _: None, lambda _: None)
        self.reserved: list[Attempt] = []

    async def reserve(
        self,
        attempt: Attempt,
        estimate: Callable[[], Usage] = Usage,
        audience: Audience = Audience.ANYBODY,
    ) -> None:
        await super().reserve(attempt, estimate, audience)
        self.reserved.append(attempt)

    def settle(self, attempt: Attempt, metered: Metered) -> None:
        super().settle(attempt, metered)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        assert attempt.started_ns + attempt.duration_ns == loop.time_ns(), "a row of other times"


class House:
    """An engine in virtual time, and the properties that hold for all it does."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.clock = loop.time
        self.ledger = Ledger()
        self.gate = Witness(self.ledger)
        self.failovers: list[Failover] = []
        self.closed: list[str] = []
        self.health = HealthBook(None, HealthPolicy(cooldown=0.4), now=loop.time_ns)
        self.engine = Engine(self.gate, self.health, self.failovers.append)
        self._checked = 0

    def closing(self, name: str) -> Callable[[], Any]:
        async def close() -> None:
            assert name not in self.closed, f"{name} was closed twice"
            self.closed.append(name)

        return close

    def served(self) -> list[Attempt]:
        """The attempts of the last request, in order, each of them settled once."""
        begun = self._checked
        self._checked = len(self.gate.reserved)
        return [a for a in self.gate.reserved[begun:] if a.purpose is Purpose.SERVE]

    def check_settled(self, longest: float = DEADLINES.total + 0.001) -> None:
        """Every attempt is settled once, and the times of its row make sense."""
        settled = Counter(record.attempt.id for record in self.ledger.records)
        assert settled == Counter(attempt.id for attempt in self.gate.reserved)
        assert set(settled.values()) <= {1}
        for record in self.ledger.records:
            attempt = record.attempt
            assert attempt.outcome
            assert 0 <= attempt.duration_ns <= longest * 1e9
            first = attempt.first_output_after_ns
            assert first is None or 0 <= first <= attempt.duration_ns
            assert record.entry.attempt == attempt.id

    def check_order(self, candidates: Sequence[Candidate], tried: Sequence[Attempt]) -> None:
        """The healthy candidates came first, then the others, then the last again."""
        names = [attempt.connection for attempt in tried]
        order = [one.connection for one in candidates]
        assert len(set(names[: len(order)])) == len(names[: len(order)]), names
        assert set(names) <= set(order)
        assert len(set(names[len(order) - 1 :])) <= 1
        assert [attempt.index for attempt in tried] == list(range(len(tried)))

    def check_health(self, candidates: Sequence[Candidate]) -> None:
        """Barred are exactly those whose last word was a failure that was theirs.

        A success that began before the failure is no word about the time after it.
        """
        last: dict[str, Attempt] = {}
        for attempt in (record.attempt for record in self.ledger.records):
            before = last.get(attempt.connection)
            news = attempt.outcome == "ok" and (
                before is None or attempt.started_ns >= before.started_ns + before.duration_ns
            )
            if news or attempt.outcome not in BLAMELESS:
                last[attempt.connection] = attempt
        for one in candidates:
            well = one.connection not in last or last[one.connection].outcome == "ok"
            assert self.health.allows(one.key) == well, (one.connection, last)

    async def aclose(self, *made: Any) -> None:
        """Close everything; nothing goes on running."""
        for one in made:
            await one.aclose()
        await self.engine.aclose()
        await asyncio.sleep(0.01)
        running = asyncio.all_tasks() - {asyncio.current_task()}
        assert not running, running


@dataclass
class Takes:
    """What a candidate does each time it is asked: the next of its lists of steps, in a circle."""

    name: str
    lists: Sequence[Sequence[Any]]
    taken: list[Sequence[Any]] = field(default_factory=list)

    def take(self) -> Sequence[Any]:
        steps = self.lists[len(self.taken) % len(self.lists)]
        self.taken.append(steps)
        return steps


def steps_of(attempts: Sequence[Attempt], takes: Sequence[Takes]) -> dict[str, Sequence[Any]]:
    """The steps that each attempt met, by its id; ``attempts`` are all there were, in order."""
    met: dict[str, Sequence[Any]] = {}
    count: defaultdict[str, int] = defaultdict(int)
    by_name = {one.name: one for one in takes}
    for attempt in attempts:
        taken = by_name[attempt.connection].taken
        met[attempt.id] = taken[count[attempt.connection]]
        count[attempt.connection] += 1
    return met


_numbers = itertools.count()


def candidate(name: str, live: Any) -> Candidate:
    """A candidate that nothing was learnt about yet: a voice's pace is kept by its model."""
    return Candidate(ModelRef(name, f"fake-{next(_numbers)}"), name, live=live)
