"""The ledger's tables. Rows are only ever added, never edited.

An attempt is one row; what it cost is the sum of its entries: the settlement, and for every later
correction the difference. Money is nano-dollars and NULL where no price was known, which is not
zero. Times are UTC nanoseconds, durations monotonic nanoseconds. ``entries.attempt_id`` is no
foreign key: a correction may be loaded before its attempt, from another process's journal.

This is what the newest migration ends with, and what ``ledger.sql`` makes.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, Table, Text

from ..core.models import Terms
from .rows import LATER_UNITS, UNITS

metadata = MetaData()


def _text(name: str) -> Column[str]:
    return Column(name, Text, nullable=False)


def _number(name: str, *, nullable: bool = False) -> Column[int]:
    return Column(name, BigInteger, nullable=nullable)


def _usage() -> list[Column[int]]:
    return [_number(unit) for unit in UNITS]


def _later() -> list[Column[int]]:
    return [Column(unit, BigInteger, nullable=False, server_default="0") for unit in LATER_UNITS]


attempts = Table(
    "attempts",
    metadata,
    Column("id", Text, primary_key=True),
    _text("call"),
    _text("turn"),
    Column("idx", Integer, nullable=False),
    _text("purpose"),
    _text("modality"),
    _text("provider"),
    _text("model"),
    _text("connection"),
    _text("route"),
    _text("stack"),
    _text("variant"),
    _text("org"),
    _text("project"),
    _text("agent"),
    _text("room"),
    _text("job"),
    _text("session"),
    _text("tags"),
    _text("provider_request_id"),
    _number("started_ns"),
    _number("first_output_after_ns", nullable=True),
    _number("duration_ns"),
    _text("outcome"),
    *_usage(),
    Column("key", Text, nullable=False, server_default=""),
    *(Column(name, Text, nullable=False, server_default="") for name in Terms._fields),
    *_later(),
    Index("attempts_by_time", "started_ns"),
    Index("attempts_by_call", "call", "started_ns"),
    Index("attempts_by_room", "room", "started_ns"),
    Index("attempts_by_project", "org", "project", "started_ns"),
)

entries = Table(
    "entries",
    metadata,
    Column("id", Text, primary_key=True),
    _text("attempt_id"),
    _number("recorded_ns"),
    _text("kind"),
    _text("quality"),
    *_usage(),
    _number("charge_nanos", nullable=True),
    _text("rate"),
    _text("rate_source"),
    _text("rate_checked"),
    *_later(),
    Index("entries_by_attempt", "attempt_id"),
    Index("entries_by_time", "recorded_ns"),
)

journals = Table(
    "journals",
    metadata,
    Column("name", Text, primary_key=True),
    _number("offset"),
    _number("damaged"),
)
"""How far each journal file is loaded, and how many damaged lines were passed over in it."""
