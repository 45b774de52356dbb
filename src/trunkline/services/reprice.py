"""Charging afterwards what had no price, or another one, when it was settled.

Nothing is edited: an attempt whose charges are not what the price list makes of its usage gets one
more entry, the difference. The entry's id is made from the attempt, the entries it corrects and the
price, so whoever corrects the same thing, at the same time or after a crash, writes the same entry,
which the ledger takes once.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import astuple, replace

from ..catalog.pricelist import shipped
from ..clock import now_ns
from ..core.models import Attempt, Charge, Entry, Quality, Usage
from ..core.pricing import CORRECTION, Unpriced, count_unpriced
from ..errors import StoreError, UsageError
from ..store import LEDGER_NAME, Ingester, Recorder
from ..store.journal import SUFFIX
from ..store.ledger import Ledger, Recorded

Quote = Callable[[Attempt], Charge | Unpriced]

Corrected = Callable[[Attempt, Entry, bool], object]
"""Hears of a correction that is in the ledger, and whether its attempt was unpriced until then."""

_IDS = uuid.UUID("6a3bb1b5-6d06-5e44-9f5e-0d8d4c1b7a52")
_HOUR_NS = 3_600_000_000_000
"""How much of the ledger is in memory at a time."""
_LOAD_SECONDS = 30.0
_TRUST = [Quality.EXACT, Quality.ESTIMATED, Quality.UNDERESTIMATE]


@dataclass
class Repriced:
    """What was looked at and written. ``unpriced`` counts by reason the attempts still without."""

    attempts: int = 0
    priced: int = 0
    corrected: int = 0
    nanos: int = 0
    unpriced: Counter[str] = field(default_factory=Counter)


def reprice(
    directory: Path,
    *,
    since_ns: int | None = None,
    provider: str | None = None,
    dry_run: bool = False,
    quote: Quote | None = None,
    corrected: Corrected = lambda *_: None,
) -> Repriced:
    """Bring the charges of the ledger in ``directory`` to what the price list says.

    Only attempts begun at ``since_ns`` (UTC) or later, and of ``provider``, are looked at. With
    ``dry_run`` nothing is written. When this returns, what was written is in the ledger.
    ``corrected`` hears of every correction of these attempts, also of those written earlier: what
    an end midway kept from it, the next run makes up for.

    Raises UsageError when there is no ledger, StoreError when it cannot be read or written in time,
    ConfigError when the prices cannot be read.
    """
    done = Repriced()
    told: list[tuple[Attempt, Entry, bool]] = []
    recorder = None if dry_run else Recorder(directory)
    try:
        for one in _recorded(directory, since_ns):
            if provider is not None and one.attempt.provider != provider:
                continue
            done.attempts += 1
            entries, entry = one.entries, correction(one, quote or shipped().quote)
            if isinstance(entry, Unpriced):
                done.unpriced[entry.reason] += 1
            elif entry is not None and entry.charge is not None:
                _count(done, one, entry.charge)
                if recorder is not None:
                    recorder.append(entry)
                    entries = (*entries, entry)
            told += [(one.attempt, *each) for each in _corrections(entries)]
        if recorder is not None and not recorder.flush_all(_LOAD_SECONDS):
            raise StoreError(
                f"corrections are written but not loaded within {_LOAD_SECONDS:g} s: they are in "
                f"the journals of {directory}, and any process that runs there will load them"
            )
    finally:
        if recorder is not None:
            recorder.close()
    for each in told if not dry_run else ():
        corrected(*each)
    return done


def correction(one: Recorded, quote: Quote) -> Entry | Unpriced | None:
    """The entry that brings the charges of ``one`` to its price; None when they are right.

    Unpriced when there is no price and some of its entries have none either: what was once charged
    is not taken back for want of a price.
    """
    if not one.entries:
        return None  # its settlement is still in a journal
    missing = count_unpriced(one.entries)
    quoted = quote(replace(one.attempt, usage=_total(one.entries)))
    if isinstance(quoted, Unpriced):
        return quoted if missing else None
    charged = sum(entry.charge.nanos for entry in one.entries if entry.charge)
    quality = max((entry.quality for entry in one.entries), key=_TRUST.index)
    if quality is Quality.UNDERESTIMATE and quoted.nanos < charged:
        quoted = replace(quoted, nanos=charged)  # it was too little already: nothing is given back
    if not missing and charged == quoted.nanos:
        return None
    return Entry(
        id=_id(one, quoted),
        attempt=one.attempt.id,
        recorded_ns=max(now_ns(), *(entry.recorded_ns for entry in one.entries)),
        usage=Usage(),
        quality=quality,
        charge=replace(quoted, nanos=quoted.nanos - charged),
        kind=CORRECTION,
    )


def _corrections(entries: Sequence[Entry]) -> Iterator[tuple[Entry, bool]]:
    """The corrections among the entries of an attempt; the first of them may have priced it."""
    unpriced = any(entry.charge is None for entry in entries)
    for entry in sorted(entries, key=lambda entry: entry.recorded_ns):
        if entry.kind == CORRECTION:
            yield entry, unpriced
            unpriced = False


def _id(one: Recorded, quoted: Charge) -> str:
    entries = sorted(entry.id for entry in one.entries)
    parts = [one.attempt.id, *entries, str(quoted.nanos), quoted.rate, quoted.source]
    return str(uuid.uuid5(_IDS, "\n".join(parts)))


def _total(entries: tuple[Entry, ...]) -> Usage:
    return Usage(*(sum(units) for units in zip(*(astuple(e.usage) for e in entries), strict=True)))


def _count(done: Repriced, one: Recorded, charge: Charge) -> None:
    if one.nanos is None:
        done.priced += 1
    else:
        done.corrected += 1
    done.nanos += charge.nanos


def _recorded(directory: Path, since_ns: int | None) -> Iterator[Recorded]:
    """Every attempt with its entries, oldest first, after what waits in journals is loaded."""
    path = directory / LEDGER_NAME
    if not path.exists() and not any(directory.glob(f"*{SUFFIX}")):
        raise UsageError(f"{directory} holds no ledger; name the state directory with --state")
    with closing(Ledger(path)) as ledger, closing(Ingester(directory)) as ingester:
        ledger.open()
        ingester.run_once()
        ingester.close()  # from now on the recorder's own thread, or another process, loads
        until = now_ns()
        begin: int | None = max(since_ns or 0, 0)
        while begin is not None and begin < until:
            end = begin + _HOUR_NS
            yield from ledger.attempts(since_ns=begin, until_ns=end)
            begin = ledger.next_begun(end)
