"""Whatever recognisers do: every word once in the finals, or an explicit error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from levels import WORDS, Levels, call
from livekit.agents import APIError
from livekit.agents.stt import SpeechEventType
from schedules import CALL, DEADLINES, PAUSE, House, Takes, candidate, ends, seeded, waits
from virtual_time import run

from trunkline.core.models import Attempt, Plan
from trunkline.runtime.loud_vad import LoudVAD
from trunkline.runtime.stt import STT

LISTENING = replace(DEADLINES, first_content=0.815, idle=0.815)
"""Longer than a word and the pause after it."""
_FRAME = 0.05
_PATIENCE = 60.0

moments = st.integers(1, 700).map(lambda n: n / 100 + 0.001)


@dataclass
class Heard:
    """What the agent got of one call: the finals' words and when each of them ended."""

    words: list[str] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    error: APIError | None = None
    cancelled: bool = False
    took: float = 0.0


@st.composite
def ears_of(draw: st.DrawFn, name: str) -> Takes:
    steps = st.lists(st.integers(1, 5) | waits, max_size=4)
    takes = draw(st.lists(st.tuples(steps, st.none() | ends), min_size=1, max_size=2))
    return Takes(name, [[*before, *([] if end is None else [end])] for before, end in takes])


ears = st.integers(1, 3).flatmap(lambda n: st.tuples(*(ears_of(name) for name in "abc"[:n])))


async def listen(recogniser: STT, hang_up: float | None) -> Heard:
    """One call at the speed of speech, which may be cut off ``hang_up`` seconds into it."""
    clock = asyncio.get_running_loop().time
    got = Heard()

    async def speak(stream: Any) -> None:
        for frame in call():
            stream.push_frame(frame)
            await asyncio.sleep(_FRAME)
        stream.end_input()

    async def hear() -> None:
        async with recogniser.stream() as stream:
            speaking = asyncio.create_task(speak(stream))
            try:
                async for event in stream:
                    if event.type is SpeechEventType.FINAL_TRANSCRIPT:
                        got.words += event.alternatives[0].text.split()
                        got.ends.append(event.alternatives[0].end_time)
            finally:
                speaking.cancel()

    begun = clock()
    task = asyncio.create_task(hear())
    await asyncio.wait([task], timeout=hang_up or _PATIENCE)
    got.took = clock() - begun
    got.cancelled = task.cancel()
    try:
        await task
    except APIError as error:
        got.error = error
    except asyncio.CancelledError:
        assert clock() - begun - got.took < 0.001, "hanging up has to be cheap"
    return got


def check_call(plan: Plan, tried: Sequence[Attempt], got: Heard, *, timed: bool) -> None:
    """Every word once and in order, with times that only grow; or a beginning and an error."""
    assert got.words == WORDS[: len(got.words)]
    if timed:
        assert got.ends == sorted(got.ends)
    if got.error is None and not got.cancelled:
        assert got.words == WORDS
        assert tried[-1].outcome == "ok"
    if got.error is not None:
        assert not got.error.retryable
        assert {one.connection for one in plan.candidates} <= {a.connection for a in tried}


@given(
    takes=ears,
    timed=st.booleans(),
    retries=st.integers(0, 1),
    hang_up=st.none() | moments,
    swap=st.none() | st.tuples(moments, ears_of("n")),
)
@seeded
def test_a_recogniser_hears_every_word_once_or_says_so(
    takes: tuple[Takes, ...],
    timed: bool,
    retries: int,
    hang_up: float | None,
    swap: tuple[float, Takes] | None,
) -> None:
    async def play() -> None:
        house = House()
        made = [candidate(one.name, Levels(one, timed=timed)) for one in takes]
        old = Plan(tuple(made), LISTENING, retries=retries, retry_pause=PAUSE)
        recogniser = STT(
            house.engine,
            old,
            lambda: CALL,
            sample_rate=None,
            vad=LoudVAD(),
            closing=house.closing("old"),
        )
        everybody = old
        if swap is not None:
            live = Levels(swap[1], timed=timed)
            new = replace(old, candidates=(candidate("n", live),))
            everybody = replace(old, candidates=(*old.candidates, *new.candidates))
            asyncio.get_running_loop().call_later(
                swap[0], lambda: recogniser.swap(new, house.closing("new"))
            )
        got = await listen(recogniser, hang_up)
        speech = len(call()) * _FRAME
        longest = (len(takes) + 1 + retries) * 2 * LISTENING.idle + PAUSE
        assert hang_up or got.took <= speech + longest
        tried = house.served()
        plan = old if swap is None else recogniser.plan
        check_call(plan, tried, got, timed=timed)
        house.check_health(everybody.candidates)
        if swap is not None:
            await asyncio.sleep(max(0.0, swap[0] + 0.01 - house.clock()))
        await house.aclose(recogniser)
        house.check_settled(_PATIENCE)
        assert set(house.closed) == ({"old", "new"} if swap else {"old"})

    for one in (*takes, *([swap[1]] if swap else [])):
        one.taken.clear()
    run(play())
