"""The scripted responder as a LiveKit LLM: streams, counts words, answers the context alone."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from livekit.agents import llm

from trunkline.engines.scripted import LLM
from trunkline.errors import UsageError


@llm.function_tool
async def book_table(people: int, time: str) -> str:
    """Book a table.

    Args:
        people: how many
        time: when
    """
    return f"{people} at {time}"


def context(*turns: str) -> llm.ChatContext:
    chat = llm.ChatContext.empty()
    for index, text in enumerate(turns):
        chat.add_message(role="assistant" if index % 2 else "user", content=text)
    return chat


async def test_words_stream_one_by_one_and_are_counted() -> None:
    chunks = []
    async with LLM().chat(chat_ctx=context("tell me about the menu")) as stream:
        async for chunk in stream:
            chunks.append((time.perf_counter(), chunk))
    said = [
        (at, chunk.delta.content) for at, chunk in chunks if chunk.delta and chunk.delta.content
    ]
    words = "".join(content for _, content in said).split()
    assert len(said) == len(words) > 40
    assert said[-1][0] - said[0][0] > 0.2
    usage = chunks[-1][1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (5, len(words))


async def test_a_booking_runs_through_the_tool_and_back() -> None:
    model, chat = LLM(), context("a table for two people at seven o'clock please")
    reply = await model.chat(chat_ctx=chat, tools=[book_table]).collect()
    (call,) = reply.tool_calls
    assert json.loads(call.arguments) == {"people": 2, "time": "seven o'clock"}
    result = await llm.execute_function_call(call, llm.ToolContext([book_table]))
    chat.insert(result.fnc_call)
    assert result.fnc_call_out is not None
    chat.insert(result.fnc_call_out)
    told = await model.chat(chat_ctx=chat, tools=[book_table]).collect()
    assert told.tool_calls == []
    assert "2 people at seven o'clock is booked" in told.text


async def test_the_same_context_has_the_same_answer() -> None:
    chat = context("a table for two at seven", "It is booked.", "wait make it three people")
    first = await LLM().chat(chat_ctx=chat, tools=[book_table]).collect()
    second = await LLM().chat(chat_ctx=chat.copy(), tools=[book_table]).collect()
    assert first == second
    assert json.loads(first.tool_calls[0].arguments)["people"] == 3


async def test_tool_choice_none_calls_nothing() -> None:
    chat = context("a table for two people at seven o'clock please")
    reply = await LLM().chat(chat_ctx=chat, tools=[book_table], tool_choice="none").collect()
    assert reply.tool_calls == []
    assert "2 people" in reply.text


async def test_an_empty_context_is_greeted_and_a_barge_in_ends_the_stream() -> None:
    stream = LLM().chat(chat_ctx=llm.ChatContext.empty())
    first = await anext(stream)
    assert first.delta is not None
    assert first.delta.content == "Hello,"
    async with asyncio.timeout(10):
        await stream.aclose()


def test_labels_and_unknown_scripts() -> None:
    model = LLM()
    assert (model.label, model.provider, model.model) == ("scripted", "scripted", "receptionist")
    with pytest.raises(UsageError, match=r"'receptionst'.*receptionist"):
        LLM(script="receptionst")
    with pytest.raises(UsageError, match=r"nowhere\.yaml"):
        LLM(script="/nonexistent/nowhere.yaml")
