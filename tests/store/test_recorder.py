"""What the engine settles into: quick and silent for the agent, whatever database and disk do."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from settlements import ids_in_ledger, settlement

from trunkline.clock import monotonic_ns
from trunkline.store import LEDGER_NAME, Ingester, Recorder
from trunkline.store.ledger import Ledger


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    recorder = Recorder(tmp_path)
    yield recorder
    recorder.close()


def test_what_is_appended_reaches_the_ledger_by_itself(recorder: Recorder, tmp_path: Path) -> None:
    Ledger(recorder.ledger_path).open()
    recorder.append(sent := settlement())

    deadline = time.monotonic() + 20
    while ids_in_ledger(tmp_path) != [sent.attempt.id]:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_flush_all_has_everything_in_the_ledger(recorder: Recorder, tmp_path: Path) -> None:
    assert recorder.flush_all(0), "nothing to wait for"
    sent = []
    for _ in range(3):
        for _ in range(20):
            recorder.append(record := settlement())
            sent.append(record.attempt.id)
        assert recorder.flush_all(20)
        assert sorted(ids_in_ledger(tmp_path)) == sorted(sent)

    recorder.close()
    recorder.append(record := settlement())
    assert recorder.flush_all(20), "closing is not the end"
    assert record.attempt.id in ids_in_ledger(tmp_path)


def test_a_process_that_is_not_elected_is_loaded_by_the_one_that_is(tmp_path: Path) -> None:
    elected, other = Recorder(tmp_path), Recorder(tmp_path)
    try:
        elected.append(settlement())
        assert elected.flush_all(20)
        other.append(sent := settlement())
        assert other.flush_all(20)
        assert sent.attempt.id in ids_in_ledger(tmp_path)
    finally:
        elected.close()
        other.close()


def test_a_locked_database_neither_delays_nor_loses(
    recorder: Recorder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.append(settlement())
    assert recorder.flush_all(20)
    other = sqlite3.connect(tmp_path / LEDGER_NAME, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    took = []
    for _ in range(1500):
        started = monotonic_ns()
        recorder.append(settlement())
        took.append(monotonic_ns() - started)
        time.sleep(0.001)
    assert sorted(took)[len(took) // 2] < 1_000_000
    assert sorted(took)[-5] < 250_000_000, "the database is waited for 1 s"
    assert not recorder.flush_all(3)
    (told,) = [record for record in caplog.records if record.name == "trunkline.store.recorder"]
    assert "database is locked" in told.getMessage()

    other.execute("COMMIT")

    assert recorder.flush_all(20)
    assert len(set(ids_in_ledger(tmp_path))) == len(ids_in_ledger(tmp_path)) == 1501


def test_an_unwritable_directory_is_one_log_line_until_it_is_writable(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    obstacle = tmp_path / "state"
    obstacle.touch()
    recorder = Recorder(obstacle)
    for _ in range(10):
        recorder.append(settlement())
    assert not recorder.flush_all(0.2)
    assert [r.name for r in caplog.records if r.name.endswith("journal")] == [
        "trunkline.store.journal"
    ]

    obstacle.unlink()

    assert recorder.flush_all(20)
    recorder.close()
    assert len(ids_in_ledger(obstacle)) == 10


def test_a_ledger_that_cannot_be_used_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    (tmp_path / LEDGER_NAME).write_text("this is not a database, however long it may be")
    recorder = Recorder(tmp_path)
    recorder.append(sent := settlement())
    assert not recorder.flush_all(3)
    recorder.close()
    assert [r.exc_info for r in caplog.records] == [None], "one line, without a traceback"

    (tmp_path / LEDGER_NAME).unlink()

    assert Ingester(tmp_path).run_once() == 1
    assert ids_in_ledger(tmp_path) == [sent.attempt.id]


FORKING = """
    import os, sys
    from pathlib import Path
    from settlements import settlement
    from trunkline.store import Recorder

    def settle(name):
        for _ in range(50):
            recorder.append(sent := settlement())
            os.write(1, f"{sent.attempt.id}\\n".encode())
        if not recorder.flush_all(20):
            os.write(1, f"{name} not flushed\\n".encode())

    recorder = Recorder(Path(sys.argv[1]))
    settle("parent")  # its thread runs, holds the election and an open ledger
    children = []
    for _ in range(3):
        recorder.append(sent := settlement())
        os.write(1, f"{sent.attempt.id}\\n".encode())
        if (child := os.fork()) == 0:
            settle("child")
            os._exit(0)
        children.append(child)
    settle("parent")
    for child in children:
        os.waitpid(child, 0)
    recorder.close()
"""


def script(text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )


def test_parent_and_forked_children_settle_apart(tmp_path: Path) -> None:
    run = script(FORKING, tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    sent = run.stdout.split()
    assert len(sent) == 5 * 50 + 3
    assert sorted(ids_in_ledger(tmp_path)) == sorted(sent)


ORPHAN = """
    import os, sys, time
    from pathlib import Path
    from settlements import settlement
    from trunkline.store import Recorder

    recorder = Recorder(Path(sys.argv[1]))
    recorder.append(settlement())
    recorder.flush_all(20)
    recorder.append(settlement())
    if os.fork() == 0:
        print("forked", flush=True)
        time.sleep(20)
    os.kill(os.getpid(), 9)
"""


def test_a_child_that_outlives_its_parent_keeps_none_of_its_locks(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(ORPHAN), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "forked\n"
        parent.wait(20)

        loaded = Ingester(tmp_path).run_once()

        parent.stdout.close()
    assert loaded <= 1
    assert len(ids_in_ledger(tmp_path)) == 2
    assert not list(tmp_path.glob("*.journal"))


FULL_DISK = """
    import logging, resource, sys, time
    from pathlib import Path
    from settlements import settlement
    from trunkline.store import Recorder

    told = []
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
    logging.getLogger().handlers[0].addFilter(lambda record: told.append(record) or True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    recorder = Recorder(Path(sys.argv[1]))
    for _ in range(100):
        recorder.append(sent := settlement())
        print(sent.attempt.id)
    assert not recorder.flush_all(3)
    for _ in range(600):  # until both have complained
        if len(told) >= 2:
            break
        time.sleep(0.1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert recorder.flush_all(20)
"""


def test_a_disk_too_full_for_journal_and_ledger_loses_nothing(tmp_path: Path) -> None:
    run = script(FULL_DISK, tmp_path)

    assert run.returncode == 0, run.stderr
    told = [line for line in run.stderr.splitlines() if line.startswith("WARNING:trunkline")]
    assert len(told) == len(run.stderr.splitlines()) == 2, "one line each, no traceback"
    assert sorted(ids_in_ledger(tmp_path)) == sorted(run.stdout.split())


LEAVING = """
    import sys
    from pathlib import Path
    from settlements import settlement
    from trunkline.store import Recorder

    recorder = Recorder(Path(sys.argv[1]))
    recorder.append(settlement())
"""


def test_the_end_of_the_interpreter_leaves_a_complete_journal(tmp_path: Path) -> None:
    run = script(LEAVING, tmp_path)

    assert (run.returncode, run.stderr) == (0, "")
    Ingester(tmp_path).run_once()
    assert len(ids_in_ledger(tmp_path)) == 1


def test_settling_imports_no_database() -> None:
    run = script("import sys, trunkline.store; print(*sys.modules)")

    assert {"trunkline.store", "msgspec"} <= set(run.stdout.split())
    assert not {"sqlalchemy", "alembic", "livekit"} & set(run.stdout.split())
