"""Chunks that differ in their text alone are not read; what comes of them is the same."""

from __future__ import annotations

import itertools
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


def outcome(
    stream: list[dict[str, Any]], reads: list[int] | None = None
) -> tuple[list[Any], dict[str, Any], int]:
    """What is delivered of a stream, the completion that it adds up to, how many were alike.

    So many chunks come at once as ``reads`` says, in turns; None: one.
    """
    reader, deltas, at = ChunkReader(ChatQuirks(), verbatim=True), [], 0
    payloads = [json.dumps(chunk).encode() for chunk in stream]
    sizes = itertools.cycle(reads or [1])
    while at < len(payloads):
        size = next(sizes)
        deltas += reader.deltas(payloads[at : at + size])
        at += size
    assert [raw for d in deltas for raw in d.raw] == payloads
    told: list[Any] = [""]
    for d in deltas:
        assert not d.pieces or "".join(d.pieces) == d.text
        told[-1] += d.text  # where a text is cut does not matter
        if more := [x for x in (d.tool_calls, d.usage, d.finish_reason, d.extra) if x]:
            told += [(d.id, *more), ""]
    completion = json.loads(whole([part for d in deltas for part in d.pieces or d.raw]))
    completion.pop("number", None)
    return told, completion, sum(len(d.pieces) for d in deltas)


@given(chunks(), st.lists(st.integers(1, 6), min_size=1, max_size=4))
def test_a_number_on_each_chunk_changes_nothing_of_the_answer(
    stream: list[dict[str, Any]], reads: list[int]
) -> None:
    """With one no chunk is like another, so all of them are read."""
    numbered = [{"number": number, **chunk} for number, chunk in enumerate(stream)]
    told, completion, alike = outcome(numbered, reads)
    assert alike == 0
    assert outcome(stream, reads)[:2] == (told, completion)


def test_the_words_of_an_answer_are_alike() -> None:
    stream = [
        {"id": "c", "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        for word in ("One ", 'two "', "drei ü", "\n", "")
    ]
    told, completion, alike = outcome(stream)
    assert alike == 4
    assert completion["choices"][0]["message"]["content"] == 'One two "drei ü\n'
    assert told == ['One two "drei ü\n']
