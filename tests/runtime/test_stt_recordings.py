"""A recogniser of whole recordings that finds no word in one: asked elsewhere, believed if agreed.

A cough, a hum, a word in the next room: such recordings come in healthy calls, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from livekit.agents import APIConnectionError, LanguageCode, stt
from plugins import candidate, frames
from test_stt_line import END, FINAL, START, Call, Script, Scripted, silence, whole

from trunkline.core.models import Candidate

COUGH, SENTENCE = 0.4, 1.6
PAUSE = silence(0.5)


class Recordings(stt.STT[Any]):
    """Answers each recording with the next of ``answers``; the last of them stays."""

    def __init__(self, *answers: str | Exception) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=False, interim_results=False))
        self.answers = answers
        self.asked = 0

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        said = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(said, Exception):
            raise said
        data = [stt.SpeechData(language=LanguageCode("en"), text=said)]
        return stt.SpeechEvent(stt.SpeechEventType.FINAL_TRANSCRIPT, alternatives=data)


def named(*recognisers: stt.STT[Any]) -> list[Candidate]:
    return [candidate(name, one) for name, one in zip("abcd", recognisers, strict=False)]


def blamed(call: Call, candidates: Sequence[Candidate]) -> list[str]:
    ill = [one for one in candidates if not call.engine.health.allows(one.key)]
    return [one.ref.provider for one in ill]


async def say(call: Call, seconds: float) -> None:
    """Say something, and wait until what it was is settled."""
    await call.say([*frames(seconds), *PAUSE], pace=0.1)


async def until(done: Callable[[], object]) -> None:
    for _ in range(3000):
        if done():
            return
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("seconds", [COUGH, SENTENCE])
async def test_words_that_the_next_one_finds_are_the_answer(seconds: float) -> None:
    plan = named(Recordings(""), Recordings("hello"))
    async with Call(*plan) as call:
        await say(call, seconds)
        await call.finish()
    assert (call.said, call.errors) == (["hello"], [])
    assert call.ledger.outcomes == [("a", "empty_output"), ("b", "ok")]
    assert blamed(call, plan) == ["a"]
    assert [kind for kind in call.kinds if kind in (START, END)] == [START, END]


async def test_two_that_lose_words_at_once_are_both_found_out() -> None:
    plan = named(Recordings(""), Recordings(""), Recordings("hello"))
    async with Call(*plan) as call:
        await say(call, SENTENCE)
        await call.finish()
    assert (call.said, call.errors) == (["hello"], [])
    assert blamed(call, plan) == ["a", "b"]


async def test_a_later_utterance_without_words_costs_neither_it_nor_the_first() -> None:
    plan = named(Recordings("good morning", ""), Recordings("my room is cold"))
    async with Call(*plan) as call:
        await say(call, SENTENCE)
        await say(call, SENTENCE)
        await call.finish()
    assert call.said == ["good morning", "my room is cold"]
    assert blamed(call, plan) == ["a"]


@pytest.mark.parametrize("seconds", [COUGH, SENTENCE])
async def test_what_nobody_has_a_word_for_is_no_fault(seconds: float) -> None:
    """And the first one serves what comes then."""
    first, second = Recordings("", "hello"), Recordings("")
    plan = named(first, second)
    async with Call(*plan) as call:
        await say(call, seconds)
        await until(lambda: second.asked and END in call.kinds)
        await say(call, SENTENCE)
        await call.finish()
    assert (call.said, call.errors) == (["hello"], [])
    assert blamed(call, plan) == []
    assert (first.asked, second.asked) == (2, 1)


async def test_less_than_a_word_is_not_asked_about() -> None:
    plan = named(Recordings(""), Recordings("hello"))
    async with Call(*plan) as call:
        await say(call, 0.1)
        await call.finish()
    assert (call.said, call.ledger.outcomes) == ([], [("a", "ok")])


async def test_where_there_is_nobody_else_to_ask_it_is_believed() -> None:
    alone = named(Recordings("", "hello"))
    async with Call(*alone) as call:
        await say(call, SENTENCE)
        await say(call, SENTENCE)
        await call.finish()
    assert (call.said, call.errors) == (["hello"], [])
    assert call.ledger.outcomes == [("a", "ok")]


async def test_nobody_who_is_ill_is_asked() -> None:
    ill = Recordings(APIConnectionError())
    plan = named(ill, Recordings("hello", ""))
    async with Call(*plan) as call:
        await say(call, SENTENCE)
        await say(call, SENTENCE)
        await call.finish()
    assert (call.said, call.errors, ill.asked) == (["hello"], [], 1)


@pytest.mark.parametrize("seconds", [COUGH, SENTENCE])
async def test_it_stands_when_the_others_cannot_say(seconds: float) -> None:
    first = Recordings("", "hello")
    plan = named(first, Recordings(APIConnectionError()))
    async with Call(*plan) as call:
        await say(call, seconds)
        await until(lambda: END in call.kinds)
        await say(call, SENTENCE)
        await call.finish()
    assert (call.said, call.errors) == (["hello"], [])
    assert blamed(call, plan) == ["b"]


async def test_it_stands_at_the_end_of_the_input_too() -> None:
    plan = named(Recordings(""), Recordings(APIConnectionError()))
    async with Call(*plan) as call:
        await call.say(frames(SENTENCE), pace=0.0)
        await call.finish()
    assert (call.said, call.errors) == ([], [])


async def test_a_cough_before_words_accuses_nobody() -> None:
    """The next one streams: it has nothing for the cough, and the words that follow."""

    async def hears_what_follows(stream: Script) -> None:
        await stream.heard(COUGH + 0.5 + SENTENCE)
        words = stt.SpeechData(
            language=LanguageCode("en"),
            text="hello",
            start_time=COUGH + 0.5,
            end_time=COUGH + 0.5 + SENTENCE,
        )
        stream.say(START)
        stream.send(stt.SpeechEvent(FINAL, alternatives=[words]))
        stream.say(END)
        await stream.ended()

    plan = named(Recordings(""), Scripted(hears_what_follows, interim=False))
    async with Call(*plan) as call:
        await say(call, COUGH)
        await say(call, SENTENCE)
        await call.finish()
    assert (call.said, call.errors) == (["hello"], [])
    assert blamed(call, plan) == []


async def test_a_recogniser_that_streams_may_prove_it() -> None:
    plan = named(Recordings(""), Scripted(whole("hello")))
    async with Call(*plan) as call:
        await say(call, SENTENCE)
        await call.finish()
    assert (call.said, call.errors) == (["hello"], [])
    assert blamed(call, plan) == ["a"]
