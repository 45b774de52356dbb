"""The ledger: what went in comes out, sums read like an invoice, what cannot be used says so."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from settlements import settlement

from trunkline.clock import new_id
from trunkline.core.models import (
    Attempt,
    Charge,
    Entry,
    Identity,
    Modality,
    Purpose,
    Quality,
    Settlement,
    Usage,
)
from trunkline.errors import StoreError, TrunklineError, UsageError
from trunkline.store.ledger import Ledger, Position, Total

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
INT64 = st.integers(-(2**63), 2**63 - 1)
USAGE = st.builds(Usage, **dict.fromkeys(Usage.__struct_fields__, INT64))
IDENTITY = st.builds(
    Identity,
    **dict.fromkeys(Identity.__struct_fields__, TEXT) | {"tags": st.lists(TEXT).map(tuple)},
)
ATTEMPT = st.builds(
    Attempt,
    **dict.fromkeys(Attempt.__struct_fields__, TEXT)
    | {
        "id": st.builds(new_id),
        "identity": IDENTITY,
        "modality": st.sampled_from(Modality),
        "started_ns": INT64,
        "index": st.integers(0, 2**31),
        "purpose": st.sampled_from(Purpose),
        "first_output_after_ns": st.none() | INT64,
        "duration_ns": INT64,
        "usage": USAGE,
    },
)
ENTRY = st.builds(
    Entry,
    **dict.fromkeys(Entry.__struct_fields__, TEXT)
    | {
        "id": st.builds(new_id),
        "recorded_ns": INT64,
        "usage": USAGE,
        "quality": st.sampled_from(Quality),
        "charge": st.none() | st.builds(Charge, INT64, TEXT, TEXT, TEXT),
    },
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.db")
    ledger.open()
    yield ledger
    ledger.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(attempt=ATTEMPT, entry=ENTRY)
def test_every_field_survives(ledger: Ledger, attempt: Attempt, entry: Entry) -> None:
    attempt.identity = Identity(call=new_id(), tags=attempt.identity.tags)
    entry.attempt = attempt.id

    ledger.add([Settlement(attempt, entry)], "some.journal", Position(1))

    (found,) = ledger.attempts(call=attempt.identity.call)
    assert found.attempt == attempt
    assert found.entries == (entry,)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(identity=IDENTITY)
def test_every_field_of_whose_it_is_survives(ledger: Ledger, identity: Identity) -> None:
    record = settlement()
    record.attempt.identity = identity

    ledger.add([record], "some.journal", Position(1))

    (found,) = [r for r in ledger.attempts() if r.attempt.id == record.attempt.id]
    assert found.attempt.identity == identity


def test_adding_again_changes_nothing(ledger: Ledger) -> None:
    records = [settlement() for _ in range(3)]
    ledger.add(records[:2], "a.journal", Position(200))
    before = ledger.attempts()

    ledger.add(records[:2], "a.journal", Position(200))
    assert ledger.attempts() == before

    ledger.add(records, "copied.journal", Position(300, 1))
    assert len(ledger.attempts()) == 3
    assert ledger.positions() == {"a.journal": Position(200), "copied.journal": Position(300, 1)}


def test_an_add_that_fails_leaves_no_part_of_itself(ledger: Ledger) -> None:
    good, bad = settlement(), settlement()
    bad.attempt.turn = None  # type: ignore[assignment]

    with pytest.raises(StoreError):
        ledger.add([good, bad], "a.journal", Position(200))

    assert (ledger.attempts(), ledger.positions()) == ([], {})


def test_a_summary_reads_like_an_invoice(ledger: Ledger) -> None:
    known = [settlement(usage=Usage(tokens_in=1000, tokens_out=50), nanos=480_000)] * 1
    known += [settlement(usage=Usage(tokens_in=500, tokens_cached=400), nanos=200_000)]
    corrected = Entry(
        new_id(),
        known[0].attempt.id,
        1,
        Usage(tokens_out=-10),
        Quality.EXACT,
        Charge(-16_000, "1.6 per 1M tokens", "invoice"),
        "correction",
    )
    unknown = settlement(provider="somewhere", usage=Usage(tokens_in=7), nanos=None)
    ledger.add([*known, corrected, unknown], "a.journal", Position(1))

    assert ledger.summary() == [
        Total(
            modality=Modality.LLM,
            provider="openai",
            model="gpt-4.1-mini",
            attempts=2,
            usage=Usage(tokens_in=1500, tokens_out=40, tokens_cached=400),
            nanos=480_000 + 200_000 - 16_000,
            unpriced=0,
        ),
        Total(
            modality=Modality.LLM,
            provider="somewhere",
            model="gpt-4.1-mini",
            attempts=1,
            usage=Usage(tokens_in=7),
            nanos=0,
            unpriced=1,
        ),
    ]
    costs = {r.attempt.id: r.nanos for r in ledger.attempts()}
    assert costs == {
        known[0].attempt.id: 464_000,
        known[1].attempt.id: 200_000,
        unknown.attempt.id: None,
    }


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, [0, 1, 2, 3]),
        ({"call": "a"}, [0, 1]),
        ({"call": ""}, []),
        ({"room": "r"}, [1, 3]),
        ({"project": "shop"}, [3]),
        ({"org": "default"}, [0, 1, 2, 3]),
        ({"org": "other"}, []),
        ({"since_ns": 20}, [1, 2, 3]),
        ({"until_ns": 20}, [0]),
        ({"since_ns": 20, "until_ns": 40, "room": "r"}, [1]),
    ],
)
def test_what_is_asked_for_is_found(
    ledger: Ledger, asked: dict[str, str | int], found: list[int]
) -> None:
    records = [
        settlement("a", started_ns=10),
        settlement("a", started_ns=20, room="r"),
        settlement("b", started_ns=30),
        settlement("b", started_ns=40, room="r", project="shop"),
    ]
    ledger.add(records[::-1], "a.journal", Position(1))

    assert [r.attempt for r in ledger.attempts(**asked)] == [records[i].attempt for i in found]  # type: ignore[arg-type]
    assert sum(t.attempts for t in ledger.summary(**asked)) == len(found)  # type: ignore[arg-type]


def not_a_database(path: Path) -> None:
    path.write_bytes(b"RIFF....WAVEfmt " * 100)


def newer(path: Path) -> None:
    ledger = Ledger(path)
    ledger.open()
    ledger.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()


@pytest.mark.parametrize(
    ("name", "prepare", "error", "says"),
    [
        ("l.db", not_a_database, StoreError, "l.db cannot be used: file is not a database"),
        ("l.db", newer, StoreError, "has schema 9999, which this version of trunkline does not"),
        ("l.db", Path.mkdir, UsageError, "l.db cannot be written (Is a directory): choose"),
        ("file/l.db", lambda p: p.parent.touch(), UsageError, "file/l.db cannot be written ("),
    ],
)
def test_what_cannot_be_opened_says_so_in_one_sentence(
    tmp_path: Path, name: str, prepare: object, error: type[TrunklineError], says: str
) -> None:
    assert callable(prepare)
    prepare(tmp_path / name)

    with pytest.raises(error) as raised:
        Ledger(tmp_path / name).open()

    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


READ_ONLY = """
import os, sys
from pathlib import Path
from trunkline.errors import UsageError
from trunkline.store.ledger import Ledger

if os.getuid() == 0:
    os.setuid(65534)
try:
    Ledger(Path(sys.argv[1], "ledger.db")).open()
except UsageError as error:
    print(error)
"""


def test_a_directory_without_write_permission_says_so(tmp_path: Path) -> None:
    for parent in [tmp_path, *tmp_path.parents][:3]:
        parent.chmod(0o755)
    directory = tmp_path / "state"
    directory.mkdir(mode=0o555)

    run = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(directory)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ,
    )

    assert run.stderr == ""
    assert "ledger.db cannot be written (Permission denied): choose another" in run.stdout


def test_a_locked_ledger_is_waited_for_and_then_said(tmp_path: Path, ledger: Ledger) -> None:
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")

    with pytest.raises(StoreError, match="database is locked"):
        Ledger(ledger.path, patience=0.1).add([settlement()], "a.journal", Position(1))

    assert ledger.attempts() == [], "readers are not kept waiting"
    other.close()
    ledger.add([settlement()], "a.journal", Position(1))
    assert len(ledger.attempts()) == 1


LOOK_IN = """
import sqlite3, sys

connection = sqlite3.connect(sys.argv[1])
connection.execute("SELECT count(*) FROM attempts").fetchone()
connection.close()
"""


def look_in(path: Path) -> None:
    """Another process reads the ledger and closes it, which tidies up after the last one."""
    subprocess.run([sys.executable, "-c", LOOK_IN, str(path)], check=True, timeout=60)


def test_opening_it_twice_in_one_process_keeps_its_locks(ledger: Ledger) -> None:
    ledger.add([settlement()], "a.journal", Position(1))
    again = Ledger(ledger.path)
    again.open()

    look_in(ledger.path)

    assert ledger.path.with_name("ledger.db-wal").exists(), "in use here, and removed"
    again.close()


def test_a_forked_child_has_locks_of_its_own(ledger: Ledger) -> None:
    ledger.add([settlement()], "a.journal", Position(1))
    told, tell = os.pipe()
    go_on, let_on = os.pipe()
    if (child := os.fork()) == 0:
        try:
            ledger.attempts()
            os.write(tell, b"1")
            os.read(go_on, 1)
            os._exit(0 if len(ledger.attempts()) == 1 else 1)
        finally:
            os._exit(2)
    os.read(told, 1)
    ledger.close()
    look_in(ledger.path)
    was_kept = ledger.path.with_name("ledger.db-wal").exists()
    os.write(let_on, b"1")
    assert os.waitpid(child, 0)[1] == 0
    assert was_kept, "the child was using it"
    for end in (told, tell, go_on, let_on):
        os.close(end)
