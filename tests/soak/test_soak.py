"""Thousands of calls from several processes, a fifth of their requests struck: none silent."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from soak.caller import Call, Used
from soak.judge import Verdict, judge_books, judge_calls, judge_processes
from soak.vendors import configuration, exchange
from trunkline.store.ledger import Ledger

TESTS = Path(__file__).parents[1]


def soak(place: Path, calls: int, *, processes: int, lines: int, seed: str, seconds: float) -> None:
    """Play ``calls`` calls over ``processes``, ``lines`` at a time in each, and judge them."""
    config, state = place / "trunkline.yaml", place / "state"
    with exchange(place, f"{seed}-a", 2 * calls) as a, exchange(place, f"{seed}-b", 2 * calls) as b:
        exchanges = {"a": a, "b": b}
        config.write_text(configuration(exchanges))
        told = [
            {
                "config": str(config),
                "state": str(state),
                "seed": f"{seed} {number}",
                "calls": calls // processes,
                "lines": lines,
            }
            for number in range(processes)
        ]
        heard, used = _played(told, seconds)
        bills = {name: one.bill() for name, one in exchanges.items()}
        requests = {name: one.requests() for name, one in exchanges.items()}
    verdict = Verdict()
    judge_calls(verdict, heard)
    judge_books(verdict, Ledger(state / "ledger.db").attempts(), bills, requests)
    judge_processes(verdict, used)
    print(verdict)
    verdict.check(len(heard) == calls, f"{len(heard)} of {calls} calls came to an end")
    assert not verdict.problems, "\n".join([*verdict.problems, str(verdict)])


def _played(tasks: list[dict[str, object]], seconds: float) -> tuple[list[Call], list[Used]]:
    """Run a process for each task; what they told. Those that outlast ``seconds`` are ended."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "soak.caller"],
            cwd=TESTS,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in tasks
    ]
    timers = [threading.Timer(seconds, process.kill) for process in processes]
    outputs: list[bytes] = [b""] * len(processes)

    def read(number: int) -> None:
        outputs[number] = processes[number].communicate(json.dumps(tasks[number]).encode())[0]

    readers = [threading.Thread(target=read, args=(n,)) for n in range(len(processes))]
    for thread in [*timers, *readers]:
        thread.start()
    for thread in readers:
        thread.join()
    for timer in timers:
        timer.cancel()
    rows = [json.loads(line) for output in outputs for line in output.splitlines()]
    calls = [msgspec.convert(row, Call) for row in rows if "modality" in row]
    return calls, [msgspec.convert(row, Used) for row in rows if "kib" in row]


def test_a_sample_of_calls_under_random_faults(tmp_path: Path) -> None:
    soak(tmp_path, 120, processes=2, lines=6, seed="sample", seconds=120)


@pytest.mark.soak
def test_ten_thousand_calls_under_random_faults(tmp_path: Path) -> None:
    soak(tmp_path, 10_000, processes=4, lines=6, seed="soak", seconds=3000)
