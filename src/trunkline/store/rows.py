"""The core's records as rows of the ledger, in the order of its columns, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import astuple

from ..core.models import (
    Attempt,
    Charge,
    Entry,
    Identity,
    Modality,
    Purpose,
    Quality,
    Terms,
    Usage,
)

if TYPE_CHECKING:
    from sqlalchemy import Row

UNITS, LATER_UNITS = Usage.__struct_fields__[:10], Usage.__struct_fields__[10:]
"""Those of the first version, and those that came after it, whose columns stand at the end."""

ATTEMPT_COLUMNS = (
    *("id", "call", "turn", "idx", "purpose", "modality", "provider", "model", "connection"),
    *("route", "stack", "variant", "org", "project", "agent", "room", "job", "session", "tags"),
    *("provider_request_id", "started_ns", "first_output_after_ns", "duration_ns", "outcome"),
    *UNITS,
    "key",
    *Terms._fields,
    *LATER_UNITS,
)
"""What ``attempt_row`` returns."""

ENTRY_COLUMNS = (
    *("id", "attempt_id", "recorded_ns", "kind", "quality"),
    *UNITS,
    *("charge_nanos", "rate", "rate_source", "rate_checked"),
    *LATER_UNITS,
)
"""What ``entry_row`` returns."""

_encode_tags = msgspec.json.Encoder().encode
_decode_tags = msgspec.json.Decoder(tuple[str, ...]).decode


def attempt_row(attempt: Attempt) -> tuple[object, ...]:
    """Return the values of ``ATTEMPT_COLUMNS``."""
    whose, units = attempt.identity, astuple(attempt.usage)
    return (
        attempt.id,
        whose.call,
        attempt.turn,
        attempt.index,
        attempt.purpose.value,
        attempt.modality.value,
        attempt.provider,
        attempt.model,
        attempt.connection,
        attempt.route,
        attempt.stack,
        attempt.variant,
        whose.org,
        whose.project,
        whose.agent,
        whose.room,
        whose.job,
        whose.session,
        _encode_tags(whose.tags).decode(),
        attempt.provider_request_id,
        attempt.started_ns,
        attempt.first_output_after_ns,
        attempt.duration_ns,
        attempt.outcome,
        *units[: len(UNITS)],
        whose.key,
        *attempt.terms,
        *units[len(UNITS) :],
    )


def entry_row(entry: Entry) -> tuple[object, ...]:
    """Return the values of ``ENTRY_COLUMNS``."""
    charge, units = entry.charge, astuple(entry.usage)
    return (
        entry.id,
        entry.attempt,
        entry.recorded_ns,
        entry.kind,
        entry.quality.value,
        *units[: len(UNITS)],
        *((charge.nanos, charge.rate, charge.source, charge.checked) if charge else _UNPRICED),
        *units[len(UNITS) :],
    )


_UNPRICED = (None, "", "", "")


def attempt_of(row: Row[Any]) -> Attempt:
    """Return the attempt that ``attempt_row`` gave this row."""
    return Attempt(
        id=row.id,
        identity=Identity(
            call=row.call,
            org=row.org,
            project=row.project,
            agent=row.agent,
            room=row.room,
            job=row.job,
            session=row.session,
            tags=_decode_tags(row.tags),
            key=row.key,
        ),
        modality=Modality(row.modality),
        provider=row.provider,
        model=row.model,
        connection=row.connection,
        started_ns=row.started_ns,
        turn=row.turn,
        index=row.idx,
        purpose=Purpose(row.purpose),
        route=row.route,
        stack=row.stack,
        variant=row.variant,
        provider_request_id=row.provider_request_id,
        first_output_after_ns=row.first_output_after_ns,
        duration_ns=row.duration_ns,
        outcome=row.outcome,
        usage=usage_of(row),
        mode=row.mode,
        language=row.language,
        tier=row.tier,
        region=row.region,
    )


def entry_of(row: Row[Any]) -> Entry:
    """Return the entry that ``entry_row`` gave this row."""
    charge = None
    if row.charge_nanos is not None:
        charge = Charge(row.charge_nanos, row.rate, row.rate_source, row.rate_checked)
    return Entry(
        id=row.id,
        attempt=row.attempt_id,
        recorded_ns=row.recorded_ns,
        usage=usage_of(row),
        quality=Quality(row.quality),
        charge=charge,
        kind=row.kind,
    )


def usage_of(row: Row[Any]) -> Usage:
    """Return the usage in a row's columns of that name."""
    columns = row._mapping
    return Usage(*(columns[unit] for unit in Usage.__struct_fields__))
