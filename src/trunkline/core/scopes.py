"""Whose calls a budget or a limit is for, and the units in which it counts.

Amounts are integers in a unit's base: nano-dollars, nanoseconds of audio, tokens, characters,
requests, open streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fnmatch import fnmatchcase

from .models import NANOS_PER_USD, Identity, Modality, Usage, money

EACH = "*"
"""A value that stands for every value, each of them counted on its own."""

MOST = 2**58
"""The greatest amount: 64-bit columns can still add some up. In money 288 million USD."""


class Dimension(StrEnum):
    """What a scope may name. Each has few values; a caller's number is none of them."""

    ORG = "org"
    PROJECT = "project"
    AGENT = "agent"
    KEY = "key"
    ROOM = "room"
    TAG = "tag"
    MODALITY = "modality"


class Unit(StrEnum):
    USD = "usd"
    TOKENS = "tokens"
    CHARACTERS = "characters"
    AUDIO_SECONDS = "audio_seconds"
    REQUESTS = "requests"
    STREAMS = "streams"

    @property
    def base(self) -> int:
        """Base units in one of what people write."""
        return _BASES.get(self, 1)

    def read(self, text: str) -> int:
        """The base units of a decimal number; raises ValueError when it is no possible amount."""
        number = Decimal(text) if _looks_like_a_number(text) else Decimal("NaN")
        if not number.is_finite() or number <= 0:
            raise ValueError("must be a number above 0")
        if number.adjusted() > 18 or (amount := number * self.base) > MOST:
            raise ValueError(f"must be at most {Decimal(MOST) / self.base:.0f}")
        if amount != int(amount):
            raise ValueError(f"must be a multiple of {Decimal(1) / self.base:f}")
        return int(amount)

    def text(self, amount: int) -> str:
        """An amount for people, exact for money and to a tenth of a second for audio."""
        if self is Unit.USD:
            return f"{money(amount)} USD"
        if self is Unit.AUDIO_SECONDS:
            return f"{amount / self.base:.1f} s of audio"
        return f"{amount} {self.value if amount != 1 else self.value[:-1]}"


_BASES = {Unit.USD: NANOS_PER_USD, Unit.AUDIO_SECONDS: 1_000_000_000}


def _looks_like_a_number(text: str) -> bool:
    try:
        Decimal(text)
    except ArithmeticError:
        return False
    return text.isascii() and len(text) <= 40


_USED: Mapping[Unit, Callable[[Usage, int], int]] = {
    Unit.USD: lambda usage, nanos: nanos,
    Unit.TOKENS: lambda usage, nanos: usage.tokens_in + usage.tokens_out,
    Unit.CHARACTERS: lambda usage, nanos: usage.characters,
    Unit.AUDIO_SECONDS: lambda usage, nanos: usage.audio_in_ns + usage.audio_out_ns,
    Unit.REQUESTS: lambda usage, nanos: 1,
    Unit.STREAMS: lambda usage, nanos: 1,
}


def used(unit: Unit, usage: Usage, nanos: int) -> int:
    """What an attempt with this usage and this charge counts; audio is what was heard and said."""
    return countable(_USED[unit](usage, nanos))


def counter(unit: Unit) -> Callable[[Usage, int], int]:
    """``used`` for one unit, whose answer is to be made ``countable``."""
    return _USED[unit]


def countable(amount: int) -> int:
    """An amount whatever a provider says: none below nothing, none that no column holds."""
    return amount if 0 <= amount <= MOST else min(max(amount, 0), MOST)


@dataclass(frozen=True, slots=True)
class Scope:
    """Pairs of a dimension and a value, all of which must hold; none means every call.

    ``*`` keeps the calls of each value apart; the value of ``room`` is a shell pattern, that of
    ``tag`` one of the call's tags.
    """

    pairs: tuple[tuple[Dimension, str], ...] = ()

    def matched(self, identity: Identity, modality: Modality) -> str | None:
        """What tells this call from those counted apart, as ``agent=ann``; None: not in scope."""
        apart = []
        for dimension, wanted in self.pairs:
            if dimension is Dimension.TAG:
                if wanted not in identity.tags:
                    return None
                continue
            value = modality.value if dimension is Dimension.MODALITY else _of(identity, dimension)
            if wanted == EACH:
                apart.append(f"{dimension}={value}")
            elif dimension is Dimension.ROOM:
                if not fnmatchcase(value, wanted):
                    return None
            elif value != wanted:
                return None
        return ",".join(apart)

    def __str__(self) -> str:
        return ", ".join(f"{d}={v}" for d, v in self.pairs) or "every call"


def _of(identity: Identity, dimension: Dimension) -> str:
    value: str = getattr(identity, dimension.value)
    return value
