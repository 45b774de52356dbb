"""One process a job: what a child inherits, what it makes itself, and that nothing is lost."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sqlite3
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
from livekit.agents.testing import fake_job_context
from livekit.agents.utils import http_context
from switchboard import Switchboard, ask, settings, settled

import trunkline
from trunkline import compose, inference

PATIENCE = 120.0
"""Seconds: a spawned child imports livekit-agents first, on a machine that may be busy."""


@pytest.fixture
async def board(tmp_path: Path) -> AsyncIterator[Switchboard]:
    async with Switchboard() as board, http_context.open():
        settings(tmp_path, board.url)
        yield board
        await trunkline.aclose()


def ledger(state: Path) -> list[tuple[str, int]]:
    """(attempt, number of its entries) of every attempt in the ledger."""
    with sqlite3.connect(state / "ledger.db") as database:
        return database.execute(
            "SELECT a.id, COUNT(e.id) FROM attempts a LEFT JOIN entries e ON e.attempt_id = a.id"
            " GROUP BY a.id"
        ).fetchall()


async def _serve(model: inference.LLM, times: int) -> list[str]:
    records = settled()
    for _ in range(times):
        assert await ask(model) == "At your service."
    return [record.attempt.id for record in records]


async def _job(model: inference.LLM | None) -> list[str]:
    """What a job does: use what it inherited, then a model of its own, then shut down."""
    ids = [] if model is None else await _serve(model, 2)
    with fake_job_context() as job:
        own = inference.LLM("openai/gpt-own")
        ids += await _serve(own, 2)
        for callback in job._shutdown_callbacks:
            await callback("done")
    return ids


def _child(report: Connection, config: str, model: inference.LLM | None) -> None:
    """A process's main. It leaves as multiprocessing's children do: without exit handlers."""
    if model is None:
        trunkline.configure(config)
    report.send((os.getpid(), asyncio.run(_job(model))))


async def run(method: str, config: Path, model: inference.LLM | None) -> list[str]:
    """Run ``_child`` to its end; returns the ids of the attempts it settled."""
    context = multiprocessing.get_context(method)
    here, there = context.Pipe(duplex=False)
    child: Any = context.Process(  # type: ignore[attr-defined]
        target=_child, args=(there, str(config), model)
    )
    await asyncio.to_thread(child.start) if method != "fork" else child.start()
    there.close()
    try:
        assert await asyncio.to_thread(here.poll, PATIENCE), "the child said nothing"
        pid, ids = here.recv()
        await asyncio.to_thread(child.join, 20)
        assert child.exitcode == 0
        assert pid != os.getpid()
    finally:
        child.kill()
        child.join()
    return list(ids)


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
async def test_a_child_settles_into_the_same_ledger_once(
    board: Switchboard, tmp_path: Path, state_dir: Path, method: str
) -> None:
    model = inference.LLM("openai/gpt-parent")
    ids = await _serve(model, 2)
    inherited = model if method == "fork" else None
    theirs = await run(method, tmp_path / "trunkline.yaml", inherited)
    assert len(theirs) == (4 if inherited else 2)
    assert {entries for id, entries in ledger(state_dir) if id in theirs} == {1}
    assert {id for id, _ in ledger(state_dir)} >= set(theirs)  # the child's own flush
    ids += await _serve(model, 2)
    await model.aclose()
    await trunkline.aclose()
    assert sorted(ledger(state_dir)) == sorted((id, 1) for id in {*ids, *theirs})
    asked = [one.body["model"] for one in board.asked]
    assert asked.count("gpt-own") == 2
    assert asked.count("gpt-parent") == (6 if inherited else 4)


async def test_a_forked_child_keeps_the_settings_of_its_parent(board: Switchboard) -> None:
    before = compose.current()
    child = os.fork()
    if child == 0:
        os._exit(0 if compose.current().settings is before.settings else 1)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


# -- the job's end ------------------------------------------------------------------------------


async def test_a_job_ends_with_its_journal_in_the_ledger(
    board: Switchboard, state_dir: Path
) -> None:
    with fake_job_context() as job:
        stack = trunkline.stack("local")
        model = inference.LLM("openai/gpt-x")
        assert len(job._shutdown_callbacks) == 1  # one a job, however many wrappers
        ids = await _serve(model, 3)
        await asyncio.wait_for(job._shutdown_callbacks[0]("done"), 10)
        assert {id for id, _ in ledger(state_dir)} == set(ids)
        assert await ask(model)  # what comes late is served and written all the same
    await model.aclose()
    await stack.aclose()


async def test_each_job_of_a_process_has_its_own_end(board: Switchboard) -> None:
    model = inference.LLM("openai/gpt-x")  # as in prewarm: before any job
    records = settled()
    for name in ("one", "two"):
        with fake_job_context(job_id=name) as job:
            assert not job._shutdown_callbacks
            await ask(model)
            await ask(model)
            assert len(job._shutdown_callbacks) == 1
    await model.aclose()
    assert [record.attempt.identity.job for record in records] == ["one", "one", "two", "two"]
    assert len({record.attempt.identity.call for record in records}) == 2


# -- event loops --------------------------------------------------------------------------------


def test_a_model_outlives_the_loop_it_began_on(tmp_path: Path) -> None:
    """Scripts and notebooks call asyncio.run more than once."""
    models: list[inference.LLM] = []

    async def once(port: int) -> int:
        async with Switchboard(port=port) as board:
            if not models:
                settings(tmp_path, board.url)
                models.append(inference.LLM("openai/gpt-x"))
            for _ in range(2):
                assert await ask(models[0]) == "At your service."
            assert len(board.asked) == 2
            await trunkline.aclose()
            return board.port

    port = asyncio.run(once(0))
    asyncio.run(once(port))
