"""``call.json``: everything that is known of a demo call, documented in ``docs/demo.md``."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from ...core.models import Modality
from ...core.turns import Turn, anatomy
from .. import bill
from .call import Happened
from .wav import SAMPLE_RATE, active_ms, write_stereo

ANSWER_MS = 100
"""An answer has at least this much audio above the noise floor."""


class TurnReport(Turn, frozen=True, kw_only=True):
    """A turn with the tools it called and what its answer cost.

    ``cost`` holds the attempts of the language model and the voice that began in this turn; the
    recogniser listens to the whole call as one attempt and is in ``charges`` only.
    """

    tools: tuple[str, ...]
    cost: bill.Cost


class Report(msgspec.Struct, frozen=True):
    """The file. Times and durations are milliseconds, ``started`` is UTC.

    ``answered`` is what the exit status says. ``caller`` is the recording that was played, empty
    for the shipped caller. ``failure`` is why the session ended before the caller hung up.
    """

    version: int
    call: str
    started: str
    duration_ms: int
    answered: bool
    failure: str
    caller: str
    stack: Mapping[str, str]
    turns: list[TurnReport]
    usage: Mapping[Modality, bill.Used]
    charges: Mapping[str, bill.Cost]
    recording: str
    ledger: str


def build(
    happened: Happened,
    spoken: Sequence[tuple[int, int]],
    items: Sequence[bill.Item],
    *,
    call: str,
    caller: str,
    stack: Mapping[str, str],
    recording: str,
    ledger: str,
) -> Report:
    """Put together what happened and what it cost; ``items`` are the call's ledger entries."""
    turns = _with_costs(_turns(happened, spoken), happened, items)
    parts = bill.by_modality(items)
    failure = happened.notes.failure
    return Report(
        version=1,
        call=call,
        started=_utc(happened.opened_ns),
        duration_ms=len(happened.caller) * 1000 // SAMPLE_RATE,
        answered=bool(turns) and all(turn.answered for turn in turns) and not failure,
        failure=failure,
        caller=caller,
        stack=stack,
        turns=turns,
        usage={modality: bill.usage(own) for modality, own in parts.items()},
        charges={
            **{str(modality): bill.cost(own) for modality, own in parts.items()},
            "total": bill.cost(items),
        },
        recording=recording,
        ledger=ledger,
    )


def to_json(report: Report) -> bytes:
    """Return the report as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def save(folder: Path, report: Report, happened: Happened) -> None:
    """Write ``call.wav`` and ``call.json``, each whole or not at all."""
    write_stereo(folder / "call.wav", happened.caller, happened.agent)
    partial = folder / "call.json.part"
    partial.write_bytes(to_json(report))
    os.replace(partial, folder / "call.json")


def _turns(happened: Happened, spoken: Sequence[tuple[int, int]]) -> list[Turn]:
    """Return the call's turns, each judged by the audio that the caller really heard."""

    def audible(start_ms: int, stop_ms: int) -> bool:
        start, stop = (max(0, ms) * SAMPLE_RATE // 1000 for ms in (start_ms, stop_ms))
        return active_ms(happened.agent[start:stop]) >= ANSWER_MS

    return anatomy(happened.notes.heard, happened.notes.said, audible=audible, spoken=spoken)


def _with_costs(
    turns: Sequence[Turn], happened: Happened, items: Sequence[bill.Item]
) -> list[TurnReport]:
    """Give each turn the tools and the charges between its end and the next one's."""
    reports = []
    ends = [*(turn.stopped_ms for turn in turns[1:]), sys.maxsize]
    for turn, end in zip(turns, ends, strict=False):  # without turns there is one end too many
        window = range(turn.stopped_ms, end)
        own = [
            (attempt, entry)
            for attempt, entry in items
            if attempt.modality is not Modality.STT
            and (attempt.started_ns - happened.opened_ns) // 1_000_000 in window
        ]
        reports.append(
            TurnReport(
                **msgspec.structs.asdict(turn),
                tools=tuple(name for at_ms, name in happened.notes.tools if at_ms in window),
                cost=bill.cost(own),
            )
        )
    return reports


def _utc(at_ns: int) -> str:
    """Return a UTC moment in ISO 8601, to the millisecond."""
    return datetime.fromtimestamp(at_ns / 1e9, UTC).isoformat(timespec="milliseconds")
