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
from threading import Event, Thread

import pytest

from trunkline.store import LEDGER_NAME, Ingester
from trunkline.store.ledger import Ledger

COMMAND = Path(sys.executable).with_name("trunkline")


def start(out: Path) -> subprocess.Popen[str]:
    command = [COMMAND, "demo", "--verbose", "--out", out]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )


def listening(demo: subprocess.Popen[str], said: list[str], settles: Event) -> Thread:
    """Collect the attempts that ``demo`` settles, as it says itself, until it dies."""

    def listen() -> None:
        assert demo.stdout
        with demo.stdout:
            for line in demo.stdout:
                if line.startswith("settled"):
                    said.append(line.split()[1])
                    settles.set()

    thread = Thread(target=listen)
    thread.start()
    return thread


def kill_demos(out: Path, moments: list[float], *, settling: bool) -> list[str]:
    """Run as many demos side by side as there are moments (seconds) and kill one at each.

    With ``settling`` the clock starts when one of them has settled an attempt.
    """
    settles = Event()
    said: list[str] = []
    running = [start(out) for _ in moments]
    threads = [listening(demo, said, settles) for demo in running]
    heard = settles.wait(240) if settling else True
    began = time.monotonic()
    for demo, moment in zip(running, sorted(moments), strict=True):
        time.sleep(max(0.0, began + moment - time.monotonic()))
        demo.kill()
    for demo, thread in zip(running, threads, strict=True):
        demo.wait(30)
        thread.join(30)
    assert heard, "nothing was settled, so nothing was tested"
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
    said = kill_demos(tmp_path, [chance.uniform(0, 25) for _ in range(3)], settling=True)
    check(tmp_path, said, 3)


@pytest.mark.soak
@pytest.mark.parametrize("_round", range(10))
def test_twenty_random_moments(tmp_path: Path, _round: int) -> None:
    chance = random.Random()
    said = kill_demos(tmp_path, [chance.uniform(2, 45) for _ in range(2)], settling=False)
    check(tmp_path, said, 2)
