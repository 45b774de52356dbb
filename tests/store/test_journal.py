"""The journal: one write a settlement, and what happens when the disk says no."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path

import pytest
from settlements import ids_in_ledger, settlement

from trunkline.core.models import Entry, Quality, Settlement, Usage
from trunkline.store import Ingester
from trunkline.store.journal import Journal
from trunkline.store.process import try_lock
from trunkline.store.records import Record, read_records


def written(directory: Path) -> list[Record | None]:
    records = []
    for path in sorted(directory.glob("*.journal")):
        with path.open("rb") as file:
            records += [record for record, _ in read_records(file)]
    return records


def test_what_is_appended_is_read_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "made" / "here")
    first = settlement()
    late = Entry("e2", first.attempt.id, 1, Usage(tokens_out=3), Quality.EXACT, kind="late_usage")

    journal.append(first)
    journal.append(late)

    assert written(tmp_path / "made" / "here") == [first, late]


def test_reading_goes_on_from_any_end(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    settlements = [settlement() for _ in range(4)]
    for each in settlements:
        journal.append(each)
    (path,) = tmp_path.glob("*.journal")

    with path.open("rb") as file:
        ends = [0, *(end for _, end in read_records(file))]
        for done, end in enumerate(ends):
            assert [r for r, _ in read_records(file, end)] == settlements[done:]

    assert ends[-1] == path.stat().st_size
    assert all(a < b for a, b in pairwise(ends))


def test_any_damaged_byte_costs_at_most_the_lines_it_touches(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    settlements = [settlement() for _ in range(3)]
    for each in settlements:
        journal.append(each)
    (path,) = tmp_path.glob("*.journal")
    whole = path.read_bytes()
    middle = range(whole.index(b"\n") + 1, whole.rindex(b"\n", 0, -1))

    for at in middle:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :])
        first, *_, last = written(tmp_path)
        assert (first, last) == (settlements[0], settlements[2])
        assert settlements[1] not in written(tmp_path)


def test_text_that_is_not_unicode_is_replaced(tmp_path: Path) -> None:
    Journal(tmp_path).append(settlement(provider_request_id="req\udcff-1"))

    (record,) = written(tmp_path)

    assert isinstance(record, Settlement)
    assert record.attempt.provider_request_id == "req?-1"


def test_a_figure_that_no_column_holds_is_damage_not_a_stuck_ledger(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(settlement(usage=Usage(tokens_out=2**63)))
    journal.append(good := settlement())
    journal.close()
    ingester = Ingester(tmp_path)

    assert ingester.run_once() == 1
    assert ingester.damaged == 1
    assert ids_in_ledger(tmp_path) == [good.attempt.id]


def test_a_full_file_is_left_to_the_ingester(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    bulky = "x" * 100_000
    sent = [settlement(provider_request_id=bulky) for _ in range(100)]
    for each in sent:
        journal.append(each)

    assert Ingester(tmp_path).run_once() == 100
    (path,) = tmp_path.glob("*.journal")  # the one still written to
    assert path.stat().st_size < sum(len(bulky) for _ in sent) / 2
    assert sorted(ids_in_ledger(tmp_path)) == sorted(each.attempt.id for each in sent)


def test_close_gives_the_file_away_and_append_takes_another(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(settlement())
    (path,) = tmp_path.glob("*.journal")
    with path.open("rb") as file:
        assert not try_lock(file.fileno())
        assert journal.close() == 0
        assert try_lock(file.fileno())

    journal.append(settlement())

    assert len(list(tmp_path.glob("*.journal"))) == 2


def test_without_a_directory_records_wait_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    obstacle = tmp_path / "state"
    obstacle.write_text("a file where the directory should be")
    journal = Journal(obstacle)
    sent = [settlement() for _ in range(50)]
    for each in sent:
        journal.append(each)
    assert journal.close() == 50
    assert len(caplog.records) == 1, "one line when the state changes, not one a record"

    obstacle.unlink()

    assert journal.flush() == 0
    assert written(obstacle) == sent
    assert len(caplog.records) == 2


def test_a_child_leaves_what_waits_to_its_parent(tmp_path: Path) -> None:
    obstacle = tmp_path / "state"
    obstacle.touch()
    journal = Journal(obstacle)
    journal.append(parents := settlement())

    if (child := os.fork()) == 0:
        os._exit(journal.flush())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    obstacle.unlink()
    journal.flush()

    assert written(obstacle) == [parents]


def test_parent_and_child_each_write_their_own_file(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    before, in_child, after = (settlement() for _ in range(3))
    journal.append(before)

    if (child := os.fork()) == 0:
        journal.append(in_child)
        os._exit(0)
    os.waitpid(child, 0)
    journal.append(after)

    contents = []
    for path in tmp_path.glob("*.journal"):
        with path.open("rb") as file:
            contents.append([record for record, _ in read_records(file)])
    assert sorted(contents, key=len) == [[in_child], [before, after]]


FULL_DISK = """
    import logging, resource, sys
    from pathlib import Path
    from settlements import settlement
    from trunkline.store.journal import Journal

    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    journal = Journal(Path(sys.argv[1]))
    for limit in (1000, 1003, 2500, 4000, resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        for _ in range(4):
            journal.append(sent := settlement())
            print(sent.attempt.id)
        print("waiting", journal.flush())
"""


def test_a_full_disk_loses_doubles_and_reorders_nothing(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FULL_DISK), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    lines = run.stdout.split("\n")[:-1]
    waiting = [int(line.split()[1]) for line in lines if line.startswith("waiting")]
    assert waiting[0] > 0
    assert waiting[1] == waiting[0] + 4
    assert waiting[-1] == 0
    sent = [line for line in lines if not line.startswith("waiting")]
    assert [r.attempt.id for r in written(tmp_path) if isinstance(r, Settlement)] == sent
    assert len(run.stderr.splitlines()) == 2, run.stderr
