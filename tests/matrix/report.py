"""The matrix as text for a terminal, and as the page ``docs/fault-matrix.md``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .cells import SITUATIONS
from .columns import NEVER, Column, Heard
from .faults import DEADLINE, Fault
from .judge import Cell, compare, stops


@dataclass
class Row:
    """One fault in one column: our cells, and what LiveKit's adapter did on a first call."""

    column: Column
    fault: Fault
    cells: list[Cell]
    livekit: Heard | None = None
    plays: int = 1
    flaky: list[str] = field(default_factory=list)

    @property
    def is_short(self) -> bool:
        return any(cell.shortfall for cell in self.cells)


def ours(cell: Cell) -> str:
    """One of our cells in a few characters."""
    told = milliseconds(cell.first) if cell.first is not None else ""
    if cell.ended:
        told = f"{told} error".strip()
    if cell.first is not None and cell.gap > DEADLINE / 2:
        told += f", gap {milliseconds(cell.gap)}"
    words = [f"{cell.lost} lost"] * bool(cell.lost) + [f"{cell.repeated} twice"] * bool(
        cell.repeated
    )
    return ", ".join([told or "as before", *words])


def theirs(column: Column, heard: Heard) -> str:
    """What LiveKit's adapter made of it."""
    if heard.error == "never" and heard.first is None:
        return f"never ({NEVER:g} s watched)"
    words = [word for word in heard.words if "-" not in word]
    lost, again = compare(column.expected, words)
    told = [milliseconds(heard.first)] if heard.first is not None else []
    told += [{"never": f"never ends ({NEVER:g} s watched)", "": ""}.get(heard.error, "error")]
    if heard.first is not None and heard.gap > DEADLINE / 2 and heard.error != "never":
        told.append(f"gap {milliseconds(heard.gap)}")
    told += [f"{lost} lost"] * bool(lost) + [f"{again} twice"] * bool(again)
    if lost and not heard.error:
        told.append("no error")
    return ", ".join(part for part in told if part)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"


def lines(row: Row) -> Iterator[str]:
    """The row for a terminal."""
    beside = f"   LiveKit: {theirs(row.column, row.livekit)}" if row.livekit else ""
    yield f"  {row.fault.name}{beside}"
    for cell in row.cells:
        first = f"{cell.first * 1e3:5.0f}" if cell.first is not None else "    -"
        verdict = "SHORT " + "; ".join(cell.shortfall) if cell.shortfall else "ok"
        late = f"{cell.late * 1e3:+5.0f}"
        yield f"    {cell.situation:<17} first {first} ms  over {late} ms  {verdict}"
    for problem in row.flaky:
        yield f"    once in {row.plays} plays: {problem}"


def page(rows: Sequence[Row]) -> str:
    """docs/fault-matrix.md."""
    columns = list(dict.fromkeys(row.column for row in rows))
    return "\n".join([_HEAD, *(line for one in columns for line in _table(one, rows))])


_HEAD = f"""\
# The fault matrix

What a caller gets when a provider fails, measured. `make matrix` plays every fault of the
[doubles](doubles.md) in every situation, through `trunkline.configure` and `trunkline.inference`,
and fails when a cell falls short; `make matrix ARGS=--write` writes this page.

Every deadline is {DEADLINE:g} s; the backup alone needs about 60 ms for its first output (voices
in MP3 about 90 ms). Times are to the first output; a *gap* is the longest wait between two
outputs; *twice* counts whole words said again. A row that falls short is played three times and
shows medians: the machine has two cores and other work. **Bold** cells fall short.

Required: first output within the deadline that had to pass, the time the bare plugin takes to
tell of its error, the backup's own time, and 50 ms; the next call, also in another process,
within 10 ms of the backup alone; no word of a voice lost and at most one said again for each
failure; a model that has spoken stops with an explicit error; every attempt in the ledger once
and in step with the bill; no task and no socket left.

*LiveKit* is its own `FallbackAdapter` over the official plugins: a first call in the same process,
with `attempt_timeout` (LLM) and `timeout` (TTS) at {DEADLINE:g} s too. What it learns is the
adapter's own: the next session and every other process pay again.
"""


def _table(column: Column, rows: Sequence[Row]) -> Iterator[str]:
    mine = [row for row in rows if row.column is column]
    short = sum(bool(cell.shortfall) for row in mine for cell in row.cells)
    yield f"## {column.modality.value.upper()}: {column.name}"
    yield ""
    yield f"{sum(len(row.cells) for row in mine)} cells, {short or 'none'} short."
    yield ""
    yield "| fault | " + " | ".join(SITUATIONS) + " | LiveKit |"
    yield "|---|" + "---|" * (len(SITUATIONS) + 1)
    for row in mine:
        if row.livekit is None:
            continue
        found: Mapping[str, Cell] = {cell.situation: cell for cell in row.cells}
        cells = []
        for situation in SITUATIONS:
            cell = found.get(situation)
            told = ours(cell) if cell else ("stops" if stops(column, row.fault) else "")
            cells.append(f"**{told}**" if cell and cell.shortfall else told)
        beside = theirs(column, row.livekit)
        yield f"| {row.fault.name} | " + " | ".join(cells) + f" | {beside} |"
    yield ""
    yield from (_sentence(row) for row in mine if row.livekit is None)


def _sentence(row: Row) -> str:
    """The barge-ins: what there is to say of them is how soon everything was over."""
    told = (
        f"{cell.situation} {'**short**' if cell.shortfall else milliseconds(cell.late)}"
        for cell in row.cells
    )
    return f"Cut off by the caller, over after: {', '.join(told)}.\n"
