"""kill -9 of running demos: what was settled is in the ledger, exactly once.

The demos share one state directory, as processes of one machine do, so that the process that loads
the journals is killed as well.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trunkline.store import LEDGER_NAME, Ingester
from trunkline.store.ledger import Ledger

COMMAND = Path(sys.executable).with_name("trunkline")


def start(out: Path) -> subprocess.Popen[str]:
    command = [COMMAND, "demo", "--verbose", "--out", out]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def settled_of(demo: subprocess.Popen[str]) -> list[str]:
    """The attempts that the demo had settled when it died, as it said itself."""
    text, _ = demo.communicate(timeout=30)
    return [line.split()[1] for line in text.splitlines() if line.startswith("settled")]


def kill_demos(out: Path, moments: list[float]) -> list[str]:
    """Run as many demos side by side as there are moments (seconds) and kill one at each."""
    running = [start(out) for _ in moments]
    began = time.monotonic()
    said: list[str] = []
    for demo, moment in zip(running, sorted(moments), strict=True):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        demo.kill()
    for demo in running:
        said += settled_of(demo)
    return said


def check(out: Path, said: list[str], demos: int) -> None:
    for _ in range(2):  # loading again must change nothing
        ingester = Ingester(out)
        ingester.run_once()
        ingester.close()
    ledger = Ledger(out / LEDGER_NAME)
    recorded = ledger.attempts()
    ledger.close()
    found = [one.attempt.id for one in recorded]
    assert len(said) == len(set(said))
    assert set(said) <= set(found)
    assert len(found) == len(set(found))
    assert all(len(one.entries) == 1 for one in recorded)
    # A demo may die between its journal and its screen, with one settlement on the way.
    assert len(set(found) - set(said)) <= demos
    assert not list(out.glob("*.journal"))


def test_killed_demos_lose_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(4)
    said = kill_demos(tmp_path, [chance.uniform(12, 35) for _ in range(3)])
    assert said, "nothing was settled before the kills, so nothing was tested"
    check(tmp_path, said, 3)


@pytest.mark.soak
@pytest.mark.parametrize("_round", range(10))
def test_twenty_random_moments(tmp_path: Path, _round: int) -> None:
    chance = random.Random()
    said = kill_demos(tmp_path, [chance.uniform(2, 45) for _ in range(2)])
    check(tmp_path, said, 2)
