"""What health costs a call, how soon news is everywhere, and what listening for it costs."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from threading import Event

from trunkline.clock import monotonic_ns, now_ns
from trunkline.core.models import Candidate, ModelRef
from trunkline.core.ports import SharedRecord
from trunkline.runtime.health import HealthBook
from trunkline.store.shared import SQLiteSharedState

TIMES = 20_000
NEWS = 100
LISTENING_SECONDS = 5.0
PLAN = [Candidate(ModelRef(name, "model"), "env") for name in ("first", "second", "third")]


def main() -> None:
    """Measure in a fresh directory and print a small table."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        state = SQLiteSharedState(directory)
        rows = [*calls(HealthBook(state)), starting(directory), *news(directory), listening()]
        state.close()
    print("| health | measured | wanted |")
    print("|---|---:|---:|")
    for what, measured, wanted in rows:
        print(f"| {what} | {measured} | {wanted} |")


def calls(book: HealthBook) -> list[tuple[str, str, str]]:
    """What the book adds to an attempt, with a full window and one candidate open."""
    first, second, third = (candidate.key for candidate in PLAN)
    ok = served(book, second)
    for _ in range(100):
        ok()
    book.record(third, "provider_fault", blames=True, started_ns=now_ns())
    return [
        ("`allows`", microseconds(lambda: book.allows(first)), "< 1 us"),
        ("`order`, three candidates, one open", microseconds(lambda: book.order(PLAN)), ""),
        ("`record` of an ok", microseconds(ok), ""),
        ("`latency_p95`", microseconds(lambda: book.latency_p95(second)), ""),
        ("`record` of an opening or a closing", microseconds(flapping(book, first), 2_000), ""),
    ]


def served(book: HealthBook, key: str) -> Callable[[], None]:
    return lambda: book.record(key, "ok", started_ns=now_ns(), first_output_after_ns=300_000_000)


def flapping(book: HealthBook, key: str) -> Callable[[], None]:
    """Opens ``key`` at every other call and closes it at those between."""
    number = count()

    def flap() -> None:
        if next(number) % 2:
            book.record(key, "ok", started_ns=now_ns())
        else:
            book.record(key, "provider_fault", blames=True, started_ns=now_ns())

    return flap


def microseconds(call: Callable[[], object], times: int = TIMES) -> str:
    """The median of 20 rounds."""
    rounds = []
    for _ in range(20):
        started = monotonic_ns()
        for _ in range(times // 20):
            call()
        rounds.append((monotonic_ns() - started) / (times // 20) / 1000)
    return f"{median(rounds):.2f} us"


def starting(directory: Path) -> tuple[str, str, str]:
    """How long a process waits for its first look, once, with a file that is there."""
    took = []
    for _ in range(20):
        started = monotonic_ns()
        state = SQLiteSharedState(directory)
        HealthBook(state)
        took.append((monotonic_ns() - started) / 1e6)
        state.close()
    return "start of a process: all that is known", f"{median(took):.1f} ms", ""


OTHER = """
    import sys, time
    from pathlib import Path
    from trunkline.store.shared import SQLiteSharedState

    state = SQLiteSharedState(Path(sys.argv[1]))
    for line in sys.stdin:
        state.put("news", str(time.time_ns()).encode(), int(line))
"""


def news(directory: Path) -> list[tuple[str, str, str]]:
    """From ``put`` in one process to the follower in another."""
    took: list[float] = []
    came = Event()

    def follower(records: Sequence[SharedRecord]) -> None:
        heard = time.time_ns()
        took.extend((heard - int(r.value)) / 1e6 for r in records if r.key == "news")
        came.set()

    state = SQLiteSharedState(directory)
    state.follow(follower)
    command = [sys.executable, "-c", textwrap.dedent(OTHER), str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as other:
        assert other.stdin
        for version in range(1, NEWS + 1):
            came.clear()
            other.stdin.write(f"{version}\n")
            other.stdin.flush()
            assert came.wait(10)
            time.sleep(version % 7 * 0.005)
        other.stdin.close()
    state.close()
    return [
        ("news in another process, median", f"{median(took):.0f} ms", "< 100 ms"),
        ("news in another process, p99", f"{quantiles(took, n=100)[-1]:.0f} ms", "< 100 ms"),
    ]


IDLE = """
    import sys, time
    from pathlib import Path
    from trunkline.store.shared import SQLiteSharedState

    state = SQLiteSharedState(Path(sys.argv[1]))
    state.follow(lambda records: None)
    started = time.process_time()
    time.sleep(float(sys.argv[2]))
    print((time.process_time() - started) / float(sys.argv[2]))
"""


def listening() -> tuple[str, str, str]:
    """The share of a core that a process spends on following when nothing happens."""
    with tempfile.TemporaryDirectory() as name:
        command = [sys.executable, "-c", textwrap.dedent(IDLE), name, str(LISTENING_SECONDS)]
        share = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return "following, of a core", f"{share:.2%}", "< 0.5 %"


if __name__ == "__main__":
    main()
