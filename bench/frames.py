"""The table of what frames cost, the same for ears and voices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

BUDGET_US = 10.0
"""Microseconds that we may add to a frame."""


def frame_costs(found: Mapping[str, Sequence[float]]) -> str:
    """A line for each kind of ``found``: the bare plugin, ours. Ends with status 1 over budget."""
    lines, slow = [], False
    for kind, (bare, ours) in found.items():
        added = ours - bare
        slow = slow or added > BUDGET_US
        lines.append(f"{kind:<8} bare {bare:5.1f} us  ours {ours:5.1f} us  added {added:5.1f} us")
    table = "\n".join(lines)
    if slow:
        raise SystemExit(f"{table}\na frame costs over {BUDGET_US:g} us")
    return table
