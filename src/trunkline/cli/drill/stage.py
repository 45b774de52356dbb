"""One call of a drill from its doubles to its ledger, alone with both."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiohttp

from ...compose import use
from ...config import Settings
from ...core.models import Modality, Purpose
from ...doubles import Double, Pace, Provider
from ...doubles.language import text_of
from ...services.drill_verdicts import Take
from ...services.drills import Line, Scenario, neighbours, rehearsed
from ...store import LEDGER_NAME
from ...store.ledger import Ledger
from .calls import TEXT, call, open_client

PACE = Pace(connect=0.03, first=0.2, between=0.02, rtf=0.2)
"""A vendor on a good day: a voice at some four times real time."""


class Stage:
    """Where one call is played: doubles, settings and a directory that nobody else has.

    ``blank`` is an empty ledger: to make one for each call takes longer than many a call.
    """

    def __init__(self, settings: Settings, line: Line, blank: Path) -> None:
        self._settings = settings
        self._line = line
        self._blank = blank
        self._models: list[str] = []
        """What the first candidate's vendor was asked for in the healthy call, by its name."""

    async def play(self, scenario: Scenario) -> Take:
        """Play one call. Raises UsageError when a candidate cannot be built."""
        line = self._line
        async with contextlib.AsyncExitStack() as stack:
            place = stack.enter_context(tempfile.TemporaryDirectory(prefix="trunkline-drill-"))
            shutil.copy(self._blank, Path(place) / LEDGER_NAME)
            doubles = {
                name: await stack.enter_async_context(
                    Double.serve([Provider(vendor, port=0, answer=_answer, pace=PACE)])
                )
                for name, vendor in neighbours(self._settings, line).items()
            }
            vendors = {name: one.config.providers[0].name for name, one in doubles.items()}
            urls = {name: one.base_url(vendors[name]) for name, one in doubles.items()}
            http = await stack.enter_async_context(aiohttp.ClientSession())
            trunkline = use(rehearsed(self._settings, line, urls), Path(place))
            try:
                client = open_client(line.modality, line.asked, http)
                try:
                    self._strike(scenario, doubles, client)
                    take = await call(line.modality, client, line.patience)
                finally:
                    await client.aclose()
            finally:
                await trunkline.aclose()
            if scenario.kind is None and line.first is not None and line.first.double:
                asked = doubles[line.first.candidate.connection].requests
                self._models = [one.model for one in asked]
            await asyncio.to_thread(_settle, take, Path(place), line)
        return take

    def _strike(self, scenario: Scenario, doubles: dict[str, Double], client: object) -> None:
        line = self._line
        if scenario.kind is None or line.first is None:
            return
        first = line.first.candidate.connection
        whole = line.modality is Modality.STT and not _streams(client)
        sharing = [one for one in line.played if one.candidate.connection == first]
        if scenario.strikes_account or len(sharing) == 1 or not self._models:
            models = [""]
        else:
            models = list(dict.fromkeys(self._models))
        for name, double in doubles.items():
            if scenario.everywhere or name == first:
                for model in [""] if scenario.everywhere else models:
                    double.inject(scenario.rule(line.modality, by_request=whole, model=model))


def _answer(messages: Sequence[dict[str, Any]]) -> str:
    """The text, or what is left of it where another model has begun to say it."""
    said = text_of(messages[-1])
    return TEXT.removeprefix(said) if messages[-1].get("role") == "assistant" else TEXT


def blank_ledger(directory: Path) -> Path:
    """Make an empty ledger in ``directory``, to be copied."""
    ledger = Ledger(directory / LEDGER_NAME)
    ledger.open()
    ledger.close()
    return ledger.path


def _streams(client: object) -> bool:
    """Whether the first candidate's recogniser takes audio as it comes."""
    live = client.plan.candidates[0].live  # type: ignore[attr-defined]
    return bool(live.capabilities.streaming)


def _settle(take: Take, state: Path, line: Line) -> None:
    """Add to ``take`` what the ledger of its call says."""
    ledger = Ledger(state / LEDGER_NAME)
    try:
        recorded = ledger.attempts()
    finally:
        ledger.close()
    costs = [one.nanos for one in recorded]
    take.nanos = None if None in costs else sum(cost for cost in costs if cost is not None)
    served = [one.attempt for one in recorded if one.attempt.purpose is not Purpose.PROBE]
    take.tried = [f"{one.provider}/{one.model} {one.outcome}" for one in served]
    local = {one.candidate.connection for one in line.played if one.local}
    if any(one.outcome == "ok" and one.connection in local for one in served):
        take.words = None  # an engine of this machine says and hears what it likes
    take.apology = _apologised(take, line, [one.outcome for one in served])


def _apologised(take: Take, line: Line, outcomes: Sequence[str]) -> bool:
    """Whether what came is the apology: nobody served, and something was heard without an error."""
    return bool(line.plan.apology and "ok" not in outcomes and take.first and not take.error)
