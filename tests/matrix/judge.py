"""What is right: words, times, events and bills against what they have to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trunkline.core.models import Modality, Quality, Settlement, Usage
from trunkline.doubles import BillLine

from .columns import NEVER, Column, Heard
from .faults import DEADLINE, Fault

ERROR_SLACK = 0.05
"""Seconds over the backup alone and the deadline that had to pass."""
NEXT_SLACK = 0.01
"""Seconds over the backup alone, once the failure is known."""


@dataclass
class Cell:
    """One situation of one row in one column, as measured.

    ``late`` is how many seconds later than it could be the output came (the first one, or the next
    after a failure midway), ``slack`` how many it may. ``problems`` are what else is wrong.
    """

    situation: str
    first: float | None = None
    gap: float = 0.0
    late: float = 0.0
    slack: float = ERROR_SLACK
    lost: int = 0
    repeated: int = 0
    ended: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def shortfall(self) -> list[str]:
        """Everything that is wrong, lateness too; nothing for a cell that is as it has to be."""
        late = [f"late by {self.late * 1e3:.0f} ms"] if self.late > self.slack else []
        return late + self.problems

    def check(self, right: bool, problem: str) -> None:
        """Note ``problem`` unless all is right."""
        if not right:
            self.problems.append(problem)


def cell(situation: str, column: Column, heard: Heard, *, slack: float = ERROR_SLACK) -> Cell:
    """A cell for ``heard``, its words counted."""
    lost, repeated = compare(column.expected, [w for w in heard.words if "-" not in w])
    made = Cell(situation, heard.first, heard.gap, slack=slack, lost=lost, repeated=repeated)
    made.ended = heard.error
    made.check(heard.error != "never", "never")
    return made


def compare(expected: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """(words lost, words said again): what is left over beside the longest common sequence.

    A word that was cut short and is said again in full is a stutter, and not counted.
    """
    row = [0] * (len(heard) + 1)
    for word in expected:
        before = list(row)
        for at, other in enumerate(heard, 1):
            row[at] = before[at - 1] + 1 if word == other else max(before[at], row[at - 1])
    common = row[-1]
    return len(expected) - common, len(heard) - common


def stops(column: Column, fault: Fault) -> bool:
    """Whether the right answer is an explicit error: a model that has spoken is not replaced."""
    return column.modality is Modality.LLM and fault.midway


def judge_first(
    made: Cell,
    column: Column,
    fault: Fault,
    heard: Heard,
    alone: float,
    failures: int = 1,
    told: float = 0.0,
) -> None:
    """Times and words of a call in which ``failures`` candidates fail one after another.

    ``told`` is how long it takes the bare client to tell of the fault.
    """
    waited = failures * DEADLINE if fault.waits else 0.0
    if stops(column, fault):
        made.late = heard.gap - (DEADLINE if fault.waits else 0.0)
        made.check(bool(heard.error), "no explicit error")
        made.check(heard.words == column.expected[: len(heard.words)], "words not as sent")
        return
    made.check(not heard.error, f"raised {heard.error}")
    if fault.midway:
        # A wait between two outputs holds one failure; the next candidate starts from its commit.
        made.late = heard.gap - alone - (DEADLINE if fault.waits else 0.0)
        if failures > 1:
            made.late -= fault.rule.get("every", 0.0)  # the backup drips before it is given up
        if column.by_sentence and not fault.waits:
            made.late -= alone  # the next sentence tells that this one was cut
    else:
        made.late = (heard.first or NEVER) - alone - waited - failures * told
    made.check(fault.garbled or not made.lost, f"{made.lost} words lost")
    allowed = failures if fault.midway and column.modality is Modality.TTS else 0
    if not fault.garbled:
        made.check(made.repeated <= allowed, f"{made.repeated} words too many")


def judge_bills(
    made: Cell, settled: Sequence[Settlement], lines: Sequence[BillLine], name: str
) -> None:
    """The ledger of one connection against its vendor's bill."""
    mine = [one for one in settled if one.attempt.connection == name]
    made.check(len(mine) > 0 or not lines, f"{name} billed what the ledger has not")
    if any(one.attempt.outcome != "ok" for one in mine):
        used = [one for one in mine if one.entry.usage != Usage()]
        made.check(not lines or bool(used), f"{name} billed, the ledger says nothing was used")
        invented = [one for one in used if one.entry.quality is Quality.EXACT]
        made.check(bool(lines) or not invented, f"{name} did not bill what the ledger calls exact")
        return
    for unit, off in (("tokens_in", 0), ("tokens_out", 0), ("characters", len(lines))):
        ours = sum(getattr(one.entry.usage, unit) for one in mine)
        if unit.startswith("tokens") and mine and mine[0].attempt.modality is not Modality.LLM:
            continue  # a voice billed by tokens does not tell its plugin how many
        theirs = sum(getattr(line.units, unit) for line in lines)
        made.check(abs(ours - theirs) <= off, f"{name}: {unit} {ours}, billed {theirs}")
    ours = sum(one.entry.usage.audio_out_ns for one in mine)
    theirs = sum(line.units.audio_out_ns for line in lines)
    made.check(abs(ours - theirs) <= 0.05 * theirs, f"{name}: audio {ours}, billed {theirs}")
