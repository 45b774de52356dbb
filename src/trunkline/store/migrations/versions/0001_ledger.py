"""The ledger: attempts, entries, and how far journals are loaded."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "attempts",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("call", sa.Text, nullable=False),
        sa.Column("turn", sa.Text, nullable=False),
        sa.Column("idx", sa.Integer, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("modality", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("connection", sa.Text, nullable=False),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("stack", sa.Text, nullable=False),
        sa.Column("variant", sa.Text, nullable=False),
        sa.Column("org", sa.Text, nullable=False),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("agent", sa.Text, nullable=False),
        sa.Column("room", sa.Text, nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("session", sa.Text, nullable=False),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("provider_request_id", sa.Text, nullable=False),
        sa.Column("started_ns", sa.BigInteger, nullable=False),
        sa.Column("first_output_after_ns", sa.BigInteger, nullable=True),
        sa.Column("duration_ns", sa.BigInteger, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        *_usage(),
    )
    op.create_index("attempts_by_time", "attempts", ["started_ns"])
    op.create_index("attempts_by_call", "attempts", ["call", "started_ns"])
    op.create_index("attempts_by_room", "attempts", ["room", "started_ns"])
    op.create_index("attempts_by_project", "attempts", ["org", "project", "started_ns"])
    op.create_table(
        "entries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("attempt_id", sa.Text, nullable=False),
        sa.Column("recorded_ns", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("quality", sa.Text, nullable=False),
        *_usage(),
        sa.Column("charge_nanos", sa.BigInteger, nullable=True),
        sa.Column("rate", sa.Text, nullable=False),
        sa.Column("rate_source", sa.Text, nullable=False),
        sa.Column("rate_checked", sa.Text, nullable=False),
    )
    op.create_index("entries_by_attempt", "entries", ["attempt_id"])
    op.create_index("entries_by_time", "entries", ["recorded_ns"])
    op.create_table(
        "journals",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("offset", sa.BigInteger, nullable=False),
        sa.Column("damaged", sa.BigInteger, nullable=False),
    )


def _usage() -> list[sa.Column[int]]:
    units = (
        "audio_in_ns",
        "audio_out_ns",
        "characters",
        "tokens_in",
        "tokens_out",
        "tokens_cached",
        "tokens_cache_written",
        "tokens_reasoning",
        "tokens_audio_in",
        "tokens_audio_out",
    )
    return [sa.Column(unit, sa.BigInteger, nullable=False) for unit in units]
