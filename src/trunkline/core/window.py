"""The newest attempts at one candidate: how many failed, and how soon the others had content."""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec

from .models import Int64


class Sample(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One attempt: when it ended, and its first-content latency, 0 where none was measured."""

    at_ns: Int64
    failed: bool
    first_content_ns: Int64


Window = tuple[Sample, ...]
"""Samples, each once, oldest first."""


@dataclass(frozen=True, slots=True)
class Recent:
    """What a window says. ``p95_ns`` is of first content, None while too little is known."""

    attempts: int
    failures: int
    p95_ns: int | None


def added(window: Window, sample: Sample, size: int) -> Window:
    """The newest ``size`` samples, ``sample`` among them."""
    if window and sample <= window[-1]:  # the same nanosecond, or a clock that was set back
        return joined(window, (sample,), size)
    return (*window, sample)[-size:]


def joined(a: Window, b: Window, size: int) -> Window:
    """The newest ``size`` samples of both: commutative, associative, idempotent."""
    return a if a == b else tuple(sorted({*a, *b})[-size:])


def summed_up(window: Window, since_ns: int, warm: int) -> Recent:
    """Count what is not older than ``since_ns``; with fewer than ``warm`` latencies, no p95.

    The p95 is the nearest rank. A latency counts whatever became of its attempt; one that timed
    out before its first content has none, and so cannot raise the deadline that it missed.
    """
    if window and window[0].at_ns < since_ns:
        window = tuple([sample for sample in window if sample.at_ns >= since_ns])
    latencies = sorted([sample.first_content_ns for sample in window if sample.first_content_ns])
    p95 = latencies[math.ceil(0.95 * len(latencies)) - 1] if len(latencies) >= warm else None
    return Recent(len(window), sum([sample.failed for sample in window]), p95)


def adaptive(p95: float | None, fixed: float, *, factor: float, low: float, high: float) -> float:
    """A first-content deadline in seconds: ``factor`` times the p95, between ``low`` and ``high``.

    ``fixed`` while there is no p95. ``low`` matters: a deadline cuts off the latencies beyond it,
    so without a floor each deadline would make the next one shorter.
    """
    return fixed if p95 is None else min(max(factor * p95, low), high)
