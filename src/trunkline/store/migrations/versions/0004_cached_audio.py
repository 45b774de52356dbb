"""Cached audio tokens, which cost less than cached text or more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    for table in ("attempts", "entries"):
        column = sa.Column("tokens_cached_audio", sa.BigInteger, nullable=False, server_default="0")
        op.add_column(table, column)
