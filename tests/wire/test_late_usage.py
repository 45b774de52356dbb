"""What a provider tells of a chat whose caller has left: a further entry, in ledger and budgets."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import APIError, llm
from llm_server import CUT, DONE, STALL, Answer, ChatServer, delta, event, usage
from msgspec.structs import astuple

import trunkline
from trunkline import inference
from trunkline.core.models import Quality, Settlement, Usage
from trunkline.store.gates import GATE_NAME
from trunkline.store.ledger import Ledger, Recorded

WHOLE = delta("stop", content="Good morning.")
TOLD = Usage(tokens_in=11, tokens_out=7)


async def left(
    place: Path,
    *steps: bytes | float | str,
    name: str = "openai/gpt-4.1",
    leaves: bool = True,
    **asked: Any,
) -> tuple[Recorded, list[Settlement], int]:
    """A chat that is left after its first words: its row, what came late, its budget's spend."""
    late: list[Settlement] = []
    async with ChatServer(Answer(steps)) as server:
        budget = {"window": "total", "amount": {"tokens": 10_000}}
        said = {
            "version": 1,
            "providers": {name.partition("/")[0]: {"api_key": "key", "base_url": server.base_url}},
            "budgets": {"all": budget},
        }
        (place / "trunkline.yaml").write_text(json.dumps(said))
        trunkline.configure(place / "trunkline.yaml", place / "state")
        trunkline.on("late", late.append)
        model = inference.LLM(name, extra_kwargs=asked)
        context = llm.ChatContext.empty()
        context.add_message(role="user", content="hello " * 30)
        async with model.chat(chat_ctx=context) as stream:
            with suppress(APIError):
                await anext(stream)
            while not leaves and await anext(stream, None) is not None:
                pass
        await model.aclose()
        house = trunkline.compose.current()
        await trunkline.aclose()
        assert await asyncio.to_thread(house.recorder.flush_all, 60)
    with closing(Ledger(place / "state" / "ledger.db")) as ledger:
        (row,) = ledger.attempts()
    with closing(sqlite3.connect(place / "state" / GATE_NAME)) as db:
        ((spent,),) = db.execute("SELECT sum(spent) FROM pools")
    return row, late, spent


@pytest.mark.parametrize(
    "steps", [(WHOLE, 0.2, usage(), DONE), (WHOLE + usage() + DONE,)], ids=["later", "at once"]
)
async def test_usage_that_is_told_after_the_caller_left_settles_by_a_further_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: Sequence[bytes | float]
) -> None:
    monkeypatch.setattr("trunkline.runtime.wire_llm._LINGER", 10)
    row, late, spent = await left(tmp_path, *steps)
    if len(row.entries) == 1:  # it came before the caller had left
        assert (row.entries[0].usage, row.entries[0].quality) == (TOLD, Quality.EXACT)
    else:
        first, further = row.entries
        assert (first.quality, further.quality) == (Quality.ESTIMATED, Quality.EXACT)
        assert (first.kind, further.kind) == ("settlement", "late")
        assert [one.entry for one in late] == [further]
        assert late[0].attempt.usage == TOLD
        assert further.usage.tokens_in < 0, "less than the estimate"
    assert sum(entry.usage.tokens_in for entry in row.entries) == TOLD.tokens_in
    assert sum(entry.usage.tokens_out for entry in row.entries) == TOLD.tokens_out
    # gpt-4.1: 2 USD a million tokens in, 8 out
    assert row.nanos == 2_000 * TOLD.tokens_in + 8_000 * TOLD.tokens_out
    assert spent == TOLD.tokens_in + TOLD.tokens_out


@pytest.mark.parametrize(
    "steps",
    [(WHOLE, STALL), (WHOLE, CUT), (delta(content="Good"), 0.2, WHOLE, usage(), DONE)],
    ids=["it never comes", "it is cut", "words were to come"],
)
async def test_otherwise_the_estimate_stands(
    tmp_path: Path, steps: Sequence[bytes | float | str]
) -> None:
    """To wait while the answer is still being made would cost what it makes."""
    async with asyncio.timeout(30):
        row, late, spent = await left(tmp_path, *steps)
    assert [entry.quality for entry in row.entries] == [Quality.ESTIMATED]
    assert not late
    usage = row.entries[0].usage
    assert spent == usage.tokens_in + usage.tokens_out > TOLD.tokens_in


def so_far(out: int, total: int, finish: str | None = None, **fields: str) -> bytes:
    """A chunk of Gemini's, which tells what has been used by then; thoughts are in the total."""
    used = {"prompt_tokens": 9, "completion_tokens": out, "total_tokens": total}
    choice = {"index": 0, "delta": {"role": "assistant", **fields}, "finish_reason": finish}
    return event(choices=[choice], usage=used)


async def test_thoughts_are_charged_as_what_is_said(tmp_path: Path) -> None:
    steps = [so_far(1, 103, content="1"), so_far(3, 105, content=", 2"), so_far(3, 112, "stop")]
    row, late, spent = await left(
        tmp_path, *steps, DONE, name="google/gemini-2.5-flash", leaves=False
    )
    assert [(entry.usage, entry.quality) for entry in row.entries] == [
        (Usage(tokens_in=9, tokens_out=103, tokens_reasoning=100), Quality.EXACT)
    ]
    # 0.3 USD a million tokens in, 2.5 out
    assert row.nanos == 300 * 9 + 2_500 * 103
    assert (spent, late) == (9 + 103, [])


async def test_what_was_used_by_the_time_a_caller_left_is_an_estimate(tmp_path: Path) -> None:
    async with asyncio.timeout(30):
        row, late, spent = await left(
            tmp_path, so_far(1, 103, content="1"), STALL, name="google/gemini-2.5-flash"
        )
    assert [(entry.usage, entry.quality) for entry in row.entries] == [
        (Usage(tokens_in=9, tokens_out=94, tokens_reasoning=93), Quality.ESTIMATED)
    ]
    assert (spent, late) == (9 + 94, [])


async def test_who_has_only_thought_has_said_nothing(tmp_path: Path) -> None:
    row, _, spent = await left(
        tmp_path, so_far(0, 109, "length"), DONE, name="google/gemini-2.5-flash"
    )
    assert (row.attempt.outcome, row.entries[0].usage.tokens_out) == ("empty_output", 100)
    assert spent == 9 + 100


FLEX = {"service_tier": "flex"}
FAST = {"service_tier": "priority"}
BESIDE = {"extra_body": FLEX}


@pytest.mark.parametrize(
    ("asked", "told", "leaves", "tier", "charged"),
    [
        ({}, {}, False, "", (2_000, 8_000)),
        ({}, {"service_tier": "default"}, False, "default", (2_000, 8_000)),
        ({}, {"service_tier": "priority"}, False, "priority", (3_500, 14_000)),
        (FAST, {"service_tier": "default"}, False, "default", (2_000, 8_000)),
        (FAST, {}, False, "priority", (3_500, 14_000)),
        ({}, {"service_tier": "flex"}, False, "flex", None),
        (FLEX, {}, False, "flex", None),
        (BESIDE, {}, False, "flex", None),
        (BESIDE, {}, True, "flex", None),
        ({}, {"service_tier": "flex"}, True, "flex", None),
        ({}, {"service_tier": "batch"}, False, "batch", None),
    ],
)  # fmt: skip
async def test_a_tier_has_its_own_rate_or_none(
    tmp_path: Path,
    asked: dict[str, Any],
    told: dict[str, Any],
    leaves: bool,
    tier: str,
    charged: tuple[int, int] | None,
) -> None:
    words = event(choices=[{"index": 0, "delta": {"content": "Good"}}], **told)
    steps = (words, STALL) if leaves else (words, WHOLE, usage(), DONE)
    row, _, _ = await left(tmp_path, *steps, leaves=leaves, **asked)
    assert row.attempt.tier == tier
    due = charged and charged[0] * TOLD.tokens_in + charged[1] * TOLD.tokens_out
    assert row.nanos == due


@pytest.mark.parametrize(
    "told",
    [
        {"completion_tokens": 2**64, "prompt_tokens": 2**64},
        {"completion_tokens": 1, "total_tokens": 2**64 - 1},
        {"completion_tokens": 7, "prompt_tokens": -(2**63)},
    ],
)
async def test_whatever_a_provider_tells_the_attempt_is_in_the_ledger(
    tmp_path: Path, told: dict[str, int]
) -> None:
    row, _, _ = await left(tmp_path, WHOLE, usage(**told), DONE, leaves=False)
    (entry,) = row.entries
    assert (row.attempt.outcome, entry.quality) == ("ok", Quality.ESTIMATED)
    assert max(map(abs, astuple(entry.usage))) == 2**61
    assert row.nanos is None
