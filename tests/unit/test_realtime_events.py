"""What the gateway reads of OpenAI's Realtime events, and what it leaves as it is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.models import Usage
from trunkline.gateway import realtime_events as events
from trunkline.gateway.refusal import Refusal

USED = {
    "total_tokens": 821,
    "input_tokens": 789,
    "output_tokens": 32,
    "input_token_details": {
        "text_tokens": 313,
        "audio_tokens": 476,
        "image_tokens": 0,
        "cached_tokens": 640,
        "cached_tokens_details": {"text_tokens": 256, "audio_tokens": 384},
    },
    "output_token_details": {"text_tokens": 9, "audio_tokens": 23},
}


def told(usage: Any) -> Usage:
    return events.usage_of(msgspec.convert(usage, events.Told))


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (
            USED,
            Usage(
                tokens_in=789,
                tokens_out=32,
                tokens_cached=640,
                tokens_audio_in=476,
                tokens_audio_out=23,
                tokens_cached_audio=384,
            ),
        ),
        ({"type": "duration", "seconds": 4}, Usage(audio_in_ns=4_000_000_000)),
        ({"type": "duration", "seconds": 4.25}, Usage(audio_in_ns=4_250_000_000)),
        ({"input_tokens": 3, "output_tokens": None}, Usage(tokens_in=3)),
        ({"input_token_details": None, "output_token_details": {}}, Usage()),
        ({}, Usage()),
    ],
)
def test_usage_is_read_as_it_is_told(usage: Any, expected: Usage) -> None:
    assert told(usage) == expected


def test_images_are_noticed() -> None:
    details = {**USED["input_token_details"], "image_tokens": 5}  # type: ignore[dict-item]
    with_images = msgspec.convert({**USED, "input_token_details": details}, events.Told)
    assert events.has_images(with_images)
    assert not events.has_images(msgspec.convert(USED, events.Told))


READ = [
    events.CREATED,
    events.DONE,
    events.COMMITTED,
    events.STOPPED,
    events.TRANSCRIBED,
    events.UNTRANSCRIBED,
    events.ERROR,
    *sorted(events.SESSIONS),
]


@pytest.mark.parametrize("kind", READ)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("first", [True, False])
def test_an_event_that_matters_is_read_however_it_is_written(
    kind: str, separators: tuple[str, str], first: bool
) -> None:
    delta = {"delta": "response.output_audio.delta"}
    event = {"type": kind, **delta} if first else {**delta, "type": kind}
    assert events.is_read(json.dumps(event, separators=separators))


@pytest.mark.parametrize(
    "event",
    [
        {"type": "response.output_audio.delta", "delta": "AAAA" * 100, "item_id": '"error"'},
        {"type": "response.output_audio_transcript.delta", "delta": 'say "response.done" now'},
        {"type": "response.output_item.done", "item": {}},
    ],
)
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")])
def test_all_else_is_not_decoded(event: Any, separators: tuple[str, str]) -> None:
    assert not events.is_read(json.dumps(event, separators=separators))


@pytest.mark.parametrize(
    ("turns", "answers"),
    [
        (None, False),
        ({"type": "server_vad"}, True),
        ({"type": "semantic_vad", "create_response": None}, True),
        ({"type": "server_vad", "create_response": True}, True),
        ({"type": "server_vad", "create_response": False}, False),
    ],
)
def test_who_answers_is_known(turns: Any, answers: bool) -> None:
    heard = {"turn_detection": turns, "transcription": {"model": "whisper-1"}}
    event = {"type": "session.updated", "session": {"audio": {"input": heard}}}
    session = events.decode_event(json.dumps(event)).session
    assert session is not None
    assert (session.answers, session.transcribes_by) == (answers, "whisper-1")


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), values), st.dictionaries(st.text(), values), st.text())
def test_a_session_loses_its_model_and_nothing_else(
    around: dict[str, Any], session: dict[str, Any], model: str
) -> None:
    event = {**around, "type": events.UPDATE, "session": {**session, "model": model}}
    text, found = events.without_model(json.dumps(event))
    assert found == model
    left = {k: v for k, v in session.items() if k != "model"}
    assert json.loads(text) == {**event, "session": left}


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"session.update","session":{"instructions":"a  b","audio" : {"x":1.50}}}',
        '{"type" : "session.update"}',
        '{"type":"session.update","session":{}}',
    ],
)
def test_what_has_no_model_stays_as_it_is(text: str) -> None:
    assert events.without_model(text) == (text, "")


@given(values)
def test_whatever_a_provider_sends_is_an_event_or_a_decode_error(value: Any) -> None:
    for name in ("usage", "response", "session", "error"):
        text = json.dumps({"type": events.DONE, name: value})
        try:
            event = events.decode_event(text)
        except msgspec.DecodeError:
            continue
        assert event.type == events.DONE
        if event.usage is not None:
            events.usage_of(event.usage)


def test_a_spent_budget_is_told_in_the_word_that_clients_obey() -> None:
    spent = json.loads(events.refusal_event("id", Refusal(429, "no", code="refused")))
    assert spent["error"]["code"] == spent["error"]["type"] == "insufficient_quota"
    failed = json.loads(events.refusal_event("id", Refusal(502, "cut", code="stream_cut")))
    assert (failed["error"]["type"], failed["error"]["code"]) == ("server_error", "stream_cut")
    assert "id" in failed["error"]["message"]
