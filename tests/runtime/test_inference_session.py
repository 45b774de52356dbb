"""Door 1 in LiveKit's own ``AgentSession``: text, tools, a voice, markup, barge-in, pictures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.agents import Agent, AgentSession, function_tool, llm
from livekit.agents import inference as livekit_inference
from livekit.agents.utils import http_context
from livekit.agents.voice import io
from pydantic import BaseModel
from speech import needs_flite
from switchboard import Switchboard, ask, settings, settled

import trunkline
from trunkline import inference
from trunkline.cli.demo.receptionist import Receptionist
from trunkline.core.models import Modality, Quality, Settlement


class Loudspeaker(io.AudioOutput):
    """Plays at once, except for its first utterance with ``slow``: that lasts until it is cut."""

    def __init__(self, *, slow: bool = False) -> None:
        super().__init__(label="test", capabilities=io.AudioOutputCapabilities(pause=False))
        self.heard = asyncio.Event()
        self.seconds = 0.0
        self._slow = slow

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        self.seconds += frame.duration
        if any(frame.data):
            self.heard.set()

    def flush(self) -> None:
        super().flush()
        if not self._slow and self.seconds:
            asyncio.get_running_loop().call_soon(self._finished, False)

    def clear_buffer(self) -> None:
        if self._slow and self.seconds:
            self._slow = False
            self._finished(True)

    def _finished(self, interrupted: bool) -> None:
        self.on_playback_finished(playback_position=self.seconds, interrupted=interrupted)
        self.seconds = 0.0


@pytest.fixture
async def board(tmp_path: Path) -> AsyncIterator[Switchboard]:
    async with Switchboard() as board, http_context.open():
        settings(tmp_path, board.url)
        yield board
        await trunkline.aclose()


def of(records: list[Settlement], modality: Modality) -> list[Settlement]:
    return [record for record in records if record.attempt.modality is modality]


# -- text, tools, pictures, schemas -------------------------------------------------------------


@pytest.mark.usefixtures("board")
async def test_the_local_stack_answers_and_calls_a_tool() -> None:
    records = settled()
    stack = trunkline.stack("local", tags=["test"], agent="desk")
    agent = Receptionist()
    async with AgentSession[None](**stack) as session:
        await session.start(agent)
        result = await asyncio.wait_for(
            session.run(user_input="A table for two people at eight o'clock please."), 20
        )
        result.expect.contains_function_call(name="book_table")
        result.expect.contains_function_call_output()
        result.expect.contains_message(role="assistant")
    await stack.aclose()
    assert agent.bookings == [(2, "eight o'clock")]
    models = of(records, Modality.LLM)
    assert {record.attempt.outcome for record in models} == {"ok"}
    assert len(models) >= 2
    assert {record.attempt.identity.call for record in records} == {stack.call}
    assert {record.attempt.identity.tags for record in records} == {("test",)}
    assert {record.attempt.identity.agent for record in records} == {"desk"}
    (session,) = {record.attempt.identity.session for record in records}
    assert session, "one AgentSession, whatever the modality"
    assert all(record.attempt.turn for record in models)
    assert {(r.entry.charge.nanos, r.entry.charge.source) for r in models if r.entry.charge} == {
        (0, "local")
    }


class Clerk(Agent):
    """Asks for the weather through a tool."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(instructions="Be brief.", **settings)
        self.asked: list[str] = []

    @function_tool
    async def weather(self, city: str) -> str:
        """The weather.

        Args:
            city: where
        """
        self.asked.append(city)
        return "rain"


async def test_a_model_over_the_wire_calls_a_tool_in_two_requests(board: Switchboard) -> None:
    call = {"index": 0, "id": "call-1", "type": "function"}
    made = {"function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    board.replies = [[{"tool_calls": [{**call, **made}]}], [{"content": "It rains in Oslo."}]]
    clerk = Clerk()
    async with AgentSession[None](llm=inference.LLM("openai/gpt-x")) as session:
        await session.start(clerk)
        result = await asyncio.wait_for(session.run(user_input="Rain in Oslo?"), 60)
    assert clerk.asked == ["Oslo"]
    result.expect.next_event().is_function_call(name="weather", arguments={"city": "Oslo"})
    result.expect.next_event().is_function_call_output(output="rain")
    result.expect.next_event().is_message(role="assistant")
    first, second = (asked.body for asked in board.asked if asked.body["stream"])
    assert first["tools"][0]["function"]["name"] == "weather"
    assert [message["role"] for message in second["messages"]][-2:] == ["assistant", "tool"]
    assert second["messages"][-1]["content"] == "rain"


class Weather(BaseModel):
    city: str
    degrees: float


async def test_pictures_and_a_schema_travel(board: Switchboard) -> None:
    board.replies = [[{"content": '{"city": "Oslo", "degrees": 3}'}]]
    context = llm.ChatContext.empty()
    picture = llm.ImageContent(image="data:image/png;base64,iVBORw0KGgo=")
    context.add_message(role="user", content=["Where is this?", picture])
    model = inference.LLM("openai/gpt-x")
    async with model.chat(chat_ctx=context, response_format=Weather) as stream:
        answer = await stream.collect()
    await model.aclose()
    assert Weather.model_validate_json(answer.text).city == "Oslo"
    asked = board.asked[0].body
    assert {part["type"] for part in asked["messages"][0]["content"]} == {"text", "image_url"}
    assert asked["response_format"]["type"] == "json_schema"
    schema = asked["response_format"]["json_schema"]["schema"]
    assert schema["properties"].keys() == {"city", "degrees"}


async def test_the_parameters_of_one_chat_act(board: Switchboard) -> None:
    model = inference.LLM("openai/gpt-x", extra_kwargs={"temperature": 0.1})
    await ask(
        model,
        tools=[Clerk().weather],
        tool_choice="none",
        parallel_tool_calls=False,
        inference_class="priority",
        extra_kwargs={"seed": 7, "temperature": 0.9},
    )
    await model.aclose()
    asked = board.asked[0].body
    assert (asked["tool_choice"], asked["parallel_tool_calls"]) == ("none", False)
    assert (asked["service_tier"], asked["seed"]) == ("priority", 7)
    assert asked["temperature"] == 0.1  # the constructor's outranks the chat's, as in LiveKit


# -- a voice: markup, barge-in ------------------------------------------------------------------


async def test_expressive_markup_is_lowered_before_the_voice_gets_it(board: Switchboard) -> None:
    board.replies = [[{"content": '<expr type="expression" la'}, {"content": 'bel="happy"/> Hi!'}]]
    voice = inference.TTS("cartesia/sonic-3")
    session = AgentSession[None](
        llm=inference.LLM("openai/gpt-x"), tts=voice, expressive=True, vad=None
    )
    session.output.audio = Loudspeaker()
    async with session:
        await session.start(Agent(instructions="Be brief."))
        assert session._activity is not None
        assert session._activity._resolve_expressive_options() is not None
        await asyncio.wait_for(session.run(user_input="Hello"), 60)
    await voice.aclose()
    (chat,) = (one.body for one in board.asked if one.path.endswith("/chat/completions"))
    assert "<expr" in str(chat["messages"])  # the model is told of the markup
    spoken = "".join(
        message["transcript"]
        for asked in board.asked
        if asked.path == "/tts/websocket"
        for message in asked.messages
    )
    assert '<emotion value="happy"/>' in spoken
    assert "<expr" not in spoken


@needs_flite
async def test_what_a_barge_in_cuts_off_is_metered_where_the_sdk_has_nothing(
    board: Switchboard,
) -> None:
    sentence = "Of course, I will tell you everything about our opening hours. "
    board.replies = [[{"content": sentence}, {"content": sentence}, None]]
    records = settled()
    speaker = Loudspeaker(slow=True)
    model, voice = inference.LLM("openai/gpt-x"), inference.TTS("flite/slt")
    session = AgentSession[None](llm=model, tts=voice, vad=None)
    session.output.audio = speaker
    async with session:
        await session.start(Agent(instructions="Be brief."))
        handle = session.generate_reply(user_input="When are you open?")
        await asyncio.wait_for(speaker.heard.wait(), 60)
        await asyncio.wait_for(session.interrupt(), 60)
        await asyncio.wait_for(handle.wait_for_playout(), 60)
        usage = session.usage.model_usage
    board.interrupted.set()
    await model.aclose()
    await voice.aclose()
    (chat,) = of(records, Modality.LLM)
    (speech,) = of(records, Modality.TTS)
    assert chat.attempt.turn == speech.attempt.turn == handle.id
    assert chat.attempt.identity.call == speech.attempt.identity.call
    assert chat.attempt.outcome == "cancelled"
    assert chat.entry.quality is Quality.ESTIMATED
    assert chat.entry.usage.tokens_in > 0
    assert chat.entry.usage.tokens_out == -(-len(sentence * 2) // 4)
    assert speech.attempt.outcome == "cancelled"
    assert speech.entry.usage.characters >= len(sentence)
    assert speech.entry.usage.audio_out_ns > 0
    assert sum(getattr(one, "output_tokens", 0) for one in usage) == 0
    assert sum(getattr(one, "characters_count", 0) for one in usage) == 0


# -- what stays LiveKit's -----------------------------------------------------------------------


async def test_strings_given_to_a_session_are_still_livekits(
    board: Switchboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIVEKIT_INFERENCE_URL", f"{board.url}/v1")
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "secret-of-at-least-thirty-two-characters")
    session = AgentSession[None](
        stt="deepgram/nova-3", llm="openai/gpt-4.1", tts="cartesia/sonic-3", vad=None
    )
    assert type(session.stt) is livekit_inference.STT
    assert type(session.llm) is livekit_inference.LLM
    assert type(session.tts) is livekit_inference.TTS
    await session.aclose()
