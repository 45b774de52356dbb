"""The prices that ship with the package: dated facts, one YAML file a provider.

A file is read when its provider is first charged for. Everything in it is checked then, and every
mistake is told at once, by file, row and field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from functools import cache, lru_cache
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from ..core.models import Attempt, Charge, Modality, Terms
from ..core.pricing import (
    LOCAL_RATE,
    USUAL_TIERS,
    Price,
    Rate,
    Rounding,
    Unit,
    Unpriced,
    amount,
    charge,
)
from ..errors import ConfigError
from .registry import canonical, in_use

SHIPPED: Final = Path(__file__).parent / "prices"
SUFFIX: Final = ".yaml"

_REMEMBERED = 1024
"""Models whose prices are kept at hand; names may come from callers, who may send any."""


class _Rate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    usd: str
    step: int = 0
    rounding: Rounding = Rounding.UP
    minimum: int = 0


class _Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A row as it stands in a file. A rate is an amount, or an amount with its rounding."""

    models: tuple[str, ...]
    modality: Modality
    rates: dict[Unit, str | _Rate]
    valid_from: date
    valid_until: date | None = None
    mode: Literal["any", "streaming", "batch"] = "any"
    languages: tuple[str, ...] = ()
    region: str = ""
    tier: str = ""
    prompt_over: int = -1
    prompt_up_to: int | None = None
    without_tokens: bool = False
    source: str
    checked: date


class PriceList:
    """The prices in ``directory``, ``<provider>.yaml`` each."""

    def __init__(self, directory: Path = SHIPPED) -> None:
        self._directory = directory
        self._read: dict[str, tuple[Price, ...] | ConfigError] = {}
        self._named = lru_cache(_REMEMBERED)(self._find)

    def providers(self) -> tuple[str, ...]:
        """The providers that have prices here."""
        return tuple(sorted(path.stem for path in self._directory.glob(f"*{SUFFIX}")))

    def prices(self, provider: str) -> tuple[Price, ...]:
        """Every price of ``provider``, in the order of its file; empty when it has no file.

        Raises ConfigError with every mistake in the file.
        """
        if provider not in self._read:
            if provider not in self.providers():  # so that no name can lead to another directory
                return ()
            try:
                self._read[provider] = read_prices(self._directory / f"{provider}{SUFFIX}")
            except ConfigError as error:
                self._read[provider] = error
        read = self._read[provider]
        if isinstance(read, ConfigError):
            raise read
        return read

    def quote(self, attempt: Attempt) -> Charge | Unpriced:
        """What ``attempt`` costs by the price that was valid when it began, for its whole usage.

        An engine of this machine costs nothing. Raises ConfigError as ``prices`` does.
        """
        row = in_use(attempt.provider)
        if row is not None and row.local:
            return LOCAL_RATE
        found = self._named(
            attempt.provider,
            attempt.modality,
            attempt.model,
            attempt.mode,
            attempt.language,
            attempt.tier,
            attempt.region,
        )
        usage = attempt.usage
        estimates = bool(usage.audio_in_ns and not (usage.tokens_in or usage.tokens_out))
        for price in found:
            if price.without_tokens and not estimates:
                continue
            if price.is_for(attempt.started_ns, usage.tokens_in):
                return charge(attempt.usage, price, connected_ns=attempt.duration_ns)
        name = f"{attempt.modality} {attempt.provider}/{attempt.model}"
        if not found:
            return Unpriced(f"no price for {name}{_on(attempt.terms)}")
        day = datetime.fromtimestamp(attempt.started_ns // 1_000_000_000, UTC).date()
        prompt = attempt.usage.tokens_in
        of = f" for a prompt of {prompt} tokens" if prompt else ""
        return Unpriced(f"no price for {name} is valid on {day}{of}")

    def _find(self, provider: str, modality: Modality, model: str, *on: str) -> tuple[Price, ...]:
        """The prices of the most specific name that fits ``model``; ``on`` are the terms."""
        terms = Terms(*on)
        fitting = [
            (_specificity(pattern), price)
            for price in self.prices(canonical(provider))
            if price.modality is modality and price.suits(terms)
            for pattern in price.models
            if _fits(pattern, model)
        ]
        best = max((specificity for specificity, _ in fitting), default=0)
        named = [price for specificity, price in fitting if specificity == best]
        spoken = [price for price in named if price.languages]
        return tuple(sorted(spoken or named, key=lambda price: not price.without_tokens))


@cache
def shipped() -> PriceList:
    """The price list of this package."""
    return PriceList()


def read_prices(path: Path) -> tuple[Price, ...]:
    """The prices of a file. Raises ConfigError naming file, row and field of every mistake."""
    problems: list[str] = []
    prices: list[tuple[int, Price]] = []
    for number, row in enumerate(_rows(path), 1):
        try:
            prices.append((number, _price(path.stem, msgspec.convert(row, _Row))))
        except ValueError as error:  # msgspec's ValidationError is one
            problems.append(f"{path.name}: row {number}: {error}")
    problems += [f"{path.name}: {told}" for told in _overlaps(prices)]
    if problems:
        raise ConfigError(problems)
    return tuple(price for _, price in prices)


def _rows(path: Path) -> Sequence[object]:
    import yaml

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class Loader(base):  # type: ignore[misc, valid-type]
        """YAML in which a key that stands twice is a mistake."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:
            keys = [key.value for key, _ in node.value]
            if twice := sorted({key for key in keys if keys.count(key) > 1}):
                raise yaml.YAMLError(f"{twice[0]} stands twice in one mapping")
            return super().construct_mapping(node, deep)

    try:
        data = yaml.load(path.read_text("utf-8"), Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError([f"{path.name}: cannot be read: {error}"]) from None
    if not isinstance(data, Mapping) or set(data) != {"provider", "prices"}:
        raise ConfigError([f"{path.name}: has not just the keys provider and prices"])
    if data["provider"] != path.stem:
        raise ConfigError([f"{path.name}: provider is {data['provider']!r}, not {path.stem!r}"])
    if not isinstance(data["prices"], list):
        raise ConfigError([f"{path.name}: prices is not a list of rows"])
    return data["prices"]


def _price(provider: str, row: _Row) -> Price:
    """A row, checked. Raises ValueError naming the field."""
    checks = {
        "models: is empty": not row.models,
        "models: a * stands only at the end of a name": any("*" in m[:-1] for m in row.models),
        "models: a name is empty": not all(row.models),
        "languages: a code is not in lower case, or empty": (
            any(code != code.lower() or not code for code in row.languages)
        ),
        "tier: is what rows without one are for": row.tier in USUAL_TIERS,
        "rates: is empty": not row.rates,
        "valid_until: is not after valid_from": (
            row.valid_until is not None and row.valid_until <= row.valid_from
        ),
        "prompt_up_to: is not more than prompt_over": (
            row.prompt_up_to is not None and row.prompt_up_to <= row.prompt_over
        ),
        "source: is not an https address": not row.source.startswith("https://"),
    }
    if wrong := [told for told, is_wrong in checks.items() if is_wrong]:
        raise ValueError("; ".join(wrong))
    return Price(
        provider=provider,
        models=row.models,
        modality=row.modality,
        rates=tuple(_rate(unit, rate) for unit, rate in row.rates.items()),
        source=row.source,
        checked=row.checked.isoformat(),
        valid_from_ns=_midnight_ns(row.valid_from),
        valid_until_ns=_midnight_ns(row.valid_until) if row.valid_until else None,
        mode=row.mode,
        languages=row.languages,
        region=row.region,
        tier=row.tier,
        prompt_over=row.prompt_over,
        prompt_up_to=row.prompt_up_to,
        without_tokens=row.without_tokens,
    )


def _rate(unit: Unit, told: str | _Rate) -> Rate:
    rate = _Rate(told) if isinstance(told, str) else told
    try:
        usd = amount(rate.usd)
    except ValueError as error:
        raise ValueError(f"rates.{unit}: {error}") from None
    for name in ("step", "minimum"):
        if getattr(rate, name) < 0:
            raise ValueError(f"rates.{unit}.{name}: {getattr(rate, name)} is negative")
    return Rate(unit, usd, rate.step, rate.rounding, rate.minimum)


def _midnight_ns(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * 1_000_000_000


def _overlaps(prices: Sequence[tuple[int, Price]]) -> Iterator[str]:
    """Two prices that would both be valid for the same thing at the same time."""
    for (first, one), (second, other) in combinations(prices, 2):
        models = sorted(set(one.models) & set(other.models))
        if models and _same_terms(one, other) and _meet(one, other):
            yield (
                f"rows {first} and {second} are both valid for {one.modality} {models[0]} at a "
                "time: end the first with valid_until"
            )


def _same_terms(one: Price, other: Price) -> bool:
    terms = [(price.modality, price.region, price.tier) for price in (one, other)]
    languages = set(one.languages) & set(other.languages) or one.languages == other.languages
    return (
        terms[0] == terms[1]
        and bool(languages)
        and one.without_tokens == other.without_tokens
        and ("any" in (one.mode, other.mode) or one.mode == other.mode)
    )


def _on(terms: Terms) -> str:
    """The terms that are not the usual ones, as the end of a sentence."""
    tier, *extras = ("" if terms.tier in USUAL_TIERS else terms.tier).split("+")
    tier = f" at tier {tier}" if tier else ""
    tier += f" with {' and '.join(extras)}" if extras else ""
    return f"{tier} in region {terms.region}" if terms.region else tier


def _meet(one: Price, other: Price) -> bool:
    """Whether there is a time and a length of prompt that both are for."""
    begins = max(one.valid_from_ns, other.valid_from_ns)
    shortest = max(one.prompt_over, other.prompt_over) + 1
    return one.is_for(begins, shortest) and other.is_for(begins, shortest)


def _fits(pattern: str, model: str) -> bool:
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern


def _specificity(pattern: str) -> int:
    """A whole name before any prefix, the longer prefix first."""
    return len(pattern) if pattern.endswith("*") else 1 << 20
