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
from test_stt_line import END, FINAL, START, Call, silence

from trunkline.core.models import Candidate
from trunkline.runtime.doubt import Doubt

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


@pytest.mark.parametrize(
    ("start", "end", "proves"),
    [(0.1, 0.4, True), (0.0, 2.5, True), (0.9, 2.5, False), (0.0, 0.0, True)],
    ids=["the same", "more", "what follows", "without times"],
)
def test_only_words_of_the_same_audio_accuse(start: float, end: float, proves: bool) -> None:
    blamed: list[bool] = []
    doubt = Doubt(final("", 0.0, COUGH))
    doubt.accused += [lambda: blamed.append(True)] * 2
    assert doubt.is_proven_by(final("hello", start, end)) is proves
    assert len(blamed) == 2 * proves


def final(text: str, start: float, end: float) -> stt.SpeechEvent:
    said = stt.SpeechData(language=LanguageCode("en"), text=text, start_time=start, end_time=end)
    return stt.SpeechEvent(FINAL, alternatives=[said])
