"""Budgets as plain data: scopes, amounts, thresholds, slices; then as the settings say them."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.config import load
from trunkline.core.budgets import MILLION, Action, Budget, Step, loop, slice_of
from trunkline.core.limits import Rate
from trunkline.core.models import Identity, Modality, Usage
from trunkline.core.scopes import MOST, Dimension, Scope, Unit, used
from trunkline.core.windows import Kind, Window
from trunkline.errors import ConfigError

SECOND = 1_000_000_000
WHO = Identity(
    call="c", org="acme", project="desk", agent="ann", room="sales-7", key="k", tags=("a", "b")
)


@pytest.mark.parametrize(
    ("pairs", "matched"),
    [
        ([], ""),
        ([("org", "acme"), ("project", "desk"), ("key", "k"), ("modality", "llm")], ""),
        ([("org", "other")], None),
        ([("room", "sales-*")], ""),
        ([("room", "support-*")], None),
        ([("agent", "an*")], None),  # only a room is a pattern
        ([("tag", "a"), ("tag", "b")], ""),
        ([("tag", "a"), ("tag", "c")], None),
        ([("agent", "*")], "agent=ann"),
        ([("agent", "*"), ("room", "*")], "agent=ann,room=sales-7"),
        ([("agent", "*"), ("org", "other")], None),
    ],
)
def test_scopes(pairs: list[tuple[str, str]], matched: str | None) -> None:
    scope = Scope(tuple((Dimension(name), value) for name, value in pairs))
    assert scope.matched(WHO, Modality.LLM) == matched


@given(st.decimals("0.000000001", "1000000", places=9))
def test_money_is_read_exactly(usd: Decimal) -> None:
    assert Unit.USD.read(f"{usd:f}") == int(usd * SECOND)


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "1e99", "1e-10", "x", "٣", "9" * 50])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Unit.USD.read(text)


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from(Unit))
def test_whatever_a_provider_says_an_amount_stays_countable(units: int, unit: Unit) -> None:
    usage = Usage(units, units, units, units, units)
    assert 0 <= used(unit, usage, units) <= MOST


def test_what_is_counted() -> None:
    usage = Usage(
        audio_in_ns=2 * SECOND, audio_out_ns=SECOND, characters=7, tokens_in=10, tokens_out=4
    )
    assert {unit: used(unit, usage, 99) for unit in Unit} == {
        Unit.USD: 99,
        Unit.TOKENS: 14,
        Unit.CHARACTERS: 7,
        Unit.AUDIO_SECONDS: 3 * SECOND,
        Unit.REQUESTS: 1,
        Unit.STREAMS: 1,
    }


@given(st.integers(0, 10**12), st.integers(0, 10**15))
def test_a_slice_is_small_beside_what_is_left(need: int, left: int) -> None:
    taken = slice_of(need, left)
    assert taken == need or need < taken <= left // 32


def test_thresholds_and_the_cap() -> None:
    steps = (Step(500_000, Action.WARN), Step(900_000, Action.BLOCK))
    budget = Budget("b", Scope(), Window(Kind.DAY), Unit.TOKENS, 100, steps)
    assert budget.cap(100) == 90
    assert budget.cap(1000) == 900
    assert [budget.reached(spent, 100) for spent in (49, 50, 90)] == [(), steps[:1], steps]
    assert Budget("b", Scope(), Window(Kind.DAY), Unit.TOKENS, 100, steps[:1]).cap(100) is None


def test_downgrades_that_lead_back_are_found() -> None:
    assert loop({"a": {"b"}, "b": {"c"}, "c": set()}) == ()
    assert loop({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ("a", "b", "c", "a")
    assert loop({"a": {"a"}}) == ("a", "a")
    assert loop({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}) == ()
    assert loop({}) == ()


BASE = """\
version: 1
routes:
  cheap: {modality: llm, candidates: [scripted]}
  cheaper: {modality: llm, candidates: [scripted]}
  voice: {modality: tts, candidates: [flite]}
"""


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "trunkline.yaml"
    path.write_text(BASE + text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    return [re.sub(r"^.*/trunkline.yaml:", "", line) for line in caught.value.problems]


def test_budgets_and_limits_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trunkline.yaml"
    path.write_text(
        BASE
        + """\
budgets:
  month:
    scope: [org: acme, room: "sales-*", {tag: a}, {tag: b}]
    window: month
    time_zone: Asia/Kathmandu
    amount: {usd: 25.000000001}
    steps:
      - do: block
      - {at: 0.9, do: downgrade, route: cheap}
      - {at: 0.5, do: throttle, seconds: 2}
    notice: Goodbye.
    shadow: true
    without_store: block
  plain: {window: 24h, amount: {audio_seconds: 1.5}}
limits:
  often: {scope: [modality: llm], amount: {tokens: 1000}, per: minute, burst: 100, wait: 2}
  lines: {amount: {streams: 3}}
""",
        "utf-8",
    )
    settings = load(path, {})
    month, plain = settings.budgets
    assert month == Budget(
        "month",
        Scope(
            (
                (Dimension.ORG, "acme"),
                (Dimension.ROOM, "sales-*"),
                (Dimension.TAG, "a"),
                (Dimension.TAG, "b"),
            )
        ),
        Window(Kind.MONTH, "Asia/Kathmandu"),
        Unit.USD,
        25_000_000_001,
        (
            Step(500_000, Action.THROTTLE, seconds=2),
            Step(900_000, Action.DOWNGRADE, route="cheap"),
            Step(MILLION, Action.BLOCK),
        ),
        notice="Goodbye.",
        shadow=True,
        fail_open=False,
    )
    assert (plain.window, plain.amount) == (Window(Kind.ROLLING, seconds=86400), 1_500_000_000)
    assert [(step.at, step.action) for step in plain.steps] == [
        (800_000, Action.WARN),
        (MILLION, Action.BLOCK),
    ]
    often, lines = settings.limits
    assert (often.rate, often.wait) == (Rate(1000, 60 * SECOND, 100), 2.0)
    assert (lines.unit, lines.amount, lines.rate) == (Unit.STREAMS, 3, None)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{window: day, amount: {usd: -1}}", "must be a number above 0, and is"),
        ("{window: day, amount: {usd: .nan}}", "must be a number above 0, and is"),
        ("{window: day, amount: {usd: .inf}}", "must be a number above 0, and is"),
        ("{window: day, amount: {usd: 1e30}}", "must be at most 288230376, and is"),
        ("{window: day, amount: {usd: 0.0000000001}}", "must be a multiple of 0.000000001"),
        ("{window: day, amount: {tokens: 1.5}}", "must be a multiple of 1"),
        ("{window: day, amount: {usd: true}}", "must be a number above 0"),
        ("{window: day, amount: {usd: 1, tokens: 2}}", "must be in one unit, and is in 2"),
        ("{window: day, amount: {streams: 2}}", 'unknown key "streams"'),
        ("{window: fortnight, amount: {usd: 1}}", "must be hour, day, week, month, total, call"),
        ("{amount: {usd: 1}}", 'the key "window" is missing'),
        ("{window: day}", 'the key "amount" is missing'),
        (
            "{window: day, amount: {usd: 1}, time_zone: Europe/Berlim}",
            'must be a time zone such as Europe/Berlin, and is "Europe/Berlim"; '
            'did you mean "Europe/Berlin"?',
        ),
        ("{window: total, amount: {usd: 1}, time_zone: UTC}", "means nothing for the window total"),
        ("{window: day, amount: {usd: 1}, scope: [agnet: x]}", 'unknown key "agnet"; did you mean'),
        ("{window: day, amount: {usd: 1}, scope: [org: a, org: b]}", "two are named"),
        ('{window: day, amount: {usd: 1}, scope: [tag: "*"]}', "a call has many tags"),
        ("{window: day, amount: {usd: 1}, scope: [modality: lmm]}", 'did you mean "llm"?'),
        ("{window: day, amount: {usd: 1}, steps: [{do: warn, at: 1.2}]}", "at most 1, and is"),
        ("{window: day, amount: {usd: 1}, steps: [{do: stop}]}", "must be one of warn, throttle"),
        (
            "{window: day, amount: {usd: 1}, steps: [{do: downgrade, route: cheep}]}",
            'there is no route "cheep"; did you mean "cheap"?',
        ),
        ("{window: day, amount: {usd: 1}, steps: [{do: downgrade}]}", 'the key "route" is missing'),
        ("{window: day, amount: {usd: 1}, steps: [{do: warn, route: cheap}]}", "means nothing for"),
        ("{window: day, amount: {usd: 1}, steps: [{do: throttle, seconds: 60}]}", "at most 10 sec"),
        ("{window: day, amount: {usd: 1}, steps: [{do: warn}], notice: Bye}", "is never said"),
        (
            "{window: day, amount: {usd: 1}, steps: [{do: downgrade, at: 0.5, route: cheap}, "
            "{do: downgrade, at: 0.6, route: cheaper}, {do: downgrade, route: cheap}]}",
            'downgrades lead back to the route "cheap": cheap to cheaper, cheaper to cheap, '
            "by mine",
        ),
        (
            "{window: day, amount: {usd: 1}, scope: [modality: llm], "
            "steps: [{do: downgrade, route: voice}]}",
            'to the route "voice" for tts, and the budget is for llm: name a route for llm',
        ),
        ("{window: day, amount: {usd: 0}}", "must be a number above 0, and is"),
        ("{window: day, amount: {usd: -0.0}}", "must be a number above 0, and is"),
        ("{window: day, amount: {usd: -.inf}}", "must be a number above 0, and is"),
        ("{window: day, amount: {tokens: 99999999999999999999}}", "must be at most 28823037615171"),
        ("{window: day, amount: 5}", "must be a table with usd, tokens"),
        ("{window: day, amount: {usd: 1}, steps: [{do: warn, at: .nan}]}", "at most 1, and is"),
        ("{window: day, amount: {usd: 1}, steps: [{do: warn, at: -1}]}", "at most 1, and is"),
        (
            "{window: day, amount: {usd: 1}, steps: [{do: throttle, seconds: .nan}]}",
            "must be a number of seconds above 0",
        ),
        ("{window: day, amount: {usd: 1}, time_zone: ../../etc/passwd}", "must be a time zone"),
        ("{window: day, amount: {usd: 1}, time_zone: Europe}", "must be a time zone"),
        ("{window: day, amount: {usd: 1}, time_zone: localtime}", "must be a time zone"),
        ("{window: day, amount: {usd: 1}, time_zone: right/Europe/Berlin}", "must be a time zone"),
        ("{window: day, amount: {usd: 1}, scope: []}", "must be a list with at least one entry"),
        ("{window: day, amount: {usd: 1}, scope: [{}]}", "must be a pair such as agent: ann"),
        ("{window: day, amount: {usd: 1}, scope: [org: '']}", "must not be empty"),
        (
            "{window: day, amount: {usd: 1}, scope: [caller: '1']}",
            'unknown key "caller": it is one of org, project, agent, key, room, tag, modality',
        ),
        ("{window: day, amount: {usd: 1}, time_zone: ''}", "must be a time zone"),
    ],
)
def test_a_mistake_in_a_budget_is_told(tmp_path: Path, entry: str, told: str) -> None:
    found = problems(tmp_path, f"budgets:\n  mine: {entry}\n")
    assert [line for line in found if told not in line] == []
    assert all(line.startswith(("6: ", "7: ")) for line in found)


def test_downgrades_that_lead_back_through_several_budgets_are_told(tmp_path: Path) -> None:
    budget = (
        (
            "  {0}: {{{{window: day, amount: {{{{usd: 1}}}}, steps: ["
            "{{{{do: downgrade, at: 0.5, route: {1}}}}}, {{{{do: downgrade, route: {2}}}}}]}}}}\n"
        )
        .replace("{{{{", "{{")
        .replace("}}}}", "}}")
    )
    two = budget.format("one", "cheap", "cheaper") + budget.format("two", "cheaper", "cheap")
    assert problems(tmp_path, f"budgets:\n{two}") == [
        '6: budgets: downgrades lead back to the route "cheap": cheap to cheaper, '
        "cheaper to cheap, by one and two: let each lead to a cheaper one",
    ]
    # what is said of a model is not said of a voice
    path = tmp_path / "trunkline.yaml"
    apart = budget.format("one", "cheap", "voice") + budget.format("two", "voice", "cheap")
    path.write_text(f"{BASE}budgets:\n{apart}", "utf-8")
    assert len(load(path, {}).budgets) == 2


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{amount: {requests: 10}}", 'the key "per" is missing'),
        ("{amount: {streams: 10}, per: minute}", "means nothing for streams"),
        ("{amount: {requests: 10}, per: eon}", "must be second, minute, hour, day or a length"),
        ("{amount: {requests: 10}, per: minute, burst: 0}", "must be a number above 0"),
        ("{amount: {requests: 10}, per: minute, wait: 90}", "must be at most 60 seconds"),
        ("{amount: {usd: 10}, per: minute}", 'unknown key "usd"'),
        ("{amount: {requests: -1}, per: minute}", "must be a number above 0, and is"),
        ("{amount: {requests: .nan}, per: minute}", "must be a number above 0, and is"),
        ("{amount: {requests: 1e30}, per: minute}", "must be at most 288230376151711744"),
        ("{amount: {streams: 2.5}}", "must be a multiple of 1, and is"),
        ("{amount: {requests: 1}, per: 0s}", "must be second, minute, hour, day or a length"),
        ("{amount: {requests: 1}, per: minute, burst: .nan}", "must be a number above 0, and is"),
        ("{amount: {requests: 1}, per: minute, burst: 1e40}", "must be at most 2882303761517117"),
        ("{amount: {requests: 1}, per: minute, wait: .inf}", "a number of seconds above 0, and is"),
        ("{amount: {requests: 1}, per: minute, wait: -1}", "a number of seconds above 0, and is"),
    ],
)
def test_a_mistake_in_a_limit_is_told(tmp_path: Path, entry: str, told: str) -> None:
    found = problems(tmp_path, f"limits:\n  mine: {entry}\n")
    assert [line for line in found if told not in line] == []
