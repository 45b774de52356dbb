"""Charging afterwards: exact, once, whoever does it and however often."""

from __future__ import annotations

import multiprocessing
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from settlements import settlement
from typer.testing import CliRunner, Result

from trunkline.cli.app import app
from trunkline.clock import now_ns
from trunkline.core.models import Attempt, Charge, Entry, Quality, Settlement, Usage
from trunkline.core.pricing import Unpriced
from trunkline.errors import UsageError
from trunkline.services.reprice import Quote, Repriced, correction, reprice
from trunkline.store import LEDGER_NAME, Recorder
from trunkline.store.ledger import Ledger, Recorded

DAY_NS = 86_400_000_000_000
USED = Usage(tokens_in=100, tokens_out=10)
LIST_PRICE = 100 * 400 + 10 * 1600
"""gpt-4.1-mini: 0.40 USD a million tokens in, 1.60 out, in nano-dollars."""


def at(nanos_a_token: int) -> Quote:
    """A price list that asks the same for every token."""

    def quote(attempt: Attempt) -> Charge | Unpriced:
        tokens = attempt.usage.tokens_in + attempt.usage.tokens_out
        return Charge(tokens * nanos_a_token, f"{nanos_a_token}/token", "test", "2026-11-21")

    return quote


def unknown(attempt: Attempt) -> Unpriced:
    return Unpriced(f"no price for {attempt.model}")


def settle(directory: Path, *settlements: Settlement | Entry) -> None:
    with closing(Recorder(directory)) as recorder:
        for one in settlements:
            recorder.append(one)
        assert recorder.flush_all(10)


def ledger(directory: Path) -> list[Recorded]:
    with closing(Ledger(directory / LEDGER_NAME)) as opened:
        return opened.attempts()


def totals(directory: Path) -> list[tuple[int, int]]:
    with closing(Ledger(directory / LEDGER_NAME)) as opened:
        return [(total.nanos, total.unpriced) for total in opened.summary()]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    shutil.rmtree(tmp_path / "state", ignore_errors=True)


def test_the_unpriced_is_priced_and_the_settlement_stays(place: Path) -> None:
    settle(place, settlement(nanos=None))
    (before,) = ledger(place)
    assert (before.nanos, totals(place)) == (None, [(0, 1)])

    done = reprice(place)

    assert done == Repriced(attempts=1, priced=1, nanos=LIST_PRICE)
    (after,) = ledger(place)
    assert after.entries[0] == before.entries[0]
    added = after.entries[1]
    assert (added.kind, added.usage, added.quality) == ("correction", Usage(), Quality.EXACT)
    assert added.charge is not None
    assert added.charge.source == "https://developers.openai.com/api/docs/models/gpt-4.1-mini"
    assert added.charge.checked == "2026-11-21"
    assert (after.nanos, totals(place)) == (LIST_PRICE, [(LIST_PRICE, 0)])


def test_again_and_again_changes_nothing(place: Path) -> None:
    settle(place, settlement(nanos=None), settlement(nanos=1500))
    assert reprice(place).nanos == 2 * LIST_PRICE - 1500
    for _ in range(3):
        assert reprice(place) == Repriced(attempts=2)
    assert [len(one.entries) for one in ledger(place)] == [2, 2]


@pytest.mark.parametrize("nanos", [1500, 10**9])
def test_the_wrongly_priced_is_corrected_by_the_difference(place: Path, nanos: int) -> None:
    settle(place, settlement(nanos=nanos))
    assert reprice(place) == Repriced(attempts=1, corrected=1, nanos=LIST_PRICE - nanos)
    assert totals(place) == [(LIST_PRICE, 0)]


def test_prices_that_go_back_and_forth_are_followed(place: Path) -> None:
    settle(place, settlement(nanos=None))
    for rate in (3, 5, 3, 3, 5, 0, 3):
        reprice(place, quote=at(rate))
        assert totals(place) == [(110 * rate, 0)]


def test_what_has_no_price_stays_and_is_told(place: Path) -> None:
    settle(place, settlement(nanos=None), settlement(nanos=None), settlement(nanos=7))
    done = reprice(place, quote=unknown)
    assert done.unpriced == {"no price for gpt-4.1-mini": 2}
    assert (done.attempts, done.priced, done.corrected) == (3, 0, 0)
    assert totals(place) == [(7, 2)]


def test_later_usage_is_priced_with_all_before_it(place: Path) -> None:
    one = settlement(nanos=None)
    settle(place, one)
    reprice(place, quote=at(10))
    more = Usage(tokens_out=5)
    settle(place, Entry("late", one.attempt.id, now_ns() + 1, more, Quality.EXACT, kind="late"))
    assert totals(place) == [(1100, 1)]
    assert reprice(place, quote=at(10)) == Repriced(attempts=1, priced=1, nanos=50)
    assert totals(place) == [(1150, 0)]


LATE = Usage(tokens_in=30, tokens_out=4)


@pytest.mark.parametrize("quality", Quality)
def test_late_usage_settles_by_a_further_entry(place: Path, quality: Quality) -> None:
    """Nothing is edited: the attempt is what it was, and costs what all its entries say."""
    one = settlement(nanos=110 * 10)
    one.entry.quality = quality
    charge = Charge(34 * 10, "10/token", "test")
    late = Entry("late", one.attempt.id, now_ns() + 1, LATE, Quality.EXACT, charge, kind="late")
    settle(place, late)  # from another process's journal it may come first
    settle(place, one)
    (recorded,) = ledger(place)
    assert recorded == Recorded(one.attempt, (one.entry, late))
    assert totals(place) == [(144 * 10, 0)]
    assert reprice(place, quote=at(10)) == Repriced(attempts=1)


@pytest.mark.parametrize("quality", Quality)
def test_an_underestimate_is_never_refunded(place: Path, quality: Quality) -> None:
    """A cheaper price is a refund for what was counted, and none for what was counted too low."""
    one = settlement(nanos=110 * 10)
    one.entry.quality = quality
    settle(place, one)
    refund = 0 if quality is Quality.UNDERESTIMATE else 110 * 4
    for _ in range(2):
        reprice(place, quote=at(6))
        assert totals(place) == [(110 * 10 - refund, 0)]
    reprice(place, quote=at(20))
    assert totals(place) == [(110 * 20, 0)]


def test_a_dry_run_writes_nothing(place: Path) -> None:
    settle(place, settlement(nanos=None))
    files = sorted(path.name for path in place.iterdir())
    assert reprice(place, dry_run=True) == Repriced(attempts=1, priced=1, nanos=LIST_PRICE)
    assert [len(one.entries) for one in ledger(place)] == [1]
    assert set(files) <= {path.name for path in place.iterdir()}
    assert not list(place.glob("*.journal"))


def test_only_what_is_asked_for(place: Path) -> None:
    now = now_ns()
    settle(
        place,
        settlement(nanos=None, started_ns=now - 40 * DAY_NS),
        settlement(nanos=None, started_ns=now - 2 * DAY_NS),
        settlement(nanos=None, started_ns=now, provider="groq"),
    )
    assert reprice(place, since_ns=now - 3 * DAY_NS, provider="openai", quote=at(1)).attempts == 1
    assert [one.nanos for one in ledger(place)] == [None, 110, None]
    assert reprice(place, since_ns=now + DAY_NS, quote=at(1)).attempts == 0
    assert reprice(place, quote=at(1)) == Repriced(attempts=3, priced=2, nanos=220)


def test_what_waits_in_journals_is_seen(place: Path) -> None:
    recorder = Recorder(place)
    recorder._journal.append(settlement(nanos=None))  # no thread loads it meanwhile
    recorder._journal.close()
    assert reprice(place, quote=at(1)).priced == 1


def test_no_ledger_is_one_sentence(place: Path) -> None:
    with pytest.raises(UsageError, match="holds no ledger; name the state directory"):
        reprice(place)


def _reprice(directory: Path) -> None:
    reprice(directory, quote=at(7))


def test_processes_that_do_it_at_once_do_it_once(place: Path) -> None:
    settle(place, *(settlement(nanos=None) for _ in range(200)))
    context = multiprocessing.get_context("fork")
    others = [context.Process(target=_reprice, args=(place,)) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
        assert other.exitcode == 0
    assert reprice(place, quote=at(7)) == Repriced(attempts=200)
    assert [len(one.entries) for one in ledger(place)] == [2] * 200
    assert totals(place) == [(200 * 770, 0)]


def test_a_run_that_was_killed_after_writing_is_not_repeated(place: Path) -> None:
    """Its corrections wait in its journal; the next run makes the same ones before it sees them."""
    settle(place, settlement(nanos=None))
    (one,) = ledger(place)
    written, again = correction(one, at(3)), correction(one, at(3))
    assert isinstance(written, Entry)
    assert isinstance(again, Entry)
    assert written.id == again.id
    settle(place, written, again)
    settle(place, again)
    assert totals(place) == [(330, 0)]


charges = st.one_of(st.none(), st.integers(-(10**12), 10**12))


@given(
    st.lists(st.lists(charges, min_size=1, max_size=4), min_size=1, max_size=5),
    st.lists(st.integers(0, 10**9), min_size=1, max_size=4),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_was_charged_the_sum_is_the_price(
    tmp_path_factory: pytest.TempPathFactory, attempts: list[list[int | None]], rates: list[int]
) -> None:
    place = tmp_path_factory.mktemp("state")
    for first, *later in attempts:
        one = settlement(nanos=first)
        settle(place, one)
        for number, nanos in enumerate(later):
            charge = None if nanos is None else Charge(nanos, "", "test")
            entry = Entry(
                f"{one.entry.id}-{number}", one.attempt.id, now_ns(), USED, Quality.EXACT, charge
            )
            settle(place, entry)
    tokens = sum(110 * len(entries) for entries in attempts)
    for rate in rates:
        reprice(place, quote=at(rate))
        assert totals(place) == [(tokens * rate, 0)]
    with sqlite3.connect(place / LEDGER_NAME) as database:
        (entries,) = database.execute("SELECT count(*) FROM entries WHERE kind != 'correction'")
    assert entries[0] == sum(map(len, attempts))


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="trunkline")


def test_the_command_line(place: Path) -> None:
    settle(place, settlement(nanos=None), settlement(nanos=None, provider="acme"))
    would = run("reprice", "--state", place, "--dry-run")
    assert would.stdout.splitlines() == [
        "2 attempts looked at",
        "1 would be priced, 0 would be corrected, together 0.000056 USD",
        "1 unpriced",
        "    1  no price for llm acme/gpt-4.1-mini",
    ]
    done = run("reprice", "--state", place, "--provider", "openai", "--since", "2026-01-01")
    assert done.stdout.splitlines() == [
        "1 attempts looked at",
        "1 priced, 0 corrected, together 0.000056 USD",
    ]
    for day, looked in (("0001-01-01", 2), ("9999-12-31", 0)):
        told = run("reprice", "--state", place, "--since", day).stdout
        assert told.startswith(f"{looked} attempts looked at\n")
    listed = run("ledger", "--state", place)
    assert "0.000056" in listed.stdout
    assert "1 unpriced" in listed.stdout


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["reprice", "--since", "yesterday"], "--since 'yesterday' is not a day like 2026-11-21"),
        (["reprice", "--since", "2026-02-30"], "--since '2026-02-30' is not a day like 2026-11-21"),
        (["prices", "deepgrm"], 'no prices of "deepgrm" are known; did you mean "deepgram"?'),
    ],
)
def test_bad_input_is_one_sentence(args: list[str], told: str) -> None:
    result = run(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: {told}\n"


def test_prices_are_listed_with_their_source() -> None:
    listed = run("prices", "groq").stdout
    assert (
        "groq  stt  whisper-large-v3-turbo\n    0.04 USD/audio_in_hour, at least 10 s\n" in listed
    )
    assert "from 2026-05-05; https://groq.com/pricing, read 2026-11-21\n" in listed
    assert "prompts over 100000 tokens" in run("prices").stdout
