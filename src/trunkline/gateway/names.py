"""What clients call a model when they name none."""

from __future__ import annotations

AUTO = "auto"
"""The stack ``default``."""

_NONE = frozenset({"", "NOT_GIVEN", AUTO})
"""LiveKit's clients send these when nobody has named a model."""


def model_of(*names: str | None) -> str:
    """The first of ``names`` that says which model is meant, else AUTO."""
    return next((name for name in names if name and name not in _NONE), AUTO)
