"""kill -9 at random moments, with real processes: what was settled is there, exactly once."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from settlements import ids_in_ledger

from trunkline.store import Ingester

WRITER = """
    import os, sys, threading, time
    from pathlib import Path
    from settlements import settlement
    from trunkline.store import Recorder

    recorder = Recorder(Path(sys.argv[1]))

    def settle():
        while True:
            recorder.append(sent := settlement())
            os.write(1, f"{sent.attempt.id}\\n".encode())
            time.sleep(0.0005)

    threading.Thread(target=settle, daemon=True).start()
    while True:
        recorder.flush_all(0.05)  # keeps the loader busy: it is killed too
"""
ROUNDS = 4
WRITERS = 3


def test_killed_writers_and_ingesters_lose_and_double_nothing(tmp_path: Path) -> None:
    chance = random.Random(20)
    said: list[str] = []
    for _ in range(ROUNDS):
        writers = [start(tmp_path) for _ in range(WRITERS)]
        for writer in writers:
            assert writer.stdout
            said.append(writer.stdout.readline().strip())  # it settles: the clock runs
        for writer in chance.sample(writers, WRITERS):
            time.sleep(chance.uniform(0, 0.6))
            writer.kill()
        for writer in writers:
            assert writer.stdout
            said += writer.stdout.read().split("\n")[:-1]
            writer.stdout.close()
            writer.wait(20)

    ingester = Ingester(tmp_path)
    ingester.run_once()

    found = ids_in_ledger(tmp_path)
    assert len(found) == len(set(found))
    assert set(said) <= set(found)
    assert len(found) - len(said) <= ROUNDS * WRITERS, "at most one each was settled but not told"
    assert (ingester.damaged, list(tmp_path.glob("*.journal"))) == (0, [])


def start(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(directory)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        stdout=subprocess.PIPE,
        text=True,
    )
