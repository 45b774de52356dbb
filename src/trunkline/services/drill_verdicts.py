"""What may be said of a drill's calls: what a caller noticed, and whether that is within limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ..core.models import AfterOutput, Modality
from ..doubles.faults import Kind
from .drills import Line, Scenario

MAX_DEAD_AIR = 4.0
"""Seconds: the longest of the default deadlines, and one for the next candidate to answer."""

REPEATED = 1
"""Words that a caller may hear twice where a voice goes on."""


class Verdict(StrEnum):
    """``UNTRIED`` is what could not be found out."""

    OK = "ok"
    SHORT = "short"
    UNTRIED = "untried"


@dataclass(slots=True)
class Take:
    """What came of one call; times are in seconds from its start.

    ``first`` is when its first output came, ``gap`` the longest silence between two; ``last`` is
    when a recogniser's last word was final. ``words`` is None when they cannot be read. ``error``
    is what the session got, ``never`` when the call did not end. ``nanos`` is what it cost, None
    while unpriced. ``tried`` are model and outcome of each attempt.
    """

    words: list[str] | None = None
    first: float | None = None
    gap: float = 0.0
    last: float = 0.0
    took: float = 0.0
    error: str = ""
    apology: bool = False
    nanos: int | None = None
    tried: list[str] = field(default_factory=list)


NEVER = "never"


@dataclass(frozen=True, slots=True)
class Result:
    """One row: ``dead_air`` in seconds beyond the healthy call, ``added`` in nano-dollars.

    None is what could not be measured. ``lost`` and ``repeated`` count words.
    """

    scenario: str
    verdict: Verdict
    told: str
    dead_air: float | None = None
    lost: int | None = None
    repeated: int | None = None
    added: int | None = None
    tried: tuple[str, ...] = ()


def judge(
    line: Line,
    scenario: Scenario,
    take: Take,
    healthy: Take,
    expected: Sequence[str],
    max_dead_air: float = MAX_DEAD_AIR,
) -> Result:
    """What a caller notices of ``scenario``, and whether that is within the limits."""
    lost, repeated = _compared(scenario, take, expected)
    added = None
    if take.nanos is not None and healthy.nanos is not None:
        added = take.nanos - healthy.nanos
    verdict, told = _verdict(line, scenario, take)
    air = dead_air(take, healthy) if take.first is not None and not scenario.everywhere else None
    if verdict is Verdict.OK and not take.error and not scenario.everywhere:
        allowed = len(expected) if line.plan.after_output is AfterOutput.RESTART else REPEATED
        if air is not None and air > max_dead_air:
            verdict, told = Verdict.SHORT, f"more than {max_dead_air:g} s of dead air"
        elif lost and scenario.kind is not Kind.WRONG_RATE:
            verdict, told = Verdict.SHORT, f"{lost} of {len(expected)} words lost"
        elif (repeated or 0) > allowed and scenario.kind is not Kind.WRONG_RATE:
            verdict, told = Verdict.SHORT, f"{repeated} words heard twice"
    return Result(scenario.name, verdict, told, air, lost, repeated, added, tuple(take.tried))


def dead_air(take: Take, healthy: Take) -> float:
    """Seconds of silence beyond the healthy call: before the first output, or within the call."""
    first = (take.first or 0.0) - (healthy.first or 0.0)
    return max(first, take.gap - healthy.gap, take.last - healthy.last, 0.0)


def _compared(
    scenario: Scenario, take: Take, expected: Sequence[str]
) -> tuple[int | None, int | None]:
    if take.words is None or take.apology or scenario.everywhere:
        return None, None
    # what was cut short and is said again in full is a stutter
    return compare(expected, [word for word in take.words if "-" not in word])


def _verdict(line: Line, scenario: Scenario, take: Take) -> tuple[Verdict, str]:
    if take.error == NEVER:
        return Verdict.SHORT, f"the call had not ended after {take.took:.0f} s"
    if scenario.everywhere:
        if take.apology:
            return Verdict.OK, f"the apology, {take.first or 0.0:.1f} s into the call"
        if take.error:
            return Verdict.OK, f"silence, and an error {take.took:.1f} s into the call"
        return Verdict.SHORT, "silence without an error"
    deaf = line.modality is Modality.STT and any(stand.local for stand in line.played)
    if deaf and (take.error or take.words is None):
        return Verdict.UNTRIED, "a recogniser of this machine does not understand the tones"
    if scenario.kind is None and take.error:
        return Verdict.SHORT, f"without any fault: {take.error}"
    if not take.error and not take.apology:
        return Verdict.OK, ""
    if take.first is not None and take.error and line.plan.after_output is AfterOutput.STOP:
        return Verdict.OK, "breaks off with an error: after_output is stop"
    if not line.whole:
        return Verdict.UNTRIED, "who would take over has no double"
    if len(line.stands) == 1:
        return Verdict.SHORT, "nobody takes over: there is one candidate"
    if take.apology:
        return Verdict.SHORT, "nobody took over: the apology"
    return Verdict.SHORT, "nobody took over"


def compare(expected: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """(words lost, words said again): what is left over beside the longest common sequence."""
    row = [0] * (len(heard) + 1)
    for word in expected:
        before = list(row)
        for at, other in enumerate(heard, 1):
            row[at] = before[at - 1] + 1 if word == other else max(before[at], row[at - 1])
    common = row[-1]
    return len(expected) - common, len(heard) - common
