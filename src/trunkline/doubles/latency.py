"""How long a double takes: distributions drawn from a seed, in seconds."""

from __future__ import annotations

import math
import random

import msgspec

__all__ = ["Latency", "Pace"]

_Z95 = 1.6448536269514722
"""The 95th percentile of the standard normal distribution."""


class Latency(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Always ``p50`` seconds; or lognormal with these percentiles, when ``p95`` is given."""

    p50: float = 0.0
    p95: float | None = None

    def __post_init__(self) -> None:
        if self.p50 < 0:
            raise ValueError(f"p50 of {self.p50:g} s is under 0")
        if self.p95 is not None and not 0 < self.p50 <= self.p95:
            raise ValueError(f"p95 of {self.p95:g} s needs a p50 between 0 and it")

    def draw(self, source: random.Random) -> float:
        """One duration in seconds."""
        if self.p95 is None:
            return self.p50
        sigma = math.log(self.p95 / self.p50) / _Z95
        return source.lognormvariate(math.log(self.p50), sigma)


class Pace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The timing of one vendor.

    ``connect`` passes before the headers or the upgrade, ``first`` before the first output of a
    request, ``between`` before each further one. ``rtf`` is the seconds a voice needs to make a
    second of audio, on top of them.
    """

    connect: Latency | float = 0.0
    first: Latency | float = 0.0
    between: Latency | float = 0.0
    rtf: float = 0.0

    def __post_init__(self) -> None:
        for name in ("connect", "first", "between", "rtf"):
            value = getattr(self, name)
            if isinstance(value, float) and value < 0:
                raise ValueError(f"{name} of {value:g} s is under 0")

    def draw(self, name: str, source: random.Random) -> float:
        """One duration of ``connect``, ``first`` or ``between``."""
        value: Latency | float = getattr(self, name)
        return value.draw(source) if isinstance(value, Latency) else value
