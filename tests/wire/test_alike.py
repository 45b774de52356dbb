"""Chunks that differ in their text alone are not read; what comes of them is the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.quirks import ChatQuirks
from trunkline.gateway.chat_chunks import whole
from trunkline.runtime.wire_chunks import ChunkReader

TEXTS = st.text() | st.sampled_from(
    ["", "word ", "a <thi", "nk>so", "</think>b", '"content":"x"', '\\"', '","refusal":"no"']
)
MORE = st.sampled_from(
    [
        {},
        {"role": "assistant"},
        {"refusal": None},
        {"refusal": "no"},
        {"reasoning_content": "hm "},
        {"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}]},
    ]
)
"""What is beside the text of a delta."""
BESIDE = st.sampled_from(
    [
        {},
        {"logprobs": None},
        {"logprobs": {"content": []}},
        {"logprobs": {"content": "x"}},
        {"finish_reason": "stop"},
        {"index": 1},
    ]
)
"""What is beside a delta."""
AROUND = st.sampled_from(
    [{}, {"usage": None}, {"usage": {"prompt_tokens": 1}}, {"obfuscation": "xy"}, {"created": 2}]
)


@st.composite
def chunks(draw: Any) -> list[dict[str, Any]]:
    """A stream whose chunks are now alike, now not."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        more, beside, around = draw(MORE), draw(BESIDE), draw(AROUND)
        for text in draw(st.lists(TEXTS, min_size=1, max_size=4)):
            choice = {"index": 0, "delta": {"content": text, **more}, **beside}
            found.append({"id": "c", "created": 1, "choices": [choice], **around})
    return found


def outcome(stream: list[dict[str, Any]]) -> tuple[list[Any], dict[str, Any], int]:
    """What is delivered of a stream, the completion that it adds up to, how many were alike."""
    reader, deltas = ChunkReader(ChatQuirks(), verbatim=True), []
    for chunk in stream:
        if (delta := reader.read(json.dumps(chunk).encode())) is not None:
            deltas.append(delta)
    told = [(d.id, d.text, d.tool_calls, d.usage, d.finish_reason, d.extra) for d in deltas]
    completion = json.loads(whole([d.text if d.is_alike else d.raw for d in deltas]))
    completion.pop("number", None)
    return told, completion, sum(d.is_alike for d in deltas)


@given(chunks())
def test_a_number_on_each_chunk_changes_nothing_of_the_answer(stream: list[dict[str, Any]]) -> None:
    """With one no chunk is like another, so all of them are read."""
    numbered = [{"number": number, **chunk} for number, chunk in enumerate(stream)]
    told, completion, alike = outcome(numbered)
    assert alike == 0
    assert outcome(stream)[:2] == (told, completion)


def test_the_words_of_an_answer_are_alike() -> None:
    stream = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        for word in ("One ", 'two "', "drei ü", "\n", "")
    ]
    told, completion, alike = outcome(stream)
    assert alike == 4
    assert completion["choices"][0]["message"]["content"] == 'One two "drei ü\n'
    assert [text for _, text, *_ in told] == ["One ", 'two "', "drei ü", "\n", ""]
