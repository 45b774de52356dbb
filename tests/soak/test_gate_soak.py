"""The soak under tight budgets and limits, its processes killed at any moment.

Nobody spends more than is allowed and in flight, nobody is left without a word, every sum is exact,
and what the killed held is free again.
"""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from soak.caller import Call
from soak.judge import LONGEST, SEAMS, missing
from soak.vendors import ANSWER, FAULTY, configuration, exchange
from trunkline.compose import Trunkline, configure
from trunkline.core.models import Modality
from trunkline.core.scopes import Unit, used
from trunkline.doubles import RequestLog, tones
from trunkline.store import Ingester
from trunkline.store.gates import GATE_NAME
from trunkline.store.ledger import Ledger, Recorded

TESTS = Path(__file__).parents[1]
NOTICE = "I have to end this call now. Goodbye."
WAIT = 5
"""Seconds that an attempt waits for its limits."""
RATE = 40
"""Chats a second, of all processes."""
MOST = {Unit.TOKENS: 60, Unit.CHARACTERS: 2 * len(ANSWER), Unit.AUDIO_SECONDS: 12 * 10**9}
"""What one attempt uses at most."""
UNIT_OF = {"tokens": Unit.TOKENS, "letters": Unit.CHARACTERS, "heard": Unit.AUDIO_SECONDS}
MODALITY_OF = {"tokens": "llm", "letters": "tts", "heard": "stt"}


@dataclass
class Size:
    """How long and how hard: ``caps`` are in the unit's base."""

    processes: int
    killed: int
    calls: int
    lines: int
    streams: int
    caps: Mapping[str, int]
    seconds: float


def rules(size: Size) -> dict[str, object]:
    """A budget for each modality, one of money that is never spent, and two limits."""
    budgets: dict[str, object] = {
        name: {
            "scope": [{"modality": MODALITY_OF[name]}],
            "window": "total",
            "amount": {unit.value: size.caps[name] / unit.base},
            **({"notice": NOTICE} if name != "heard" else {}),
        }
        for name, unit in UNIT_OF.items()
    }
    money = {"window": "month", "time_zone": "Asia/Kathmandu", "amount": {"usd": 1000}}
    limits = {
        "lines": {"amount": {"streams": size.streams}, "wait": WAIT},
        "often": {
            "scope": [{"modality": "llm"}],
            "amount": {"requests": RATE},
            "per": "second",
            "wait": WAIT,
        },
    }
    return {"budgets": {**budgets, "money": money}, "limits": limits}


class Caller:
    """A process of callers, and the file of what it has told."""

    def __init__(self, place: Path, name: str, size: Size, seed: str) -> None:
        self._told = place / f"{name}.out"
        task = {
            "config": str(place / "trunkline.yaml"),
            "state": str(place / "state"),
            "seed": f"{seed} {name}",
            "calls": size.calls,
            "lines": size.lines,
            "session": 1,
        }
        with self._told.open("wb") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "soak.caller"],
                cwd=TESTS,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.DEVNULL,
            )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(task).encode())
        self.process.stdin.close()

    def calls(self) -> Iterator[Call]:
        """Those that have ended; of a killed process the last line may be cut."""
        for line in self._told.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n") and b'"modality"' in line:
                yield msgspec.json.decode(line, type=Call)


def soak(place: Path, size: Size, seed: str) -> None:
    draw = random.Random(seed)
    with exchange(place, f"{seed}-a", 10_000) as a, exchange(place, f"{seed}-b", 10_000) as b:
        (place / "trunkline.yaml").write_text(
            configuration({"a": a, "b": b}, priced="a", **rules(size))
        )
        callers = [Caller(place, f"{n}", size, seed) for n in range(size.processes)]
        deadline = time.monotonic() + size.seconds
        try:
            for victim in callers[: size.killed]:
                while not any(victim.calls()):  # it is in the middle of its work
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
                time.sleep(draw.random() * 0.3)
                victim.process.kill()
            for one in callers:
                one.process.wait(max(1.0, deadline - time.monotonic()))
        finally:
            for one in callers:
                one.process.kill()
        requests = [*a.requests(), *b.requests()]
    calls = [call for one in callers for call in one.calls()]
    assert [one.process.returncode for one in callers[size.killed :]] == [0] * (
        size.processes - size.killed
    )
    judge(configure(place / "trunkline.yaml", place / "state"), size, calls, requests)


def judge(
    trunkline: Trunkline, size: Size, calls: Sequence[Call], requests: Sequence[RequestLog]
) -> None:
    free_the_dead(trunkline)
    recorded = load(trunkline)
    print(Counter((call.modality, ending(call)) for call in calls))
    assert Counter(problem for call in calls if (problem := wrong(call))) == {}
    refused = Counter(c.modality for c in calls if c.told.startswith("budget") or told_so(c))
    in_flight = size.processes * size.lines
    for name, unit in UNIT_OF.items():
        modality = MODALITY_OF[name]
        spent = total(recorded, unit, modality)
        assert pools(trunkline.state)[f"budget:{name}"] == spent, "the ledger's sum is the budget's"
        # a voice that is struck in the middle of a notice is followed by another
        said = len(NOTICE) * refused[modality] * (1 + 2 * FAULTY)
        notices = said if unit is Unit.CHARACTERS else 0
        assert spent <= size.caps[name] + in_flight * MOST[unit] + notices
        assert spent, f"{name}: nobody was served"
        assert refused[modality], f"{name} was never spent"
    money = sum(entry.charge.nanos for r in recorded for entry in r.entries if entry.charge)
    assert pools(trunkline.state)["budget:money"] == money > 0
    judge_rate(requests)


def free_the_dead(trunkline: Trunkline) -> None:
    """As any process that runs does every second; bounded."""
    deadline = time.monotonic() + 30
    trunkline.gate.recover()
    while pools(trunkline.state, "held", "holdings"):
        assert time.monotonic() < deadline, "what the dead held was not returned"
        time.sleep(0.1)
        trunkline.gate.recover()
    trunkline.gate.close()


def load(trunkline: Trunkline) -> Sequence[Recorded]:
    """Every attempt with its entries, once all journals are in the ledger."""
    assert trunkline.recorder.flush_all(30)
    deadline = time.monotonic() + 30
    with closing(Ingester(trunkline.state)) as ingester:
        while list(trunkline.state.glob("*.journal")):
            ingester.run_once()
            assert time.monotonic() < deadline, "journals were not loaded"
    with closing(Ledger(trunkline.state / "ledger.db")) as ledger:
        return ledger.attempts()


def pools(state: Path, what: str = "spent", table: str = "pools") -> dict[str, int]:
    with closing(sqlite3.connect(state / GATE_NAME)) as db:
        return dict(db.execute(f"SELECT pool, sum({what}) FROM {table} GROUP BY pool"))


def total(recorded: Sequence[Recorded], unit: Unit, modality: str) -> int:
    mine = [r for r in recorded if r.attempt.modality == modality]
    return sum(used(unit, entry.usage, 0) for r in mine for entry in r.entries)


def told_so(call: Call) -> bool:
    """Whether the caller heard or read the notice, at the end of what was said.

    Where one voice follows another in the middle of it, a word is heard twice.
    """
    words = NOTICE.split() if call.modality == Modality.LLM else tones.words_of(NOTICE)
    heard = call.words[-len(words) - SEAMS :]
    return call.words[-1:] == words[-1:] and missing(words, heard)[0] == 0


def ending(call: Call) -> str:
    if told_so(call):
        return "notice"
    return call.told.partition(" (")[0] or call.error or "ok"


def wrong(call: Call) -> str:
    """What is wrong with what a caller got: silence, or a refusal without its reason."""
    if (
        call.error == "never" or call.silence > LONGEST + 3 * WAIT
    ):  # each of three attempts may wait for its limits
        return f"{call.modality} was silent"
    if not call.error:
        answered = len(call.words) >= len(ANSWER.split()) or told_so(call)
        return "" if answered else f"{call.modality} lost words: {' '.join(call.words)}"
    if call.told:
        # a budget's notice is said; where the voice fails that was to say it, the error explains
        known = call.told.startswith(
            ("limit lines", "limit often", "budget heard", "budget letter")
        )
        return "" if known and "does not allow" in call.told else call.told
    begun = call.modality == Modality.LLM and call.words
    return "" if call.causes or begun else f"{call.modality} failed without a reason"


def judge_rate(requests: Sequence[RequestLog]) -> None:
    """However long it took: no more chats than the burst and what the time has brought."""
    at = sorted(one.at for one in requests if one.endpoint == "chat")
    assert at
    seconds = (at[-1] - at[0]) / 1e9
    # the last may have been let in just before it arrived, the first long before
    assert len(at) <= RATE + RATE * (seconds + WAIT)


def test_a_sample_of_calls_under_tight_budgets_whose_processes_die(tmp_path: Path) -> None:
    caps = {"tokens": 2400, "letters": 900, "heard": 80 * 10**9}
    soak(tmp_path, Size(3, 1, 24, 4, 9, caps, 600), "gate-sample")


@pytest.mark.soak
@pytest.mark.parametrize("seed", ["one", "two", "three"])
def test_sixteen_processes_under_tight_budgets_half_of_which_die(tmp_path: Path, seed: str) -> None:
    caps = {"tokens": 20_000, "letters": 30_000, "heard": 1500 * 10**9}
    soak(tmp_path, Size(16, 8, 200, 4, 40, caps, 1800), f"gate-{seed}")
