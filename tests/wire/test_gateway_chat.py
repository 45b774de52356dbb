"""The chat door as raw HTTP: what leaves upstream, what comes back, how each failure is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from gateway_house import (
    ASK,
    AUTH,
    BROKEN,
    KEY,
    RING,
    TOOL_PARTS,
    events,
    refused,
    serving,
    text_of,
    token,
    until,
)
from llm_server import CUT, DONE, NO_ANSWER, STALL, Answer, delta, event, say, usage

from trunkline.catalog import PROVIDERS, served_by
from trunkline.compose import Wanted, new_identity
from trunkline.core.budgets import FAREWELL
from trunkline.core.models import Modality, Purpose
from trunkline.gateway import attendance, exchange
from trunkline.gateway.plans import Ask
from trunkline.runtime.probes import probe


async def streamed(house: Any, **more: Any) -> list[Any]:
    async with house.ask(stream=True, **more) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["content-type"].startswith("text/event-stream")
        return events(await answer.read())


async def test_a_stream_passes_the_providers_chunks_byte_for_byte(tmp_path: Path) -> None:
    odd = event(
        choices=[
            {"index": 0, "delta": {"content": "é", "reasoning_content": "hm"}, "logprobs": {}},
            {"index": 1, "delta": {"content": "other"}},
        ],
        system_fingerprint="fp",
        novel={"kept": [1]},
    )
    chunks = [delta(role="assistant", content=""), delta(reasoning="first"), odd]
    chunks += [delta(content="<think>x</think>"), delta("stop"), usage()]
    async with serving(tmp_path, [*chunks, DONE]) as (house, _):
        async with house.ask(stream=True, stream_options={"include_usage": True}) as answer:
            assert await answer.read() == b"".join([*chunks, DONE])
        [attempt] = house.attempts
        assert (attempt.outcome, attempt.usage.tokens_in, attempt.usage.tokens_out) == ("ok", 11, 7)
        assert answer.headers["x-trunkline-model"] == "openai/m-openai"


@pytest.mark.parametrize(
    "part", [{"refusal": "I "}, {"audio": {"id": "a", "data": "AAAA"}}], ids=["refusal", "audio"]
)
async def test_output_that_is_no_text_is_an_answer_too(
    tmp_path: Path, part: dict[str, Any]
) -> None:
    """It leaves as it comes, however long it takes, and nobody is blamed or asked after it."""
    pieces = [delta(**part), 0.6, delta(**part), 0.6, delta(**part)]
    answers = [[*pieces, delta("stop"), DONE], say("instead")]
    route = {"deadlines": {"first_content": 1.0, "idle": 1.0}}
    async with serving(tmp_path, *answers, route=route) as (house, _):
        begun, arrived = time.monotonic(), []
        async with house.ask(stream=True) as answer:
            while data := await answer.content.readany():
                arrived.append((time.monotonic() - begun, data))
        assert arrived[0][1].startswith(pieces[0])
        assert arrived[-1][0] - arrived[0][0] > 0.3
        assert b"".join(data for _, data in arrived) == b"".join(
            one for one in answers[0] if isinstance(one, bytes)
        )
        assert [attempt.outcome for attempt in house.attempts] == ["ok"]
        async with house.ask() as answer:
            message = (await answer.json())["choices"][0]["message"]
        assert message.keys() >= part.keys()


async def test_usage_is_metered_always_and_told_when_it_was_asked_for(tmp_path: Path) -> None:
    async with serving(tmp_path, say("Good ", "day.")) as (house, servers):
        assert not any(isinstance(c, dict) and c.get("usage") for c in await streamed(house))
        told = await streamed(house, stream_options={"include_usage": True})
        assert told[-2]["usage"]["completion_tokens"] == 7
        assert [a.usage.tokens_out for a in house.attempts] == [7, 7]
        assert all(r.body["stream_options"] == {"include_usage": True} for r in servers[0].requests)


async def test_a_whole_answer_adds_the_chunks_up(tmp_path: Path) -> None:
    chunks = [
        delta(role="assistant", content="Let "),
        delta(content="me see.", reasoning_content="thin"),
        delta(reasoning_content="king"),
        *TOOL_PARTS,
        delta(
            tool_calls=[{"index": 1, "id": "c2", "function": {"name": "ring", "arguments": "{}"}}]
        ),
        delta("tool_calls"),
        usage(),
        DONE,
    ]
    async with serving(tmp_path, chunks) as (house, _), house.ask() as answer:
        said = await answer.json()
    assert answer.status == 200
    assert said["object"] == "chat.completion"
    assert said["usage"]["prompt_tokens"] == 11
    [choice] = said["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": "Let me see.",
        "reasoning_content": "thinking",
        "tool_calls": [
            {"id": "c1", "function": {"name": "book", "arguments": '{"room": 7}'}},
            {"id": "c2", "function": RING},
        ],
    }


@pytest.mark.parametrize("stream", [True, False])
async def test_a_provider_that_answers_whole_is_served_both_ways(
    tmp_path: Path, stream: bool
) -> None:
    message = {"role": "assistant", "content": "Yes.", "refusal": None}
    document = {
        "id": "chatcmpl-9",
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1},
    }
    body = json.dumps(document, indent=1).encode()
    whole = Answer(steps=[body], content_type="application/json", length=True)
    async with serving(tmp_path, whole) as (house, _):
        if stream:
            chunks = await streamed(house)
            assert chunks[0]["object"] == "chat.completion.chunk"
            assert (text_of(chunks), chunks[-1]) == ("Yes.", "[DONE]")
        else:
            async with house.ask() as answer:
                said = await answer.json()
            assert said["choices"][0]["message"]["content"] == "Yes."
            assert said["object"] == "chat.completion"


async def test_what_goes_upstream_is_what_was_asked_and_nothing_of_the_clients_own(
    tmp_path: Path,
) -> None:
    message = {
        "role": "assistant",
        "content": [{"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}],
        "extra_content": {"google": {"x": 1}},
    }
    headers = {
        **AUTH,
        "Cookie": "a=b",
        "X-Forwarded-For": "1.2.3.4",
        "X-LiveKit-Worker-Token": "wt",
        "OpenAI-Organization": "org",
    }
    asked: dict[str, Any] = {
        "messages": [*ASK["messages"], message],
        "tools": [],
        "tool_choice": "auto",
        "temperature": 0.5,
        "novel_field": {"a": [1]},
        "stream": True,
    }
    async with serving(tmp_path, say("Hi")) as (house, servers):
        assert (await house.ask(headers=headers, **asked)).status == 200
    [request] = servers[0].requests
    assert request.body["model"] == "m-openai"
    assert (request.body["temperature"], request.body["novel_field"]) == (0.5, {"a": [1]})
    assert not {"tools", "tool_choice"} & request.body.keys()
    assert request.headers["authorization"] == "Bearer sk-openai"
    sent = json.dumps(request.headers).lower()
    for own in ("cookie", "forwarded", "livekit", "organization", "bearer-of-a-test"):
        assert own not in sent


async def test_what_only_openai_understands_stays_from_a_lenient_provider(tmp_path: Path) -> None:
    part = {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}
    message = {"role": "user", "content": [part], "extra_content": {"xai": {}}}
    async with serving(tmp_path, say("Hi")) as (house, servers):
        house.file.write_text(
            house.file.read_text("utf-8")
            .replace("openai:", "ollama:")
            .replace("    api_key: sk-openai\n", "")
            .replace("openai/m-openai", "ollama/llama"),
            "utf-8",
        )
        house.gateway.house.reload()
        await streamed(house, messages=[message])
    assert servers[0].requests[0].body["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}]}
    ]


DEFAULT = served_by(PROVIDERS["openai"], Modality.LLM).default_model
NAMES = [
    ("answer", {}, "m-openai"),
    ("auto", {}, DEFAULT),
    ("NOT_GIVEN", {}, DEFAULT),
    (None, {}, DEFAULT),
    ("desk", {}, "m-openai"),
    ("openai/gpt-9", {}, "gpt-9"),
    ("openai/accounts/x/models/y", {}, "accounts/x/models/y"),
    ("gpt-9", {"X-LiveKit-Inference-Provider": "openai"}, "gpt-9"),
    ("openai/gpt-9", {"X-LiveKit-Inference-Provider": "openai"}, "gpt-9"),
    ("google/gemma", {"X-LiveKit-Inference-Provider": "openai"}, "google/gemma"),
    ("answer", {"X-LiveKit-Inference-Provider": "openai"}, "m-openai"),
]


async def test_a_name_is_served_as_in_process(tmp_path: Path) -> None:
    stack = {"stt": "pocketsphinx", "llm": "answer", "tts": "flite"}
    async with serving(tmp_path, say("Hi"), stacks={"desk": stack}) as (house, servers):
        for name, headers, upstream in NAMES:
            async with house.ask(headers={**AUTH, **headers}, model=name) as answer:
                assert answer.status == 200, await answer.text()
            assert servers[0].requests[-1].body["model"] == upstream, name


WRONG_NAMES = [
    ("opanai/gpt", 404, "did you mean"),
    ("nowhere", 404, "no route"),
    ("anthropic/claude", 404, "not configured"),
    ("openai/../../admin", 404, "form"),
    ("openai/./x", 404, "form"),
    ("openai//x", 404, "form"),
    ("/etc/passwd", 404, "form"),
    ("openai\\x", 404, "form"),
    ("openai/%2e%2e/x", 404, "form"),
    ("openai/x?key=1", 404, "form"),
    ("openai/x\r\nX-Evil: 1", 404, "form"),
    ("openai/x\x00", 404, "form"),
    ("openai/" + "x" * 300, 404, "form"),
    ("flite", 404, "does not serve"),
    (17, 400, "model"),
]


async def test_a_wrong_name_is_one_clear_error_each(tmp_path: Path) -> None:
    async with serving(tmp_path, say("Hi")) as (house, servers):
        for name, status, told in WRONG_NAMES:
            async with house.ask(model=name) as answer:
                error = (await answer.json())["error"]
            assert answer.status == status, error
            assert told in error["message"]
            assert error["param"] == "model"
        for provider in ("second", "a/../b", "\\"):
            headers = {**AUTH, "X-LiveKit-Inference-Provider": provider}
            async with house.ask(headers=headers) as answer:
                assert answer.status == 404
        assert (servers[0].requests, house.attempts) == ([], [])


WRONG_BODIES: list[tuple[bytes, str]] = [
    (b"", "not JSON"),
    (b"{", "not JSON"),
    (b"\xff\xfe", "not JSON"),
    (b"[" * 100_000, "the body"),
    (b'{"a":' * 5_000, "not JSON"),
    (b"[]", "the body"),
    (b'"x"', "the body"),
    (b"{}", "messages"),
    (b'{"messages": []}', "messages"),
    (b'{"messages": "x"}', "messages"),
    (b'{"messages": [1]}', "messages[0]"),
    (b'{"messages": [{"content": "x"}]}', "role"),
    (b'{"messages": [{"role": 1}]}', "role"),
    (b'{"messages": [{"role": "assistant", "tool_calls": [1]}]}', "tool_calls"),
    (b'{"messages": [{"role": "user"}], "stream": "yes"}', "stream"),
    (b'{"messages": [{"role": "user"}], "stream_options": 1}', "stream_options"),
    (b'{"messages": [{"role": "user"}], "tools": {}}', "tools"),
    (b'{"messages": [{"role": "user"}], "tools": [{"function": "x"}]}', "tools[0].function"),
    (b'{"messages": [{"role": "user"}], "extra_headers": {"Authorization": "x"}}', "extra_headers"),
    (b'{"messages": [{"role": "user"}], "extra_query": {}}', "extra_query"),
    (b'{"messages": [{"role": "user"}], "extra_body": {}}', "extra_body"),
]


async def test_a_wrong_body_is_one_clear_error_each(tmp_path: Path) -> None:
    async with serving(tmp_path, say("Hi")) as (house, servers):
        for body, told in WRONG_BODIES:
            url = f"{house.url}/chat/completions"
            async with house.session.post(url, data=body, headers=AUTH) as answer:
                error = (await answer.json())["error"]
                assert answer.status == 400, body[:80]
                assert told in error["message"], (body[:80], error)
        assert servers[0].requests == []


async def test_a_call_is_known_by_its_headers_on_every_attempt(tmp_path: Path) -> None:
    headers = {
        "Authorization": f"Bearer {token()}",
        "X-LiveKit-Room-Id": "RM_1",
        "X-LiveKit-Job-Id": "AJ_1",
        "X-LiveKit-Agent-Id": "PA_1",
        "X-LiveKit-Session-Id": "inference_abc",
    }
    async with serving(tmp_path, BROKEN, say("Hi")) as (house, _):
        async with house.ask(headers=headers, stream=True) as answer:
            await answer.read()
        async with house.ask(stream=True) as other:
            await other.read()
        first, second, third, *_ = [attempt.identity for attempt in house.attempts]
        assert first == second
        assert (first.call, first.room, first.job) == ("AJ_1", "RM_1", "AJ_1")
        assert (first.agent, first.session) == ("PA_1", "inference_abc")
        assert third.call == third.session == other.headers["x-request-id"]
        for bad in ("x" * 200, "é"):
            wrong = {**AUTH, "X-LiveKit-Room-Id": bad}
            async with house.ask(headers=wrong) as answer:
                assert answer.status == 400
                assert "x-livekit-room-id" in (await answer.json())["error"]["message"]


CLASSES = [("priority", "priority"), ("low", "flex"), ("standard", "default"), ("novel", None)]


@pytest.mark.parametrize(("named", "tier"), CLASSES)
async def test_a_scheduling_class_is_the_providers_service_tier(
    tmp_path: Path, named: str, tier: str | None
) -> None:
    headers = {**AUTH, "X-LiveKit-Inference-Priority": named}
    async with serving(tmp_path, say("Hi"), BROKEN) as (house, servers):
        async with house.ask(headers=headers) as answer:
            assert answer.status == 200
        assert servers[0].requests[0].body.get("service_tier") == tier


FAILURES: list[tuple[Sequence[Any], int, str]] = [
    ([refused(401), refused(401)], 502, "unauthorized"),
    ([refused(429), refused(429)], 429, "rate_limited"),
    ([refused(400), refused(400)], 400, "rejected"),
    ([refused(404), refused(404)], 404, "rejected"),
    ([refused(422), refused(413)], 502, "all_candidates_failed"),
    ([refused(400), BROKEN], 502, "all_candidates_failed"),
    ([BROKEN, BROKEN], 502, "provider_fault"),
    ([NO_ANSWER, NO_ANSWER], 502, "connect_failed"),
    ([Answer([STALL]), Answer([STALL])], 504, "first_content_timeout"),
    ([[DONE], [DONE]], 502, "empty_output"),
    ([[b"data: x\n\n"], [b"data: x\n\n"]], 502, "protocol_violation"),
]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("answers", "status", "code"), FAILURES, ids=lambda v: str(v)[:24])
async def test_before_the_first_byte_a_failure_is_a_status(
    tmp_path: Path, answers: Sequence[Any], status: int, code: str, stream: bool
) -> None:
    route = {"deadlines": {"first_content": 0.3}}
    async with serving(tmp_path, *answers, route=route) as (house, _):
        async with house.ask(stream=stream) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, error["code"]) == (status, code), error
        assert answer.headers.get("retry-after") == ("7" if status == 429 else None)
        assert "sk-" not in error["message"]


@pytest.mark.parametrize("stream", [True, False])
async def test_the_next_candidate_answers_and_nobody_notices(tmp_path: Path, stream: bool) -> None:
    half = Answer([delta(reasoning="hm"), *TOOL_PARTS[:2], CUT])
    async with serving(tmp_path, half, say("Served.")) as (house, _):
        if stream:
            chunks = await streamed(house)
            assert text_of(chunks) == "Served."
            assert chunks[-1] == "[DONE]"
            assert "tool_calls" not in json.dumps(chunks)
        else:
            async with house.ask() as answer:
                message = (await answer.json())["choices"][0]["message"]
            assert message == {"role": "assistant", "content": "Served."}
            assert answer.headers["x-trunkline-model"] == "second/m-second"
        assert [a.outcome for a in house.attempts] == ["stream_cut", "ok"]
        assert [a.index for a in house.attempts] == [0, 1]


async def test_after_the_first_byte_a_failure_is_an_event_and_never_a_clean_end(
    tmp_path: Path,
) -> None:
    cut = Answer([delta(content="Half "), CUT])
    async with serving(tmp_path, cut, say("Other.")) as (house, servers):
        chunks = await streamed(house)
        assert text_of(chunks[:-1]) == "Half "
        assert chunks[-1]["error"]["code"] == "stream_cut"
        assert not any("finish_reason" in json.dumps(c) and "stop" in json.dumps(c) for c in chunks)
        assert servers[1].requests == []


async def test_a_whole_answer_may_begin_anew_because_nothing_of_it_has_left(tmp_path: Path) -> None:
    cut = Answer([delta(content="Half "), *TOOL_PARTS, delta("tool_calls"), CUT])
    async with serving(tmp_path, cut, say("Other.")) as (house, servers), house.ask() as answer:
        said = (await answer.json())["choices"][0]["message"]
        assert said == {"role": "assistant", "content": "Other."}
        assert servers[1].requests[0].body["messages"] == ASK["messages"]


async def test_a_route_that_continues_goes_on_where_the_words_ended(tmp_path: Path) -> None:
    cut = Answer([delta(content="Half "), CUT])
    route = {"after_output": "continue"}
    async with serving(tmp_path, cut, say("and half."), route=route) as (house, servers):
        chunks = await streamed(house)
        assert (text_of(chunks), chunks[-1]) == ("Half and half.", "[DONE]")
        spoken = {"role": "assistant", "content": "Half "}
        assert servers[1].requests[0].body["messages"] == [*ASK["messages"], spoken]


@pytest.mark.parametrize("stream", [True, False])
async def test_an_apology_is_an_answer(tmp_path: Path, stream: bool) -> None:
    async with serving(tmp_path, BROKEN, route={"apology": "I am sorry."}) as (house, _):
        if stream:
            chunks = await streamed(house)
            assert (text_of(chunks), chunks[-1]) == ("I am sorry.", "[DONE]")
            assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
        else:
            async with house.ask() as answer:
                assert (await answer.json())["choices"][0]["message"]["content"] == "I am sorry."


async def test_an_agent_is_answered_for_its_caller_when_it_is_refused(tmp_path: Path) -> None:
    """Who comes with a token has somebody on the line; who has a bearer key may be any program."""
    spent = {"window": "total", "amount": {"requests": 1}}
    agent = {"Authorization": f"Bearer {token()}"}
    async with serving(tmp_path, say("Hi"), budgets={"all": spent}) as (house, servers):
        assert text_of(await streamed(house)) == "Hi"
        async with house.ask(headers=agent) as answer:
            said = (await answer.json())["choices"][0]["message"]["content"]
            assert (answer.status, said) == (200, FAREWELL)
        async with house.ask() as answer:
            assert answer.status == 429
        assert len(servers[0].requests) == 1


@pytest.mark.parametrize("notice", ["", "That was enough."])
async def test_a_limit_holds_for_the_key_that_came_in(tmp_path: Path, notice: str) -> None:
    once: dict[str, Any] = {
        "scope": [{"key": "bearer[0]"}],
        "amount": {"requests": 1},
        "per": "hour",
        **({"notice": notice} if notice else {}),
    }
    async with serving(tmp_path, say("Hi"), limits={"once": once}) as (house, servers):
        assert text_of(await streamed(house)) == "Hi"
        if notice:
            chunks = await streamed(house)
            assert (text_of(chunks), chunks[-1]) == (notice, "[DONE]")
            async with house.ask() as answer:
                said = (await answer.json())["choices"][0]["message"]["content"]
                assert (answer.status, said) == (200, notice)
        for stream in (True, False) if not notice else ():
            async with house.ask(stream=stream) as answer:
                assert (answer.status, (await answer.json())["error"]["code"]) == (429, "refused")
                assert 0 < int(answer.headers["retry-after"]) <= 3600
        other = {"Authorization": f"Bearer {token()}"}
        async with house.ask(headers=other) as answer:
            assert answer.status == 200
        assert len(servers[0].requests) == 2
        assert [a.identity.key for a in house.attempts] == ["bearer[0]", KEY]


async def test_silence_is_kept_alive_before_and_after_the_first_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert exchange.SILENCE_SECONDS + attendance.TICK_SECONDS < 10, "LiveKit's clients give up then"
    monkeypatch.setattr(exchange, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(attendance, "TICK_SECONDS", 0.1)
    route = {"deadlines": {"first_content": 20, "idle": 20}}
    slow = [Answer([4.0, *say("late")]), Answer([delta(content="a"), 4.0, *say("b")])]
    async with serving(tmp_path, tuple(slow), route=route) as (house, _):

        async def gaps() -> tuple[bytes, float]:
            body, longest, last = b"", 0.0, time.monotonic()
            async with house.ask(stream=True) as answer:
                async for data in answer.content.iter_any():
                    now = time.monotonic()
                    body, longest, last = body + data, max(longest, now - last), now
            return body, longest

        for body, longest in await asyncio.gather(gaps(), gaps()):
            assert b": keep-alive\n\n" in body
            assert body.endswith(DONE)
            assert longest < 3


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("steps", [[STALL], [delta(content="Hi"), STALL]], ids=["before", "after"])
async def test_whoever_hangs_up_costs_no_more(
    tmp_path: Path, steps: list[Any], stream: bool
) -> None:
    route = {"deadlines": {"first_content": 20, "idle": 20}}
    async with serving(tmp_path, Answer(steps), say("Hi"), route=route) as (house, servers):

        async def asked() -> None:
            async with house.ask(stream=stream) as answer:
                await answer.read()

        task = asyncio.create_task(asked())
        await until(lambda: servers[0].requests)
        await asyncio.sleep(0.1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await until(lambda: house.attempts and servers[0].open == 0)
        assert [attempt.outcome for attempt in house.attempts] == ["cancelled"]
        assert house.trunkline.health.allows("openai/m-openai@openai")
        assert text_of(await streamed(house, model="second/x")) == "Hi"


async def test_one_that_was_ill_is_probed_and_gets_its_callers_back(tmp_path: Path) -> None:
    async with serving(tmp_path, (BROKEN, BROKEN, BROKEN, say("Well.")), say("Two.")) as (house, _):
        for _ in range(100):
            if text_of(await streamed(house)) == "Well.":
                break
            await asyncio.sleep(0.1)
        assert text_of(await streamed(house)) == "Well."
        purposes = [a.purpose for a in house.attempts if a.connection == "openai"]
        assert Purpose.PROBE in purposes


THOUGHT = Answer(
    [
        delta(role="assistant", content=""),
        delta("length"),
        usage(completion_tokens=16, completion_tokens_details={"reasoning_tokens": 16}),
        DONE,
    ]
)
"""What a model that reasons does with a limit of sixteen tokens."""


@pytest.mark.parametrize("in_process", [False, True])
async def test_a_model_that_only_has_thoughts_for_a_probe_is_well(
    tmp_path: Path, in_process: bool
) -> None:
    async with serving(tmp_path, THOUGHT) as (house, _):
        trunkline, ask = house.trunkline, Ask(Modality.LLM, Wanted("answer"))
        with house.gateway.house.plans.lease(ask) as plan:
            if in_process:
                await probe(trunkline.engine, ask.modality, plan.candidates[0], plan, new_identity)
            else:
                await house.gateway.house.plans.probes[ask.modality](plan.candidates[0], plan)
        assert [(a.purpose, a.outcome) for a in house.attempts] == [(Purpose.PROBE, "ok")]


async def test_a_limit_that_leaves_no_word_is_no_fault_of_the_model(tmp_path: Path) -> None:
    """A program gets what it asked for; an agent's caller would hear nothing."""
    async with serving(tmp_path, THOUGHT) as (house, _):
        async with house.ask(max_completion_tokens=16) as answer:
            [choice] = (await answer.json())["choices"]
            assert (choice["finish_reason"], choice["message"]["content"]) == ("length", "")
        agent = {"Authorization": f"Bearer {token()}"}
        async with house.ask(agent, max_completion_tokens=16) as answer:
            assert answer.status == 502
            assert "without saying anything" in await answer.text()
        assert [attempt.outcome for attempt in house.attempts] == ["ok", "empty_output"]
        assert house.trunkline.health.allows("openai/m-openai@openai")


async def test_models_are_listed_by_every_name(tmp_path: Path) -> None:
    async with serving(tmp_path, say("Hi"), BROKEN) as (house, _):
        async with house.session.get(f"{house.url}/models", headers=AUTH) as answer:
            listed = await answer.json()
        names = [model["id"] for model in listed["data"]]
        assert listed["object"] == "list"
        assert len(set(names)) == len(names)
        assert {"auto", "answer", "default", "local"} <= set(names)
        assert any(name.startswith("openai/") for name in names)
        assert not any(name.startswith("anthropic/") for name in names)
        for name, status in ((names[-1], 200), ("none/such", 404)):
            url = f"{house.url}/models/{name}"
            async with house.session.get(url, headers=AUTH) as answer:
                assert answer.status == status
                assert status == 404 or (await answer.json())["id"] == name
        async with house.session.head(f"{house.url}//models/", headers=AUTH) as answer:
            assert answer.status == 200
