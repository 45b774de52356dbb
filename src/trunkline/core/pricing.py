"""Usage and dated prices to charges, exactly. What has no price is unpriced, never zero.

A price is a set of rates in US dollars, each for one unit. A charge is the sum over its rates of
quantity times rate, in whole numbers all the way, rounded once: to the nearest nano-dollar, half a
nano-dollar up. So a charge is never off by more than half a nano-dollar, and what is added up later
is added up exactly.

How a vendor rounds and what it bills at least are parts of its rates, not of the usage. The first
rate whose unit was used and cannot be billed makes the whole charge ``Unpriced``, which says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from math import lcm
from typing import Final, Self

from msgspec.structs import astuple

from .models import NANOS_PER_USD, Charge, Entry, Modality, Terms, Usage

LOCAL_RATE = Charge(nanos=0, rate="0", source="local")
"""What an engine on the user's own machine charges: explicitly nothing."""

USUAL_TIERS: Final = frozenset(("auto", "default", "standard", "standard_only", "on_demand"))
"""What vendors call the service tier that rows without a tier are for."""


def with_extras(tier: str, extras: Iterable[str]) -> str:
    """A tier that names what costs extra: ``scale+diarization+keyterms``. The usual one is empty.

    So what has such extras is charged by a row for them, or by none.
    """
    added = "".join(f"+{extra}" for extra in sorted(extras))
    return f"{'' if tier in USUAL_TIERS else tier}{added}" if added else tier


LATE: Final = "late"
"""The kind of an entry with what a provider told of an attempt after it had been settled."""

CORRECTION: Final = "correction"
"""The kind of an entry that brings an attempt's charges to what its price makes of its usage."""


@dataclass(frozen=True, slots=True)
class Unpriced:
    """No charge can be told, for ``reason``, which is a clause: "no rate for tokens_cached"."""

    reason: str


class Unit(StrEnum):
    """What a rate is for one of. ``connected`` is how long the stream was open.

    Cached, cache-written and audio tokens are part of the tokens in, reasoning and audio tokens of
    the tokens out; a part that has a rate is billed by it, and the whole without it. Cached audio
    is a part of both the cached and the audio tokens, and taken out of both.
    """

    AUDIO_IN_SECOND = "audio_in_second"
    AUDIO_IN_MINUTE = "audio_in_minute"
    AUDIO_IN_HOUR = "audio_in_hour"
    AUDIO_OUT_SECOND = "audio_out_second"
    AUDIO_OUT_MINUTE = "audio_out_minute"
    AUDIO_OUT_HOUR = "audio_out_hour"
    CONNECTED_SECOND = "connected_second"
    CONNECTED_MINUTE = "connected_minute"
    CONNECTED_HOUR = "connected_hour"
    CHARACTER = "character"
    THOUSAND_CHARACTERS = "thousand_characters"
    MILLION_CHARACTERS = "million_characters"
    MILLION_TOKENS_IN = "million_tokens_in"
    MILLION_TOKENS_CACHED = "million_tokens_cached"
    MILLION_TOKENS_CACHED_AUDIO = "million_tokens_cached_audio"
    MILLION_TOKENS_CACHE_WRITTEN = "million_tokens_cache_written"
    MILLION_TOKENS_AUDIO_IN = "million_tokens_audio_in"
    MILLION_TOKENS_OUT = "million_tokens_out"
    MILLION_TOKENS_REASONING = "million_tokens_reasoning"
    MILLION_TOKENS_AUDIO_OUT = "million_tokens_audio_out"
    REQUEST = "request"

    @property
    def quantity(self) -> str:
        """What is counted: a field of ``Usage``, ``connected_ns`` or ``requests``."""
        return _SIZES[self][0]

    @property
    def size(self) -> int:
        """How much of the quantity one unit is."""
        return _SIZES[self][1]


_SECOND = 1_000_000_000
_TIMES = {"second": _SECOND, "minute": 60 * _SECOND, "hour": 3600 * _SECOND}
_SIZES: Final[dict[Unit, tuple[str, int]]] = {
    **{
        Unit(f"{what}_{time}"): (f"{what}_ns", size)
        for what in ("audio_in", "audio_out", "connected")
        for time, size in _TIMES.items()
    },
    Unit.CHARACTER: ("characters", 1),
    Unit.THOUSAND_CHARACTERS: ("characters", 1_000),
    Unit.MILLION_CHARACTERS: ("characters", 1_000_000),
    **{
        unit: (unit.removeprefix("million_"), 1_000_000)
        for unit in Unit
        if unit.startswith("million_tokens")
    },
    Unit.REQUEST: ("requests", 1),
}
_TOKENS: Final = frozenset(name for name, _ in _SIZES.values() if name.startswith("tokens"))
_PARTS: Final = (
    ("tokens_in", ("tokens_cached", "tokens_cache_written", "tokens_audio_in")),
    ("tokens_out", ("tokens_reasoning", "tokens_audio_out")),
)
_MOST_NANOS: Final = 2**63 - 1

_AMOUNT = re.compile(r"[0-9]{1,7}(\.[0-9]{1,12})?", re.ASCII)
MOST_USD: Final = 1_000_000


def amount(text: str) -> Decimal:
    """Dollars from decimal text, at most a million, with at most 12 decimals. Raises ValueError."""
    if not _AMOUNT.fullmatch(text) or Decimal(text) > MOST_USD:
        raise ValueError(
            f"{text!r} is not a decimal amount from 0 to {MOST_USD} with at most 12 decimals"
        )
    return Decimal(text)


class Rounding(StrEnum):
    """How a vendor brings a quantity to whole steps."""

    UP = "up"
    NEAREST = "nearest"


@dataclass(frozen=True, slots=True)
class Rate:
    """``usd`` for one ``unit``.

    A quantity that is not zero is billed as ``minimum`` at least, in whole steps of ``step``; both
    in seconds for audio and time, else in characters or tokens; 0 is none.
    """

    unit: Unit
    usd: Decimal
    step: int = 0
    rounding: Rounding = Rounding.UP
    minimum: int = 0

    def __str__(self) -> str:
        text = f"{self.usd:f} USD/{self.unit}"
        own = " s" if self.unit.quantity.endswith("_ns") else ""
        if self.step:
            text += f", {'up' if self.rounding is Rounding.UP else 'rounded'} to {self.step}{own}"
        if self.minimum:
            text += f", at least {self.minimum}{own}"
        return text


@dataclass(frozen=True, slots=True)
class _Line:
    """A rate in whole numbers: ``weight`` over the price's denominator for one of ``quantity``."""

    quantity: str
    weight: int
    step: int
    nearest: bool
    minimum: int

    def rounds(self) -> Self | None:
        """None where a quantity is billed as it is."""
        return self if self.step or self.minimum else None

    def billed(self, quantity: int) -> int:
        """What a quantity over zero is billed as."""
        if quantity < self.minimum:
            quantity = self.minimum
        if not self.step:
            return quantity
        if self.nearest:
            return (2 * quantity + self.step) // (2 * self.step) * self.step
        return -(-quantity // self.step) * self.step


@dataclass(frozen=True, kw_only=True)
class Price:
    """What a vendor asks for some models, while and on the terms for which it asks it.

    ``models`` are names, or prefixes that end in ``*``. ``mode`` is ``streaming``, ``batch`` or
    ``any``; without ``languages`` it is for those that no other price is for. Valid for attempts
    begun from ``valid_from_ns`` until before ``valid_until_ns`` (UTC), and for prompts of more than
    ``prompt_over`` and at most ``prompt_up_to`` tokens in. ``without_tokens``: the vendor's own
    estimate, for usage whose tokens were not told.
    """

    provider: str
    models: tuple[str, ...]
    modality: Modality
    rates: tuple[Rate, ...]
    source: str
    checked: str
    valid_from_ns: int
    valid_until_ns: int | None = None
    mode: str = "any"
    languages: tuple[str, ...] = ()
    region: str = ""
    tier: str = ""
    prompt_over: int = -1
    prompt_up_to: int | None = None
    without_tokens: bool = False
    text: str = field(init=False)
    quantities: frozenset[str] = field(init=False)
    bills_tokens: bool = field(init=False)
    _terms: tuple[tuple[str, int, _Line | None], ...] = field(init=False, repr=False)
    _denominator: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        each = [Fraction(rate.usd) * NANOS_PER_USD / rate.unit.size for rate in self.rates]
        denominator = lcm(*(one.denominator for one in each))
        lines = tuple(
            _line(rate, int(one * denominator)) for rate, one in zip(self.rates, each, strict=True)
        )
        quantities = frozenset(line.quantity for line in lines)
        derived = {
            "text": "; ".join(str(rate) for rate in self.rates)
            + (", the vendor's estimate: tokens were not told" if self.without_tokens else ""),
            "quantities": quantities,
            "bills_tokens": not _TOKENS.isdisjoint(quantities),
            "_terms": tuple((line.quantity, line.weight, line.rounds()) for line in lines),
            "_denominator": denominator,
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    def suits(self, terms: Terms) -> bool:
        """Whether this is a price on ``terms``, if no other one is for their language."""
        return (
            self.mode in ("any", terms.mode or "streaming")
            and (not self.languages or terms.language.lower() in self.languages)
            and self.tier == ("" if terms.tier in USUAL_TIERS else terms.tier)
            and self.region == terms.region
        )

    def is_for(self, at_ns: int, prompt: int) -> bool:
        """Whether this is the price of an attempt begun at ``at_ns`` with so long a prompt."""
        return (
            self.valid_from_ns <= at_ns
            and (self.valid_until_ns is None or at_ns < self.valid_until_ns)
            and prompt > self.prompt_over
            and (self.prompt_up_to is None or prompt <= self.prompt_up_to)
        )

    def nanos(self, billed: dict[str, int]) -> int:
        """The sum over the rates, rounded half up."""
        total, quantity_of = 0, billed.get
        for quantity_name, weight, line in self._terms:
            if quantity := quantity_of(quantity_name):
                total += (quantity if line is None else line.billed(quantity)) * weight
        return (2 * total + self._denominator) // (2 * self._denominator)


def _line(rate: Rate, weight: int) -> _Line:
    quantity = rate.unit.quantity
    own = _SECOND if quantity.endswith("_ns") else 1
    nearest = rate.rounding is Rounding.NEAREST
    return _Line(quantity, weight, rate.step * own, nearest, rate.minimum * own)


def charge(usage: Usage, price: Price, *, connected_ns: int = 0) -> Charge | Unpriced:
    """What ``usage`` costs. No usage at all costs exactly nothing.

    ``connected_ns`` is how long the stream was open, for vendors that bill this.
    """
    billed = _billed(usage, price, connected_ns)
    if isinstance(billed, Unpriced):
        return billed
    nanos = price.nanos(billed)
    if nanos > _MOST_NANOS:
        return Unpriced("the charge is beyond what a ledger can hold")
    return Charge(nanos, price.text, price.source, price.checked)


def _billed(usage: Usage, price: Price, connected_ns: int) -> dict[str, int] | Unpriced:
    """How much of each quantity is billed; what is missing is none."""
    units = astuple(usage)
    if not any(units):
        return {}
    if min(units) < 0:
        return Unpriced("the usage is negative")
    billed: dict[str, int] = {}
    priced = price.quantities
    if price.bills_tokens and (unpriced := _bill_tokens(usage, priced, billed)):
        return unpriced
    for name in priced - _TOKENS:
        if name == "requests":
            billed[name] = 1
        else:
            billed[name] = max(connected_ns, 0) if name == "connected_ns" else getattr(usage, name)
    # A voice may have been cut before its first audio; all else that is billed leaves a count.
    if "audio_out_ns" not in priced and not any(billed.values()):
        return Unpriced(f"priced by {' and '.join(sorted(priced))}, and none was counted")
    return billed


def _bill_tokens(usage: Usage, priced: frozenset[str], billed: dict[str, int]) -> Unpriced | None:
    """Put tokens where their rate is: each part that has one, and the rest of the whole."""
    if not (
        usage.tokens_cached
        or usage.tokens_cache_written
        or usage.tokens_reasoning
        or usage.tokens_audio_in
        or usage.tokens_audio_out
    ):  # nearly all of them
        for whole, used in (("tokens_in", usage.tokens_in), ("tokens_out", usage.tokens_out)):
            if used and whole not in priced:
                return Unpriced(f"no rate for {whole}")
            billed[whole] = used
        return None
    cached = usage.tokens_cached or usage.tokens_cache_written
    both = usage.tokens_cached_audio
    if cached and usage.tokens_audio_in and "tokens_audio_in" in priced:
        if "tokens_cached_audio" not in priced:
            return Unpriced("cached audio tokens are not told apart from cached text")
        if both > min(usage.tokens_cached, usage.tokens_audio_in):
            return Unpriced("there are more cached audio tokens than cached or audio tokens")
        billed["tokens_cached_audio"] = both
    elif both:
        return Unpriced("no rate for tokens_cached_audio")
    for whole, parts in _PARTS:
        rest: int = getattr(usage, whole)
        if whole == "tokens_in":
            rest -= both
        for part in parts:
            count: int = getattr(usage, part)
            if part in ("tokens_cached", "tokens_audio_in"):
                count -= both
            if not count:
                continue
            if part in priced:
                billed[part] = count
                rest -= count
            elif part != "tokens_reasoning":  # reasoning is output like any other
                return Unpriced(f"no rate for {part}")
        if rest < 0:
            return Unpriced(f"the parts of {whole} are more than all of it")
        if rest and whole not in priced:
            return Unpriced(f"no rate for {whole}")
        billed[whole] = rest
    return None


def count_unpriced(entries: Iterable[Entry]) -> int:
    """How many of one attempt's entries have no price: no charge, and no correction since."""
    entries = list(entries)
    priced_ns = max(
        (one.recorded_ns for one in entries if one.kind == CORRECTION and one.charge), default=-1
    )
    return sum(1 for one in entries if one.charge is None and one.recorded_ns > priced_ns)
