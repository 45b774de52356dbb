"""Charges, as an invoice would have them: usage, price, dollars."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.models import Charge, Entry, Modality, Quality, Usage, money
from trunkline.core.pricing import (
    CORRECTION,
    Price,
    Rate,
    Rounding,
    Unit,
    Unpriced,
    amount,
    charge,
    count_unpriced,
)

S = 1_000_000_000
MIN = 60 * S


def price(**rates: str | Rate) -> Price:
    """A price with these rates by unit; a rate is an amount, or one with its rounding."""
    return Price(
        provider="vendor",
        models=("model",),
        modality=Modality.LLM,
        rates=tuple(
            rate if isinstance(rate, Rate) else Rate(Unit(unit), amount(rate))
            for unit, rate in rates.items()
        ),
        source="https://vendor.example/pricing",
        checked="2026-11-21",
        valid_from_ns=0,
    )


def stepped(unit: Unit, usd: str, **rule: object) -> dict[str, Rate]:
    return {unit.value: Rate(unit, amount(usd), **rule)}  # type: ignore[arg-type]


TOKENS = price(million_tokens_in="2", million_tokens_cached="0.50", million_tokens_out="8")
WRITES = price(
    million_tokens_in="3",
    million_tokens_cached="0.30",
    million_tokens_cache_written="3.75",
    million_tokens_out="15",
)
HEARS = price(
    million_tokens_in="2.50",
    million_tokens_audio_in="6",
    million_tokens_out="10",
    million_tokens_reasoning="12",
)
TALKS = price(
    million_tokens_in="4",
    million_tokens_cached="0.40",
    million_tokens_audio_in="32",
    million_tokens_cached_audio="0.30",
    million_tokens_out="16",
    million_tokens_audio_out="64",
)
TO_SECONDS = price(**stepped(Unit.AUDIO_IN_MINUTE, "0.006", step=1))
NEAREST = price(**stepped(Unit.AUDIO_IN_MINUTE, "0.006", step=1, rounding=Rounding.NEAREST))
TO_15_S = price(**stepped(Unit.AUDIO_IN_MINUTE, "0.016", step=15))
AT_LEAST_10_S = price(**stepped(Unit.AUDIO_IN_HOUR, "0.04", minimum=10))
BOTH = price(**stepped(Unit.AUDIO_IN_HOUR, "0.36", minimum=10, step=15))
BLOCKS = price(**stepped(Unit.THOUSAND_CHARACTERS, "0.05", step=100))

INVOICE = [
    # usage, price, dollars
    ("a minute heard", Usage(audio_in_ns=MIN), price(audio_in_minute="0.0048"), "0.0048"),
    ("12.34 s by the minute", Usage(audio_in_ns=12_340_000_000), price(audio_in_minute="0.0048"),
     "0.0009872"),
    ("12.34 s by the second", Usage(audio_in_ns=12_340_000_000), price(audio_in_second="0.00005"),
     "0.000617"),
    ("an hour heard", Usage(audio_in_ns=60 * MIN), price(audio_in_hour="0.39"), "0.39"),
    ("7.2 s by the hour", Usage(audio_in_ns=7_200_000_000), price(audio_in_hour="0.39"), "0.00078"),
    ("7.2 s up to whole seconds", Usage(audio_in_ns=7_200_000_000), TO_SECONDS, "0.0008"),
    ("8 s are 8 s", Usage(audio_in_ns=8 * S), TO_SECONDS, "0.0008"),
    ("7.5 s to the nearest", Usage(audio_in_ns=7_500_000_000), NEAREST, "0.0008"),
    ("7.49 s to the nearest", Usage(audio_in_ns=7_490_000_000), NEAREST, "0.0007"),
    ("1 ns up to 15 s", Usage(audio_in_ns=1), TO_15_S, "0.004"),
    ("15.1 s up to 30 s", Usage(audio_in_ns=15_100_000_000), TO_15_S, "0.008"),
    ("3 s, at least 10 s", Usage(audio_in_ns=3 * S), AT_LEAST_10_S, "0.000111111"),
    ("11 s, at least 10 s", Usage(audio_in_ns=11 * S), AT_LEAST_10_S, "0.000122222"),
    ("3 s, at least 10 s, up to 15 s", Usage(audio_in_ns=3 * S), BOTH, "0.0015"),
    ("2.5 s spoken", Usage(characters=40, audio_out_ns=2_500_000_000),
     price(audio_out_second="0.001"), "0.0025"),
    ("90 s spoken, by the minute", Usage(characters=900, audio_out_ns=90 * S),
     price(audio_out_minute="0.015"), "0.0225"),
    ("an hour spoken", Usage(audio_out_ns=60 * MIN), price(audio_out_hour="0.9"), "0.9"),
    ("text without a sound yet", Usage(characters=40), price(audio_out_second="0.001"), "0"),
    ("57 characters", Usage(characters=57, audio_out_ns=3 * S), price(character="0.00005"),
     "0.00285"),
    ("57 by the thousand", Usage(characters=57), price(thousand_characters="0.05"), "0.00285"),
    ("57 by the million", Usage(characters=57), price(million_characters="15"), "0.000855"),
    ("57 in blocks of 100", Usage(characters=57), price(thousand_characters=BLOCKS.rates[0]),
     "0.005"),
    ("1200 in, 80 out", Usage(tokens_in=1200, tokens_out=80), TOKENS, "0.00304"),
    ("1200 in, 1000 cached", Usage(tokens_in=1200, tokens_cached=1000, tokens_out=80), TOKENS,
     "0.00154"),
    ("all cached", Usage(tokens_in=1000, tokens_cached=1000), TOKENS, "0.0005"),
    # 1600 in: 900 text, 600 of it cached, and 700 audio, 500 of it cached
    ("a talk, partly cached", Usage(tokens_in=1600, tokens_cached=1100, tokens_audio_in=700,
     tokens_cached_audio=500, tokens_out=250, tokens_audio_out=200), TALKS, "0.02159"),
    ("a talk, nothing cached", Usage(tokens_in=100, tokens_audio_in=60), TALKS, "0.00208"),
    ("a talk, only text cached", Usage(tokens_in=100, tokens_cached=40, tokens_audio_in=60), TALKS,
     "0.001936"),
    ("cache read and written", Usage(tokens_in=1200, tokens_cached=600, tokens_cache_written=500,
     tokens_out=80), WRITES, "0.003555"),
    ("reasoning is output", Usage(tokens_in=100, tokens_out=500, tokens_reasoning=400), TOKENS,
     "0.0042"),
    ("reasoning by a rate of its own", Usage(tokens_in=100, tokens_out=500, tokens_reasoning=400),
     HEARS, "0.00605"),
    ("audio among the tokens in", Usage(tokens_in=1000, tokens_audio_in=900, tokens_out=30), HEARS,
     "0.00595"),
    ("audio out", Usage(characters=40, tokens_in=10, tokens_out=60, tokens_audio_out=60),
     price(million_tokens_in="0.6", million_tokens_audio_out="12"), "0.000726"),
    ("a request", Usage(characters=40), price(request="0.01"), "0.01"),
    ("a request and its text", Usage(characters=40), price(request="0.01", character="0.0001"),
     "0.014"),
    ("half a nano-dollar goes up", Usage(characters=1), price(million_characters="0.0005"),
     "0.000000001"),
    ("less than half goes down", Usage(characters=1), price(million_characters="0.000499"), "0"),
    ("a free model", Usage(tokens_in=9, tokens_out=9),
     price(million_tokens_in="0", million_tokens_out="0"), "0"),
    ("nothing used", Usage(), TOKENS, "0"),
    ("nothing used, with a minimum", Usage(), AT_LEAST_10_S, "0"),
    ("nothing used, by request", Usage(), price(request="0.01"), "0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("usage", "by", "dollars"), [line[1:] for line in INVOICE], ids=[line[0] for line in INVOICE]
)
def test_invoice(usage: Usage, by: Price, dollars: str) -> None:
    charged = charge(usage, by)
    assert isinstance(charged, Charge)
    assert money(charged.nanos) == dollars
    assert (charged.rate, charged.source, charged.checked) == (by.text, by.source, by.checked)


def test_every_kind_of_unit_is_on_the_invoice() -> None:
    billed = {rate.unit for _, _, by, _ in INVOICE for rate in by.rates}
    assert set(Unit) - billed == {
        Unit.CONNECTED_SECOND,
        Unit.CONNECTED_MINUTE,
        Unit.CONNECTED_HOUR,
    }


@pytest.mark.parametrize(
    ("unit", "usd", "dollars"),
    [("connected_second", "0.0001", "0.009"), ("connected_minute", "0.0025", "0.00375"),
     ("connected_hour", "0.15", "0.00375")],
)  # fmt: skip
def test_90_seconds_of_an_open_stream(unit: str, usd: str, dollars: str) -> None:
    by = price(**{unit: usd})
    charged = charge(Usage(audio_in_ns=S), by, connected_ns=90 * S)
    assert isinstance(charged, Charge)
    assert money(charged.nanos) == dollars
    assert charge(Usage(), by, connected_ns=90 * S) == Charge(0, by.text, by.source, by.checked)


UNPRICED = [
    (Usage(tokens_in=10, tokens_cache_written=5, tokens_out=1), TOKENS,
     "no rate for tokens_cache_written"),
    (Usage(tokens_in=10, tokens_cached=5), price(million_tokens_in="1", million_tokens_out="1"),
     "no rate for tokens_cached"),
    (Usage(tokens_in=10, tokens_audio_in=5), TOKENS, "no rate for tokens_audio_in"),
    (Usage(tokens_out=10, tokens_audio_out=5), TOKENS, "no rate for tokens_audio_out"),
    (Usage(tokens_in=5, tokens_out=1), price(million_tokens_in="1"), "no rate for tokens_out"),
    (Usage(tokens_in=5, tokens_cached=6), TOKENS, "the parts of tokens_in are more than all of it"),
    (Usage(tokens_in=-5), TOKENS, "the usage is negative"),
    (Usage(tokens_in=9, tokens_audio_in=3, tokens_cached=3),
     price(million_tokens_in="1", million_tokens_cached="1", million_tokens_audio_in="1"),
     "cached audio tokens are not told apart from cached text"),
    (Usage(tokens_in=9, tokens_audio_in=3, tokens_cached=3, tokens_cached_audio=4), TALKS,
     "there are more cached audio tokens than cached or audio tokens"),
    (Usage(tokens_in=9, tokens_cached=3, tokens_cached_audio=1), TOKENS,
     "no rate for tokens_cached_audio"),
    (Usage(audio_in_ns=S), HEARS, "priced by tokens_audio_in and tokens_in and tokens_out and "
     "tokens_reasoning, and none was counted"),
    (Usage(audio_out_ns=S), price(character="1"), "priced by characters, and none was counted"),
    (Usage(characters=2**62), price(character="1000"),
     "the charge is beyond what a ledger can hold"),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "by", "reason"), UNPRICED, ids=[line[2] for line in UNPRICED])
def test_what_cannot_be_billed_is_unpriced_as_a_whole(usage: Usage, by: Price, reason: str) -> None:
    assert charge(usage, by) == Unpriced(reason)


amounts = st.decimals(0, 1_000_000, allow_nan=False, places=12)
counts = st.integers(0, 10**12)


@given(st.lists(st.tuples(amounts, amounts, counts, counts), min_size=1, max_size=20))
def test_charges_add_up_to_within_half_a_nano_dollar_each(
    attempts: list[tuple[Decimal, Decimal, int, int]],
) -> None:
    exact, charged = Fraction(0), 0
    for dollars_in, dollars_out, tokens_in, tokens_out in attempts:
        by = price(million_tokens_in=f"{dollars_in:f}", million_tokens_out=f"{dollars_out:f}")
        one = charge(Usage(tokens_in=tokens_in, tokens_out=tokens_out), by)
        if isinstance(one, Unpriced):
            continue  # beyond the ledger
        due = (Fraction(dollars_in) * tokens_in + Fraction(dollars_out) * tokens_out) * 1000
        rounded = int((due + Fraction(1, 2)) // 1)
        assert one.nanos == rounded
        assert abs(one.nanos - due) <= Fraction(1, 2)
        exact, charged = exact + due, charged + one.nanos
    assert abs(charged - exact) <= Fraction(len(attempts), 2)


@given(st.integers(0, 10**15), st.integers(0, 10**6), st.decimals(0, 1000, places=6))
def test_decimal_arithmetic_agrees(audio_ns: int, step: int, usd: Decimal) -> None:
    """The same sum as an accountant does it: Decimal, whole steps first."""
    rate = Rate(Unit.AUDIO_IN_SECOND, usd, step=step)
    one = charge(Usage(audio_in_ns=audio_ns), price(audio_in_second=rate))
    seconds = Decimal(audio_ns).scaleb(-9)
    if step:
        seconds = Decimal(-(-audio_ns // (step * S)) * step)
    due = (seconds * usd).scaleb(9).quantize(Decimal(1), ROUND_HALF_UP)
    assert isinstance(one, Charge)
    assert one.nanos == due


@given(counts, counts, st.data())
def test_parts_never_cost_more_than_the_whole_they_are_cheaper_than(
    tokens_in: int, tokens_out: int, data: st.DataObject
) -> None:
    cached = data.draw(st.integers(0, tokens_in))
    with_cache = charge(
        Usage(tokens_in=tokens_in, tokens_cached=cached, tokens_out=tokens_out), TOKENS
    )
    without = charge(Usage(tokens_in=tokens_in, tokens_out=tokens_out), TOKENS)
    assert isinstance(with_cache, Charge)
    assert isinstance(without, Charge)
    assert with_cache.nanos <= without.nanos
    assert without.nanos - with_cache.nanos == cached * 1500


@pytest.mark.parametrize(
    "text",
    ["", "-1", "+1", "NaN", "Infinity", "1e3", "1,5", "1_000", " 1", ".5", "5.", "1000000.1",
     "99999999", "0.1234567890123", "٣", "0x10"],
)  # fmt: skip
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValueError, match="is not a decimal amount from 0 to 1000000"):
        amount(text)


@given(amounts)
def test_amounts_are_read_exactly(value: Decimal) -> None:
    assert amount(f"{value:f}") == value


def entry(charged: bool, at: int, kind: str = "settlement") -> Entry:
    made = Charge(1, "", "") if charged else None
    return Entry("e", "a", at, Usage(), Quality.EXACT, made, kind)


@pytest.mark.parametrize(
    ("entries", "unpriced"),
    [
        ([entry(True, 1)], 0),
        ([entry(False, 1)], 1),
        ([entry(False, 1), entry(False, 2)], 2),
        ([entry(False, 1), entry(True, 2)], 1),
        ([entry(False, 1), entry(True, 2, CORRECTION)], 0),
        ([entry(False, 2), entry(True, 2, CORRECTION)], 0),
        ([entry(False, 1), entry(True, 2, CORRECTION), entry(False, 3)], 1),
        ([entry(False, 1), entry(False, 2, CORRECTION)], 2),
        ([], 0),
    ],
)
def test_a_correction_prices_what_came_before_it(entries: list[Entry], unpriced: int) -> None:
    assert count_unpriced(entries) == unpriced
