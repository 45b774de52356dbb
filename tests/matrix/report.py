"""The matrix as text for a terminal, and as the page ``docs/fault-matrix.md``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .adapters import WATCHED
from .cells import SITUATIONS
from .column import Column, Heard
from .faults import DEADLINE, Fault
from .judge import ERROR_SLACK, NEXT_SLACK, Cell, stops


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
    return ", ".join([told or "as before", *_words(cell.lost, cell.seconds_lost, cell.repeated)])


def theirs(column: Column, heard: Heard) -> str:
    """What LiveKit's adapter made of it."""
    if heard.error == "never" and heard.first is None:
        return f"never ({WATCHED:g} s watched)"
    lost, again = column.compare(heard.words)
    told = [milliseconds(heard.first)] if heard.first is not None else []
    told += [{"never": f"never ends ({WATCHED:g} s watched)", "": ""}.get(heard.error, "error")]
    if heard.first is not None and heard.gap > DEADLINE / 2 and heard.error != "never":
        told.append(f"gap {milliseconds(heard.gap)}")
    told += _words(lost, column.seconds_lost(heard.words), again)
    if lost and not heard.error:
        told.append("no error")
    return ", ".join(part for part in told if part)


def _words(lost: int, seconds: float | None, again: int) -> list[str]:
    """How many words were lost, of a caller with the seconds that they took, and came twice."""
    spoken = f" ({seconds:.1f} s)" if seconds is not None else ""
    return [f"{lost} lost{spoken}"] * bool(lost) + [f"{again} twice"] * bool(again)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms"


def lines(row: Row) -> Iterator[str]:
    """The row for a terminal."""
    beside = f"   LiveKit: {theirs(row.column, row.livekit)}" if row.livekit else ""
    yield f"{row.column}: {row.fault.name}{beside}"
    for cell in row.cells:
        first = f"{cell.first * 1e3:5.0f}" if cell.first is not None else "    -"
        verdict = "SHORT " + "; ".join(cell.shortfall) if cell.shortfall else "ok"
        late = f"{cell.late * 1e3:+5.0f} ms (machine {cell.machine * 1e3:.0f})"
        yield f"    {cell.situation:<17} first {first} ms  over {late}  {verdict}"
    for problem in row.flaky:
        yield f"    once in {row.plays} plays: {problem}"


def page(rows: Sequence[Row]) -> str:
    """docs/fault-matrix.md."""
    columns = {str(row.column): row.column for row in rows}.values()
    tables = [line for one in columns for line in _table(one, rows)]
    return "\n".join([_HEAD, *(tables or ["No run on a quiet machine is recorded here yet.\n"])])


_HEAD = f"""\
# The fault matrix

What a caller gets when a provider fails, measured. `make matrix` plays every fault of the
[doubles](doubles.md) in every situation, through `trunkline.configure` and `trunkline.inference`,
and fails when a cell falls short; `make matrix ARGS=--write` writes this page.
[Failover](failover.md) says what is to be seen here.

Every deadline is {DEADLINE:g} s; the backup alone needs about 60 ms for its first output (voices
in MP3 about 90 ms). Times are to the first output; a *gap* is the longest wait between two
outputs; *twice* counts whole words said again. **Bold** cells fall short.

The caller of a recogniser speaks four times as fast as people do. Times count from the end of the
first word, those of a recogniser of whole recordings from the end of the first sentence; *lost* is
what became no final transcript, in words and in seconds of speech, *twice* what was final again.
When both recognisers of recordings answer without a word (*empty*, *truncate*), that is the answer.
A recogniser that finds the ends of turns, and stalls midway, may wait for its turn as well.

Required: first output within the deadline that had to pass, the time the bare plugin takes to
tell of its error, the backup's own time, and {ERROR_SLACK * 1e3:g} ms; the next call, also in
another process, within {NEXT_SLACK * 1e3:g} ms of the backup alone; no audio of a caller lost and
no final twice; no word of a voice lost and at most one said again for each failure; a model that
has spoken stops with an explicit error; every attempt in the ledger once and in step with the
bill; no task and no socket left. A voice always has all its text, and the end of it, before the
first candidate fails.

The doubles are processes of their own. Time in which the machine kept one of the processes of a
call from running, although it was ready to, is shown and not held against a cell; a row that falls
short is played three times and shows medians.

*LiveKit* is its own `FallbackAdapter` over the official plugins: a first call in the same process,
with `attempt_timeout` (models, recognisers) and `timeout` (voices) at {DEADLINE:g} s too. What it
learns is the adapter's own: the next session and every other process pay again.
"""


def _table(column: Column, rows: Sequence[Row]) -> Iterator[str]:
    mine = [row for row in rows if str(row.column) == str(column)]
    found = {cell.situation for row in mine for cell in row.cells}
    situations = [one for one in SITUATIONS if one in found]
    short = sum(bool(cell.shortfall) for row in mine for cell in row.cells)
    yield f"## {column.modality.value.upper()}: {column.name}"
    yield ""
    yield f"{sum(len(row.cells) for row in mine)} cells, {short or 'none'} short."
    yield ""
    yield "| fault | " + " | ".join(situations) + " | LiveKit |"
    yield "|---|" + "---|" * (len(situations) + 1)
    for row in mine:
        if row.livekit is None:
            continue
        by: Mapping[str, Cell] = {cell.situation: cell for cell in row.cells}
        cells = []
        for situation in situations:
            cell = by.get(situation)
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
