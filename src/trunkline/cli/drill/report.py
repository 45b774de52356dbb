"""What a drill found, as a table for people or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import msgspec

from ...core.models import Modality, money
from ...services.drill_verdicts import Result, Take, Verdict
from ...services.drills import Line

_HEAD = ("fault", "dead air", "lost", "twice", "added USD", "", "what became of it")
_FIGURES = frozenset({"dead air", "lost", "twice", "added USD"})
"""Columns that are set to the right."""


class Row(msgspec.Struct, frozen=True):
    """One call. ``dead_air`` is in seconds, ``added_usd`` exact; None: could not be measured."""

    fault: str
    verdict: Verdict
    told: str
    dead_air: float | None
    words_lost: int | None
    words_repeated: int | None
    added_usd: str | None
    attempts: tuple[str, ...]


class RouteReport(msgspec.Struct, frozen=True):
    """A route, or a member of a stack. ``first_output`` of the healthy call is in seconds."""

    route: str
    modality: Modality
    candidates: list[str]
    notes: list[str]
    verdict: Verdict
    first_output: float | None
    usd: str | None
    rows: list[Row]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The JSON document, but for the verdict over all."""

    max_dead_air: float
    seconds: float
    routes: list[RouteReport]

    @property
    def verdict(self) -> Verdict:
        """The worst of the routes'."""
        return worst([route.verdict for route in self.routes])


_ORDER = [Verdict.OK, Verdict.UNTRIED, Verdict.SHORT]


def worst(verdicts: Sequence[Verdict]) -> Verdict:
    """Falling short outranks what could not be tried."""
    return max(verdicts, key=_ORDER.index, default=Verdict.UNTRIED)


def route_report(line: Line, healthy: Take | None, results: Sequence[Result]) -> RouteReport:
    """What was found of one line; one that could not be made to fail, or not wholly, is untried."""
    notes = [stand.told for stand in line.stands if stand.told]
    verdicts = [one.verdict for one in results]
    if not line.whole or len(results) < 2:
        verdicts.append(Verdict.UNTRIED)
    return RouteReport(
        route=line.name,
        modality=line.modality,
        candidates=[str(stand.candidate) for stand in line.stands],
        notes=notes,
        verdict=worst(verdicts),
        first_output=_rounded(healthy.first) if healthy else None,
        usd=_usd(healthy.nanos) if healthy else None,
        rows=[_row(one) for one in results],
    )


def _row(one: Result) -> Row:
    return Row(
        fault=one.scenario,
        verdict=one.verdict,
        told=one.told,
        dead_air=_rounded(one.dead_air),
        words_lost=one.lost,
        words_repeated=one.repeated,
        added_usd=_usd(one.added),
        attempts=one.tried,
    )


def write(report: Report, *, as_json: bool) -> None:
    """Write ``report`` to stdout."""
    if as_json:
        document = {"verdict": report.verdict, **msgspec.to_builtins(report)}
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2))
        sys.stdout.buffer.write(b"\n")
        return
    for route in report.routes:
        print("\n".join(_route(route)), end="\n\n")
    print(_summary(report))


def _route(route: RouteReport) -> Iterator[str]:
    yield f"{route.route} ({route.modality}): {', then '.join(route.candidates)}"
    yield from (f"  {note}" for note in route.notes)
    if route.first_output is not None:
        usd = "unpriced" if route.usd is None else f"{route.usd} USD"
        yield f"  healthy: first output after {route.first_output:.2f} s, {usd}"
    if route.rows:
        yield from _table([_cells(row) for row in route.rows])
    else:
        yield "  nothing of it could be played"


def _cells(row: Row) -> tuple[str, ...]:
    told = row.told or "; ".join(row.attempts[1:] and row.attempts)
    return (
        row.fault,
        "-" if row.dead_air is None else f"{row.dead_air:.2f} s",
        "-" if row.words_lost is None else str(row.words_lost),
        "-" if row.words_repeated is None else str(row.words_repeated),
        _signed(row.added_usd),
        row.verdict,
        told,
    )


def _signed(usd: str | None) -> str:
    if usd is None:
        return "unpriced"
    return usd if usd.startswith("-") or usd == "0" else f"+{usd}"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
    for cells in (_HEAD, *rows):
        parts = [
            cell.rjust(width) if name in _FIGURES else cell.ljust(width)
            for cell, width, name in zip(cells, widths, _HEAD, strict=True)
        ]
        yield f"  {'  '.join(parts)}".rstrip()


def _summary(report: Report) -> str:
    short = sum(row.verdict is Verdict.SHORT for one in report.routes for row in one.rows)
    untried = [one.route for one in report.routes if one.verdict is Verdict.UNTRIED]
    played = sum(len(one.rows) for one in report.routes)
    told = f"{played} calls in {report.seconds:.0f} s: {short} fell short"
    if untried:
        told += f"; not wholly tried: {', '.join(untried)}"
    return told


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def _usd(nanos: int | None) -> str | None:
    return None if nanos is None else money(nanos)
