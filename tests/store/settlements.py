"""Settlements to write, and what the ledger then holds, for every test of this folder."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from trunkline.clock import new_id, now_ns
from trunkline.core.models import (
    Attempt,
    Charge,
    Entry,
    Identity,
    Modality,
    Quality,
    Settlement,
    Usage,
)
from trunkline.store import LEDGER_NAME

USED = Usage(tokens_in=100, tokens_out=10)


def settlement(
    call: str = "call-1",
    *,
    provider: str = "openai",
    usage: Usage = USED,
    nanos: int | None = 1500,
    room: str = "",
    project: str = "default",
    started_ns: int | None = None,
    provider_request_id: str = "",
) -> Settlement:
    """An attempt of a language model with its entry; ``nanos=None`` is unpriced."""
    attempt = Attempt(
        id=new_id(),
        identity=Identity(call=call, room=room, project=project),
        modality=Modality.LLM,
        provider=provider,
        model="gpt-4.1-mini",
        connection="env",
        started_ns=now_ns() if started_ns is None else started_ns,
        provider_request_id=provider_request_id,
        usage=usage,
    )
    charge = None if nanos is None else Charge(nanos, "0.4/1.6 per 1M tokens", "test")
    return Settlement(attempt, Entry(new_id(), attempt.id, now_ns(), usage, Quality.EXACT, charge))


def ids_in_ledger(directory: Path) -> list[str]:
    """The ids of all attempts in the ledger of ``directory``, each of which must have one entry."""
    from trunkline.store.ledger import Ledger  # the writers that tests start need no database

    with closing(Ledger(directory / LEDGER_NAME)) as ledger:
        recorded = ledger.attempts()
    assert all(len(r.entries) == 1 for r in recorded)
    return [r.attempt.id for r in recorded]
