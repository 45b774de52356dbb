"""Journal first, ledger later: a settlement is one write, and a thread sees it into SQLite.

``Recorder`` is what the engine settles into. Reading is ``trunkline.store.ledger.Ledger``, apart
because it imports the database.
"""

from __future__ import annotations

from .ingest import LEDGER_NAME, Ingester
from .recorder import Recorder
from .records import Record

__all__ = ["LEDGER_NAME", "Ingester", "Record", "Recorder"]
