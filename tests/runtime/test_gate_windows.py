"""A budget's windows under a fake clock: what is spent in a local day counts on that day alone."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from gating import TOKENS, an_attempt, per_token
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.core.models import Usage
from trunkline.core.windows import NANOS, Kind, Window
from trunkline.runtime.gate_purse import Purse
from trunkline.runtime.gate_rules import Rule
from trunkline.store.gates import SQLiteGateStore

CHANGES = [
    (Kind.DAY, "Europe/Berlin", "2026-03-29T01:00Z"),  # 23 hours
    (Kind.DAY, "Europe/Berlin", "2026-10-25T01:00Z"),  # 25 hours
    (Kind.DAY, "Australia/Lord_Howe", "2026-10-03T15:30Z"),  # half an hour
    (Kind.MONTH, "Asia/Kolkata", "2026-02-28T18:30Z"),  # half an hour off
    (Kind.DAY, "America/Havana", "2026-11-01T05:00Z"),  # the first hour comes twice
    (Kind.DAY, "America/Sao_Paulo", "2018-11-04T03:00Z"),  # midnight is left out
    (Kind.DAY, "Pacific/Apia", "2011-12-30T10:00Z"),  # a day is left out
    (Kind.MONTH, "UTC", "2028-02-29T00:00Z"),
]
USES = st.lists(
    st.tuples(st.integers(-40 * 3600, 40 * 3600), st.integers(1, 900)), min_size=1, max_size=25
)


class Clock:
    """The time that everything under test sees."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.ns = 0
        for module in ("runtime.gate_purse", "runtime.gate_holding", "store.gates"):
            patch.setattr(f"trunkline.{module}.now_ns", lambda: self.ns)


@pytest.mark.parametrize(("kind", "zone", "change"), CHANGES)
@settings(max_examples=6)
@given(uses=USES)
def test_what_is_used_counts_in_its_own_period(
    kind: Kind, zone: str, change: str, uses: list[tuple[int, int]]
) -> None:
    wall, about = ZoneInfo(zone), datetime.fromisoformat(change).astimezone(UTC)
    spent: Counter[str] = Counter()
    budget = TOKENS.__class__(
        "b", TOKENS.scope, Window(kind, zone), TOKENS.unit, 1000, TOKENS.steps
    )
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as place:
        clock = Clock(patch)
        with closing(SQLiteGateStore(Path(place))) as store:
            purse = Purse([Rule.made(budget)], store, per_token, lambda _: None)
            for seconds, tokens in sorted(uses):
                at = about + timedelta(seconds=seconds)
                clock.ns = int(at.timestamp()) * NANOS
                name = f"{at.astimezone(wall):{'%Y-%m-%d' if kind is Kind.DAY else '%Y-%m'}}"
                attempt = an_attempt()
                attempt.started_ns = clock.ns
                opening = purse.opening(attempt, lambda tokens=tokens: Usage(tokens_out=tokens))  # type: ignore[misc]
                assert opening is not None
                refused = purse.take(opening)
                assert (refused is None) == (spent[name] + tokens <= 1000)
                if refused is None:
                    attempt.usage = Usage(tokens_out=tokens)
                    purse.settle(attempt, None)
                    spent[name] += tokens
            purse.flush(everything=True)
            kept = [used.spent for used in reversed(store.history("budget:b")) if used.spent]
    assert kept == [spent[name] for name in sorted(spent) if spent[name]]


def test_an_attempt_begins_in_the_period_that_it_is_counted_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when its period ends between the two: a correction must find it."""
    clock = Clock(monkeypatch)
    day = int(datetime(2026, 5, 5, tzinfo=UTC).timestamp()) * NANOS
    budgets = [
        TOKENS.__class__(f"b{n}", TOKENS.scope, window, TOKENS.unit, 1000, TOKENS.steps)
        for n, window in enumerate([Window(Kind.DAY), Window(Kind.ROLLING, seconds=60)])
    ]
    with closing(SQLiteGateStore(tmp_path)) as store:
        purse = Purse([Rule.made(b) for b in budgets], store, per_token, lambda _: None)
        for before, after in itertools.product((-1, 0), (0, 1)):
            attempt = an_attempt()
            attempt.started_ns, clock.ns = day + before, day + after
            opening = purse.opening(attempt, lambda: Usage(tokens_out=1))
            assert opening is not None
            for holding, _ in opening.takes:
                assert holding.rule.period(attempt.started_ns).slot_ns == holding.period.slot_ns
