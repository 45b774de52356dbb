"""What the ledger is asked, named and together; what is written to it is in ``ledger_file.py``."""

from __future__ import annotations

from sqlalchemy import and_, bindparam, case, exists, func, select, true
from sqlalchemy.sql.elements import ColumnElement

from ..core.models import Usage
from ..core.pricing import CORRECTION
from .schema import attempts, entries

_correction = entries.alias()
_unpriced = entries.c.charge_nanos.is_(None) & ~exists().where(
    _correction.c.attempt_id == entries.c.attempt_id,
    _correction.c.kind == CORRECTION,
    _correction.c.charge_nanos.is_not(None),
    _correction.c.recorded_ns >= entries.c.recorded_ns,
)
"""An entry that nobody has priced, as ``core.pricing.count_unpriced`` counts them."""

TOTALS = (
    select(
        attempts.c.modality,
        attempts.c.provider,
        attempts.c.model,
        func.count(attempts.c.id.distinct()).label("attempts"),
        func.count(case((_unpriced, 1))).label("unpriced"),
        func.coalesce(func.sum(entries.c.charge_nanos), 0).label("nanos"),
        *(func.sum(entries.c[unit]).label(unit) for unit in Usage.__struct_fields__),
    )
    .join(entries, entries.c.attempt_id == attempts.c.id)
    .group_by(attempts.c.modality, attempts.c.provider, attempts.c.model)
    .order_by(attempts.c.modality, attempts.c.provider, attempts.c.model)
)
NEXT_BEGUN = select(func.min(attempts.c.started_ns)).where(
    attempts.c.started_ns >= bindparam("since_ns")
)
ATTEMPTS = select(attempts).order_by(attempts.c.started_ns, attempts.c.id)
ENTRIES = (
    select(entries)
    .join(attempts, attempts.c.id == entries.c.attempt_id)
    .order_by(entries.c.recorded_ns, entries.c.id)
)


def chosen(
    *,
    call: str | None,
    room: str | None,
    org: str | None,
    project: str | None,
    since_ns: int | None,
    until_ns: int | None,
) -> ColumnElement[bool]:
    """The condition on ``attempts`` for what was asked; ``until_ns`` is exclusive."""
    columns = attempts.c
    asked = {columns.call: call, columns.room: room, columns.org: org, columns.project: project}
    conditions = [column == value for column, value in asked.items() if value is not None]
    if since_ns is not None:
        conditions.append(columns.started_ns >= since_ns)
    if until_ns is not None:
        conditions.append(columns.started_ns < until_ns)
    return and_(true(), *conditions)
