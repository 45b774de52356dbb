"""What the client reads from the wire, over real sockets."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llm_server import DONE, Answer, ChatServer, delta, event, say, usage

from trunkline.core.models import Usage
from trunkline.core.quirks import ChatQuirks
from trunkline.runtime.chat import ChatDelta, ChatRequest, ToolCall
from trunkline.runtime.sse import SseParser
from trunkline.runtime.wire_llm import WireLLM, WireStream

ASK = ChatRequest([{"role": "user", "content": "Hello?"}])


async def answered(
    answer: Answer | list[bytes], **quirks: object
) -> tuple[list[ChatDelta], WireStream]:
    """What one request to a server with this answer yields, and its stream after the end."""
    async with asyncio.timeout(30), ChatServer(answer) as server:
        client = WireLLM(base_url=server.base_url, api_key="k", quirks=ChatQuirks(**quirks))
        stream = client.stream("m", ASK)
        try:
            return [delta async for delta in stream], stream
        finally:
            await stream.aclose()
            await client.aclose()


def text(deltas: list[ChatDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def calls(deltas: list[ChatDelta]) -> list[ToolCall]:
    return [call for delta in deltas for call in delta.tool_calls]


HELLO = b'{"choices":[{"index":0,"delta":{"content":"Gr\xc3\xbc\xc3\x9f Gott"}}]}'
SPLIT = [b"data: " + HELLO[:45], HELLO[45:46], HELLO[46:] + b"\n\n", DONE]  # inside the ü
FRAMINGS = {
    "lf": [b"data: " + HELLO + b"\n\n" + DONE],
    "crlf": [b"data: " + HELLO + b"\r\n\r\ndata: [DONE]\r\n\r\n"],
    "no blank after the colon": [b"data:" + HELLO + b"\n\ndata:[DONE]\n\n"],
    "data over two lines": [b'data: {"choices":\ndata: ' + HELLO[11:] + b"\n\n", DONE],
    "comments, ids and empty events": [
        b": keep-alive\n\nid: 7\nevent: message\ndata: " + HELLO + b"\n\ndata:\n\n" + DONE
    ],
    "no line end after the last": [b"data: " + HELLO + b"\n\n", b"data: [DONE]"],
    "split inside a character": SPLIT,
    "line end split": [b"data: " + HELLO + b"\r", b"\n\r", b"\n", DONE],
    "a byte at a time": [bytes([byte]) for byte in b"data: " + HELLO + b"\n\n" + DONE],
}


@pytest.mark.parametrize("pieces", FRAMINGS.values(), ids=FRAMINGS)
async def test_every_framing_of_the_event_stream_is_read(pieces):
    deltas, stream = await answered(pieces)
    assert text(deltas) == "Grüß Gott"
    assert stream.text_chars == 9


@given(st.lists(st.integers(1, 60), max_size=12), st.sampled_from([b"\n", b"\r\n"]))
def test_where_the_reads_fall_changes_nothing(sizes, line_end):
    payloads = [b'{"a": 1}', "ü☎".encode(), b"", b"[DONE]"]
    body = b"".join(b"data: " + p + line_end + b": c" + line_end * 2 for p in payloads)
    parser, got = SseParser(), []
    for size in [*sizes, len(body)]:
        piece, body = body[:size], body[size:]
        got += parser.feed(piece)
    assert got == [p for p in payloads if p]


PARTS = [
    b"data: ",
    b"data:",
    b"a",
    "\u00fc".encode(),
    b"\n",
    b"\n\n",
    b"\r\n",
    b": c\n\n",
    b"data: b\n\n",
]


@given(st.lists(st.sampled_from(PARTS), max_size=12).map(b"".join), st.integers(0, 40))
def test_what_comes_in_one_read_is_what_would_come_byte_by_byte(body, cut):
    def read(pieces):
        parser = SseParser()
        return [payload for piece in pieces for payload in parser.feed(piece)], parser.rest()

    assert read([body[:cut], body[cut:]]) == read([bytes([byte]) for byte in body])


async def test_text_usage_and_finish_arrive_and_only_text_is_content():
    deltas, stream = await answered(
        [
            b": OPENROUTER PROCESSING\n\n",
            delta(role="assistant", content=""),
            delta(reasoning_content="hm", content=None),
            delta(content="Yes"),
            delta("stop"),
            event(
                choices=[],
                service_tier="priority",
                usage={
                    "prompt_tokens": 11,
                    "completion_tokens": 7,
                    "total_tokens": 18,
                    "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 2},
                    "completion_tokens_details": {"reasoning_tokens": 3, "audio_tokens": None},
                },
            ),
            DONE,
        ]
    )
    used = Usage(
        tokens_in=11, tokens_out=7, tokens_cached=5, tokens_cache_written=2, tokens_reasoning=3
    )
    assert deltas == [
        ChatDelta(id="chatcmpl-1", text="Yes"),
        ChatDelta(id="chatcmpl-1", finish_reason="stop"),
        ChatDelta(id="chatcmpl-1", usage=used, service_tier="priority"),
    ]
    assert [d.content for d in deltas] == [True, False, False]
    assert stream.usage == used


@pytest.mark.parametrize(
    ("told", "out", "reasoning"),
    [
        ((9, 1, 10, None), 1, 0),
        ((9, 7, 16, 3), 7, 3),  # OpenAI: thoughts are part of the answer
        ((9, 1, 103, None), 94, 93),  # Google: only in the total
        ((9, None, 103, None), 94, 94),
        ((32, 9, 135, 94), 103, 94),  # xAI: in the total and beside the answer
        ((32, 9, None, 94), 103, 94),
        ((9, 7, 12, None), 7, 0),  # a total that is none
        ((None, 7, 200, None), 7, 0),
    ],
)
async def test_thoughts_are_tokens_out_wherever_they_are_told(
    told: tuple[int | None, ...], out: int, reasoning: int
) -> None:
    prompt, completion, total, thoughts = told
    more = {"total_tokens": total, "completion_tokens_details": {"reasoning_tokens": thoughts}}
    _, stream = await answered(
        [
            delta("stop", content="Yes"),
            usage(prompt_tokens=prompt, completion_tokens=completion, **more),
            DONE,
        ]
    )
    assert stream.usage == Usage(tokens_in=prompt or 0, tokens_out=out, tokens_reasoning=reasoning)


async def test_the_header_names_the_request_before_the_completion_does():
    _, stream = await answered(Answer(say("a"), headers={"X-Request-Id": "req_9"}))
    assert stream.request_id == "req_9"
    _, stream = await answered(say("a"))
    assert stream.request_id == "chatcmpl-1"


async def test_a_whole_completion_in_json_is_accepted():
    message = {
        "role": "assistant",
        "content": "<think>x</think>Yes",
        "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}],
    }
    body = {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    deltas, _ = await answered(
        Answer([json.dumps(body).encode()], content_type="application/json", length=True)
    )
    assert deltas == [
        ChatDelta(
            id="chatcmpl-1",
            text="Yes",
            tool_calls=(ToolCall("c1", "f", "{}"),),
            usage=Usage(tokens_in=1, tokens_out=2),
            finish_reason="tool_calls",
        )
    ]


async def test_content_parts_and_further_choices():
    parts = [{"type": "thinking", "thinking": []}, {"type": "text", "text": "Bon"}, "jour"]
    other = event(choices=[{"index": 1, "delta": {"content": "second"}}])
    deltas, _ = await answered([delta(content=parts), other, event(choices=None), DONE])
    assert text(deltas) == "Bonjour"


async def test_an_answer_with_a_finish_reason_is_whole_without_done():
    deltas, _ = await answered([delta(content="a"), delta("stop")])
    assert text(deltas) == "a"


def tool(index, id=None, name=None, arguments=None, **extra):
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": id, "type": "function", "function": function, **extra}


TOOLS = {
    "arguments streamed, two in parallel": (
        [
            delta(tool_calls=[tool(0, "a", "f", "")]),
            delta(tool_calls=[tool(0, arguments='{"x"')]),
            delta(tool_calls=[tool(0, arguments=": 1}")]),
            delta(tool_calls=[tool(1, "b", "g", "")]),
            delta(tool_calls=[tool(1, arguments="{}")]),
            delta("tool_calls"),
        ],
        [ToolCall("a", "f", '{"x": 1}'), ToolCall("b", "g", "{}")],
    ),
    "several whole calls in one chunk (Ollama)": (
        [delta("tool_calls", tool_calls=[tool(0, "a", "f", "{}"), tool(1, "b", "g", "{}")])],
        [ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}")],
    ),
    "all with index 0": (
        [delta("stop", tool_calls=[tool(0, "a", "f", "{}"), tool(0, "b", "g", "{}")])],
        [ToolCall("a", "f", "{}"), ToolCall("b", "g", "{}")],
    ),
    "id and name repeated in every part": (
        [
            delta(tool_calls=[tool(0, "a", "f", "{")]),
            delta("stop", tool_calls=[tool(0, "a", "f", "}")]),
        ],
        [ToolCall("a", "f", "{}")],
    ),
    "a signature beside the call (Gemini)": (
        [delta("stop", tool_calls=[tool(0, "a", "f", "{}", extra_content={"google": {"s": "1"}})])],
        [ToolCall("a", "f", "{}", {"google": {"s": "1"}})],
    ),
    "[DONE] without a finish reason": (
        [delta(tool_calls=[tool(0, "a", "f", "{}")])],
        [ToolCall("a", "f", "{}")],
    ),
    "cut by the token limit": ([delta("length", tool_calls=[tool(0, "a", "f", '{"x')])], []),
}


@pytest.mark.parametrize(("stream", "expected"), TOOLS.values(), ids=TOOLS)
async def test_tool_calls_arrive_complete(stream, expected):
    deltas, _ = await answered([*stream, usage(), DONE])
    assert calls(deltas) == expected


async def test_a_call_without_id_gets_one_and_early_calls_come_early():
    first = delta(tool_calls=[tool(0, None, "f", "{}"), tool(0, None, "g", "{}")])
    deltas, _ = await answered([first, delta("stop"), DONE])
    ids = [call.id for call in calls(deltas)]
    assert [call.name for call in deltas[0].tool_calls] == ["f"]
    assert len(set(ids)) == 2
    assert all(ids)


THINKING = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "th", "ink>", "</", "a", "b < c ", "ü"]),
    max_size=12,
)


@settings(max_examples=60)
@given(THINKING)
def test_reasoning_between_tags_is_hidden_as_livekit_hides_it(pieces):
    from livekit.agents.llm.utils import ThinkingTokenFilter, strip_thinking_tokens

    from trunkline.runtime.wire_chunks import ChunkReader

    state, reader = ThinkingTokenFilter(), ChunkReader(ChatQuirks())
    expected = shown = ""
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        expected += strip_thinking_tokens(piece, state, final=last) or ""
        payload = delta("stop" if last else None, content=piece)[6:]
        read = reader.read(payload)
        shown += read.text if read else ""
        assert shown == expected
    assert reader.text_chars == len(expected)


async def test_tags_are_the_providers_own_or_plain_text():
    stream = [delta(content="<|a>x<a|>y<think>z"), delta("stop"), DONE]
    assert text((await answered(stream, think_tags=("<|a>", "<a|>")))[0]) == "y<think>z"
    assert text((await answered(stream, think_tags=None))[0]) == "<|a>x<a|>y<think>z"
