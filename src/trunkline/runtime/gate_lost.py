"""What dead processes left at the gate: their unsettled attempts, and what they held.

An attempt that was open when its process died was either settled, then its settlement is found in
the ledger and counts as it stands there, or it was not: then it is settled now, as ``lost``, by its
estimate. Either way it counts once; the rest of what the process held is free again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from ..clock import now_ns
from ..core.models import Attempt, Entry, Quality, Settlement, Usage
from ..core.ports import Change, GateStore, Journal, Orphan
from ..core.pricing import CORRECTION
from ..core.scopes import Unit, used
from .gate_holding import Note, decode_note
from .gate_purse import Price
from .gate_rules import estimated

logger = logging.getLogger("trunkline")

FindSettled = Callable[[int, Sequence[Attempt]], Mapping[str, Sequence[Entry]] | None]
"""The entries of those attempts of a dead process (by its process id) that were settled, by attempt
id; None while its journals are not in the ledger yet."""


class Lost:
    """Buries the dead: a call looks for them, and takes care of whom it can."""

    def __init__(self, store: GateStore, journal: Journal, price: Price, find: FindSettled) -> None:
        self._store = store
        self._journal = journal
        self._price = price
        self._find = find

    def __call__(self) -> int:
        """Return how many were buried; the others wait for their journals. Raises StoreError."""
        return sum(self._bury(orphan) for orphan in self._store.orphans())

    def _bury(self, orphan: Orphan) -> bool:
        notes = {note.attempt.id: note for note in map(decode_note, orphan.notes)}
        settled: Mapping[str, Sequence[Entry]] | None = {}
        if notes:
            settled = self._find(orphan.pid, [note.attempt for note in notes.values()])
        if settled is None:
            return False
        changes: list[Change] = []
        lost = 0
        for note in notes.values():
            entries = settled.get(note.attempt.id)
            if entries is None:
                lost += 1
                entries = [self._settle(note.attempt, note.estimate)]
            changes += _changes(note, entries)
        self._store.bury(orphan, changes)
        if lost:
            logger.warning("a process died with %d attempts open: settled by estimate", lost)
        return True

    def _settle(self, attempt: Attempt, estimate: Usage) -> Entry:
        attempt = estimated(attempt, estimate)
        attempt.outcome = "lost"
        entry = Entry(
            # the attempt's own id: however often it is settled for the dead, it is one entry
            id=attempt.id,
            attempt=attempt.id,
            recorded_ns=now_ns(),
            usage=estimate,
            quality=Quality.ESTIMATED,
            charge=self._price(attempt),
        )
        self._journal.append(Settlement(attempt, entry))
        return entry


def _changes(note: Note, entries: Iterable[Entry]) -> Iterable[Change]:
    # corrections are counted by whoever makes them, and once
    entries = [entry for entry in entries if entry.kind != CORRECTION]
    for pool, slot_ns, unit in note.pools:
        yield Change(
            pool,
            slot_ns,
            spent=sum(
                used(Unit(unit), entry.usage, entry.charge.nanos if entry.charge else 0)
                for entry in entries
            ),
            attempts=1,
            unpriced=int(any(entry.charge is None for entry in entries)),
        )
