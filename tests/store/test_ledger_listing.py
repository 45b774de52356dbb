"""``trunkline ledger`` as a person reads it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from settlements import settlement
from typer.testing import CliRunner, Result

from trunkline.cli.app import app
from trunkline.core.models import Purpose, Settlement, Usage
from trunkline.store import LEDGER_NAME
from trunkline.store.ledger import Ledger, Position

MORNING = 1_767_254_400_000_000_000  # 2026-01-01 08:00:00 UTC


def listed(directory: Path, *settlements: Settlement, call: str = "") -> Result:
    with closing(Ledger(directory / LEDGER_NAME)) as ledger:
        ledger.open()
        ledger.add(settlements, "journal", Position(1))
    only = ["--call", call] if call else []
    return CliRunner().invoke(app, ["ledger", "--state", str(directory), *only])


def test_calls_attempts_and_totals_stand_in_columns(tmp_path: Path) -> None:
    failed = settlement(nanos=None, usage=Usage(), started_ns=MORNING)
    failed.attempt.outcome = "first_content_timeout"
    probe = settlement(
        call="call-2", provider="groq", nanos=12_345_678, room="lobby", started_ns=MORNING + 1
    )
    probe.attempt.purpose = Purpose.PROBE
    result = listed(tmp_path, failed, settlement(started_ns=MORNING + 2), probe)
    assert result.exit_code == 0
    assert result.stdout == (
        "UTC            model                outcome                first ms  ms  used"
        "                           USD\n"
        "\n"
        "call call-1  2026-01-01\n"
        "08:00:00  llm  openai/gpt-4.1-mini  first_content_timeout         -   0  -"
        "                         unpriced\n"
        "08:00:00  llm  openai/gpt-4.1-mini  ok                            -   0  "
        "100 tokens in, 10 out  0.0000015\n"
        "\n"
        "call call-2  2026-01-01  room lobby\n"
        "08:00:00  llm  groq/gpt-4.1-mini    ok (probe)                    -   0  "
        "100 tokens in, 10 out  0.012345678\n"
        "\n"
        "     model                attempts  used                           USD  rates from\n"
        "llm  openai/gpt-4.1-mini         2  100 tokens in, 10 out  0.0000015    test, 1 unpriced\n"
        "llm  groq/gpt-4.1-mini           1  100 tokens in, 10 out  0.012345678  test\n"
        "all                              3                         0.012347178  1 unpriced\n"
        "\n"
        "1 unpriced: their price is not known, and the dollars leave them out\n"
    )


def test_one_call_alone_is_listed_and_an_unknown_one_told(tmp_path: Path) -> None:
    first, second = settlement("call-1"), settlement("call-2")
    assert "call-2" not in listed(tmp_path, first, second, call="call-1").stdout
    unknown = listed(tmp_path, call="call-3")
    assert unknown.exit_code == 2
    assert "has no attempt of call 'call-3'" in unknown.stderr


def test_an_empty_ledger_says_so(tmp_path: Path) -> None:
    assert listed(tmp_path).stdout == "no attempts yet\n"
