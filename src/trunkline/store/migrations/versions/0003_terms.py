"""What the price of an attempt depends on beside its model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    for name in ("mode", "language", "tier", "region"):
        op.add_column("attempts", sa.Column(name, sa.Text, nullable=False, server_default=""))
