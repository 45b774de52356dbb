"""Migrations: a fresh schema is the migrated one, and every past version upgrades with its data.

``ledgers/NNNN.sql`` is a ledger as version NNNN wrote it. After a new migration, add its own:
``python tests/store/test_migrations.py > tests/store/ledgers/NNNN.sql``; the others never change.
``ledger.sql`` of the package, which makes a new one, follows the newest.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine

from trunkline.core.models import (
    Attempt,
    Charge,
    Entry,
    Identity,
    Modality,
    Quality,
    Settlement,
    Usage,
)
from trunkline.store.ledger import Ledger, Position
from trunkline.store.ledger_file import REVISION, LedgerFile
from trunkline.store.migrations import configuration, upgrade
from trunkline.store.rows import ATTEMPT_COLUMNS, ENTRY_COLUMNS
from trunkline.store.schema import attempts, entries, metadata

LEDGERS = Path(__file__).parent / "ledgers"

ATTEMPT = Attempt(
    id="01920000-0000-7000-8000-000000000001",
    identity=Identity(call="call-1", room="room-1", tags=("vip", "de")),
    modality=Modality.TTS,
    provider="cartesia",
    model="sonic-3",
    connection="env",
    started_ns=1_790_000_000_000_000_000,
    first_output_after_ns=90_000_000,
    usage=Usage(characters=120, audio_out_ns=7_000_000_000),
)
ENTRIES = (
    Entry(
        "01920000-0000-7000-8000-000000000002",
        ATTEMPT.id,
        ATTEMPT.started_ns + 1,
        ATTEMPT.usage,
        Quality.ESTIMATED,
        Charge(4_485_000, "37.375 per 1M characters", "cartesia.ai/pricing", "2026-09-01"),
    ),
    Entry(
        "01920000-0000-7000-8000-000000000003",
        ATTEMPT.id,
        ATTEMPT.started_ns + 2,
        Usage(characters=2),
        Quality.EXACT,
        kind="correction",
    ),
)


def fill(path: Path) -> None:
    ledger = Ledger(path)
    ledger.open()
    ledger.add([Settlement(ATTEMPT, ENTRIES[0]), ENTRIES[1]], "1-a-1.journal", Position(10, 2))
    ledger.close()


def revisions() -> list[str]:
    with create_engine("sqlite://").connect() as connection:
        scripts = ScriptDirectory.from_config(configuration(connection))
        return [script.revision for script in scripts.walk_revisions()][::-1]


def objects(connection: Connection) -> set[str]:
    """Every table and index as SQLite keeps it, blanks aside."""
    rows = connection.exec_driver_sql(
        "SELECT sql FROM sqlite_master WHERE sql NOT NULL AND name != 'alembic_version'"
    )
    return {" ".join(row.sql.split()) for row in rows}


def test_a_fresh_schema_is_the_migrated_one() -> None:
    with (
        create_engine("sqlite://").begin() as fresh,
        create_engine("sqlite://").begin() as migrated,
    ):
        metadata.create_all(fresh)
        upgrade(migrated)

        assert objects(fresh) == objects(migrated)
        assert compare_metadata(MigrationContext.configure(migrated), metadata) == []


def test_a_new_ledger_is_the_migrated_one(tmp_path: Path) -> None:
    LedgerFile(tmp_path / "ledger.db").open()
    with (
        create_engine(f"sqlite:///{tmp_path}/ledger.db").begin() as new,
        create_engine("sqlite://").begin() as migrated,
    ):
        upgrade(migrated)

        assert objects(new) == objects(migrated)
        assert MigrationContext.configure(new).get_current_revision() == REVISION


def test_what_is_written_is_every_column() -> None:
    assert tuple(attempts.c.keys()) == ATTEMPT_COLUMNS
    assert tuple(entries.c.keys()) == ENTRY_COLUMNS


def test_the_newest_migration_is_the_one_that_is_expected() -> None:
    assert revisions()[-1] == REVISION


def test_every_version_has_a_ledger_to_prove_itself_on() -> None:
    assert sorted(path.stem for path in LEDGERS.glob("*.sql")) == revisions()


@pytest.mark.parametrize("revision", revisions())
def test_a_past_version_upgrades_with_its_data(tmp_path: Path, revision: str) -> None:
    path = tmp_path / "ledger.db"
    with sqlite3.connect(path) as past:
        past.executescript((LEDGERS / f"{revision}.sql").read_text())
    past.close()
    ledger = Ledger(path)

    ledger.open()

    (recorded,) = ledger.attempts(call="call-1")
    assert (recorded.attempt, recorded.entries) == (ATTEMPT, ENTRIES)
    assert ledger.positions() == {"1-a-1.journal": Position(10, 2)}
    with create_engine(f"sqlite:///{path}").begin() as upgraded:
        assert compare_metadata(MigrationContext.configure(upgraded), metadata) == []


@pytest.mark.parametrize("revision", revisions())
def test_a_released_migration_still_makes_what_it_made(revision: str) -> None:
    released = create_engine("sqlite://")
    with create_engine("sqlite://").begin() as today, released.begin() as connection:
        raw = connection.connection.dbapi_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.executescript((LEDGERS / f"{revision}.sql").read_text())
        upgrade(today, revision)

        assert objects(connection) == objects(today)


def test_a_path_with_a_percent_sign_or_a_blank_is_a_path(tmp_path: Path) -> None:
    fill(tmp_path / "100 %(here)s" / "ledger?x=1.db")

    assert (tmp_path / "100 %(here)s" / "ledger?x=1.db").stat().st_size > 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name, "ledger.db"))
        with sqlite3.connect(Path(name, "ledger.db")) as filled:
            sys.stdout.writelines(f"{line}\n" for line in filled.iterdump())
