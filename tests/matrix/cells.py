"""The situations: each plays one row in one column and returns the cell."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import aiohttp
from livekit import rtc
from livekit.agents import APIConnectOptions

from trunkline.core.models import Modality

from .column import NEVER, Column, Heard
from .ears import Ears
from .faults import DEADLINE, FAULTS, Fault
from .judge import NEXT_SLACK, Cell, Known, cell, judge_bills, judge_first, stops
from .lateness import delayed
from .other_process import Answered, OtherProcess
from .stage import Stage, settle_memory
from .vendors import NAMES, Vendors

SITUATIONS = (
    "first call",
    "next call",
    "another process",
    "primary recovers",
    "second fault",
    "both down",
    "end during replay",
)
SPREAD_SECONDS = 0.1
"""Within this every process of the machine knows of a failure."""

SAMPLES = 2
"""Calls of which the quickest counts, where 10 ms are at stake: the rest is the machine's."""

_RETURN_SECONDS = 12.0
"""A cool-down of one second, a look four times a second, a probe: some plugins need 5 s to end."""

NOTHING = Fault("nothing", frozenset())


class Unplayable(RuntimeError):
    """The machine is too busy for a row to be judged: not even the backup alone keeps up."""


@dataclass(frozen=True)
class BargeIn:
    """The caller cuts in ``after`` so many seconds; with ``hung``, while the primary hangs."""

    moment: str
    after: float
    hung: bool = False


BARGE_INS = (
    BargeIn("at once", 0.0),
    BargeIn("before content", 0.03),
    BargeIn("midway", 0.1),
    BargeIn("while it hangs", 0.2, hung=True),
    BargeIn("during failover", DEADLINE + 0.02, hung=True),
    BargeIn("after failover", DEADLINE + 0.1, hung=True),
)


class Play:
    """Plays cells; what they need is kept open between them."""

    def __init__(self, vendors: Vendors, other: OtherProcess) -> None:
        self.vendors = vendors
        self._other = other
        self._known: Known | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[Play]:
        """Start the doubles and the other process."""
        async with Vendors.serve() as vendors, OtherProcess.start() as other:
            yield cls(vendors, other)

    async def row(self, column: Column, fault: Fault) -> list[Cell]:
        """Every situation of one row in one column."""
        cells = [*await self.outage(column, fault)]
        if not stops(column, fault):
            cells.append(await self.second_fault(column, fault))
        cells.append(await self.both_down(column, fault))
        if isinstance(column, Ears):
            cells.append(await self.end_during_replay(column, fault))
        return cells

    async def warm_up(self, column: Column) -> None:
        """Import and open what the first call of a process has to, here and in the other one."""
        rtc.AudioResampler(8000, 16000)  # opens sockets that stay, once a process
        async with Stage.open(column, NOTHING, self.vendors) as stage:
            await self._other.configure(stage.config, stage.state)
            await stage.call()
            await self._other.call(column, "both")
            await self._other.leave()
        await self._told(column, FAULTS[column.modality][0])
        async with aiohttp.ClientSession() as http:
            for name in NAMES:  # the first answer of each double takes longer
                client = column.bare(self.vendors[name].urls[column.vendor], http)
                await column.call(client, within=3 * DEADLINE)
                await client.aclose()
        settle_memory()

    async def outage(self, column: Column, fault: Fault) -> list[Cell]:
        """The first call, the next ones here and in another process, and the recovery."""
        told = await self._told(column, fault)
        async with Stage.open(column, fault, self.vendors) as stage:
            await self._other.configure(stage.config, stage.state)
            try:
                alone, there = await self._both_alone(stage)
                self._known = Known((str(column), fault.name), told, alone)
                await self._healthy(stage, fault)
                await self._strike(column, fault, "primary")
                first = await self._first(stage, fault, self._known)
                if column.modality is Modality.STT:
                    # A probe waits 8 s for a recogniser that hangs: let the first meet a sound one.
                    await self.vendors["primary"].heal()
                # before a second is over: then a probe may find the primary well
                await asyncio.sleep(SPREAD_SECONDS)
                cells = [first, *await self._following(stage, alone, there, fault)]
                if not fault.kind:
                    cells.append(await self._recovery(stage, fault))
            finally:
                await self._other.leave()
            bills = {name: await self.vendors[name].bill() for name in NAMES}
        for name in NAMES:
            judge_bills(first, [*stage.settled, *stage.ledger_of_others], bills[name], name)
        self._close(first, stage)
        return cells

    async def second_fault(self, column: Column, fault: Fault) -> Cell:
        """The backup fails as the primary did, during the failover; a third one serves."""
        known = await self._basis(column, fault)
        async with Stage.open(column, fault, self.vendors, both=True) as stage:
            await self._healthy(stage, fault)
            for name in ("primary", "backup"):
                await self._strike(column, fault, name)
            before = len(stage.attempts)
            heard = await stage.call("three")
        made = cell("second fault", column, heard)
        judge_first(made, column, fault, heard, known, failures=2)
        tried = stage.attempts[before:]
        made.check([name for name, _ in tried] == list(NAMES), f"tried {tried}")
        self._close(made, stage)
        return made

    async def both_down(self, column: Column, fault: Fault) -> Cell:
        """Nobody can serve: one explicit error in bounded time that holds every cause."""
        known = await self._basis(column, fault)
        async with Stage.open(column, fault, self.vendors, both=True) as stage:
            await self._healthy(stage, fault)
            for name in ("primary", "backup"):
                await self._strike(column, fault, name)
            before = len(stage.attempts)
            heard = await stage.call()
            tried = stage.attempts[before:]
            blamed = [one for one in stage.changes if not one.available]
        made = cell("both down", column, heard)
        if column.is_agreed(fault):
            made.check(not heard.error, f"raised {heard.error}")
            made.check({name for name, _ in tried} == {"primary", "backup"}, f"tried {tried}")
            made.check(not blamed, f"{len(blamed)} were blamed")
            made.late = heard.took - known.alone.took - len(tried) * DEADLINE
            made.machine = heard.delayed
        elif fault.midway and not stops(column, fault) and not heard.error:
            # Each candidate got a piece further, and the last retry finished.
            made.check(fault.garbled or not made.lost, f"{made.lost} words lost, no error")
        else:
            made.check(bool(heard.error), "no explicit error")
            if not stops(column, fault):
                made.check(heard.causes >= 2, f"{heard.causes} causes")
            if not fault.midway:
                # two attempts, and one retry of the last where the error says it can help
                made.check(len(tried) <= 3, f"tried {tried}")
                made.late = heard.took - len(tried) * column.owed(fault) - known.own - 0.1
                made.machine = heard.delayed
        self._close(made, stage)
        return made

    async def end_during_replay(self, column: Ears, fault: Fault) -> Cell:
        """Everything has been said, and the input is over, before the first one fails."""
        known = await self._basis(column, fault)
        hurried = column.hurried()
        async with Stage.open(column, fault, self.vendors) as stage:
            alone = await self._alone(stage, column=hurried)
            await self._strike(column, fault, "primary")
            before = len(stage.attempts)
            heard = await stage.call(column=hurried)
            tried = stage.attempts[before:]
        made = cell("end during replay", hurried, heard)
        judge_first(made, hurried, fault, heard, replace(known, alone=alone))
        made.check([name for name, _ in tried][:2] == ["primary", "backup"], f"tried {tried}")
        self._close(made, stage)
        return made

    async def barge_in(self, column: Column, moment: BargeIn) -> Cell:
        """The caller cuts in; the provider that was speaking is not to blame."""
        hangs = next(fault for fault in FAULTS[column.modality] if fault.name == "hang")
        fault = hangs if moment.hung else NOTHING
        async with Stage.open(column, fault, self.vendors) as stage:
            await self._strike(column, fault, "primary")
            client = column.open("both", stage.http)
            task = asyncio.create_task(column.occupy(client))
            await asyncio.sleep(moment.after and moment.after + column.opens_after)
            loop = asyncio.get_running_loop()
            begun, kept = loop.time(), delayed()
            task.cancel()
            await asyncio.wait([task], timeout=5)
            took, kept = loop.time() - begun, delayed() - kept
            tried = stage.attempts
            blamed = list(stage.changes)
            await self.vendors["primary"].heal()
            again = await column.call(client)
            served = stage.attempts[len(tried) :]
            await client.aclose()
        made = cell(moment.moment, column, again)
        made.first, made.gap, made.late, made.machine = None, 0.0, took, kept
        failed = moment.hung and moment.after > DEADLINE
        outcomes = [outcome for _, outcome in tried]
        right = outcomes[-1:] == ["cancelled"] and len(outcomes) == 1 + failed
        right = right and fault.outcomes.issuperset(outcomes[:-1])
        made.check(task.cancelled(), "the cancellation was lost")
        made.check(right or not (outcomes or moment.after), f"tried {tried}")
        made.check(len(blamed) == failed, f"{len(blamed)} were blamed")
        made.check(served == [("backup" if failed else "primary", "ok")], f"then {served}")
        made.check(not made.lost and not again.error, "the next call is not whole")
        self._close(made, stage)
        return made

    async def _told(self, column: Column, fault: Fault) -> float:
        """How long the bare client takes to tell of a fault that nobody has to wait for."""
        if fault.waits or fault.midway:
            return 0.0
        async with aiohttp.ClientSession() as http:
            await self.vendors.reset()
            await self._strike(column, fault, "primary")
            url = self.vendors["primary"].urls[column.vendor]
            client = column.bare(url, http, fault.kind)
            once = APIConnectOptions(max_retry=0)
            heard = await column.call(client, within=3 * DEADLINE, conn_options=once)
            await client.aclose()
        return min(max(heard.took, 0.0), DEADLINE)

    async def _basis(self, column: Column, fault: Fault) -> Known:
        """What the row has measured already, or the same anew for a cell that is played alone."""
        if self._known is None or self._known.row != (str(column), fault.name):
            told = await self._told(column, fault)
            async with Stage.open(column, NOTHING, self.vendors) as stage:
                alone = await self._alone(stage)
            self._known = Known((str(column), fault.name), told, alone)
        return self._known

    async def _alone(
        self, stage: Stage, *, column: Column | None = None, samples: int = 1
    ) -> Heard:
        """The quickest call to the backup when nothing else is tried."""
        calls: list[Heard] = []
        for _ in range(3):  # a machine that is busy elsewhere makes even that miss its deadline
            heard = await stage.call("alone", column)
            calls += [heard] * (heard.first is not None)
            if len(calls) == samples:
                break
        if not calls:
            raise Unplayable("the backup alone says nothing")
        return min(calls, key=lambda one: one.first or 0.0)

    async def _both_alone(self, stage: Stage) -> tuple[Heard, float]:
        """The backup alone here, and how long it takes to its first output in the other process."""

        async def there() -> float:
            calls = [await self._other.call(stage.column, "alone") for _ in range(samples)]
            return min(one.heard.first or 0.0 for one in calls)

        samples = _samples(stage.column)
        elsewhere = asyncio.create_task(there())
        try:
            return await self._alone(stage, samples=samples), await elsewhere
        finally:
            await asyncio.wait([elsewhere])  # who asks there next must not read this answer

    async def _healthy(self, stage: Stage, fault: Fault) -> None:
        """A call without a fault; a voice without timings is measured by it."""
        if not fault.kind and stage.column.modality is not Modality.STT:
            await stage.call("three")

    async def _strike(self, column: Column, fault: Fault, name: str) -> None:
        if rule := column.rule(fault, name):
            await self.vendors[name].inject(rule)

    async def _first(self, stage: Stage, fault: Fault, known: Known) -> Cell:
        column, before = stage.column, len(stage.attempts)
        heard = await stage.call()
        made = cell("first call", column, heard)
        judge_first(made, column, fault, heard, known)
        tried = stage.attempts[before:]
        right = ["primary"] if stops(column, fault) else ["primary", "backup"]
        made.check([name for name, _ in tried] == right, f"tried {tried}")
        outcome = dict(tried).get("primary")
        made.check(outcome in column.outcomes(fault), f"the ledger calls it {outcome}")
        told = [one.outcome for one in stage.failovers]
        made.check(told == [outcome] * (len(right) - 1), f"failover events {told}")
        degraded = [one for one in stage.changes if not one.available]
        made.check(len(degraded) == 1, f"{len(degraded)} degraded events")
        return made

    async def _following(
        self, stage: Stage, alone: Heard, there: float, fault: Fault
    ) -> list[Cell]:
        """The next calls here and in the other process, at the same time."""
        samples = 1 if fault.midway else _samples(stage.column)
        before = len(stage.attempts)

        async def elsewhere() -> list[Answered]:
            return [await self._other.call(stage.column, "both") for _ in range(samples)]

        told = asyncio.create_task(elsewhere())
        here = [await stage.call() for _ in range(samples)]
        others = await told
        tried = stage.attempts[before:]
        tried_there = [attempt for one in others for attempt in one.attempts]
        calls = [one.heard for one in others]
        return [
            _judged_next("next call", stage, here, tried, alone.first or 0.0),
            _judged_next("another process", stage, calls, tried_there, there),
        ]

    async def _recovery(self, stage: Stage, fault: Fault) -> Cell:
        """A session goes on while the primary comes back; then the next session meets it."""
        await self.vendors["primary"].heal()
        client = stage.column.open("both", stage.http)
        await stage.column.call(client)
        seconds = _RETURN_SECONDS if fault.returns else 0.5
        back = await stage.until(
            lambda: stage.changes[-1:] and stage.changes[-1].available, seconds
        )
        await client.aclose()
        before = len(stage.attempts)
        heard = await stage.call()
        made = cell("primary recovers", stage.column, heard)
        made.check(back == fault.returns, "the primary never came back" if not back else "too soon")
        expected = "primary" if fault.returns else "backup"
        tried = stage.attempts[before:]
        made.check(tried == [(expected, "ok")], f"tried {tried}")
        made.check(not made.lost and not made.repeated and not heard.error, "not whole")
        return made

    def _close(self, made: Cell, stage: Stage) -> None:
        made.problems += stage.leaks
        made.problems += stage.ledger


def _judged_next(
    situation: str, stage: Stage, calls: list[Heard], tried: list[tuple[str, str]], alone: float
) -> Cell:
    """Calls that have to go straight to the backup; the quickest is compared to the quickest.

    On a busy machine the cool-down may be over by then, and a probe, which says one word, finds a
    primary well that fails in its second sentence. Such a call is a first call again.
    """
    best = min(calls, key=lambda one: NEVER if one.first is None else one.first - one.delayed_first)
    made = cell(situation, stage.column, best, slack=NEXT_SLACK)
    made.machine = best.delayed_first
    made.late = (best.first or NEVER) - alone
    if any(one.available for one in stage.changes):
        if stage.column.modality is not Modality.STT:
            return made
        tried = tried[:1]  # a stream that has begun returns between two sentences
    made.check([name for name, _ in tried] == ["backup"] * len(tried), f"tried {tried}")
    words = [cell(situation, stage.column, one) for one in calls]
    made.check(all(not (one.lost or one.repeated or one.ended) for one in words), "not whole")
    return made


def _samples(column: Column) -> int:
    """A caller speaks for nearly a second; what a model or a voice is asked takes less."""
    return 1 if column.modality is Modality.STT else SAMPLES
