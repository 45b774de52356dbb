"""What a call's turns are made of: who said what when, how long the answer took, and why.

A turn is the caller's words until the agent takes the floor, with everything the agent says before
the caller's next turn. All times are whole milliseconds since the call was opened, durations
milliseconds. The parts do not add up to ``e2e_ms``: a language model may start before the end of
the turn is certain (preemptive generation), so ``overlap_ms`` says what running side by side saved,
and ``other_ms`` what none of the parts explains (tools, queues, playback).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

RESUME_MS = 2000
"""A caller who goes on within this time, before the agent has spoken, is still in the same turn."""

_TOLERANCE_MS = 1000
"""How much later than the caller a voice activity detector may fall silent."""


@dataclass(frozen=True, slots=True)
class Heard:
    """Words of the caller that the pipeline took as the end of a turn."""

    text: str
    started_ms: int
    stopped_ms: int
    eou_ms: int | None = None
    stt_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """One message of the agent and when its audio was played."""

    text: str
    started_ms: int
    stopped_ms: int
    interrupted: bool = False
    ttft_ms: int | None = None
    ttfb_ms: int | None = None
    e2e_ms: int | None = None


class Turn(msgspec.Struct, frozen=True):
    """One exchange.

    ``eou_ms`` is the end of speech until the turn was taken as ended, ``stt_ms`` the part of it
    until the final transcript, ``ttft_ms`` the model's first token, ``ttfb_ms`` the voice's first
    audio, ``e2e_ms`` the end of the caller's speech until the agent was heard. None: not measured.
    """

    caller: str
    agent: str
    answered: bool
    interrupted: bool
    started_ms: int
    stopped_ms: int
    e2e_ms: int | None = None
    eou_ms: int | None = None
    stt_ms: int | None = None
    ttft_ms: int | None = None
    ttfb_ms: int | None = None
    overlap_ms: int | None = None
    other_ms: int | None = None


def anatomy(
    heard: Sequence[Heard],
    said: Sequence[Said],
    *,
    audible: Callable[[int, int], bool],
    spoken: Sequence[tuple[int, int]] = (),
) -> list[Turn]:
    """Return the turns of a call in order.

    ``audible(start, stop)`` says whether the agent's channel holds sound in that stretch.
    ``spoken`` are the stretches in which the caller is known to have spoken, where that is known:
    one that no turn covers becomes a turn that was not answered.
    """
    openings = _join_resumed(sorted(heard, key=lambda h: h.stopped_ms), said)
    answers: list[list[Said]] = [[] for _ in openings]
    for speech in sorted(said, key=lambda s: s.started_ms):
        before = [i for i, o in enumerate(openings) if o.stopped_ms <= speech.started_ms]
        if before:
            answers[before[-1]].append(speech)
    turns: list[Turn] = []
    for opening, replies in reversed(list(zip(openings, answers, strict=True))):
        turns.append(_turn(opening, replies, audible, turns[-1] if turns else None))
    turns += [_unheard(*stretch) for stretch in spoken if not _covered(stretch, openings)]
    return sorted(turns, key=lambda turn: turn.started_ms)


def _join_resumed(heard: Sequence[Heard], said: Sequence[Said]) -> list[Heard]:
    joined: list[Heard] = []
    for h in heard:
        last = joined[-1] if joined else None
        if (
            last is not None
            and h.started_ms - last.stopped_ms <= RESUME_MS
            and not any(last.stopped_ms <= s.started_ms < h.stopped_ms for s in said)
        ):
            text = f"{last.text} {h.text}".strip()
            joined[-1] = Heard(text, last.started_ms, h.stopped_ms, h.eou_ms, h.stt_ms)
        else:
            joined.append(h)
    return joined


def _turn(
    opening: Heard, replies: Sequence[Said], audible: Callable[[int, int], bool], after: Turn | None
) -> Turn:
    interrupted = any(reply.interrupted for reply in replies)
    answered = any(audible(reply.started_ms, reply.stopped_ms) for reply in replies)
    if interrupted:  # what cut the answer short must itself be answered
        answered = answered and after is not None and after.answered
    first = replies[0] if replies else None
    e2e = _e2e_ms(opening, first) if first else None
    parts = (opening.eou_ms, first.ttft_ms if first else None, first.ttfb_ms if first else None)
    surplus = None if e2e is None else sum(part or 0 for part in parts) - e2e
    return Turn(
        caller=opening.text,
        agent=" ".join(reply.text for reply in replies),
        answered=answered,
        interrupted=interrupted,
        started_ms=opening.started_ms,
        stopped_ms=opening.stopped_ms,
        e2e_ms=e2e,
        eou_ms=opening.eou_ms,
        stt_ms=opening.stt_ms,
        ttft_ms=parts[1],
        ttfb_ms=parts[2],
        overlap_ms=None if surplus is None else max(0, surplus),
        other_ms=None if surplus is None else max(0, -surplus),
    )


def _e2e_ms(opening: Heard, first: Said) -> int:
    """What LiveKit measured, or else the distance: it says nothing when the caller spoke again
    before the turn was taken as ended."""
    return first.started_ms - opening.stopped_ms if first.e2e_ms is None else first.e2e_ms


def _covered(stretch: tuple[int, int], openings: Sequence[Heard]) -> bool:
    """Whether a turn ends where this stretch does: a turn that only spans it did not hear it."""
    return any(stretch[0] < o.stopped_ms <= stretch[1] + _TOLERANCE_MS for o in openings)


def _unheard(started_ms: int, stopped_ms: int) -> Turn:
    return Turn("", "", False, False, started_ms, stopped_ms)
