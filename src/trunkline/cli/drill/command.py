"""``trunkline drill``: faults in the vendors' place, played against the user's own settings."""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...compose import read_for_drill
from ...config import Settings
from ...errors import UsageError
from ...services.drill_verdicts import Result, Take, Verdict, judge
from ...services.drills import HEALTHY, Line, Scenario, lines, named_scenarios, scenarios
from .. import loop
from .report import Report, RouteReport, route_report, write

if TYPE_CHECKING:
    from .stage import Stage

AT_ONCE = 10
"""Calls at a time: they mostly wait, and two cores keep up with so many."""

STATUS = {Verdict.OK: 0, Verdict.SHORT: 1, Verdict.UNTRIED: 3}


@dataclass(frozen=True)
class Options:
    names: Sequence[str]
    faults: Sequence[str]
    config: Path | None
    max_dead_air: float
    as_json: bool


def run(options: Options) -> int:
    """Play the drill and write what it found; the exit status. Raises UsageError."""
    if not 0 < options.max_dead_air < float("inf"):
        raise UsageError(f"--max-dead-air is {options.max_dead_air:g}: give seconds above 0")
    chosen = named_scenarios(options.faults)
    settings = read_for_drill(options.config)
    wanted = lines(settings, options.names)
    with _quiet():
        report = loop.run(_Drill(settings, options.max_dead_air).play(wanted, chosen))
    write(report, as_json=options.as_json)
    return STATUS[report.verdict]


class _Drill:
    """All calls of a drill, a few at a time."""

    def __init__(self, settings: Settings, max_dead_air: float) -> None:
        self._settings = settings
        self._max_dead_air = max_dead_air
        self._played = 0

    async def play(self, wanted: Sequence[Line], chosen: Sequence[Scenario]) -> Report:
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._calls = sum(bool(one.played) + len(scenarios(one, chosen)) for one in wanted)
        began = time.monotonic()
        with (
            tempfile.TemporaryDirectory(prefix="trunkline-drill-") as place,
            _progress(lambda: f"{self._played} of {self._calls} calls played"),
        ):
            self._blank = await asyncio.to_thread(_blank, Path(place))
            routes = await asyncio.gather(*(self._line(line, chosen) for line in wanted))
        return Report(
            max_dead_air=self._max_dead_air,
            seconds=round(time.monotonic() - began, 1),
            routes=list(routes),
        )

    async def _line(self, line: Line, chosen: Sequence[Scenario]) -> RouteReport:
        if not line.played:
            return route_report(line, None, [])
        from .stage import Stage

        stage = Stage(self._settings, line, self._blank)
        await stage.play(HEALTHY)  # the first call of a process imports, and waits for that
        healthy = await self._call(stage, HEALTHY)
        results = [self._judged(line, HEALTHY, healthy, healthy)]
        if not healthy.error:
            played = scenarios(line, chosen)
            takes = await asyncio.gather(*(self._call(stage, one) for one in played))
            results += [
                self._judged(line, one, take, healthy)
                for one, take in zip(played, takes, strict=True)
            ]
        return route_report(line, healthy, results)

    def _judged(self, line: Line, scenario: Scenario, take: Take, healthy: Take) -> Result:
        from .calls import EXPECTED

        expected = EXPECTED[line.modality]
        return judge(line, scenario, take, healthy, expected, self._max_dead_air)

    async def _call(self, stage: Stage, scenario: Scenario) -> Take:
        async with self._turn:
            take = await stage.play(scenario)
        self._played += 1
        return take


def _blank(place: Path) -> Path:
    from .stage import blank_ledger  # livekit-agents takes seconds, a mistake need not wait for it

    return blank_ledger(place)


@contextmanager
def _quiet() -> Iterator[None]:
    """Faults are what is wanted here: nobody logs them, unless ``--debug`` asked for everything."""
    if logging.getLogger().level > logging.DEBUG:
        logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _progress(told: Callable[[], str]) -> Iterator[None]:
    """Write ``told()`` to stderr now and then: on a terminal in place, else once at each end."""
    out, live = sys.stderr, sys.stderr.isatty()

    async def keep_telling() -> None:
        while True:
            out.write(f"\r\x1b[K{told()}" if live else "")
            out.flush()
            await asyncio.sleep(0.5)

    task = asyncio.ensure_future(keep_telling())
    try:
        yield
    finally:
        task.cancel()
        out.write("\r\x1b[K" if live else f"{told()}\n")
        out.flush()
