"""The price list: its file format, what it finds, and the facts that ship with the package."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from trunkline import catalog
from trunkline.catalog.pricelist import SHIPPED, PriceList, shipped
from trunkline.core.models import Attempt, Charge, Identity, Modality, Terms, Usage, money
from trunkline.core.pricing import LOCAL_RATE, Unpriced
from trunkline.errors import ConfigError

ROW: dict[str, Any] = {
    "models": ["model"],
    "modality": "llm",
    "rates": {"million_tokens_in": "2", "million_tokens_out": "8"},
    "valid_from": date(2026, 1, 1),
    "source": "https://vendor.example/pricing",
    "checked": date(2026, 11, 21),
}


def ns(day: str) -> int:
    return int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def attempt(
    model: str = "model",
    day: str = "2026-11-21",
    *,
    provider: str = "vendor",
    modality: Modality = Modality.LLM,
    usage: Usage = Usage(tokens_in=1_000_000),  # noqa: B008 - frozen
    seconds: int = 0,
    terms: Terms = Terms(),  # noqa: B008 - frozen
) -> Attempt:
    made = Attempt(
        id="a",
        identity=Identity("call"),
        modality=modality,
        provider=provider,
        model=model,
        connection="env",
        started_ns=ns(day),
        duration_ns=seconds * 1_000_000_000,
        usage=usage,
    )
    made.terms = terms
    return made


def price_list(place: Path, *rows: dict[str, Any]) -> PriceList:
    """A list whose provider "vendor" has ``ROW`` with each of these changes."""
    prices = [{k: v for k, v in {**ROW, **row}.items() if v is not None} for row in rows]
    text = yaml.safe_dump({"provider": "vendor", "prices": prices})
    (place / "vendor.yaml").write_text(text)
    return PriceList(place)


def dollars(quoted: Charge | Unpriced) -> str:
    return money(quoted.nanos) if isinstance(quoted, Charge) else quoted.reason


def only_in(usd: str) -> dict[str, Any]:
    return {"million_tokens_in": usd}


def test_the_price_that_was_valid_when_the_attempt_began(tmp_path: Path) -> None:
    prices = price_list(
        tmp_path,
        {"rates": only_in("1"), "valid_until": date(2026, 7, 1)},
        {"rates": only_in("2"), "valid_from": date(2026, 7, 1)},
    )
    days = ["2025-12-31T23:59:59", "2026-01-01", "2026-06-30T23:59:59", "2026-07-01", "2027-01-01"]
    missing = "no price for llm vendor/model is valid on 2025-12-31 for a prompt of 1000000 tokens"
    assert [dollars(prices.quote(attempt(day=day))) for day in days] == [
        missing,
        "1",
        "1",
        "2",
        "2",
    ]


def test_a_whole_name_comes_before_a_prefix_and_the_longer_prefix_first(tmp_path: Path) -> None:
    names = {"model": "1", "model-*": "2", "model-mini-*": "3", "model-mini-a": "4"}
    prices = price_list(
        tmp_path, *({"models": [name], "rates": only_in(usd)} for name, usd in names.items())
    )
    asked = ["model", "model-b", "model-mini-", "model-mini-a", "model-mini-ab", "mode", "modeling"]
    assert [dollars(prices.quote(attempt(name))) for name in asked] == [
        "1", "2", "3", "4", "3", "no price for llm vendor/mode", "no price for llm vendor/modeling",
    ]  # fmt: skip


def test_long_prompts_have_a_price_of_their_own(tmp_path: Path) -> None:
    prices = price_list(
        tmp_path,
        {"rates": only_in("1"), "prompt_up_to": 1000},
        {"rates": only_in("2"), "prompt_over": 1000},
    )
    costs = [
        dollars(prices.quote(attempt(usage=Usage(tokens_in=tokens)))) for tokens in (1000, 1001)
    ]
    assert costs == ["0.001", "0.002002"]


def test_terms_are_not_mixed(tmp_path: Path) -> None:
    prices = price_list(
        tmp_path,
        {"rates": only_in("1"), "mode": "streaming"},
        {"rates": only_in("2"), "mode": "batch"},
        {"rates": only_in("3"), "region": "eu"},
        {"rates": only_in("4"), "tier": "growth"},
        {"rates": only_in("5"), "languages": ["multi", "hi"]},
    )
    asked = {
        Terms(): "1",
        Terms("streaming"): "1",
        Terms("batch"): "2",
        Terms(region="eu"): "3",
        Terms("batch", region="eu"): "3",
        Terms(tier="growth"): "4",
        Terms(tier="default"): "1",
        Terms(tier="auto"): "1",
        Terms(language="en-US"): "1",
        Terms(language="multi"): "5",
        Terms(language="HI"): "5",
        Terms(region="us"): "no price for llm vendor/model in region us",
        Terms(tier="flex", region="us"): "no price for llm vendor/model at tier flex in region us",
        Terms(tier="+keyterms+prompt"): "no price for llm vendor/model with keyterms and prompt",
        Terms(tier="x+prompt"): "no price for llm vendor/model at tier x with prompt",
    }
    assert {terms: dollars(prices.quote(attempt(terms=terms))) for terms in asked} == asked


@pytest.mark.parametrize("provider", ["nobody", "", "../vendor", "prices/../vendor", "VENDOR"])
def test_who_has_no_file_is_unpriced(tmp_path: Path, provider: str) -> None:
    quoted = price_list(tmp_path, {}).quote(attempt(provider=provider))
    assert quoted == Unpriced(f"no price for llm {provider}/model")


def test_engines_of_this_machine_cost_an_explicit_nothing() -> None:
    local = [row for row in catalog.PROVIDERS.values() if row.local]
    assert local
    for row in local:
        for modality in row.modalities:
            one = attempt("any", provider=row.name, modality=modality)
            assert shipped().quote(one) == LOCAL_RATE


BAD = [
    (
        {"rates": {"million_tokens_in": "-2"}},
        "rates.million_tokens_in: '-2' is not a decimal amount",
    ),
    ({"rates": {"million_tokens_in": "NaN"}}, "rates.million_tokens_in: 'NaN' is not a decimal"),
    ({"rates": {"million_tokens_in": "1e9"}}, "rates.million_tokens_in: '1e9' is not a decimal"),
    ({"rates": {"million_tokens_in": "1000001"}}, "from 0 to 1000000"),
    ({"rates": {"million_tokens_in": {"usd": "99999999999"}}}, "from 0 to 1000000"),
    ({"rates": {"million_tokens_in": 0.5}}, "Expected `str | object`, got `float`"),
    ({"rates": {"tokens": "1"}}, "Invalid enum value 'tokens'"),
    ({"rates": {"audio_in_hour": {"usd": "1", "step": -1}}}, "rates.audio_in_hour.step: -1 is neg"),
    ({"rates": {"audio_in_hour": {"usd": "1", "minimum": -9}}}, "audio_in_hour.minimum: -9 is neg"),
    ({"rates": {"audio_in_hour": {"usd": "1", "steps": 1}}}, "unknown field `steps`"),
    ({"rates": {"audio_in_hour": {"usd": "1", "rounding": "down"}}}, "Invalid enum value 'down'"),
    ({"rates": {}}, "rates: is empty"),
    ({"rates": None}, "missing required field `rates`"),
    ({"models": []}, "models: is empty"),
    ({"models": [""]}, "models: a name is empty"),
    ({"models": ["a*b"]}, "models: a * stands only at the end"),
    ({"modality": "video"}, "Invalid enum value 'video' - at `$.modality`"),
    ({"mode": "slow"}, "Invalid enum value 'slow' - at `$.mode`"),
    ({"valid_from": "soon"}, "Invalid RFC3339 encoded date - at `$.valid_from`"),
    ({"valid_until": date(2026, 1, 1)}, "valid_until: is not after valid_from"),
    ({"prompt_over": 10, "prompt_up_to": 10}, "prompt_up_to: is not more than prompt_over"),
    ({"source": "a friend"}, "source: is not an https address"),
    ({"checked": None}, "missing required field `checked`"),
    ({"validfrom": date(2026, 1, 1)}, "unknown field `validfrom`"),
]


@pytest.mark.parametrize(("change", "told"), BAD, ids=[told for _, told in BAD])
def test_a_mistake_is_told_by_file_row_and_field(
    tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        price_list(tmp_path, {"models": ["other"]}, change).prices("vendor")
    (problem,) = raised.value.problems
    assert problem.startswith("vendor.yaml: row 2: ")
    assert told in problem


OVERLAPS: list[tuple[dict[str, Any], dict[str, Any], bool]] = [
    ({}, {}, True),
    ({"valid_until": date(2026, 7, 1)}, {"valid_from": date(2026, 7, 1)}, False),
    ({"valid_until": date(2026, 7, 2)}, {"valid_from": date(2026, 7, 1)}, True),
    ({}, {"valid_from": date(2026, 7, 1)}, True),
    ({"valid_from": date(2026, 7, 1)}, {"valid_until": date(2026, 7, 2)}, True),
    ({}, {"models": ["other"]}, False),
    ({}, {"models": ["other", "model"]}, True),
    ({}, {"models": ["model*"]}, False),
    ({}, {"modality": "tts"}, False),
    ({}, {"tier": "growth"}, False),
    ({}, {"region": "eu"}, False),
    ({"mode": "streaming"}, {"mode": "batch"}, False),
    ({"mode": "streaming"}, {"mode": "any"}, True),
    ({"prompt_up_to": 10}, {"prompt_over": 10}, False),
    ({"prompt_up_to": 11}, {"prompt_over": 10}, True),
    ({}, {"prompt_over": 10}, True),
]


@pytest.mark.parametrize(("first", "second", "meet"), OVERLAPS)
def test_two_prices_at_once_are_refused(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], meet: bool
) -> None:
    prices = price_list(tmp_path, first, second)
    if not meet:
        assert len(prices.prices("vendor")) == 2
        return
    with pytest.raises(ConfigError) as raised:
        prices.prices("vendor")
    assert raised.value.problems == (
        "vendor.yaml: rows 1 and 2 are both valid for llm model at a time: "
        "end the first with valid_until",
    )


def test_every_mistake_is_told_at_once_and_again(tmp_path: Path) -> None:
    prices = price_list(tmp_path, {"source": ""}, {}, {"rates": {}}, {})
    for _ in range(2):
        with pytest.raises(ConfigError) as raised:
            prices.quote(attempt())
        assert [problem.split(":")[1] for problem in raised.value.problems] == [
            " row 1", " row 3", " rows 2 and 4 are both valid for llm model at a time",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "has not just the keys provider and prices"),
        ("provider: vendor\nprices: []\nnotes: x\n", "has not just the keys"),
        ("provider: other\nprices: []\n", "provider is 'other', not 'vendor'"),
        ("provider: vendor\nprices: {}\n", "prices is not a list of rows"),
        ("provider: vendor\nprices: [3]\n", "row 1: Expected `object`, got `int`"),
        ("provider: vendor\nprovider: vendor\nprices: []\n", "provider stands twice"),
        ("prices: [", "cannot be read"),
        ("\x00", "cannot be read"),
    ],
)
def test_a_file_that_is_no_price_list(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "vendor.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"^vendor\.yaml: ") as raised:
        PriceList(tmp_path).prices("vendor")
    assert told in str(raised.value)


SHIPPED_PRICES = [
    (provider, price) for provider in shipped().providers() for price in shipped().prices(provider)
]


def test_shipped_prices_are_of_rows_of_the_catalogue() -> None:
    for provider, price in SHIPPED_PRICES:
        assert price.modality in catalog.provider(provider).modalities


def test_shipped_prices_say_whose_page_and_which_day() -> None:
    pages = {
        "anthropic": {"platform.claude.com"},
        "assemblyai": {"www.assemblyai.com"},
        "cartesia": {"docs.cartesia.ai"},
        "deepgram": {"deepgram.com"},
        "elevenlabs": {"elevenlabs.io"},
        "google": {"ai.google.dev"},
        "groq": {"groq.com", "console.groq.com"},
        "openai": {"developers.openai.com", "openai.com"},
    }
    for provider, price in SHIPPED_PRICES:
        assert re.match(r"https://([^/]+)/", price.source)[1] in pages[provider]  # type: ignore[index]
        assert price.checked >= "2026-11-21"


def test_the_files_are_in_the_package() -> None:
    assert {path.suffix for path in SHIPPED.iterdir()} == {".yaml"}
    assert SHIPPED.parent == Path(catalog.__file__).parent


DAY = {
    "llm": Usage(tokens_in=1_000_000, tokens_out=100_000),
    "stt": Usage(audio_in_ns=3600_000_000_000),
    "tts": Usage(characters=1_000_000),
    # of the text half is cached, of the audio three eighths
    "realtime": Usage(
        tokens_in=1_000_000,
        tokens_cached=400_000,
        tokens_audio_in=800_000,
        tokens_cached_audio=300_000,
        tokens_out=100_000,
        tokens_audio_out=80_000,
    ),
}
RATES = [
    # what a call meets by default, and for what: an hour heard, a million characters spoken, a
    # million tokens read and a tenth of that written (100,000 and 10,000 where long prompts differ)
    ("llm", "openai/gpt-4.1", "2.8"),
    ("llm", "openai/gpt-4.1-2025-04-14", "2.8"),
    ("llm", "openai/gpt-4.1-mini", "0.56"),
    ("llm", "openai/gpt-4o-mini", "0.21"),
    ("llm", "openai/gpt-5-nano", "0.09"),
    ("llm", "openai/gpt-5.4", "7.25"),
    ("tts", "openai/tts-1", "15"),
    ("tts", "openai/gpt-4o-mini-tts", None),
    ("stt", "openai/whisper-1", "0.36"),
    ("stt", "openai/gpt-live-transcribe", "1.02"),
    # by the minute, for no tokens were told
    ("stt", "openai/gpt-4o-transcribe", "0.36"),
    ("stt", "openai/gpt-4o-mini-transcribe", "0.18"),
    ("stt", "deepgram/nova-3", "0.288"),
    ("stt", "deepgram/flux-general", "0.39"),
    ("stt", "deepgram/flux-general-multi", "0.468"),
    ("tts", "deepgram/aura-2", "30"),
    ("tts", "deepgram/aura-2-andromeda-en", "30"),
    ("tts", "deepgram/aura-asteria-en", "15"),
    ("tts", "cartesia/sonic-3", "50"),
    ("stt", "cartesia/ink-whisper", "0.18"),
    ("stt", "cartesia/ink-2", "0.54"),
    ("tts", "elevenlabs/eleven_turbo_v2_5", "50"),
    ("tts", "elevenlabs/eleven_flash_v2_5", "50"),
    ("tts", "elevenlabs/eleven_multilingual_v2", "100"),
    ("stt", "elevenlabs/scribe_v2_realtime", "0.39"),
    ("llm", "anthropic/claude-sonnet-4-6", "4.5"),
    ("llm", "anthropic/claude-haiku-4-5-20251001", "1.5"),
    ("llm", "anthropic/claude-haiku-5-5", "0.75"),
    ("llm", "google/gemini-3.8-flash", "1.125"),
    ("llm", "google/gemini-2.5-flash", "0.55"),
    ("llm", "groq/llama-3.3-70b-versatile", "0.669"),
    ("stt", "groq/whisper-large-v3-turbo", "0.04"),
    ("tts", "groq/canopylabs/orpheus-v1-english", "22"),
    ("realtime", "openai/gpt-realtime", "22"),
    ("realtime", "openai/gpt-realtime-2025-08-28", "22"),
    ("realtime", "openai/gpt-realtime-mini", "6.804"),
    ("realtime", "openai/gpt-realtime-2.1", "22.16"),
    ("realtime", "openai/gpt-realtime-2.1-mini", "6.804"),
    ("realtime", "openai/gpt-realtime-3", None),
    ("llm", "openai/gpt-realtime", None),
    ("stt", "assemblyai/universal-3-6-pro", "0.45"),
    ("stt", "assemblyai/universal-streaming", "0.15"),
]


@pytest.mark.parametrize(("modality", "name", "expected"), RATES, ids=[row[1] for row in RATES])
def test_what_shipped_prices_make_of_an_hour_or_a_million(
    modality: str, name: str, expected: str | None
) -> None:
    provider, _, model = name.partition("/")
    one = attempt(
        model, provider=provider, modality=Modality(modality), usage=DAY[modality], seconds=3600
    )
    quoted = shipped().quote(one)
    assert isinstance(quoted, Charge if expected else Unpriced)
    assert expected is None or dollars(quoted) == expected


def test_an_announced_change_comes_by_itself() -> None:
    def flash(day: str) -> str:
        return dollars(shipped().quote(attempt("gemini-3.8-flash", day, provider="google")))

    assert [flash("2026-12-31"), flash("2027-01-01")] == ["0.75", "1.5"]


SAID = Usage(tokens_in=1200, tokens_cached=200, tokens_out=300)
HEARD = Usage(audio_in_ns=90 * 1_000_000_000)
SPOKEN = Usage(tokens_in=50, tokens_out=1000, tokens_audio_out=1000, characters=200)
TRANSCRIBED = Usage(tokens_in=1500, tokens_audio_in=1500, tokens_out=40)
TERMS = [
    # 1000 x 2 + 200 x 0.5 + 300 x 8, each a million
    ("llm", "openai/gpt-4.1", Terms(), SAID, "0.0045"),
    ("llm", "openai/gpt-4.1", Terms(tier="default"), SAID, "0.0045"),
    # 1000 x 3.5 + 200 x 0.875 + 300 x 14
    ("llm", "openai/gpt-4.1", Terms(tier="priority"), SAID, "0.007875"),
    ("llm", "openai/gpt-4.1", Terms(tier="flex"), SAID, None),
    # 1000 x 0.15 + 200 x 0.075 + 300 x 0.6
    ("llm", "groq/openai/gpt-oss-120b", Terms(tier="on_demand"), SAID, "0.000345"),
    ("llm", "groq/openai/gpt-oss-120b", Terms(tier="flex"), SAID, "0.000345"),
    ("llm", "groq/openai/gpt-oss-120b", Terms(tier="performance"), SAID, None),
    # a minute and a half at 0.0048, at 0.0058
    ("stt", "deepgram/nova-3", Terms(language="en-US"), HEARD, "0.0072"),
    ("stt", "deepgram/nova-3", Terms(language="multi"), HEARD, "0.0087"),
    ("stt", "deepgram/nova-3", Terms("batch"), HEARD, None),
    # 1500 x 2.5 + 40 x 10
    ("stt", "openai/gpt-4o-transcribe", Terms(), TRANSCRIBED, "0.00415"),
    # a minute and a half at 0.006
    ("stt", "openai/gpt-4o-transcribe", Terms(), HEARD, "0.009"),
    # 1000 x 2.75 + 200 x 0.275 + 300 x 16.5
    ("llm", "openai/gpt-5.4", Terms(region="regional"), SAID, "0.007755"),
    ("llm", "openai/gpt-5.4", Terms(region="elsewhere"), SAID, None),
    ("llm", "openai/gpt-5.4-mini", Terms(region="regional"), SAID, None),
    # older: without the 10 %
    ("llm", "openai/gpt-4.1", Terms(region="regional"), SAID, "0.0045"),
    # 200 characters at 0.0000392
    ("tts", "cartesia/sonic-3", Terms(tier="startup"), SPOKEN, "0.00784"),
    # a minute and a half open at 0.15 an hour, at 0.15 + 0.04
    ("stt", "assemblyai/universal-streaming-english", Terms(), HEARD, "0.00375"),
    ("stt", "assemblyai/universal-streaming-english", Terms(tier="+keyterms"), HEARD, "0.00475"),
    ("stt", "assemblyai/universal-streaming-english", Terms(tier="+diarization"), HEARD, None),
    # 50 x 0.6 + 1000 x 12
    ("tts", "openai/gpt-4o-mini-tts", Terms(), SPOKEN, "0.01203"),
]


@pytest.mark.parametrize(
    ("modality", "name", "terms", "usage", "expected"),
    TERMS,
    ids=[" ".join(filter(None, [name, *terms])) for _, name, terms, _, _ in TERMS],
)
def test_an_attempt_is_charged_on_its_terms(
    modality: str, name: str, terms: Terms, usage: Usage, expected: str | None
) -> None:
    provider, _, model = name.partition("/")
    one = attempt(
        model,
        provider=provider,
        modality=Modality(modality),
        usage=usage,
        terms=terms,
        seconds=usage.audio_in_ns // 1_000_000_000,
    )
    quoted = shipped().quote(one)
    assert isinstance(quoted, Charge if expected else Unpriced)
    assert expected is None or dollars(quoted) == expected
