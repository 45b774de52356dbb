"""The gateway's key by which an attempt was let in."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("key", sa.Text, nullable=False, server_default=""))
