"""The ledger's migrations, applied by ``upgrade`` and shipped with the package.

A migration that was released never changes; ``tests/store/test_migrations.py`` holds it to that.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import StaticPool


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema to ``revision`` within the connection's transaction.

    Raises alembic.util.CommandError when the database is at a revision that is unknown here.
    """
    command.upgrade(configuration(connection), revision)


def upgrade_file(connection: sqlite3.Connection) -> None:
    """The same for SQLite's own connection, whose transaction is begun; this commits it."""
    engine = create_engine("sqlite://", creator=lambda: connection, poolclass=StaticPool)
    with engine.begin() as wrapped:
        upgrade(wrapped)


def configuration(connection: Connection) -> Config:
    """Return what Alembic's commands need to find the migrations, and this connection."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
