"""Journals into the ledger: everything whose append returned, exactly once, whatever happens."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from settlements import ids_in_ledger, settlement

from trunkline.core.models import Entry, Quality, Usage
from trunkline.errors import StoreError
from trunkline.store import LEDGER_NAME, Ingester
from trunkline.store.journal import Journal
from trunkline.store.ledger import Ledger, Position


@pytest.fixture(scope="module")
def empty_ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ledger") / LEDGER_NAME
    ledger = Ledger(path)
    ledger.open()
    ledger.close()
    return path


@dataclass
class World:
    """A few processes' journals, an ingester that may die, and the appends that returned."""

    directory: Path
    journals: list[Journal]
    ingester: Ingester
    returned: list[str] = field(default_factory=list)

    def append(self, which: int, _: int) -> None:
        self.journals[which].append(record := settlement())
        self.returned.append(record.attempt.id)

    def die_writing(self, which: int, missing: int) -> None:
        """The process is killed within a write: of its last record, ``missing`` bytes lack."""
        self.journals[which].append(record := settlement())
        sought = record.attempt.id.encode()
        (path,) = (p for p in self.directory.glob("*.journal") if sought in p.read_bytes())
        os.truncate(path, path.stat().st_size - missing)
        self.journals[which].after_fork()  # lets go of the file as a death does

    def die(self, which: int, _: int) -> None:
        self.journals[which].after_fork()

    def close(self, which: int, _: int) -> None:
        self.journals[which].close()

    def ingest(self, _: int, __: int) -> None:
        self.ingester.run_once()

    def ingest_a_little(self, _: int, batches: int) -> None:
        """The ingester is killed after some batches."""
        for _loaded, _ in zip(self.ingester.batches(), range(batches % 3), strict=False):
            pass
        self.restart(0, 0)

    def ingest_while_locked(self, _: int, __: int) -> None:
        self.ingester.elect()
        other = sqlite3.connect(self.directory / LEDGER_NAME, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        try:
            self.ingester.run_once()
        except StoreError as error:
            assert "locked" in str(error)  # noqa: PT017 - nothing to load is no error
        other.close()

    def restart(self, _: int, __: int) -> None:
        self.ingester.close()
        self.ingester = Ingester(self.directory)


STEPS: list[Callable[[World, int, int], None]] = [
    World.append,
    World.die_writing,
    World.die,
    World.close,
    World.ingest,
    World.ingest_a_little,
    World.restart,
]


def run(world: World, steps: list[tuple[Callable[[World, int, int], None], int, int]]) -> None:
    for step, which, number in steps:
        step(world, which, number)
    for journal in world.journals:
        journal.close()
    world.restart(0, 0)
    world.ingester.run_once()
    world.ingester.close()


@settings(max_examples=80)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, 2), st.integers(1, 300)),
        max_size=40,
    )
)
def test_every_returned_append_is_in_the_ledger_exactly_once(
    empty_ledger: Path, steps: list[tuple[Callable[[World, int, int], None], int, int]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        shutil.copy(empty_ledger, directory)
        world = World(directory, [Journal(directory) for _ in range(3)], Ingester(directory))

        run(world, steps)

        assert sorted(ids_in_ledger(directory)) == sorted(world.returned)
        assert not list(directory.glob("*.journal"))


def test_a_locked_database_only_postpones(empty_ledger: Path, tmp_path: Path) -> None:
    shutil.copy(empty_ledger, tmp_path)
    world = World(tmp_path, [Journal(tmp_path)], Ingester(tmp_path))
    once = [(World.append, 0, 0), (World.ingest_while_locked, 0, 0)]

    run(world, [*once, (World.ingest, 0, 0), *once])

    assert sorted(ids_in_ledger(tmp_path)) == sorted(world.returned)


def test_a_torn_end_is_dropped_only_when_its_owner_is_dead(tmp_path: Path) -> None:
    journal, ingester = Journal(tmp_path), Ingester(tmp_path)
    journal.append(whole := settlement())
    (path,) = tmp_path.glob("*.journal")
    with path.open("ab") as file:
        file.write(b'0a1b2c3d {"attempt":')

    assert ingester.run_once() == 1
    assert (path.exists(), ingester.torn) == (True, 0)

    journal.close()
    assert ingester.run_once() == 0
    assert (path.exists(), ingester.torn) == (False, 1)
    assert ids_in_ledger(tmp_path) == [whole.attempt.id]


def test_a_damaged_journal_is_loaded_as_far_as_possible_and_kept(tmp_path: Path) -> None:
    journal, ingester = Journal(tmp_path), Ingester(tmp_path)
    first, second, third = (settlement() for _ in range(3))
    for each in (first, second, third):
        journal.append(each)
    journal.close()
    (path,) = tmp_path.glob("*.journal")
    content = path.read_bytes().replace(second.attempt.id.encode(), b"?" * 36)
    path.write_bytes(content)

    assert [ingester.run_once(), ingester.run_once()] == [2, 0]

    assert ingester.damaged == 1
    assert path.with_suffix(".damaged").read_bytes() == content
    assert not path.exists()
    assert sorted(ids_in_ledger(tmp_path)) == sorted([first.attempt.id, third.attempt.id])


def test_a_correction_may_be_loaded_before_its_attempt(tmp_path: Path) -> None:
    ours, theirs, ingester = Journal(tmp_path), Journal(tmp_path), Ingester(tmp_path)
    late = settlement()
    ours.append(Entry("late", late.attempt.id, 2**62, Usage(), Quality.EXACT, kind="late_usage"))
    assert ingester.run_once() == 1
    theirs.append(late)
    assert ingester.run_once() == 1

    (recorded,) = Ledger(tmp_path / LEDGER_NAME).attempts()

    assert [entry.kind for entry in recorded.entries] == ["settlement", "late_usage"]


def test_one_unreadable_journal_does_not_stop_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "0-first-in-order.journal").mkdir()
    journal, ingester = Journal(tmp_path), Ingester(tmp_path)
    for _ in range(3):
        journal.append(settlement())
        assert ingester.run_once() == 1

    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_positions_of_files_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / LEDGER_NAME)
    ledger.open()
    ledger.add([settlement()], "removed.journal", Position(500))
    journal = Journal(tmp_path)
    journal.append(settlement())
    (path,) = tmp_path.glob("*.journal")

    assert Ingester(tmp_path).run_once() == 1

    assert set(ledger.positions()) == {path.name}


def test_one_at_a_time_is_elected(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    first, second = Ingester(tmp_path), Ingester(tmp_path)
    journal.append(settlement())
    assert (first.run_once(), second.run_once()) == (1, 0)
    journal.append(settlement())
    first.close()

    assert (second.run_once(), first.run_once()) == (1, 0)


INGESTER = """
    import sys, time
    from pathlib import Path
    from trunkline.store import Ingester

    ingester, rounds, loaded = Ingester(Path(sys.argv[1])), 0, 0
    print("ready", flush=True)
    while not Path(sys.argv[1], "stop").exists():
        loaded += ingester.run_once()
        rounds += 1
        if rounds % 5 == 0:
            ingester.close()  # the other one's turn
        time.sleep(0.005)
    print(loaded)
"""


def test_two_ingesters_at_once_from_an_empty_directory(tmp_path: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(INGESTER), str(tmp_path)]
    ingesters = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    journals = [Journal(tmp_path) for _ in range(3)]
    sent = []
    for ingester in ingesters:
        assert ingester.stdout
        assert ingester.stdout.readline() == "ready\n"
    for number in range(600):
        journal = journals[number % 3]
        journal.append(record := settlement())
        sent.append(record.attempt.id)
        if number % 50 == 0:
            journal.close()
    for journal in journals:
        journal.close()
    (tmp_path / "stop").touch()
    loaded = [int(each.communicate(timeout=30)[0]) for each in ingesters]
    rest = Ingester(tmp_path).run_once()

    assert sum(loaded) + rest == len(sent)
    assert sorted(ids_in_ledger(tmp_path)) == sorted(sent)
