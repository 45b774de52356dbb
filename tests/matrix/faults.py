"""The rows of the matrix: each fault, and what the right answer to it is.

``outcomes`` are what the ledger may call the attempt it struck. ``waits`` names the deadline that
has to pass before anybody can know; an empty one means that the fault tells itself. ``midway`` says
that output has left by then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from trunkline.core.models import Modality

DEADLINE = 0.4
"""Seconds, for connect, first content and idle alike."""


@dataclass(frozen=True)
class Fault:
    """One row. ``rule`` is the doubles' fault; ``kind`` a provider row that misbehaves instead.

    ``returns`` says whether the primary is back soon after the fault has gone: an account without
    credit waits a minute before it is looked at again. ``garbled`` marks the faults whose output
    cannot be understood, so that its words are lost to the caller whatever is done.
    """

    name: str
    outcomes: frozenset[str]
    rule: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""
    waits: str = ""
    midway: bool = False
    returns: bool = True
    garbled: bool = False

    def __str__(self) -> str:
        return self.name


def _fault(name: str, outcomes: str, **more: Any) -> Fault:
    rule = {k: more.pop(k) for k in ("after", "every", "retry_after") if k in more}
    kind = more.pop("double", name)
    given = {} if "kind" in more else {"kind": kind.replace(" ", "_"), **rule}
    return Fault(name, frozenset(outcomes.split()), given, **more)


_BEFORE = [
    _fault("refuse", "connect_failed"),
    _fault("black hole", "first_content_timeout", waits="first_content"),
    _fault("401", "unauthorized", double="unauthorized", returns=False),
    _fault("402", "payment_required", double="payment_required", returns=False),
    _fault("429", "rate_limited", double="rate_limited", retry_after=1),
    _fault("500", "provider_fault", double="server_error"),
    _fault("hang", "first_content_timeout", waits="first_content"),
    _fault("hang after headers", "first_content_timeout", double="hang_after",
           waits="first_content"),
    _fault("keep-alives only", "first_content_timeout", double="keep_alive", every=0.1,
           waits="first_content"),
    _fault("drip, slow", "first_content_timeout", double="drip", every=0.6,
           waits="first_content"),
    _fault("die at once", "stream_cut connect_failed", double="die"),
    _fault("stall at once", "first_content_timeout", double="stall", waits="first_content"),
    _fault("end at once", "stream_cut empty_output connect_failed provider_fault", double="end"),
    _fault("empty", "empty_output first_content_timeout"),
    _fault("garbage", "protocol_violation provider_fault empty_output stream_cut connect_failed"),
    _fault("ignores its timeout", "first_content_timeout", kind="deaf", waits="first_content"),
    _fault("raises a bug", "provider_fault", kind="broken"),
]  # fmt: skip


def _midway(after: int, cut: str) -> list[Fault]:
    return [
        _fault("die midway", cut, double="die", after=after, midway=True),
        _fault("stall midway", "idle_timeout", double="stall", after=after, midway=True,
               waits="idle"),
        _fault("end midway", cut, double="end", after=after, midway=True),
        _fault("garbage midway", f"{cut} protocol_violation", double="garbage", after=after,
               midway=True),
    ]  # fmt: skip


_CUT = "stream_cut connect_failed provider_fault"


def _of_recognisers(before: list[Fault]) -> list[Fault]:
    """A recogniser that hears nothing, or whose plugin skips what it cannot read, stays on the
    line: only a deadline tells it from a good listener. A socket that does not open is told by its
    plugin's own timeout, which is ours as well.
    """
    told = {
        "empty": frozenset({"first_content_timeout", "empty_output"}),
        "garbage": frozenset(
            {"first_content_timeout", "protocol_violation", "provider_fault", "stream_cut"}
        ),
        "black hole": frozenset({"first_content_timeout", "connect_failed"}),
        "hang": frozenset({"first_content_timeout", "connect_failed"}),
    }
    return [
        replace(fault, outcomes=told[fault.name], waits="first_content")
        if fault.name in told
        else fault
        for fault in before
    ]


FAULTS: dict[Modality, list[Fault]] = {
    Modality.STT: [
        *_of_recognisers(_BEFORE),
        *(replace(fault, waits="idle") if fault.name == "garbage midway" else fault
          for fault in _midway(4, f"{_CUT} idle_timeout")),
        _fault("truncate", "idle_timeout stream_cut empty_output", double="truncate", after=4,
               midway=True, waits="idle"),
    ],
    Modality.LLM: [*_BEFORE, *_midway(4, _CUT)],
    Modality.TTS: [
        *_BEFORE,
        *_midway(14, f"{_CUT} idle_timeout"),
        _fault("truncate", "stream_cut", double="truncate", after=14, midway=True),
        _fault("drip, below real time", "idle_timeout first_content_timeout", double="drip",
               every=0.3, midway=True, waits="idle"),
        _fault("wrong audio rate", "stream_cut protocol_violation", double="wrong_rate",
               midway=True, garbled=True),
    ],
}  # fmt: skip
