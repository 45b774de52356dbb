"""``trunkline budgets`` and ``trunkline limits`` as their user meets them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trunkline.cli.app import app
from trunkline.clock import now_ns
from trunkline.compose import configure
from trunkline.core.ports import Change, Said
from trunkline.core.windows import Kind, Window
from trunkline.store.gates import SQLiteGateStore

CONFIG = """\
version: 1
budgets:
  day: {window: day, amount: {tokens: 1000}}
  each: {scope: [agent: "*"], window: total, amount: {usd: 2.5}, shadow: true}
  unused: {scope: [org: default], window: total, amount: {usd: 1}}
limits:
  lines: {amount: {streams: 3}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "trunkline.yaml").write_text(CONFIG)
    store = SQLiteGateStore(tmp_path / "state")
    day = Window(Kind.DAY).at(now_ns()).slot_ns
    changes = (
        Change("budget:day", day, spent=700, attempts=9),
        Change("budget:each;agent=ann", 0, spent=3_000_000_000, attempts=2, unpriced=1),
    )
    store.flush(Said(changes))
    store.close()
    return tmp_path


def run(folder: Path, *args: str) -> Result:
    where = ["--config", str(folder / "trunkline.yaml"), "--state", str(folder / "state")]
    return CliRunner().invoke(app, [*args, *where], prog_name="trunkline")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (
            ["budgets", "state"],
            [
                "day (every call): 700 tokens of 1000 tokens a day spent (70.0 %), resets ",
                "each [agent=ann] (agent=*, shadow): 3 USD of 2.5 USD in total spent (120.0 %), "
                "1 attempts unpriced",
            ],
        ),
        (["limits", "state"], ["lines (every call): 3 streams left of 3 streams at once"]),
        (["budgets", "history", "each"], ["all time  [agent=ann]  3 USD in 2 attempts, 1 of them"]),
        (
            ["budgets", "explain", "llm", "--tokens", "200"],
            ["day: passes, taking up to 200 tokens of 300 tokens left", "the attempt passes"],
        ),
        (
            ["limits", "explain", "llm", "--tokens", "400", "--agent", "ann"],
            [
                "day: budget day (every call) does not allow this llm attempt, which may take "
                "400 tokens: of 1000 tokens a day 700 tokens are spent; it resets at ",
                "each: in shadow, passes: budget each",
                "the attempt is refused",
            ],
        ),
        (
            ["budgets", "explain", "llm", "--tokens", "4000"],
            [
                "may take 4000 tokens: more than all of its 1000 tokens a day",
                'a caller is told: "I am sorry, I have to end this call here.',
            ],
        ),
        (
            ["budgets", "override", "day", "--amount", "800", "--until", "2999-01-01"],
            ["error: an override ends in the future, within 366 days, and not at 2999-01-01 00:"],
        ),
        (
            ["budgets", "override", "day", "--amount", "8", "--until", "9999-12-31T23:59-12:00"],
            ["error: an override ends in the future, within 366 days, and not at 9999-12-31"],
        ),
        (
            ["budgets", "override", "day", "--amount", "nan", "--until", "{soon}"],
            ["error: the amount must be a number above 0, and is nan"],
        ),
        (
            ["budgets", "override", "day", "--amount", "9", "--until", "soon"],
            ['error: "soon" is no time such as 2026-12-01T18:00Z'],
        ),
        (
            ["budgets", "explain", "stt", "--seconds", "nan"],
            ["error: --seconds is from 0 to a thousand million, and not nan"],
        ),
        (
            ["budgets", "explain", "llm", "--tokens", "-1"],
            ["error: --tokens is from 0 to a thousand million, and not -1"],
        ),
        (
            ["budgets", "explain", "llm", "--model", "openai/nobody-knows", "--agent", "bob"],
            ["each: passes, and has no known price, so that it counts nothing: 2.5 USD left"],
        ),
        # a language that has a price of its own
        (
            ["budgets", "explain", "stt", "--model=deepgram/nova-3:multi", "--seconds=60"],
            ["unused: passes, taking up to 0.0058 USD of 1 USD left"],
        ),
        (["budgets", "history", "unused"], ["nothing has been used of the budget unused yet"]),
        (
            ["budgets", "override", "day", "--amount", "600", "--until", "{soon}"],
            ["error: 700 tokens of budget day are spent already, more than 600 tokens"],
        ),
        (
            ["budgets", "override", "dya", "--end"],
            ['error: there is no budget "dya"; did you mean "day"?'],
        ),
        (["budgets", "explain", "video"], ['error: "video" is no modality']),
    ],
)
def test_what_the_commands_say(folder: Path, args: list[str], said: list[str]) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    result = run(folder, *(arg.replace("{soon}", soon) for arg in args))
    for line in said:
        assert line in result.output, result.output
    assert result.exit_code == (2 if said[0].startswith("error") else 0)
    assert not list((folder / "state").glob("*.gate")), "nothing is held"


def test_an_override_stands_until_it_is_taken_back(folder: Path) -> None:
    until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert run(folder, "budgets", "override", "day", "--amount", "5000", "--until", until).output
    assert "overridden from 1000 tokens" in run(folder, "budgets", "state").output
    assert (
        "the attempt passes" in run(folder, "budgets", "explain", "llm", "--tokens", "900").output
    )
    assert run(folder, "budgets", "override", "day", "--end").output == "day: 1000 tokens again\n"
    assert "overridden" not in run(folder, "budgets", "state").output


def test_a_cap_below_what_is_spent_is_told_at_load_with_the_figures(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def told(day: str, each: str = "") -> list[str]:
        caplog.clear()
        config = CONFIG.replace("{tokens: 1000}}", f"{day}}}").replace(", shadow: true", each)
        (folder / "trunkline.yaml").write_text(config)
        configure(folder / "trunkline.yaml", folder / "state")
        return [record.getMessage() for record in caplog.records]

    assert told("{tokens: 701}", ", shadow: true") == []
    lower, other = told("{tokens: 500}")
    assert lower.startswith("budget day refuses every attempt until 2")
    assert lower.endswith("UTC: 700 tokens of 500 tokens a day are spent already")
    assert other == (
        "budget each [agent=ann] refuses every attempt: 3 USD of 2.5 USD in total are spent already"
    )
    assert not list((folder / "state").glob("*.gate"))
    (folder / "state" / "gate.db").write_bytes(b"no database" * 1000)
    (broken,) = told("{tokens: 500}")
    assert "gate.db cannot be used" in broken
