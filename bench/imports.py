"""What an import costs: time and memory of each door, against the SDK it stands on.

    python -m bench imports

Every row is run in fresh interpreters, taking turns, so that the machine's moods meet all of them
alike. Time is the CPU and wall time from the interpreter's first line to its last, less that of an
interpreter that does nothing; memory is the peak of the resident set, as Linux counts it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from statistics import median

ROUNDS = 7

ROWS = {
    "nothing": "pass",
    "trunkline": "import trunkline",
    "trunkline --help": "import sys; sys.argv = ['trunkline', '--help']; "
    "from trunkline.cli import main; main()",
    "livekit.agents": "import livekit.agents",
    "livekit.agents.inference": "from livekit.agents import inference; inference.LLM",
    "trunkline.inference": "from trunkline import inference; inference.LLM",
    "livekit.plugins.openai": "from livekit.plugins import openai; openai.LLM",
}
REFERENCE = "livekit.plugins.openai"


@dataclass
class Row:
    """One row's runs: wall seconds, CPU seconds, and peak memory in MiB."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def add(self, code: str) -> None:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.wall.append(time.perf_counter() - begun)
        assert process.stderr is not None
        with process.stderr as told:
            if process.returncode:
                raise RuntimeError(f"{code}: {told.read().decode()}")
        self.cpu.append(used.ru_utime + used.ru_stime)
        self.memory.append(used.ru_maxrss / 1024)


def measure() -> dict[str, Row]:
    rows = {name: Row() for name in ROWS}
    for code in ROWS.values():
        Row().add(code)  # fills the caches of the disk and of compiled files
    for _ in range(ROUNDS):
        for name, code in ROWS.items():
            rows[name].add(code)
    return rows


def table(rows: dict[str, Row]) -> str:
    base, reference = rows["nothing"], rows[REFERENCE]

    def own(values: list[float], nothing: list[float]) -> float:
        return median(values) - median(nothing)

    lines = [f"{'import':<26}{'wall':>10}{'of stock':>10}{'CPU':>10}{'memory':>12}{'of stock':>10}"]
    for name, row in rows.items():
        if row is base:
            continue
        wall, memory = own(row.wall, base.wall), own(row.memory, base.memory)
        lines.append(
            f"{name:<26}{wall * 1e3:>7.0f} ms{wall / own(reference.wall, base.wall):>10.2f}"
            f"{own(row.cpu, base.cpu) * 1e3:>7.0f} ms"
            f"{memory:>8.1f} MiB{memory / own(reference.memory, base.memory):>10.2f}"
        )
    lines.append(
        f"stock is {REFERENCE}; an interpreter that does nothing: "
        f"{median(base.wall) * 1e3:.0f} ms, {median(base.memory):.1f} MiB"
    )
    return "\n".join(lines)


def main() -> str:
    """Measure and return the table: medians, less those of an idle interpreter."""
    return table(measure())


if __name__ == "__main__":
    print(main())
