"""The unmodified clients of LiveKit on ``/v1/realtime``, before doubles of OpenAI."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from gateway_house import BEARER, KEY, SECRET, until
from gateway_realtime import MODEL, RATE, ROUTE, Realtime, realtime
from livekit import rtc
from livekit.agents import APIError, inference, llm
from livekit.plugins.openai.realtime import RealtimeModel
from openai.types.realtime import AudioTranscription

from trunkline.core.models import Purpose
from trunkline.doubles import Reply, Rule, ToolCall, tones


def plugin(house: Realtime, model: str = ROUTE, **more: Any) -> RealtimeModel:
    """The official plugin, with nothing but the address and key changed."""
    return RealtimeModel(
        base_url=house.url, api_key=BEARER, model=model, http_session=house.session, **more
    )


def cloud(house: Realtime, model: str = f"openai/{MODEL}", **more: Any) -> inference.RealtimeModel:
    """What an agent for LiveKit Cloud uses."""
    return inference.RealtimeModel(
        model,
        base_url=house.url,
        api_key=KEY,
        api_secret=SECRET,
        http_session=house.session,
        **more,
    )


CLIENTS = {"plugin": plugin, "inference": cloud}
Client = Callable[..., RealtimeModel]


@contextlib.asynccontextmanager
async def talking(model: Any) -> AsyncIterator[tuple[Any, list[Any]]]:
    """A session of ``model``, and the errors that it told."""
    session = model.session()
    errors: list[Any] = []
    session.on("error", errors.append)
    try:
        yield session, errors
    finally:
        await session.aclose()


async def reply(session: Any) -> tuple[str, list[str]]:
    """Ask for an answer: its transcript, and the words of its audio."""
    async with asyncio.timeout(20):
        return await spoken(await session.generate_reply())


async def spoken(generation: llm.GenerationCreatedEvent) -> tuple[str, list[str]]:
    text, pcm = "", b""
    async for message in generation.message_stream:
        async for piece in message.text_stream:
            text += piece
        async for frame in message.audio_stream:
            pcm += bytes(frame.data)
    return text, tones.decode(pcm, RATE)


@pytest.mark.parametrize("client", CLIENTS.values(), ids=CLIENTS)
async def test_an_answer_is_spoken_and_paid_for(tmp_path: Path, client: Client) -> None:
    async with realtime(tmp_path, double={"replies": ("Good morning.",)}) as house:
        async with talking(client(house)) as (session, errors):
            context = llm.ChatContext.empty()
            context.add_message(role="user", content="Hello?")
            await session.update_instructions("Be kind.")
            await session.update_chat_ctx(context)
            assert await reply(session) == ("Good morning.", ["good", "morning"])
        await until(lambda: len(house.attempts) == 2)
        assert errors == []
        assert house.used == house.billed
        assert house.used.tokens_audio_out > 0
        assert {entry.quality.value for entry in house.entries} == {"exact"}
        assert all(request.model == MODEL for request in house.doubles["openai"].requests)


async def test_a_voice_is_heard_written_down_and_answered(tmp_path: Path) -> None:
    async with realtime(tmp_path, double={"replies": ("Good day to you.",)}) as house:
        model = plugin(house, input_audio_transcription=AudioTranscription(model="whisper-1"))
        async with talking(model) as (session, errors):
            answers: asyncio.Queue[Any] = asyncio.Queue()
            written: list[Any] = []
            session.on("generation_created", answers.put_nowait)
            session.on("input_audio_transcription_completed", written.append)
            pcm = tones.encode("is anybody there", RATE) + bytes(2 * RATE)
            for at in range(0, len(pcm), 4800):
                part = pcm[at : at + 4800]
                session.push_audio(rtc.AudioFrame(part, RATE, 1, len(part) // 2))
            generation = await asyncio.wait_for(answers.get(), 20)
            assert await spoken(generation) == ("Good day to you.", ["good", "day", "to", "you"])
            assert written[-1].is_final
            assert written[-1].transcript == "is anybody there"
        await until(lambda: len(house.attempts) == 2)
        assert errors == []
        assert house.used == house.billed
        by_purpose = {attempt.purpose: attempt for attempt in house.attempts}
        assert by_purpose[Purpose.TRANSCRIPT].model == "whisper-1"
        assert by_purpose[Purpose.TRANSCRIPT].usage.audio_in_ns > 0
        assert by_purpose[Purpose.SERVE].usage.tokens_audio_in > 0


async def test_a_tool_is_called_and_its_answer_spoken(tmp_path: Path) -> None:
    asked = Reply(tools=(ToolCall("weather", {"city": "Oslo"}),))
    async with (
        realtime(tmp_path, double={"replies": (asked, "It rains.")}) as house,
        talking(plugin(house)) as (session, errors),
    ):
        async with asyncio.timeout(20):
            generation = await session.generate_reply()
            calls = [call async for call in generation.function_stream]
        assert [(call.name, call.arguments) for call in calls] == [("weather", '{"city":"Oslo"}')]
        context = session.chat_ctx.copy()
        output = llm.FunctionCallOutput(
            call_id=calls[0].call_id, name="weather", output="rain", is_error=False
        )
        context.insert(output)
        await session.update_chat_ctx(context)
        assert (await reply(session))[0] == "It rains."
        assert errors == []


async def test_a_session_that_dies_goes_on_with_the_next_candidate(tmp_path: Path) -> None:
    """The client connects anew by itself, tells what was said, and lands on who is well."""
    dies = [Rule(kind="die", after=2, nth=(2,))]
    async with realtime(tmp_path, dies, (), double={"replies": ("One two three four.",)}) as house:
        async with talking(plugin(house)) as (session, errors):
            context = llm.ChatContext.empty()
            context.add_message(role="user", content="Remember the word harbour.")
            await session.update_chat_ctx(context)
            assert (await reply(session))[0] == "One two three four."
            again = asyncio.Event()
            session.on("session_reconnected", lambda _: again.set())
            await session.generate_reply()
            await asyncio.wait_for(again.wait(), 20)
            assert all(error.recoverable for error in errors)
            assert (await reply(session))[0] == "One two three four."
            told = [item.text_content for item in session.chat_ctx.items]
            assert told[0] == "Remember the word harbour."
        await until(lambda: len([a for a in house.attempts if a.purpose is Purpose.SERVE]) == 2)
        served = [a for a in house.attempts if a.purpose is Purpose.SERVE]
        assert [(a.connection, a.outcome) for a in served] == [
            ("openai", "stream_cut"),
            ("second", "ok"),
        ]


async def until_refused(session: Any, errors: list[Any]) -> None:
    """Have answers made for as long as they are."""
    for _ in range(200):
        if errors:
            return
        await reply(session)


async def test_a_budget_that_is_spent_ends_the_session_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client does not connect again: there would be no more of it either."""
    monkeypatch.setattr("trunkline.runtime.gate_keeper.GRACE", 0.3)
    budgets = {"small": {"amount": {"tokens": 900}, "window": "hour"}}
    async with realtime(
        tmp_path, double={"replies": ("word " * 60,), "chunk_ms": 1000}, budgets=budgets
    ) as house:
        model = plugin(house, input_audio_transcription=None)
        with contextlib.suppress(APIError):  # the session's own, at its end
            async with talking(model) as (session, errors):
                with contextlib.suppress(llm.RealtimeError):
                    await until_refused(session, errors)
                await until(lambda: any(not error.recoverable for error in errors))
        assert await house.status() == 429
