"""What leaves: the request as the provider receives it."""

from __future__ import annotations

import asyncio

import pytest
from llm_server import ChatServer, Received, say

from trunkline.core.quirks import ChatQuirks
from trunkline.errors import UsageError
from trunkline.runtime.chat import ChatRequest
from trunkline.runtime.wire_llm import WireLLM

USER = [{"role": "user", "content": "Hello?"}]
TOOL = {"type": "function", "function": {"name": "f", "strict": True, "parameters": {}}}


async def received(
    request: ChatRequest, *, query: str = "", api_key: str | None = "sk-1", **options: object
) -> Received:
    async with asyncio.timeout(30), ChatServer(say("a")) as server:
        client = WireLLM(base_url=server.base_url + query, api_key=api_key, **options)
        stream = client.stream("gpt-x", request)
        async for _ in stream:
            pass
        await stream.aclose()
        await client.aclose()
        return server.requests[0]


async def test_images_tools_and_a_json_schema_arrive_in_openais_format():
    from livekit.agents import llm
    from livekit.agents.llm.utils import to_openai_response_format
    from pydantic import BaseModel

    class Reply(BaseModel):
        mood: str

    @llm.function_tool
    async def look_up(city: str) -> str:
        """Look a city up.

        Args:
            city: its name
        """
        return city

    picture = "data:image/png;base64,iVBORw0KGgo="
    chat = llm.ChatContext.empty()
    chat.add_message(role="system", content="Be brief.")
    chat.add_message(
        role="user",
        content=[
            "What is this?",
            llm.ImageContent(image=picture),
            llm.ImageContent(image="https://example.com/cat.png", inference_detail="low"),
        ],
    )
    messages, _ = chat.to_provider_format("openai")
    tools = llm.ToolContext([look_up]).parse_function_tools("openai", strict=True)
    schema = to_openai_response_format(Reply)
    got = await received(
        ChatRequest(messages, tools, {"response_format": schema, "tool_choice": "required"})
    )
    assert got.body == {
        "model": "gpt-x",
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": tools,
        "response_format": schema,
        "tool_choice": "required",
    }
    images = [p["image_url"]["url"] for p in messages[1]["content"] if p["type"] == "image_url"]
    assert images == [picture, "https://example.com/cat.png"]
    assert schema["json_schema"]["strict"] is True


async def test_a_plain_request_carries_the_key_and_refuses_compression():
    got = await received(ChatRequest(USER), headers={"X-Title": "t"})
    assert (got.method, got.path) == ("POST", "/v1/chat/completions")
    assert got.headers["authorization"] == "Bearer sk-1"
    assert got.headers["accept-encoding"] == "identity"
    assert got.headers["x-title"] == "t"


QUIRKS = {
    "no stream options": (ChatQuirks(stream_options=False), {}, {"stream_options": None}),
    "renamed limit": (
        ChatQuirks(max_tokens_field="max_tokens"),
        {"max_completion_tokens": 9},
        {"max_tokens": 9, "max_completion_tokens": None},
    ),
    "limit left alone": (ChatQuirks(), {"max_tokens": 9}, {"max_tokens": 9}),
    "no tools, no choice": (
        ChatQuirks(),
        {"tool_choice": "auto", "parallel_tool_calls": True, "temperature": 0.5},
        {"tool_choice": None, "parallel_tool_calls": None, "temperature": 0.5},
    ),
    "extra body": (ChatQuirks(), {"extra_body": {"top_k": 4}}, {"top_k": 4, "extra_body": None}),
}


@pytest.mark.parametrize(("quirks", "params", "fields"), QUIRKS.values(), ids=QUIRKS)
async def test_quirks_and_params_shape_the_body(quirks, params, fields):
    got = await received(ChatRequest(USER, params=params), quirks=quirks)
    assert {name: got.body.get(name) for name in fields} == fields


async def test_strict_and_foreign_extras_stay_away_from_who_refuses_them():
    call = {"id": "c", "function": {"name": "f"}, "extra_content": {"google": 1}}
    messages = [{"role": "assistant", "tool_calls": [call], "extra_content": {"google": 1}}]
    quirks = ChatQuirks(strict_tools=False, extra_content=False)
    body = (await received(ChatRequest(messages, [TOOL]), quirks=quirks)).body
    assert "extra_content" not in str(body["messages"])
    assert body["messages"][0]["tool_calls"][0]["id"] == "c"
    assert body["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    assert TOOL["function"]["strict"] is True
    assert call["extra_content"] == {"google": 1}


async def test_extra_headers_and_query_join_those_of_the_connection():
    params = {"extra_headers": {"X-A": "1"}, "extra_query": {"b": 2, "c": True}}
    got = await received(ChatRequest(USER, params=params), query="?api-version=2", api_key=None)
    assert got.path == "/v1/chat/completions?api-version=2&b=2&c=true"
    assert got.headers["x-a"] == "1"
    assert "authorization" not in got.headers


BAD = {
    "no scheme": (lambda: WireLLM(base_url="api.example.com/v1", api_key="k"), "base_url"),
    "no host": (lambda: WireLLM(base_url="https://", api_key="k"), "base_url"),
    "a port too high": (lambda: WireLLM(base_url="http://h:99999", api_key="k"), "base_url"),
    "key in the URL": (
        lambda: WireLLM(base_url="https://u:hunter2@h/v1", api_key=None),
        "base_url",
    ),
    "key in a bad URL": (lambda: WireLLM(base_url="ftp://u:hunter2@h", api_key=None), "base_url"),
    "line end in the key": (lambda: WireLLM(base_url="http://h", api_key="hunter2\n"), "api_key"),
    "bad header": (
        lambda: WireLLM(base_url="http://h", api_key="k", headers={"X-A": "hunter2\r"}),
        "X-A",
    ),
    "half a character": (
        lambda: WireLLM(base_url="http://h", api_key="k").stream(
            "m", ChatRequest([{"role": "user", "content": "hunter2 \ud83d"}])
        ),
        "Unicode",
    ),
    "not JSON": (
        lambda: WireLLM(base_url="http://h", api_key="k").stream(
            "m", ChatRequest(USER, params={"stop": object()})
        ),
        "JSON",
    ),
}


@pytest.mark.parametrize(("build", "named"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence_without_secrets(build, named):
    with pytest.raises(UsageError, match=named) as caught:
        build()
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)
