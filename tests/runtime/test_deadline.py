"""When a deadline interrupts an attempt, alone and beside others on the same loop."""

from __future__ import annotations

import asyncio

from virtual_time import run

from trunkline.core.models import Deadlines
from trunkline.errors import DeadlineExceeded
from trunkline.runtime.deadline import Watch


def test_a_debt_that_begins_later_does_not_wait_for_a_later_deadline() -> None:
    owed: list[float] = []

    async def play() -> tuple[float, str]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        deadlines = Deadlines(first_content=0.4, idle=0.2, total=120)
        watch = Watch(task, deadlines, lambda: owed[0] if owed else None)
        watch.poke()  # nothing is owed yet: only the total deadline runs
        await asyncio.sleep(1)
        owed.append(loop.time())
        watch.poke()
        try:
            await asyncio.sleep(300)
        except asyncio.CancelledError:
            task.uncancel()
        assert isinstance(watch.reason, DeadlineExceeded)
        return loop.time(), watch.reason.phase

    assert run(play()) == (1.4, "first_content")


def test_a_stall_after_the_first_content_does_not_wait_for_the_deadline_of_that() -> None:
    async def play() -> tuple[float, str]:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        deadlines = Deadlines(first_content=3, idle=0.5, total=120)
        watch = Watch(task, deadlines, lambda: 0.0)
        watch.poke()
        await asyncio.sleep(0.25)
        watch.content()
        try:
            await asyncio.sleep(300)
        except asyncio.CancelledError:
            task.uncancel()
        assert isinstance(watch.reason, DeadlineExceeded)
        return loop.time(), watch.reason.phase

    assert run(play()) == (0.75, "idle")


def test_attempts_side_by_side_are_each_interrupted_at_their_own_time() -> None:
    """One of them has ended by then, and one is begun while the timer waits for a later one."""

    async def play() -> list[tuple[float, str]]:
        loop, missed = asyncio.get_running_loop(), []

        async def attempt(begins: float, seconds: float, ends: float = 300) -> None:
            await asyncio.sleep(begins)
            task, since = asyncio.current_task(), loop.time()
            assert task is not None
            deadlines = Deadlines(first_content=seconds, idle=seconds, total=120)
            watch = Watch(task, deadlines, lambda: since)
            watch.poke()
            try:
                await asyncio.sleep(ends)
            except asyncio.CancelledError:
                task.uncancel()
                assert isinstance(watch.reason, DeadlineExceeded)
                missed.append((loop.time(), watch.reason.phase))
            watch.stop()

        await asyncio.gather(
            attempt(0, 2), attempt(0, 0.5), attempt(0, 1, ends=0.25), attempt(1, 0.5), attempt(0, 2)
        )
        return missed

    assert run(play()) == [(when, "first_content") for when in (0.5, 1.5, 2, 2)]
