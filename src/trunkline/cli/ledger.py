"""``trunkline ledger``: what was attempted, what it used and what it cost."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ..compose import configure
from ..core.models import Attempt, Modality, Purpose, Usage, money
from ..errors import UsageError
from ..store import LEDGER_NAME, Ingester
from ..store.journal import SUFFIX
from ..store.ledger import Ledger, Recorded
from . import bill

_ATTEMPT = ("UTC", "", "model", "outcome", "first ms", "ms", "used", "USD")
_TOTAL = ("", "model", "attempts", "used", "USD", "rates from")
_FIGURES = {"first ms", "ms", "attempts", "USD"}
"""Columns that are set to the right."""

UNPRICED = "unpriced"


class Listing(msgspec.Struct, frozen=True):
    """The JSON document: each attempt with its entries, oldest first, and what all cost."""

    ledger: str
    attempts: list[Recorded]
    total: bill.Cost


def run(config: Path | None, state: Path | None, call: str | None, as_json: bool) -> None:
    """Load what waits in journals, then print the attempts.

    Raises UsageError without a ledger, or when it knows nothing of ``call``.
    """
    directory = state or configure(config).state
    found = _read(directory, call)
    items = [(one.attempt, entry) for one in found for entry in one.entries]
    if as_json:
        listing = Listing(str(directory / LEDGER_NAME), found, bill.cost(items))
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(listing), indent=2) + b"\n")
        return
    for line in [*_attempts(found), "", *_totals(items)] if found else ["no attempts yet"]:
        print(line)


def _read(directory: Path, call: str | None) -> list[Recorded]:
    path = directory / LEDGER_NAME
    if not path.exists() and not any(directory.glob(f"*{SUFFIX}")):
        raise UsageError(f"{directory} holds no ledger; name the state directory with --state")
    ledger = Ledger(path)
    ingester = Ingester(directory)
    try:
        ledger.open()
        ingester.run_once()
        found = ledger.attempts(call=call)
    finally:
        ingester.close()
        ledger.close()
    if call is not None and not found:
        raise UsageError(f"{path} has no attempt of call {call!r}; leave --call out to see all")
    return found


def _attempts(found: Sequence[Recorded]) -> Iterator[str]:
    """A table of the attempts, under a line for each call."""
    calls: dict[str, list[Recorded]] = {}
    for one in found:
        calls.setdefault(one.attempt.identity.call, []).append(one)
    listed = [one for attempts in calls.values() for one in attempts]
    head, *lines = _table(_ATTEMPT, [_row(one) for one in listed])
    yield head
    for attempts in calls.values():
        yield ""
        yield _heading(attempts[0].attempt)
        yield from lines[: len(attempts)]
        del lines[: len(attempts)]


def _heading(first: Attempt) -> str:
    whose = first.identity
    told = {"stack": first.stack, "room": whose.room, "agent": whose.agent}
    names = [f"{what} {name}" for what, name in told.items() if name]
    return "  ".join([f"call {whose.call}", f"{_utc(first):%Y-%m-%d}", *names, *whose.tags])


def _row(one: Recorded) -> tuple[str, ...]:
    attempt = one.attempt
    first = attempt.first_output_after_ns
    purpose = "" if attempt.purpose is Purpose.SERVE else f" ({attempt.purpose})"
    return (
        f"{_utc(attempt):%H:%M:%S}",
        attempt.modality,
        _model(attempt),
        f"{attempt.outcome}{purpose}",
        "-" if first is None else str(first // 1_000_000),
        str(attempt.duration_ns // 1_000_000),
        _used(attempt.modality, bill.total(entry.usage for entry in one.entries)),
        UNPRICED if one.nanos is None else money(one.nanos),
    )


def _totals(items: Sequence[bill.Item]) -> Iterator[str]:
    """A table of what each model used and cost, and what all cost."""
    models: dict[tuple[Modality, str], list[bill.Item]] = {}
    for modality, own in bill.by_modality(items).items():
        for item in own:
            models.setdefault((modality, _model(item[0])), []).append(item)
    rows = [_total(modality, model, own) for (modality, model), own in models.items()]
    yield from _table(_TOTAL, [*rows, _total("all", "", items)])
    if missing := bill.cost(items).unpriced:
        yield ""
        yield f"{missing} unpriced: their price is not known, and the dollars leave them out"


def _total(modality: Modality | str, model: str, own: Sequence[bill.Item]) -> tuple[str, ...]:
    """A row for one model, or without one for all: their units and sources are too many."""
    used, cost = bill.usage(own), bill.cost(own)
    unpriced = [f"{cost.unpriced} {UNPRICED}"] if cost.unpriced else []
    return (
        modality,
        model,
        str(used.attempts),
        _used(modality, used.units) if isinstance(modality, Modality) else "",
        cost.usd if cost.sources else UNPRICED,
        ", ".join([*(cost.sources if model else ()), *unpriced]),
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of columns as wide as they need to be; the first is the head."""
    columns = dict(zip(head, zip(*rows, strict=True), strict=True))
    columns["USD"] = tuple(_pointed(columns["USD"]))
    widths = {name: max(map(len, (name, *cells))) for name, cells in columns.items()}
    for row in (head, *zip(*columns.values(), strict=True)):
        cells = [
            cell.rjust(width) if name in _FIGURES else cell.ljust(width)
            for (name, width), cell in zip(widths.items(), row, strict=True)
        ]
        yield "  ".join(cells).rstrip()


def _pointed(amounts: Sequence[str]) -> Iterator[str]:
    """Amounts padded so that, set to the right, their decimal points stand under each other."""
    tails = [len(amount) - len(amount.partition(".")[0]) for amount in amounts]
    for amount, tail in zip(amounts, tails, strict=True):
        yield amount if amount == UNPRICED else amount + " " * (max(tails) - tail)


def _utc(attempt: Attempt) -> datetime:
    return datetime.fromtimestamp(attempt.started_ns / 1e9, UTC)


def _model(attempt: Attempt) -> str:
    return f"{attempt.provider}/{attempt.model}".rstrip("/")


def _used(modality: Modality, units: Usage) -> str:
    return bill.units_text(modality, units) if units != Usage() else "-"
