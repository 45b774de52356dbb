"""What is right: words, times, events and bills against what they have to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from trunkline.core.models import Modality, Quality, Settlement, Usage
from trunkline.doubles import BillLine

from .column import NEVER, Column, Heard
from .faults import Fault

ERROR_SLACK = 0.05
"""Seconds over the backup alone and the deadline that had to pass."""
END_SLACK = 0.5
"""Seconds later than with the backup alone that a recogniser may end, besides the failures."""
NEXT_SLACK = 0.01
"""Seconds over the backup alone, once the failure is known."""


PADDING = 0.3
"""Seconds of silence by which a plugin may fill up what it commits."""
UNDER_WAY = 0.9
"""Seconds of audio that may be between client and double when a connection breaks."""


@dataclass
class Cell:
    """One situation of one row in one column, as measured.

    ``late`` is how many seconds later than it could be the output came (the first one, or the next
    after a failure midway), ``slack`` how many it may, ``machine`` how many of them can be those in
    which the machine was busy elsewhere. ``seconds_lost`` is audio of a caller that became no text.
    ``problems`` are what else is wrong.
    """

    situation: str
    first: float | None = None
    gap: float = 0.0
    late: float = 0.0
    slack: float = ERROR_SLACK
    machine: float = 0.0
    lost: int = 0
    seconds_lost: float | None = None
    repeated: int = 0
    ended: str = ""
    problems: list[str] = field(default_factory=list)

    @property
    def shortfall(self) -> list[str]:
        """Everything that is wrong, lateness too; nothing for a cell that is as it has to be."""
        late = self.late - self.machine
        told = f"late by {late * 1e3:.0f} ms (allowed {self.slack * 1e3:.0f} ms)"
        return [told] * (late > self.slack) + self.problems

    def check(self, right: bool, problem: str) -> None:
        """Note ``problem`` unless all is right."""
        if not right:
            self.problems.append(problem)


@dataclass(frozen=True)
class Known:
    """What a row's cells are judged by: a call to the backup alone, and how long it takes the bare
    client to tell of the fault."""

    row: tuple[str, str]
    told: float
    alone: Heard

    @property
    def own(self) -> float:
        """Seconds that the backup needs for its first output."""
        return self.alone.first or 0.0


def cell(situation: str, column: Column, heard: Heard, *, slack: float = ERROR_SLACK) -> Cell:
    """A cell for ``heard``, its words counted."""
    lost, repeated = column.compare(heard.words)
    made = Cell(situation, heard.first, heard.gap, slack=slack, lost=lost, repeated=repeated)
    made.ended = heard.error
    made.seconds_lost = column.seconds_lost(heard.words)
    made.problems += heard.problems
    made.check(heard.error != "never", "never")
    return made


def stops(column: Column, fault: Fault) -> bool:
    """Whether the right answer is an explicit error: a model that has spoken is not replaced."""
    return column.modality is Modality.LLM and fault.midway


def judge_first(
    made: Cell,
    column: Column,
    fault: Fault,
    heard: Heard,
    known: Known,
    failures: int = 1,
) -> None:
    """Times and words of a call in which ``failures`` candidates fail one after another.

    The times are judged by what is ``known`` of the row.
    """
    owed, own, told = column.owed(fault), known.own, known.told
    made.machine = heard.delayed if fault.midway else heard.delayed_first
    if stops(column, fault):
        made.late = heard.gap - owed
        made.check(bool(heard.error), "no explicit error")
        made.check(heard.words == column.expected[: len(heard.words)], "words not as sent")
        return
    made.check(not heard.error, f"raised {heard.error}")
    if fault.midway:
        # A wait between two outputs holds one failure; the next candidate starts from its commit.
        made.late = heard.gap - own - owed - (0.0 if column.ends_as_output else known.alone.gap)
        if failures > 1:
            made.late -= fault.rule.get("every", 0.0)  # the backup drips before it is given up
        if column.by_sentence and not fault.waits:
            made.late -= own  # the next sentence tells that this one was cut
    else:
        made.late = (NEVER if heard.first is None else heard.first) - own - failures * (owed + told)
    made.check(fault.garbled or not made.lost, f"{made.lost} words lost")
    allowed = failures if fault.midway and column.modality is Modality.TTS else 0
    if not fault.garbled:
        made.check(made.repeated <= allowed, f"{made.repeated} words too many")
    if not column.ends_as_output:
        over = heard.took - known.alone.took - failures * (owed + told) - heard.delayed
        made.check(over <= END_SLACK, f"the end came {over * 1e3:.0f} ms late")


def judge_bills(
    made: Cell, settled: Sequence[Settlement], lines: Sequence[BillLine], name: str
) -> None:
    """The ledger of one connection against its vendor's bill."""
    mine = [one for one in settled if one.attempt.connection == name]
    if mine and mine[0].attempt.modality is Modality.STT:
        _judge_listening(made, mine, lines, name)
        return
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


def _judge_listening(
    made: Cell, mine: Sequence[Settlement], lines: Sequence[BillLine], name: str
) -> None:
    """All audio that arrives is billed; what was under way when a connection broke did not."""
    ours = sum(one.entry.usage.audio_in_ns for one in mine) / 1e9
    theirs = sum(line.units.audio_in_ns for line in lines) / 1e9
    broken = sum(one.attempt.outcome != "ok" for one in mine)
    allowed = 0.05 + PADDING * len(mine) + UNDER_WAY * broken
    if all(one.entry.quality is Quality.EXACT for one in mine):
        told = f"{name}: {ours:.2f} s of audio in the ledger, {theirs:.2f} s billed"
        made.check(abs(ours - theirs) <= allowed, told)
