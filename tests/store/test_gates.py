"""The gate's books: one suite for every implementation, then what the file may suffer."""

from __future__ import annotations

import importlib
import os
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from trunkline.clock import now_ns
from trunkline.core.limits import Rate
from trunkline.core.ports import Ask, Change, GateStore, Override, Said
from trunkline.errors import StoreError
from trunkline.store.gates import GATE_NAME, SQLiteGateStore

SECOND = 1_000_000_000

BACKENDS = ["trunkline.store.gates:SQLiteGateStore"]
"""Every implementation, ``module:class``, made of a directory: also by another process. What is
shared by other means is to be told by a file there."""


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stores(backend: str, tmp_path: Path) -> Iterator[Sequence[GateStore]]:
    """Three processes' stores that share."""
    module, _, name = backend.partition(":")
    made = getattr(importlib.import_module(module), name)
    stores: Sequence[GateStore] = [made(tmp_path / "new" / "state") for _ in range(3)]
    yield stores
    for store in stores:
        store.close()


def ask(need: int, amount: int = 1000, **other: object) -> Ask:
    return Ask("pool", 0, 0, need, amount, **{"share": 1_000_000, **other})  # type: ignore[arg-type]


def test_nobody_holds_more_than_there_is(stores: Sequence[GateStore]) -> None:
    granted = [store.take([ask(100)]).granted[0] for store in stores for _ in range(4)]
    assert sum(granted) <= 1000
    assert granted.count(0) == 12 - len([units for units in granted if units])
    assert sum(granted) > 900
    refused = stores[0].take([ask(101)])
    assert refused.granted == (0,)
    assert refused.levels[0].held == sum(granted)
    assert refused.levels[0].left == 1000 - sum(granted)


def test_slices_shrink_as_the_end_comes_near(stores: Sequence[GateStore]) -> None:
    taken = [stores[0].take([ask(1)]).granted[0] for _ in range(400)]
    assert taken[0] == 1000 // 32
    assert taken == sorted(taken, reverse=True)
    assert sum(taken) == 1000, "to the last one"


def test_all_are_held_or_none(stores: Sequence[GateStore]) -> None:
    asks = [ask(10), Ask("other", 0, 0, 20, 10, share=1_000_000)]
    assert stores[0].take(asks).granted == (0, 0)
    assert [level.held for level in stores[1].levels(asks)] == [0, 0]
    shadowed = [asks[0], Ask("other", 0, 0, 20, 10, share=1_000_000, hinders=False)]
    assert all(stores[0].take(shadowed).granted)


def test_what_is_spent_stays_and_what_is_free_goes_back(stores: Sequence[GateStore]) -> None:
    one, two, _ = stores
    one.take([ask(600)])
    assert two.take([ask(600)]).granted == (0,)
    assert one.wanted() == ["pool"], "who holds slices is told that others ask in vain"
    one.flush(Said((Change("pool", 0, spent=250, attempts=1),), (), 1))
    (level,) = two.levels([ask(0)])
    assert (level.spent, level.held, level.left) == (250, 0, 750)
    assert two.take([ask(600)]).granted == (600,)
    assert two.take([ask(151)]).granted == (0,)


def test_a_rolling_window_counts_what_has_not_left_it(stores: Sequence[GateStore]) -> None:
    for slot in (10, 20, 30):
        stores[0].flush(Said((Change("pool", slot, spent=100, attempts=1),), (), 0))
    since = [
        stores[1].levels([Ask("pool", 40, s, 0, 1000, share=1_000_000)])[0] for s in (5, 20, 31)
    ]
    assert [level.spent for level in since] == [300, 200, 0]


def test_a_rate_gives_so_much_and_then_makes_wait(stores: Sequence[GateStore]) -> None:
    rate = Rate(10, 10 * SECOND, 5)
    taken = [stores[n % 3].take([ask(1, rate=rate)]) for n in range(6)]
    assert [one.granted for one in taken] == [(1,)] * 5 + [(0,)]
    assert 0.9 * SECOND < taken[-1].levels[0].wait_ns <= SECOND
    stores[0].flush(Said((Change("pool", 0, back=1, rate=rate),), (), 1))
    assert stores[1].take([ask(1, rate=rate)]).granted == (1,)
    stores[0].flush(Said((Change("pool", 0, back=-3, rate=rate),), (), 2))
    (level,) = stores[1].levels([ask(1, rate=rate)])
    assert 3.5 * SECOND < level.wait_ns <= 4 * SECOND


def test_an_override_stands_until_it_ends(stores: Sequence[GateStore]) -> None:
    one, two, _ = stores
    much = ask(2000, budget="mine")
    assert one.take([much]).granted == (0,)
    two.override(Override("mine", 5000, now_ns() + 60 * SECOND, "a fair"))
    assert [o.amount for o in one.overrides()] == [5000]
    taken = one.take([much])
    assert taken.granted[0] >= 2000
    assert taken.levels[0].amount == 5000
    two.override(Override("mine", 5000, now_ns() - 1, ""))
    assert list(one.overrides()) == []
    assert one.take([much]).granted == (0,)


def test_history_has_every_period_of_a_pool_and_of_its_parts(stores: Sequence[GateStore]) -> None:
    for pool, slot in (("a", 1), ("a", 2), ("a;agent=x", 2), ("ab", 3)):
        stores[0].flush(Said((Change(pool, slot, spent=7, attempts=2, unpriced=1),), (), 0))
    found = stores[1].history("a")
    assert [(u.pool, u.slot_ns) for u in found] == [("a", 2), ("a;agent=x", 2), ("a", 1)]
    assert {(u.spent, u.attempts, u.unpriced) for u in found} == {(7, 2, 1)}


OTHER = """
    import importlib, sys
    from pathlib import Path
    from trunkline.core.ports import Ask, Change, Said

    module, _, name = sys.argv[2].partition(":")
    store = getattr(importlib.import_module(module), name)(Path(sys.argv[1]))
    store.take([Ask("pool", 0, 0, 800, 1000, share=1_000_000)])
    store.note(1, b"settled before")
    store.flush(Said((Change("pool", 0, spent=5, attempts=1, held=795),), (), 1))
    store.note(2, b"open")
    store.note(3, b"open too")
    print("ready", flush=True)
    sys.stdin.read()
"""


def other(directory: Path, backend: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(OTHER), str(directory), backend]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


def test_what_a_killed_process_held_is_returned_once(
    stores: Sequence[GateStore], backend: str, tmp_path: Path
) -> None:
    one, two, _ = stores
    with other(tmp_path / "new" / "state", backend) as process:
        assert one.take([ask(500)]).granted == (0,)
        assert not one.orphans(), "it lives"
        process.kill()
        process.wait(10)
        (orphan,) = one.orphans()
        assert orphan.pid == process.pid
        assert orphan.notes == (b"open", b"open too")
        assert not two.orphans(), "one at a time buries"
        one.bury(orphan, [Change("pool", 0, spent=40, attempts=2)])
        assert not one.orphans()
        assert not two.orphans()
        (level,) = two.levels([ask(0)])
        assert (level.spent, level.held) == (45, 0)
        assert two.take([ask(500)]).granted[0] >= 500


def test_a_child_holds_nothing_of_its_parents(stores: Sequence[GateStore]) -> None:
    store, *_ = stores
    store.take([ask(800)])
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        result = b"lost"
        try:
            level = store.levels([ask(0)])[0]
            result = b"%d %d" % (level.held >= 800, len(store.orphans()))
        finally:
            os.write(write, result)
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 100) == b"1 0"
    assert store.levels([ask(0)])[0].held >= 800
    assert store.take([ask(300)]).granted == (0,)


def test_a_correction_counts_once_and_only_where_its_period_is_kept(
    stores: Sequence[GateStore],
) -> None:
    one, two, _ = stores
    one.flush(Said((Change("pool", 0, spent=5, attempts=1, unpriced=1),), (), 1))
    corrected = [Change("pool", 0, spent=70, unpriced=-1), Change("gone", 9, spent=70)]
    for store in (one, two, one):
        store.correct("entry", corrected)
    two.correct("another", [Change("pool", 0, spent=-25)])
    (kept,) = one.history("pool")
    assert (kept.spent, kept.attempts, kept.unpriced) == (50, 1, 0)
    assert not one.history("gone")
    assert one.changed(), "whoever follows the books hears of it"


def test_nothing_is_opened_before_it_is_used(tmp_path: Path) -> None:
    SQLiteGateStore(tmp_path / "state").close()
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("damage", ["garbage", "directory"])
def test_a_file_that_cannot_be_used_is_a_store_that_is_away(tmp_path: Path, damage: str) -> None:
    path = tmp_path / GATE_NAME
    if damage == "garbage":
        path.write_bytes(b"no database" * 1000)
    else:
        path.mkdir()
    store = SQLiteGateStore(tmp_path)
    with pytest.raises(StoreError, match="books"):
        store.take([ask(1)])
    store.close()


def test_a_lock_that_is_let_go_again_is_waited_for(tmp_path: Path) -> None:
    store = SQLiteGateStore(tmp_path)
    store.take([ask(1)])
    held = sqlite3.connect(tmp_path / GATE_NAME, isolation_level=None)
    held.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.take([ask(1)])
    held.execute("COMMIT")
    held.close()
    assert store.take([ask(1)]).granted[0] >= 1
    store.close()
