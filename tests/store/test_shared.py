"""The shared state: one suite for every implementation, then what the file may suffer."""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.core.ports import SharedRecord, SharedState
from trunkline.store import shared, shared_file
from trunkline.store.shared import SHARED_NAME, SQLiteSharedState
from trunkline.store.shared_local import InMemorySharedState

Making = Callable[[Path], Sequence[SharedState]]


def in_memory(_: Path) -> Sequence[SharedState]:
    state = InMemorySharedState()
    return state, state, state


def sqlite(directory: Path) -> Sequence[SharedState]:
    return [SQLiteSharedState(directory) for _ in range(3)]


@pytest.fixture(params=[in_memory, sqlite])
def states(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sequence[SharedState]]:
    """Three processes' states that share, of each implementation."""
    states: Sequence[SharedState] = request.param(tmp_path / "new" / "state")
    yield states
    for state in states:
        state.close()


@dataclass
class Heard:
    """A follower that keeps the newest of what it hears, and knows who told it."""

    known: dict[str, tuple[bytes, int]] = field(default_factory=dict)
    threads: set[str] = field(default_factory=set)

    def __call__(self, records: Sequence[SharedRecord]) -> None:
        for record in records:
            self.known[record.key] = (record.value, record.version)
        self.threads.add(threading.current_thread().name)


def heard_by(state: SharedState) -> Heard:
    heard = Heard()
    state.follow(heard)
    return heard


def wait_until(holds: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.002)


def test_what_one_puts_the_others_hear(states: Sequence[SharedState]) -> None:
    one, two, three = states
    others = [heard_by(two), heard_by(three)]
    one.put("key", b"\x00value\xff", 1)
    for heard in others:
        wait_until(lambda heard=heard: heard.known == {"key": (b"\x00value\xff", 1)})


def test_who_comes_later_hears_at_once_what_is_known(states: Sequence[SharedState]) -> None:
    one, two, _ = states
    heard = heard_by(two)
    for n in range(100):
        one.put(f"key-{n}", b"value", n)
    wait_until(lambda: len(heard.known) == 100)
    assert len(heard_by(states[2]).known) == 100


def test_the_newer_wins_whoever_is_first(states: Sequence[SharedState]) -> None:
    one, two, three = states
    heard = heard_by(three)
    one.put("key", b"newer", 2)
    two.put("key", b"older", 1)
    two.put("end", b"", 1)
    wait_until(lambda: "end" in heard.known)
    assert heard.known["key"] == (b"newer", 2)

    one.put("tie", b"a", 7)
    two.put("tie", b"b", 7)
    one.put("tie", b"a", 7)
    for state in states:
        follower = heard_by(state)
        wait_until(lambda follower=follower: follower.known.get("tie") == (b"b", 7))


def test_nobody_hears_after_unfollowing(states: Sequence[SharedState]) -> None:
    one, two, _ = states
    gone, here = Heard(), heard_by(two)
    stop = two.follow(gone)
    stop()
    one.put("key", b"", 1)
    wait_until(lambda: here.known)
    assert not gone.known


def test_a_lease_has_one_holder_until_it_ends(states: Sequence[SharedState]) -> None:
    one, two, _ = states
    assert one.lease("probe", "a", 0.3)
    assert one.lease("probe", "a", 0.3), "its holder may have it again"
    assert not two.lease("probe", "b", 60)
    assert two.lease("another", "b", 60)
    two.release("probe", "b")  # not the holder's: nothing
    two.release("another", "b")
    wait_until(lambda: one.lease("another", "a", 60))
    assert not two.lease("probe", "b", 60)
    wait_until(lambda: two.lease("probe", "b", 60))
    assert not one.lease("probe", "a", 60)


@pytest.mark.parametrize("making", [in_memory, sqlite])
def test_of_many_who_ask_at_once_one_gets_the_lease(making: Making, tmp_path: Path) -> None:
    """Even when all of them are the first of the machine to need the file."""
    for n in range(12):
        states = making(tmp_path / f"{n}")
        granted: list[str] = []
        start = threading.Barrier(len(states))
        asking = [
            threading.Thread(target=ask, args=(start, state, f"{m}", granted))
            for m, state in enumerate(states)
        ]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join(10)
        assert len(granted) == 1
        for state in states:
            state.close()


def ask(start: threading.Barrier, state: SharedState, owner: str, granted: list[str]) -> None:
    start.wait(10)
    if state.lease("probe", owner, 60):
        granted.append(owner)


def test_with_a_lease_comes_all_that_was_put_before_it_was_given_back(
    states: Sequence[SharedState],
) -> None:
    one, two, _ = states
    heard = heard_by(two)
    for n in range(20):
        assert one.lease("probe", "a", 60)
        one.put("answer", b"%d" % n, n)
        one.release("probe", "a")
        wait_until(lambda: two.lease("probe", "b", 60))
        assert heard.known["answer"] == (b"%d" % n, n)
        two.release("probe", "b")
        wait_until(lambda: one.lease("probe", "a", 60))


def test_closing_hands_over_what_was_put_and_is_not_the_end(states: Sequence[SharedState]) -> None:
    one, two, _ = states
    one.put("key", b"", 1)
    one.close()
    heard = heard_by(two)
    assert heard.known == {"key": (b"", 1)}
    one.put("key", b"", 2)
    wait_until(lambda: heard.known == {"key": (b"", 2)})


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.sampled_from("ab"), st.integers(0, 5), st.binary(max_size=2)
        ),
        max_size=30,
    )
)
@settings(max_examples=15)
@pytest.mark.parametrize("making", [in_memory, sqlite])
def test_all_end_with_the_same(
    making: Making,
    tmp_path_factory: pytest.TempPathFactory,
    puts: list[tuple[int, str, int, bytes]],
) -> None:
    states = making(tmp_path_factory.mktemp("shared"))
    for by, key, version, value in puts:
        states[by].put(key, value, version)
    for state in states:
        state.close()
    newest = {
        key: max((version, value) for _, k, version, value in puts if k == key)
        for _, key, _, _ in puts
    }
    for state in states:
        known = heard_by(state).known
        assert {key: (version, value) for key, (value, version) in known.items()} == newest
        state.close()


# SQLite: what the file may suffer


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[SQLiteSharedState, SQLiteSharedState]]:
    one, two = SQLiteSharedState(tmp_path), SQLiteSharedState(tmp_path)
    yield one, two
    one.close()
    two.close()


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def quick(put: Callable[[], None]) -> None:
    """The caller waits for nothing, whatever the file does."""
    took = []
    for _ in range(200):
        started = time.perf_counter()
        put()
        took.append(time.perf_counter() - started)
        time.sleep(0.001)
    assert median(took) < 0.001
    assert sorted(took)[-5] < 0.2, "the file is waited for 0.25 s"


def test_a_locked_file_delays_nobody_and_is_written_afterwards(
    pair: tuple[SQLiteSharedState, SQLiteSharedState], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = pair
    heard = heard_by(two)
    one.put("before", b"", 1)
    wait_until(lambda: heard.known)
    other = sqlite3.connect(one.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    version = iter(range(1000))
    quick(lambda: one.put("key", b"", next(version)))
    other.execute("INSERT INTO records VALUES ('theirs', x'', 1, 1000)")
    assert one.lease("probe", "a", 60), "alone, everybody may"
    assert two.lease("probe", "b", 60)
    wait_until(lambda: len(complaints(caplog)) == 2)
    time.sleep(0.6)
    assert ["locked" in line for line in complaints(caplog)] == [True] * 2, "one line a process"

    other.execute("COMMIT")
    other.close()

    wait_until(lambda: heard.known.get("key") == (b"", 199) and "theirs" in heard.known)
    wait_until(lambda: one.lease("again", "a", 60) and not two.lease("again", "b", 60))


def test_a_locked_file_can_be_read(pair: tuple[SQLiteSharedState, SQLiteSharedState]) -> None:
    one, two = pair
    one.put("key", b"", 1)
    one.close()
    other = sqlite3.connect(one.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert heard_by(two).known == {"key": (b"", 1)}
    other.close()


def damage(path: Path) -> None:
    path.write_bytes(b"this is no database, whatever its name says" * 100)


def bar(path: Path) -> None:
    path.mkdir()


def test_an_unusable_file_is_one_line_and_alone_until_it_is_removed(
    pair: tuple[SQLiteSharedState, SQLiteSharedState],
    caplog: pytest.LogCaptureFixture,
) -> None:
    one, two = pair
    caplog.set_level(logging.INFO)
    bar(one.path)
    heard = heard_by(two)
    version = iter(range(1000))
    quick(lambda: one.put("key", b"", next(version)))
    assert one.lease("probe", "a", 60)
    assert two.lease("probe", "b", 60)
    wait_until(lambda: len(complaints(caplog)) == 2)
    time.sleep(0.6)
    assert len(complaints(caplog)) == 2, "one line a process"
    assert not heard.known

    one.path.rmdir()

    wait_until(lambda: heard.known == {"key": (b"", 199)})
    wait_until(lambda: len([r for r in caplog.records if "again" in r.getMessage()]) == 2)


def test_a_file_damaged_while_nobody_runs_is_made_anew(
    pair: tuple[SQLiteSharedState, SQLiteSharedState], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = pair
    damage(one.path)
    heard = heard_by(two)
    one.put("key", b"", 1)
    wait_until(lambda: heard.known == {"key": (b"", 1)})
    (told,) = complaints(caplog)
    kept = one.path.with_suffix(".damaged")
    assert f"is made anew, the old one is {kept}" in told
    assert kept.read_bytes().startswith(b"this is no database")
    wait_until(lambda: one.lease("probe", "a", 60) and not two.lease("probe", "b", 60))


DAMAGED = """
    import sys
    from pathlib import Path
    from trunkline.store.shared import SQLiteSharedState

    me, heard = sys.argv[2], {}
    state = SQLiteSharedState(Path(sys.argv[1]))
    state.follow(lambda records: heard.update((r.key, r.version) for r in records))
    state.put(f"before-{me}", b"", 1)
    for line in sys.stdin:
        if line == "put\\n":
            state.put(f"after-{me}", b"", 1)
        print(" ".join(sorted(heard)), flush=True)
"""


def test_a_file_damaged_while_processes_use_it_costs_none_of_them_its_knowledge(
    tmp_path: Path,
) -> None:
    with script(DAMAGED, tmp_path, "a") as a, script(DAMAGED, tmp_path, "b") as b:

        def known(process: subprocess.Popen[str], said: str = "?") -> set[str]:
            assert process.stdin
            process.stdin.write(f"{said}\n")
            process.stdin.flush()
            return set(line_of(process).split())

        wait_until(lambda: "before-b" in known(a) and "before-a" in known(b))
        path = tmp_path / SHARED_NAME
        for journal in tmp_path.glob(f"{SHARED_NAME}-*"):
            with journal.open("r+b") as file:  # in place: who maps a file dies when it is cut off
                file.write(b"not these either" * 4096)
        damage(path)
        known(a, "put")
        known(b, "put")
        wait_until(lambda: "after-b" in known(a) and "after-a" in known(b))
        late = SQLiteSharedState(tmp_path)
        heard = heard_by(late)
        wait_until(lambda: heard.known.keys() >= {"before-a", "before-b", "after-a", "after-b"})
        late.close()
        for process in (a, b):
            assert process.stdin
            process.stdin.close()
            assert process.wait(20) == 0
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    other.close()


def test_a_directory_that_cannot_be_made_is_no_obstacle(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    obstacle = tmp_path / "file"
    obstacle.touch()
    state = SQLiteSharedState(obstacle / "state")
    heard = heard_by(state)
    state.put("key", b"", 1)
    wait_until(lambda: complaints(caplog))
    assert heard.known == {}
    state.close()


def test_records_and_leases_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (shared, shared_file):
        monkeypatch.setattr(module, "KEPT", 10)
    monkeypatch.setattr(shared_file, "_FORGET_EVERY", 1)
    for process in range(3):
        state = SQLiteSharedState(tmp_path)
        for number in range(40):
            state.put(f"{process} {number}", b"", number)
            state.lease(f"{process} {number}", "owner", 0.0)
        state.close()
    with closing(sqlite3.connect(tmp_path / SHARED_NAME)) as file:
        assert file.execute("SELECT count(*) FROM leases").fetchone()[0] <= 1
    state = SQLiteSharedState(tmp_path)
    assert heard_by(state).known.keys() == {f"2 {number}" for number in range(30, 40)}
    state.close()


def test_a_deleted_file_is_made_anew_with_all_that_is_known(
    pair: tuple[SQLiteSharedState, SQLiteSharedState],
) -> None:
    one, two = pair
    heard = heard_by(two)
    one.put("old", b"", 1)
    wait_until(lambda: heard.known)
    for path in one.path.parent.glob(f"{SHARED_NAME}*"):
        path.unlink()
    two.put("new", b"", 1)
    late = SQLiteSharedState(one.path.parent)
    late_heard = heard_by(late)
    wait_until(lambda: set(late_heard.known) == {"old", "new"})
    late.close()


def test_a_failing_follower_does_not_keep_others_from_hearing(
    pair: tuple[SQLiteSharedState, SQLiteSharedState], caplog: pytest.LogCaptureFixture
) -> None:
    one, two = pair

    def fail(_: Sequence[SharedRecord]) -> None:
        raise ValueError("a follower's mistake")

    two.follow(fail)
    heard = heard_by(two)
    one.put("key", b"", 1)
    wait_until(lambda: heard.known)
    one.put("key", b"", 2)
    wait_until(lambda: heard.known == {"key": (b"", 2)})
    assert heard.threads <= {"trunkline-shared", "MainThread"}


def test_a_lease_of_a_clock_that_was_set_back_is_over(
    pair: tuple[SQLiteSharedState, SQLiteSharedState],
) -> None:
    one, two = pair
    assert one.lease("probe", "a", 60)
    other = sqlite3.connect(one.path)
    ahead = 3600 * 10**9
    other.execute(
        "UPDATE leases SET granted_ns = granted_ns + ?, until_ns = until_ns + ?", (ahead, ahead)
    )
    other.commit()
    other.close()
    assert two.lease("probe", "b", 60)


# SQLite: real processes


def script(text: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


PUTTER = """
    import sys, time
    from pathlib import Path
    from trunkline.store.shared import SQLiteSharedState

    state = SQLiteSharedState(Path(sys.argv[1]))
    state.follow(lambda records: None)
    print("ready", flush=True)
    for line in sys.stdin:
        print(time.time_ns(), flush=True)
        state.put("key", b"", int(line))
"""


def test_news_reaches_another_process_within_100_ms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = SQLiteSharedState(tmp_path)
    arrived: dict[int, int] = {}
    came = threading.Event()

    def follower(records: Sequence[SharedRecord]) -> None:
        for record in records:
            arrived[record.version] = time.time_ns()
        came.set()

    state.follow(follower)
    took = []
    with script(PUTTER, tmp_path) as putter:
        assert putter.stdin
        assert line_of(putter) == "ready"
        for n in range(1, 21):
            came.clear()
            putter.stdin.write(f"{n}\n")
            putter.stdin.flush()
            put = int(line_of(putter))
            assert came.wait(10)
            took.append((arrived[n] - put) / 1e6)
            time.sleep(0.007 * (n % 5))
        putter.stdin.close()
        assert putter.wait(20) == 0
    state.close()
    with capsys.disabled():
        print(
            f"\nnews to another process: median {median(took):.1f} ms, slowest {max(took):.1f} ms"
        )
    assert median(took) < 100


WRITER = """
    import sys, time
    from pathlib import Path
    from trunkline.store.shared import SQLiteSharedState

    state = SQLiteSharedState(Path(sys.argv[1]))
    asked = time.time()
    print(asked if state.lease("probe", "killed", 0.5) else "none", flush=True)
    n = 0
    while True:
        n += 1
        state.put(f"key-{n % 7}", b"x" * 1000, n)
        time.sleep(0.0003)
"""


def test_a_killed_writer_leaves_a_file_that_works(
    pair: tuple[SQLiteSharedState, SQLiteSharedState], tmp_path: Path
) -> None:
    one, two = pair
    heard = heard_by(two)
    for n in range(5):
        with script(WRITER, tmp_path) as writer:
            lasts = float(line_of(writer)) + 0.5
            assert not one.lease("probe", "a", 0.01) or time.time() >= lasts
            time.sleep(0.02 + 0.013 * n)
            writer.kill()
            writer.wait(20)
        one.put("after", b"", n)
        wait_until(lambda n=n: heard.known.get("after") == (b"", n))
        wait_until(lambda: one.lease("probe", "a", 0.01))
        time.sleep(0.02)
    other = sqlite3.connect(one.path)
    assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    other.close()


COMMON = """
    import os, sys, time
    from pathlib import Path
    from trunkline.store.shared import SQLiteSharedState

    def known_to(state):
        heard = {}
        state.follow(lambda records: heard.update((r.key, r.version) for r in records))
        return heard

    def wait_for(heard, keys):
        deadline = time.monotonic() + 30
        while not keys <= heard.keys():
            assert time.monotonic() < deadline, (os.getpid(), heard)
            time.sleep(0.002)

    state = SQLiteSharedState(Path(sys.argv[1]))
    heard = known_to(state)  # its thread runs, its file is open
"""

FORKING = """
    state.put("parent-before", b"", 1)
    children = []
    for n in range(4):
        for m in range(50):
            state.put(f"busy-{n}", b"", m)  # the thread is at work when the fork comes
        if (child := os.fork()) == 0:
            heard = known_to(state)
            state.put(f"child-{n}", b"", 1)
            others = {f"child-{m}" for m in range(4) if m != n}
            wait_for(heard, {"parent-before", "parent-after"} | others)
            state.close()
            os._exit(0)
        children.append(child)
    state.put("parent-after", b"", 1)
    wait_for(heard, {f"child-{n}" for n in range(4)})
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    state.close()
    print(codes)
"""


# A child that inherits a handle believes that it holds its locks. The parent, which does, would
# then be the last to close, and remove the journal that the child goes on writing to.
OUTLIVING = """
    ready, go = os.pipe(), os.pipe()
    state.put("parent", b"", 1)
    if (child := os.fork()) == 0:
        wait_for(known_to(state), {"parent"})
        os.write(ready[1], b".")
        os.read(go[0], 1)
        state.put("child", b"", 1)
        state.close()
        os._exit(0)
    os.read(ready[0], 1)
    state.close()
    os.write(go[1], b".")
    wait_for(known_to(state), {"child"})
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])])
    state.close()
"""


@pytest.mark.parametrize(("story", "codes"), [(FORKING, [0, 0, 0, 0]), (OUTLIVING, [0])])
def test_parent_and_forked_children_go_on_apart_and_together(
    story: str, codes: list[int], tmp_path: Path
) -> None:
    with script(COMMON + story, tmp_path) as parent:
        assert line_of(parent) == str(codes)
        assert parent.wait(30) == 0


LEAVING = """
    import sys
    from pathlib import Path
    from trunkline.store.shared import SQLiteSharedState

    SQLiteSharedState(Path(sys.argv[1])).put("last", b"words", 1)
    sys.exit(len({"sqlalchemy", "livekit"} & sys.modules.keys()))
"""


def test_the_end_of_the_interpreter_hands_over_and_nothing_heavy_was_imported(
    tmp_path: Path,
) -> None:
    with script(LEAVING, tmp_path) as leaving:
        assert leaving.wait(20) == 0
    state = SQLiteSharedState(tmp_path)
    assert heard_by(state).known == {"last": (b"words", 1)}
    state.close()
    assert os.listdir(tmp_path) == [SHARED_NAME], "closed well: no journal of SQLite's is left"
