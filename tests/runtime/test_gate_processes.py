"""Many processes on one budget: no overshoot, no deadlock, exact sums, whoever is killed when."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from trunkline.compose import configure
from trunkline.store import Ingester
from trunkline.store.gates import GATE_NAME
from trunkline.store.ledger import Ledger

CONFIG = """\
version: 1
budgets:
  everyone:
    window: total
    amount: {{tokens: {cap}}}
  each-agent:
    scope: [agent: "*"]
    window: month
    time_zone: Asia/Kolkata
    amount: {{requests: 1000000}}
limits:
  at-once:
    amount: {{streams: {streams}}}
    wait: 20
"""

OPEN_AT_ONCE = 6 * 100
"""The most tokens that a worker has reserved."""

WORKER = """
    import asyncio, random, sys
    from pathlib import Path
    from trunkline.clock import new_id, now_ns
    from trunkline.compose import configure
    from trunkline.core.models import Attempt, Identity, Modality, Quality, Usage
    from trunkline.errors import Refused
    from trunkline.runtime.meter import Metered

    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    draw = random.Random(seed)
    trunkline = configure(folder / "trunkline.yaml", folder / "state")

    async def call(number: int) -> str:
        while True:
            identity = Identity(call=f"{seed}-{number}", agent=f"agent-{number % 3}")
            attempt = Attempt(new_id(), identity, Modality.LLM, "p", "m", "c", now_ns())
            estimate = draw.randint(1, 100)
            try:
                await trunkline.gate.reserve(attempt, lambda: Usage(tokens_out=estimate))
            except Refused as refused:
                return str(refused)
            await asyncio.sleep(draw.random() * 0.01)
            used = Usage(tokens_out=draw.randint(0, estimate))
            trunkline.gate.settle(attempt, Metered(used, Quality.EXACT))

    async def main() -> None:
        print("ready", flush=True)
        said = await asyncio.gather(*(call(number) for number in range(6)))
        await trunkline.aclose()
        print(*said, sep="\\n")

    asyncio.run(main())
"""


def worker(folder: Path, seed: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(WORKER), str(folder), str(seed)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def pools(folder: Path, what: str, table: str = "pools") -> dict[str, int]:
    with closing(sqlite3.connect(folder / "state" / GATE_NAME)) as db:
        return dict(db.execute(f"SELECT pool, sum({what}) FROM {table} GROUP BY pool"))


def run(folder: Path, processes: int, cap: int, killed: int = 0) -> tuple[int, Counter[str]]:
    """Let them spend until they are refused; returns what the ledger has, and who was refused."""
    (folder / "trunkline.yaml").write_text(CONFIG.format(cap=cap, streams=processes * 3))
    started = [worker(folder, seed) for seed in range(processes)]
    draw = random.Random(processes)
    for one in started:
        assert one.stdout
        assert one.stdout.readline() == "ready\n"
    for one in started[:killed]:
        time.sleep(draw.random() * 0.3)
        one.send_signal(signal.SIGKILL)
    reasons: Counter[str] = Counter()
    for one in started:
        assert one.stdout
        out = one.stdout.read()  # `communicate` would not see what came along with "ready"
        one.wait(timeout=120)
        assert one.returncode in (0, -signal.SIGKILL if killed else 0), out
        reasons.update(line.split(" (")[0] for line in out.splitlines())
    late = configure(folder / "trunkline.yaml", folder / "state")
    deadline = time.monotonic() + 30
    late.gate.recover()
    while pools(folder, "held", "holdings"):
        late.gate.recover()
        assert time.monotonic() < deadline, "what the dead held was not returned"
    late.gate.close()
    assert late.recorder.flush_all(30)
    ingester = Ingester(late.state)
    while list(late.state.glob("*.journal")):
        ingester.run_once()
        assert time.monotonic() < deadline, "journals were not loaded"
    ingester.close()
    ledger = Ledger(folder / "state" / "ledger.db")
    spent = sum(total.usage.tokens_out for total in ledger.summary())
    attempts = sum(total.attempts for total in ledger.summary())
    ledger.close()
    assert pools(folder, "spent")["budget:everyone"] == spent
    counted = pools(folder, "attempts")
    assert counted["budget:everyone"] == attempts
    assert sum(n for pool, n in counted.items() if pool.startswith("budget:each-agent")) == attempts
    return spent, reasons


def test_four_processes_spend_a_budget_to_its_end(tmp_path: Path) -> None:
    spent, reasons = run(tmp_path, 4, 20_000)
    assert 20_000 - 100 <= spent <= 20_000
    assert reasons == {"budget everyone": 24}


def test_the_killed_lose_nothing_and_hold_nothing(tmp_path: Path) -> None:
    spent, reasons = run(tmp_path, 4, 30_000, killed=2)
    # whoever is refused before the dead are found is refused for what they held
    assert 30_000 - 2 * OPEN_AT_ONCE - 100 <= spent <= 30_000
    assert reasons == {"budget everyone": 12}


@pytest.mark.soak
@pytest.mark.parametrize("killed", [0, 8])
def test_sixteen_processes_spend_a_budget_to_its_end(tmp_path: Path, killed: int) -> None:
    spent, reasons = run(tmp_path, 16, 400_000, killed)
    assert 400_000 - killed * OPEN_AT_ONCE - 100 <= spent <= 400_000
    assert reasons == {"budget everyone": (16 - killed) * 6}
