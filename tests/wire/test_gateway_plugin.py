"""Chats whose provider is behind a plugin: OpenAI's format in, LiveKit's context, and back out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway_house import AUTH, House, events, running, text_of
from livekit.agents import llm

from trunkline import catalog
from trunkline.core.models import Candidate, ModelRef
from trunkline.errors import UsageError
from trunkline.gateway.chat_plugin import ask_plugin
from trunkline.runtime.chat import ChatRequest

SAID = {"version": 1, "gateway": {"bearer": [AUTH["Authorization"].removeprefix("Bearer ")]}}
IMAGE = "data:image/png;base64,AAAA"


class Recording(llm.LLM[Any]):
    """A plugin that keeps what it was asked and answers a text, a tool call and its usage."""

    def chat(self, **asked: Any) -> Any:
        self.asked = asked
        return _Answer(
            self,
            chat_ctx=asked["chat_ctx"],
            tools=asked["tools"],
            conn_options=asked["conn_options"],
        )


class _Answer(llm.LLMStream):
    async def _run(self) -> None:
        call = llm.FunctionToolCall(name="book", arguments='{"room": 7}', call_id="c1")
        send = self._event_ch.send_nowait
        send(llm.ChatChunk(id="p1", delta=llm.ChoiceDelta(role="assistant", content="Well, ")))
        send(llm.ChatChunk(id="p1", delta=llm.ChoiceDelta(role="assistant", tool_calls=[call])))
        used = llm.CompletionUsage(completion_tokens=5, prompt_tokens=9, total_tokens=14)
        send(llm.ChatChunk(id="p1", usage=used))


MESSAGES: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "Look:"},
            {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
        ],
    },
    {
        "role": "assistant",
        "content": "One moment.",
        "tool_calls": [
            {
                "id": "c0",
                "type": "function",
                "function": {"name": "look", "arguments": "{}"},
                "extra_content": {"google": {"thought_signature": "x"}},
            }
        ],
    },
    {"role": "tool", "tool_call_id": "c0", "content": "a room"},
]
TOOL = {"type": "function", "function": {"name": "book", "description": "Books.", "strict": True}}


async def test_a_request_becomes_livekits_context() -> None:
    plugin = Recording()
    params = {"tool_choice": "auto", "temperature": 0.1}
    stream = ask_plugin(candidate(plugin), ChatRequest(MESSAGES, [TOOL], params), 5.0)
    await stream.aclose()
    asked = plugin.asked
    items = asked["chat_ctx"].items
    assert [item.type for item in items] == [
        "message",
        "message",
        "message",
        "function_call",
        "function_call_output",
    ]
    assert [item.role for item in items[:3]] == ["system", "user", "assistant"]
    assert items[1].content[0] == "Look:"
    assert (items[1].content[1].image, items[1].content[1].inference_detail) == (IMAGE, "low")
    assert (items[3].call_id, items[3].name) == ("c0", "look")
    assert items[3].extra == {"google": {"thought_signature": "x"}}
    assert (items[4].call_id, items[4].name, items[4].output) == ("c0", "look", "a room")
    [tool] = llm.ToolContext(asked["tools"]).parse_function_tools("openai")
    assert tool["function"]["name"] == "book"
    assert asked["tool_choice"] == "auto"
    assert asked["extra_kwargs"] == {"temperature": 0.1}


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (ChatRequest([{"role": "robot", "content": "x"}]), "robot"),
        (ChatRequest([{"role": "user", "content": 1}]), r"messages\[0\]"),
        (ChatRequest([{"role": "user", "content": [{"type": "input_audio"}]}]), "input_audio"),
        (ChatRequest([{"role": "user", "content": "x"}], [{"type": "custom"}]), "tools"),
    ],
    ids=["role", "content", "part", "tool"],
)
async def test_what_livekit_has_no_form_for_is_refused(request_: ChatRequest, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        ask_plugin(candidate(Recording()), request_, 5.0)


def candidate(plugin: Recording) -> Candidate:
    return Candidate(ModelRef("recording", "any"), "recording", live=plugin)


@contextlib.asynccontextmanager
async def before_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    """A gateway whose provider ``flite`` thinks as well, through a plugin of ours."""
    row = catalog.Provider(
        name="recording",
        title="Recording",
        local=True,
        llm=catalog.Plugin(target=f"{__name__}:Recording", model=None),
    )
    monkeypatch.setitem(catalog.PROVIDERS, "recording", row)
    async with running(tmp_path, {**SAID, "providers": {"recording": {}}}) as house:
        yield house


async def test_a_plugins_answer_is_written_as_openai_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with before_plugin(tmp_path, monkeypatch) as house:
        async with house.ask(model="recording") as answer:
            whole = await answer.json()
        options = {"include_usage": True}
        async with house.ask(model="recording", stream=True, stream_options=options) as answer:
            chunks = events(await answer.read())
        assert [str(ModelRef(a.provider, a.model)) for a in house.attempts] == ["recording"] * 2
    call = {"name": "book", "arguments": '{"room": 7}'}
    [choice] = whole["choices"]
    assert choice["message"]["content"] == "Well, "
    assert choice["message"]["tool_calls"] == [{"id": "c1", "type": "function", "function": call}]
    assert choice["finish_reason"] == "tool_calls"
    assert (whole["usage"]["prompt_tokens"], whole["usage"]["total_tokens"]) == (9, 14)
    assert text_of(chunks) == "Well, "
    assert [c["choices"][0]["finish_reason"] for c in chunks[:-1] if c["choices"]][-1] == (
        "tool_calls"
    )
    assert chunks[-2]["usage"]["completion_tokens"] == 5
    assert chunks[-1] == "[DONE]"
    assert {c["id"] for c in chunks[:-1]} == {"p1"}
    assert json.dumps(chunks).count('"role": "assistant"') == 1


async def test_the_embedded_stack_answers_over_the_network(tmp_path: Path) -> None:
    async with running(tmp_path, SAID) as house, house.ask(model="local", stream=True) as answer:
        chunks = events(await answer.read())
    assert text_of(chunks)
    assert chunks[-1] == "[DONE]"
