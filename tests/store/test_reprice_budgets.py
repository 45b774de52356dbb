"""What is charged afterwards counts in the budgets: their sums stay those of the ledger."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trunkline.cli.app import app
from trunkline.clock import new_id, now_ns
from trunkline.compose import Trunkline, configure
from trunkline.core.models import Attempt, Charge, Entry, Identity, Modality, Quality, Usage
from trunkline.core.pricing import Unpriced
from trunkline.errors import Refused
from trunkline.runtime.meter import Metered
from trunkline.services import gates
from trunkline.services.reprice import Repriced, reprice
from trunkline.store import LEDGER_NAME
from trunkline.store.gates import SQLiteGateStore
from trunkline.store.ledger import Ledger

CONFIG = """\
version: 1
budgets:
  all: {window: total, amount: {usd: 0.000010}}
  hour: {window: hour, time_zone: Asia/Kathmandu, amount: {usd: 1}}
  rolling: {scope: [agent: "*"], window: 60s, amount: {usd: 1}}
  others: {scope: [project: other], window: total, amount: {usd: 1}}
  tokens: {window: total, amount: {tokens: 1000000}}
"""


@pytest.fixture
def trunkline(tmp_path: Path) -> Iterator[Trunkline]:
    (tmp_path / "trunkline.yaml").write_text(CONFIG)
    made = configure(tmp_path / "trunkline.yaml", tmp_path / "state")
    yield made
    made.gate.close()


def by_token(nanos: int, attempt: Attempt) -> Charge | Unpriced:
    return Charge(attempt.usage.tokens_out * nanos, f"{nanos}/token", "test")


def attempt_by(agent: str) -> Attempt:
    identity = Identity(call=new_id(), agent=agent)
    return Attempt(new_id(), identity, Modality.LLM, "acme", "m", "c", now_ns())


async def use(trunkline: Trunkline, tokens: int, agent: str = "ann") -> None:
    """An attempt whose price is not known."""
    attempt = attempt_by(agent)
    await trunkline.gate.reserve(attempt, lambda: Usage(tokens_out=tokens))
    trunkline.gate.settle(attempt, Metered(Usage(tokens_out=tokens), Quality.EXACT))


def run(trunkline: Trunkline, nanos: int, *, counted: bool = True) -> Repriced:
    """Reprice as the command does; ``counted``: else it is killed before the books know."""
    with closing(SQLiteGateStore(trunkline.state)) as store:

        def corrected(attempt: Attempt, entry: Entry, prices: bool) -> None:
            if counted:
                gates.correct(trunkline.settings.budgets, store, attempt, entry, prices=prices)

        return reprice(trunkline.state, quote=partial(by_token, nanos), corrected=corrected)


def settled(trunkline: Trunkline) -> None:
    """Have everything in the ledger and in the books."""
    trunkline.gate.close()
    assert trunkline.recorder.flush_all(20)


def books(trunkline: Trunkline) -> dict[str, tuple[int, int]]:
    """What each pool has spent, in all of its periods, and how many attempts are unpriced."""
    with closing(SQLiteGateStore(trunkline.state)) as store:
        found: dict[str, tuple[int, int]] = {}
        for budget in trunkline.settings.budgets:
            for used in store.history(f"budget:{budget.name}"):
                spent, unpriced = found.get(used.pool, (0, 0))
                found[used.pool] = (spent + used.spent, unpriced + used.unpriced)
        return found


def ledger(trunkline: Trunkline) -> tuple[int, int]:
    with closing(Ledger(trunkline.state / LEDGER_NAME)) as opened:
        totals = opened.summary()
    return sum(total.nanos for total in totals), sum(total.unpriced for total in totals)


async def test_the_sums_of_budgets_and_ledger_stay_one(trunkline: Trunkline) -> None:
    for tokens, agent in ((100, "ann"), (20, "bob"), (3, "ann")):
        await use(trunkline, tokens, agent)
    settled(trunkline)
    before = books(trunkline)
    assert before["budget:all"] == ledger(trunkline) == (0, 3)
    for nanos, again in itertools.product((5, 7, 7, 0, 2), (True, False)):
        run(trunkline, nanos)
        assert again or run(trunkline, nanos) == Repriced(attempts=3)
        after = books(trunkline)
        assert after["budget:all"] == after["budget:hour"] == ledger(trunkline) == (123 * nanos, 0)
        assert after["budget:rolling;agent=ann"] == (103 * nanos, 0)
        assert after["budget:rolling;agent=bob"] == (20 * nanos, 0)
        assert after.get("budget:others") is None
        assert after["budget:tokens"] == (123, 3), "its unit has no price to correct"


async def test_what_a_killed_run_did_not_count_the_next_one_does(trunkline: Trunkline) -> None:
    await use(trunkline, 100)
    settled(trunkline)
    run(trunkline, 5, counted=False)
    assert (ledger(trunkline)[0], books(trunkline)["budget:all"][0]) == (500, 0)
    assert run(trunkline, 5) == Repriced(attempts=1)
    assert books(trunkline)["budget:all"] == ledger(trunkline) == (500, 0)


async def test_a_running_process_refuses_what_no_longer_fits(trunkline: Trunkline) -> None:
    await use(trunkline, 1000)
    heard: list[object] = []
    trunkline.on("budget", heard.append)
    assert trunkline.recorder.flush_all(20)
    await until(lambda: books(trunkline).get("budget:all") == (0, 1))
    run(trunkline, 10)
    with pytest.raises(Refused, match=r"0\.00001 USD in total 0\.00001 USD are spent"):
        await use(trunkline, 1)
    await until(lambda: heard)


DYING = """
    import asyncio, os, sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from test_reprice_budgets import use
    from trunkline.compose import configure

    folder = Path(sys.argv[1])
    trunkline = configure(folder / "trunkline.yaml", folder / "state")
    trunkline.gate._keeper._due = dict.fromkeys(trunkline.gate._keeper._due, float("inf"))
    asyncio.run(use(trunkline, 50))
    os._exit(9)
"""


async def test_what_died_before_it_was_counted_counts_once(trunkline: Trunkline) -> None:
    """The books know neither its settlement nor, at first, its correction."""
    await use(trunkline, 100)
    settled(trunkline)
    command = [sys.executable, "-c", textwrap.dedent(DYING), str(trunkline.state.parent)]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    died = await asyncio.create_subprocess_exec(
        *command, str(Path(__file__).parent), env=environment
    )
    assert await asyncio.wait_for(died.wait(), 60) == 9
    await until(lambda: ledger(trunkline) == (0, 2))
    assert run(trunkline, 5).attempts == 2
    trunkline.gate.recover()
    settled(trunkline)
    assert books(trunkline)["budget:all"] == ledger(trunkline) == (750, 0)


async def test_the_command_counts_it(trunkline: Trunkline, tmp_path: Path) -> None:
    attempt = attempt_by("ann")
    attempt.provider, attempt.model = "openai", "gpt-4.1-mini"
    trunkline.gate._price = lambda _: None  # it was not known when it was settled
    await trunkline.gate.reserve(attempt, lambda: Usage(tokens_out=6))
    trunkline.gate.settle(attempt, Metered(Usage(tokens_out=6), Quality.EXACT))
    settled(trunkline)
    where = ["--config", str(tmp_path / "trunkline.yaml"), "--state", str(trunkline.state)]
    for _ in range(2):
        result = CliRunner().invoke(app, ["reprice", *where], prog_name="trunkline")
        assert result.exit_code == 0, result.output
        assert books(trunkline)["budget:all"] == ledger(trunkline) == (9_600, 0)


async def until(holds: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        await asyncio.sleep(0.02)
