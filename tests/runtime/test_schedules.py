"""Whatever providers do: output without a gap, or an explicit error, in bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from letters import RATE, TEXT, Letters, heard, seams
from livekit import rtc
from livekit.agents import APIError, llm
from plugins import ScheduledLLM
from schedules import (
    CALL,
    DEADLINES,
    PAUSE,
    RETRIED,
    House,
    Takes,
    candidate,
    ends,
    moments,
    played,
    seeded,
    steps_of,
    waits,
)
from virtual_time import run

from trunkline.core.models import AfterOutput, Attempt, Plan
from trunkline.runtime.llm import LLM
from trunkline.runtime.tts import TTS


@dataclass
class Answer:
    """What a caller got from one chat. ``silence`` is the longest wait, the one for the end too."""

    text: str = ""
    calls: list[str] = field(default_factory=list)
    error: APIError | None = None
    cancelled: bool = False
    silence: float = 0.0


@st.composite
def chat_steps(draw: st.DrawFn, name: str) -> list[Any]:
    """Words that say whose they are and where, waits, a tool call now and then, perhaps an end."""
    kinds = draw(st.lists(st.sampled_from(["word", "word", "wait", "call"]), max_size=6))
    steps: list[Any] = []
    for at, kind in enumerate(kinds):
        if kind == "call":
            call = llm.FunctionToolCall(name="book", arguments="{}", call_id=f"{name}{at}")
            steps.append(call)
        else:
            steps.append(draw(waits) if kind == "wait" else f"{name}{at}")
    if draw(st.booleans()):
        steps.append(draw(ends))
    return steps


@st.composite
def takes_of(draw: st.DrawFn, name: str) -> Takes:
    lists = st.lists(chat_steps(name), min_size=1, max_size=2)
    return Takes(name, draw(lists))


plans = st.integers(1, 3).flatmap(lambda n: st.tuples(*(takes_of(name) for name in "abc"[:n])))


async def converse(model: LLM, barge_in: float | None) -> Answer:
    """One chat, which the caller may interrupt ``barge_in`` seconds into it."""
    clock = asyncio.get_running_loop().time
    answer, last = Answer(), clock()
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="hello")

    async def listen() -> None:
        nonlocal last
        async with model.chat(chat_ctx=context) as stream:
            async for chunk in stream:
                if chunk.delta:
                    answer.text += chunk.delta.content or ""
                    answer.calls += [call.call_id for call in chunk.delta.tool_calls]
                    answer.silence, last = max(answer.silence, clock() - last), clock()

    task = asyncio.create_task(listen())
    await asyncio.wait([task], timeout=barge_in)
    begun = clock()
    answer.cancelled = task.cancel()
    try:
        await task
    except APIError as error:
        answer.error = error
    except asyncio.CancelledError:
        assert clock() - begun < 0.001, "a barge-in has to be cheap"
    answer.silence = max(answer.silence, clock() - last)
    return answer


def check_chat(
    plan: Plan, tried: Sequence[Attempt], met: dict[str, Sequence[Any]], got: Answer
) -> None:
    """The answer is what the attempts let out, one after the other, and they had to be made."""
    *failed, last = tried
    text, calls = "", list[str]()
    for attempt in tried:
        play = played(met[attempt.id])
        said = [word for word in play.outputs if isinstance(word, str)]
        called = [call.call_id for call in play.outputs if not isinstance(call, str)]
        if attempt is last and attempt.outcome == "cancelled":
            assert got.cancelled
            assert (text + "".join(f"{w} " for w in said)).startswith(got.text)
            assert (calls + called)[: len(got.calls)] == got.calls
            return
        assert attempt.outcome == play.outcome, met[attempt.id]
        text, calls = text + "".join(f"{word} " for word in said), calls + called
        if attempt in failed:
            assert attempt.outcome != "ok"
            assert not calls, "a tool call is never repeated"
            assert not text or plan.after_output is not AfterOutput.STOP
    if not got.cancelled:
        assert got.text == text
        assert got.calls == calls
        assert (got.error is None) == (last.outcome == "ok")
    if got.error is not None:
        assert not got.error.retryable
        begun = bool(calls or (text and plan.after_output is AfterOutput.STOP))
        again = plan.retries if last.outcome in RETRIED else 0
        assert begun or len(tried) >= len(plan.candidates) + again


@given(
    takes=plans,
    after=st.sampled_from(AfterOutput),
    retries=st.integers(0, 1),
    chats=st.lists(st.none() | moments, min_size=1, max_size=3),
    swap=st.none() | st.tuples(moments, takes_of("n")),
)
@seeded
def test_a_model_is_whole_or_says_so(
    takes: tuple[Takes, ...],
    after: AfterOutput,
    retries: int,
    chats: list[float | None],
    swap: tuple[float, Takes] | None,
) -> None:
    async def play() -> None:
        house = House()
        old = Plan(
            tuple(candidate(one.name, ScheduledLLM(one)) for one in takes),
            DEADLINES,
            after,
            retries=retries,
            retry_pause=PAUSE,
        )
        model = LLM(house.engine, old, lambda: CALL, closing=house.closing("old"))
        everybody = [*takes]
        if swap is not None:
            new = replace(old, candidates=(candidate("n", ScheduledLLM(swap[1])),))
            everybody.append(swap[1])
            asyncio.get_running_loop().call_later(
                swap[0], lambda: model.swap(new, house.closing("new"))
            )
        longest = (len(takes) + retries) * DEADLINES.first_content + PAUSE + 0.001
        for barge_in in chats:
            plan = model.plan
            got = await converse(model, barge_in)
            assert got.silence <= longest
            tried = house.served()
            house.check_order(plan.candidates, tried)
            check_chat(plan, tried, steps_of(house.gate.reserved, everybody), got)
            house.check_health(plan.candidates)
        if swap is not None:
            await asyncio.sleep(max(0.0, swap[0] + 0.01 - house.clock()))
        await house.aclose(model)
        house.check_settled()
        assert set(house.closed) == ({"old", "new"} if swap else {"old"})

    # Hypothesis replays an example: what was taken before is no part of it.
    for one in (*takes, *([swap[1]] if swap else [])):
        one.taken.clear()
    run(play())


SPEAKING = replace(DEADLINES, first_content=0.415, idle=0.415, total=10.005)
"""Longer than LiveKit's emitter holds audio back, which it may for the 0.2 s of a frame."""


@dataclass
class Spoken:
    """What a caller heard of one utterance."""

    frames: list[rtc.AudioFrame] = field(default_factory=list)
    error: APIError | None = None
    cancelled: bool = False
    silence: float = 0.0


@st.composite
def voice_of(draw: st.DrawFn, name: str) -> Takes:
    """The first take is a clean one, by which the voice's pace is known."""
    letters = st.integers(1, 12)
    steps = st.lists(letters | waits, max_size=5)
    takes = draw(st.lists(st.tuples(steps, st.none() | ends), min_size=1, max_size=2))
    lists = [[*before, *([] if end is None else [end])] for before, end in takes]
    return Takes(name, [[], *lists])


voices = st.integers(1, 3).flatmap(lambda n: st.tuples(*(voice_of(name) for name in "abc"[:n])))
texts = st.lists(st.tuples(st.integers(1, len(TEXT) - 1), waits), max_size=3).map(sorted)
"""Where the text is cut into pieces, and how long each next one is in coming."""


async def speak(voice: TTS, cuts: Sequence[tuple[int, float]], barge_in: float | None) -> Spoken:
    """One utterance, which the caller may interrupt ``barge_in`` seconds into it."""
    clock = asyncio.get_running_loop().time
    got, last = Spoken(), clock()

    async def write(stream: Any) -> None:
        at = 0
        for cut, wait in cuts:
            stream.push_text(TEXT[at:cut])
            at = cut
            await asyncio.sleep(wait)
        stream.push_text(TEXT[at:])
        stream.end_input()

    async def listen() -> None:
        nonlocal last
        async with voice.stream() as stream:
            writing = asyncio.create_task(write(stream))
            try:
                async for audio in stream:
                    got.frames.append(audio.frame)
                    got.silence, last = max(got.silence, clock() - last), clock()
            finally:
                writing.cancel()

    task = asyncio.create_task(listen())
    await asyncio.wait([task], timeout=barge_in)
    begun = clock()
    got.cancelled = task.cancel()
    try:
        await task
    except APIError as error:
        got.error = error
    except asyncio.CancelledError:
        assert clock() - begun < 0.001, "a barge-in has to be cheap"
    got.silence = max(got.silence, clock() - last)
    return got


def check_speech(plan: Plan, tried: Sequence[Attempt], got: Spoken) -> None:
    """Every letter in its order; a word begun anew at each seam at most; else an error."""
    letters = heard(got.frames)
    told = [attempt for attempt in tried if attempt.usage.audio_out_ns]
    assert seams(letters) <= max(len(told) - 1, 0)
    last = tried[-1].outcome if tried else "cancelled"
    if got.cancelled:
        assert last in ("cancelled", "ok")
        return
    assert (got.error is None) == (last == "ok"), tried
    if got.error is None:
        assert letters[-1].at == len(TEXT) - 1
        assert letters[-1].seconds > 0.5 / max(PACES), "the last letter is cut"
    else:
        assert not got.error.retryable
        again = plan.retries if last in RETRIED else 0
        stopped = plan.after_output is AfterOutput.STOP and told
        assert stopped or len(tried) >= len(plan.candidates) + again
    audio = sum(attempt.usage.audio_out_ns for attempt in tried) / 1e9
    assert abs(audio - sum(frame.duration for frame in got.frames)) < 0.05


PACES = (15.0, 12.0, 20.0)


@given(
    takes=voices,
    aligned=st.booleans(),
    rates=st.tuples(*[st.sampled_from([16000, 24000, 48000])] * 4),
    after=st.sampled_from([AfterOutput.CONTINUE, AfterOutput.STOP]),
    retries=st.integers(0, 1),
    cuts=texts,
    utterances=st.lists(st.none() | moments, min_size=1, max_size=2),
    swap=st.none() | st.tuples(moments, voice_of("n")),
)
@seeded
def test_a_voice_says_every_word_or_says_so(
    takes: tuple[Takes, ...],
    aligned: bool,
    rates: tuple[int, ...],
    after: AfterOutput,
    retries: int,
    cuts: list[tuple[int, float]],
    utterances: list[float | None],
    swap: tuple[float, Takes] | None,
) -> None:
    everybody = [*takes, *([swap[1]] if swap else [])]

    async def play() -> None:
        house = House()

        def voice(plan: Plan, closing: str) -> TTS:
            return TTS(
                house.engine, plan, lambda: CALL, sample_rate=RATE, closing=house.closing(closing)
            )

        made = []
        for one, rate, pace in zip(everybody, rates, (*PACES, 15.0), strict=False):
            live = Letters(one, per_second=pace, rate=rate, aligned=aligned)
            made.append(candidate(one.name, live))
            alone = voice(Plan((made[-1],), SPEAKING), one.name)
            clean = await speak(alone, (), None)
            assert not clean.error
            await alone.aclose()
        house.served()
        old = Plan(tuple(made[: len(takes)]), SPEAKING, after, retries, PAUSE)
        speaker = voice(old, "old")
        if swap is not None:
            new = replace(old, candidates=(made[-1],))
            asyncio.get_running_loop().call_later(
                swap[0], lambda: speaker.swap(new, house.closing("new"))
            )
        begun = house.clock()
        writing = sum(wait for _, wait in cuts)
        longest = writing + (len(takes) + retries) * SPEAKING.first_content + PAUSE + 0.001
        for barge_in in utterances:
            plan = speaker.plan
            got = await speak(speaker, cuts, barge_in)
            assert got.silence <= longest
            tried = house.served()
            house.check_order(plan.candidates, tried)
            check_speech(plan, tried, got)
            house.check_health(plan.candidates)
        if swap is not None:
            await asyncio.sleep(max(0.0, begun + swap[0] + 0.01 - house.clock()))
        await house.aclose(speaker)
        house.check_settled(SPEAKING.total + 0.001)
        assert set(house.closed[len(everybody) :]) == ({"old", "new"} if swap else {"old"})

    for one in everybody:
        one.taken.clear()
    run(play())
