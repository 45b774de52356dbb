"""Shipped prices are facts: rows are appended, never edited, and a price may only end.

``price_facts.txt`` has one line for each row there ever was, in the order of its file. After a new
row, or a ``valid_until`` that is filled in: ``python tests/unit/test_price_facts.py``, which adds
what is new and refuses what was changed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from trunkline.catalog.pricelist import SHIPPED

FACTS = Path(__file__).parent / "price_facts.txt"
OPEN = "-"


def fact(provider: str, row: dict[str, Any]) -> str:
    """A row as one line: whose, what of it may never change, when it ends, and which it is."""
    row = dict(row)
    until = row.pop("valid_until", OPEN)
    text = json.dumps(row, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:20]
    return f"{provider} {digest} {until} {row['models'][0]} from {row['valid_from']}"


def shipped() -> dict[str, list[str]]:
    rows = {}
    for path in sorted(SHIPPED.glob("*.yaml")):
        data = yaml.safe_load(path.read_text())
        rows[path.stem] = [fact(path.stem, row) for row in data["prices"]]
    return rows


def edited(recorded: list[str], now: dict[str, list[str]]) -> list[str]:
    """The recorded facts that stand no longer where they stood."""
    left = {provider: iter(rows) for provider, rows in now.items()}
    wrong = []
    for line in recorded:
        provider, digest, until, *_ = line.split(" ")
        found = next(left.get(provider, iter(())), "").split(" ")
        if found[:2] != [provider, digest] or (until != OPEN and found[2] != until):
            wrong.append(line)
    return wrong


def test_no_shipped_price_was_edited_or_removed() -> None:
    wrong = edited(FACTS.read_text().splitlines(), shipped())
    assert not wrong, "put these rows back as they were, and append what is new: " + "; ".join(
        wrong
    )


def test_every_shipped_price_is_recorded() -> None:
    now = sorted(line for rows in shipped().values() for line in rows)
    assert sorted(FACTS.read_text().splitlines()) == now, (
        "run python tests/unit/test_price_facts.py"
    )


ROW = {"models": ["m"], "rates": {"character": "1"}, "valid_from": "2026-01-01", "tier": "x"}
ENDED = {**ROW, "valid_until": "2026-06-01"}


@pytest.mark.parametrize(
    ("before", "after", "is_edited"),
    [
        ([ROW], [ROW], False),
        ([ROW], [ROW, {**ROW, "models": ["n"]}], False),
        ([ROW], [ENDED], False),
        ([ENDED], [ROW], True),
        ([ENDED], [{**ROW, "valid_until": "2026-07-01"}], True),
        ([ROW], [{**ROW, "rates": {"character": "2"}}], True),
        ([ROW], [{**ROW, "models": ["m", "n"]}], True),
        ([ROW], [{k: v for k, v in ROW.items() if k != "tier"}], True),
        ([ROW], [{**ROW, "models": ["n"]}, ROW], True),
        ([ROW], [], True),
    ],
)
def test_what_counts_as_an_edit(before: list[Any], after: list[Any], is_edited: bool) -> None:
    recorded = [fact("vendor", row) for row in before]
    assert bool(edited(recorded, {"vendor": [fact("vendor", row) for row in after]})) is is_edited


if __name__ == "__main__":
    facts = shipped()
    if FACTS.exists() and (changed := edited(FACTS.read_text().splitlines(), facts)):
        sys.exit("edited, not appended: " + "; ".join(changed))
    FACTS.write_text("".join(f"{line}\n" for rows in facts.values() for line in rows))
