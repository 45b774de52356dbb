"""LiveKit Inference's wire protocol as tables, the part that is HTTP: upgrades, chats, limits.

The rules are those of the clients that ``test_gateway_conformance`` names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway_audio import recorded
from gateway_house import AUTH, KEY, events, token, until
from gateway_speech import FLASH, GPT, INK, NOVA, SONIC, Speech, Vendor, heard, speech

from trunkline.doubles import Kind, Rule
from trunkline.doubles.provider import Reply, ToolCall
from trunkline.gateway import attendance, exchange, server, stt, tts, tts_line
from trunkline.gateway.app import HTTP, SOCKETS
from trunkline.runtime.loud_vad import LoudVAD

UPGRADES: list[tuple[str, str, dict[str, Any], int]] = [
    ("as the clients ask", "/stt?model=ears", {}, 101),
    ("a base address that ends in a slash", "//stt?model=ears", {}, 101),
    ("a name that is none", "/tts?model=NOT_GIVEN", {}, 101),
    ("no query, as before 1.3.11", "/tts", {}, 101),
    ("a name as a URL has it", "/tts?model=tts0%2Fsonic-3", {}, 101),
    ("ids as Python spells them", "/stt?model=ears", {"X-LiveKit-Room-ID": "RM_1"}, 101),
    ("ids as Node spells them", "/stt?model=ears", {"X-LiveKit-Room-Id": "RM_1"}, 101),
    ("a hosted agent's token", "/tts?model=mouth", {"X-LiveKit-Worker-Token": "x"}, 101),
    (
        "a compression that is not taken",
        "/stt?model=ears",
        {"Sec-WebSocket-Extensions": "permessage-deflate"},
        101,
    ),
    ("no token", "/stt?model=ears", {"Authorization": ""}, 401),
    ("a token that has expired", "/stt?model=ears", {"token": {"exp": -60}}, 401),
    ("one that is early", "/tts?model=mouth", {"token": {"nbf": 60}}, 401),
    ("one for something else", "/tts?model=mouth", {"token": {"inference": None}}, 403),
    ("one of another key", "/tts?model=mouth", {"token": {"iss": "APIother"}}, 401),
    ("a clock that is behind", "/tts?model=mouth", {"token": {"nbf": 20}}, 101),
    ("a model that is not here", "/stt?model=nobody/x", {}, 404),
    ("a model of another modality", "/stt?model=mouth", {}, 404),
    ("end of turn", "/eot", {}, 404),
    ("interruption", "/bargein", {}, 404),
    ("speech to speech", "/realtime?model=openai/gpt-realtime", {}, 404),
    ("both at once", "/live/sessions?model=openai/gpt-live-1", {}, 404),
]


def headers_of(given: Mapping[str, Any]) -> dict[str, str]:
    """The headers of a client, with a token that has these claims."""
    more = {name: value for name, value in given.items() if name != "token"}
    return {"Authorization": f"Bearer {token(**given.get('token', {}))}", **more}


async def test_an_upgrade_has_the_status_that_tells_what_to_do(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA], llm=[GPT]) as house:
        for says, path, given, status in UPGRADES:
            found, headers = await upgraded(house, path, headers_of(given))
            assert found == status, says
            assert headers["x-request-id"], says
            assert "sec-websocket-extensions" not in headers, says


async def upgraded(house: Speech, path: str, headers: Mapping[str, str]) -> tuple[int, Any]:
    """The status and the headers of the answer to an upgrade."""
    url = house.url.replace("http", "ws", 1) + path
    try:
        socket = await house.session.ws_connect(url, headers=headers)
    except aiohttp.WSServerHandshakeError as refused:
        return refused.status, refused.headers
    await socket.close()
    return 101, socket._response.headers


MESSAGE = {"role": "user", "content": "Good morning?"}
CHAT = {"model": "brain", "messages": [MESSAGE], "stream": True}
USAGE = {"stream_options": {"include_usage": True}}
BARGE = "/bargein?threshold=0.5&min_frames=2&created_at=1"
TOOL = {"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}

QUESTION = {"type": "noul", "instructions": "The caller requests a human."}
DECISION = {"model": "brain", "state": "user: Hi", "questions": {"handoff": QUESTION}}
LUNA = "openai/gpt-6-luna-decisions"
MIND = Vendor(GPT.kind, GPT.model, GPT.path, more={"replies": (Reply(text='{"handoff": 0.5}'),)})

REQUESTS: list[tuple[str, str, str, Any, dict[str, Any], int]] = [
    ("models, to warm up", "GET", "/models", None, {}, 200),
    ("as Python asks", "POST", "/chat/completions", {**CHAT, **USAGE}, {}, 200),
    ("as Node asks", "POST", "/chat/completions", {**CHAT, **USAGE, "tools": []}, {}, 200),
    (
        "tools, as Python has them",
        "POST",
        "/chat/completions",
        {**CHAT, "tools": [{**TOOL, "strict": True}], "tool_choice": "auto"},
        {},
        200,
    ),
    *[
        (
            f"a scheduling class: {named}",
            "POST",
            "/chat/completions",
            CHAT,
            {"X-LiveKit-Inference-Priority": named},
            200,
        )
        for named in ("priority", "standard", "low")
    ],
    (
        "the provider that must serve",
        "POST",
        "/chat/completions",
        CHAT,
        {"X-LiveKit-Inference-Provider": "llm0"},
        200,
    ),
    (
        "one that serves nothing here",
        "POST",
        "/chat/completions",
        CHAT,
        {"X-LiveKit-Inference-Provider": "groq"},
        404,
    ),
    ("no model", "POST", "/chat/completions", {"messages": [MESSAGE]}, {}, 200),
    ("an unknown model", "POST", "/chat/completions", {**CHAT, "model": "no/such"}, {}, 404),
    ("no messages", "POST", "/chat/completions", {**CHAT, "messages": []}, {}, 400),
    ("no token", "POST", "/chat/completions", CHAT, {"Authorization": ""}, 401),
    ("a token too old", "POST", "/chat/completions", CHAT, {"token": {"exp": -60}}, 401),
    ("another grant", "GET", "/models", None, {"token": {"inference": None}}, 403),
    ("interruption, as 1.5 asked", "POST", BARGE, None, {}, 404),
    ("decisions", "POST", "/decisions", DECISION, {}, 200),
    ("by the client's default", "POST", "/decisions", {**DECISION, "model": LUNA}, {}, 200),
    ("by nobody's model", "POST", "/decisions", {**DECISION, "model": "no/such"}, {}, 404),
    ("without a question", "POST", "/decisions", {**DECISION, "questions": {}}, {}, 400),
    ("for another grant", "POST", "/decisions", DECISION, {"token": {"inference": None}}, 403),
    ("avatars", "POST", "/avatar/sessions", {}, {}, 404),
]


async def test_a_request_has_the_status_that_tells_what_to_do(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA], llm=[MIND]) as house:
        for says, method, path, body, given, status in REQUESTS:
            asked = house.session.request(
                method, house.url + path, json=body, headers=headers_of(given)
            )
            async with asked as answer:
                assert answer.status == status, (says, await answer.text())
                assert answer.headers["x-request-id"], says
                if status != 200:
                    error = (await answer.json())["error"]
                    heads = answer.headers
                    assert heads.get("x-livekit-request-id") or error["request_id"], says


async def test_a_stream_of_a_chat_is_openais(tmp_path: Path) -> None:
    """Text, a whole tool call, why it ended, usage without choices, and the end, in this order."""
    replies = (Reply(text="One moment.", tools=(ToolCall("book", {"room": 7}),)),)
    gpt = Vendor(GPT.kind, GPT.model, GPT.path, more={"replies": replies})
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA], llm=[gpt]) as house:
        url, asked = f"{house.url}/chat/completions", {**CHAT, **USAGE, "tools": [TOOL]}
        async with house.session.post(url, json=asked, headers=AUTH) as answer:
            *chunks, usage, done = events(await answer.read())
    assert done == "[DONE]"
    assert usage["choices"] == []
    counted = usage["usage"]
    assert counted["total_tokens"] == counted["prompt_tokens"] + counted["completion_tokens"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert "".join(c["delta"].get("content") or "" for c in choices) == "One moment."
    calls = [call for c in choices for call in c["delta"].get("tool_calls") or ()]
    assert (calls[0]["index"], calls[0]["function"]["name"]) == (0, "book")
    assert calls[0]["id"]
    arguments = "".join(call["function"].get("arguments", "") for call in calls)
    assert json.loads(arguments) == {"room": 7}
    assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["tool_calls"]


# Whose call it is: the ids are on every attempt, of whoever fails and of whoever serves.

CALL = {
    "X-LiveKit-Room-ID": "RM_1",
    "X-LiveKit-Job-Id": "AJ_1",
    "X-LiveKit-Agent-ID": "PA_1",
    "X-LiveKit-Session-Id": "inference_abc",
}


async def by_chat(house: Speech, headers: dict[str, str]) -> None:
    async with house.session.post(
        f"{house.url}/chat/completions", json=CHAT, headers=headers
    ) as answer:
        assert answer.status == 200
        await answer.read()


async def by_decision(house: Speech, headers: dict[str, str]) -> None:
    async with house.session.post(
        f"{house.url}/decisions", json=DECISION, headers=headers
    ) as answer:
        assert answer.status == 200
        assert answer.headers["x-livekit-request-id"]
        assert (await answer.json())["answers"] == {"handoff": {"type": "noul", "noul": 0.5}}


async def by_speech(house: Speech, headers: dict[str, str]) -> None:
    body = {"model": "mouth", "input": "Good day.", "response_format": "pcm"}
    async with house.session.post(
        f"{house.url}/audio/speech", json=body, headers=headers
    ) as answer:
        assert answer.status == 200
        await answer.read()


async def by_transcription(house: Speech, headers: dict[str, str]) -> None:
    form = aiohttp.FormData({"model": "ears"})
    form.add_field("file", recorded(heard("Good day.", 24000), "wav"), filename="a.wav")
    async with house.session.post(
        f"{house.url}/audio/transcriptions", data=form, headers=headers
    ) as answer:
        assert answer.status == 200, await answer.text()


async def by_stt(house: Speech, headers: dict[str, str]) -> None:
    wire = await house.connect("stt", headers=headers)
    await wire.create()
    await wire.hear(heard("Good day."))
    assert (await wire.until("final_transcript"))["type"] == "final_transcript"
    await wire.close()


async def by_tts(house: Speech, headers: dict[str, str]) -> None:
    wire = await house.connect("tts", headers=headers)
    await wire.create()
    assert await wire.spoken("Good day.") == ["good", "day"]
    await wire.close()


BY = {
    "/v1/chat/completions": by_chat,
    "/v1/decisions": by_decision,
    "/v1/audio/speech": by_speech,
    "/v1/audio/transcriptions": by_transcription,
    "/v1/stt": by_stt,
    "/v1/tts": by_tts,
}


def test_every_door_is_in_the_table() -> None:
    """Realtime sessions have tests of their own for this."""
    assert BY.keys() == (HTTP.keys() | SOCKETS.keys()) - {"/v1/models", "/v1/realtime"}


@pytest.mark.parametrize("door", BY)
async def test_the_ids_of_a_call_are_on_every_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, door: str
) -> None:
    monkeypatch.setattr(stt, "voice_activity", LoudVAD)
    faults = {name: [Rule(kind=Kind.SERVER_ERROR)] for name in ("stt0", "llm0", "tts0")}
    async with speech(
        tmp_path, tts=[SONIC, FLASH], stt=[NOVA, INK], llm=[MIND, MIND], faults=faults
    ) as house:
        await BY[door](house, headers_of(CALL))
        await until(lambda: len(house.attempts) == 2)
        assert {a.outcome == "ok" for a in house.attempts} == {True, False} or door == "/v1/stt"
        for attempt in house.attempts:
            one = attempt.identity
            assert (one.call, one.room, one.job) == ("AJ_1", "RM_1", "AJ_1")
            assert (one.agent, one.session, one.key) == ("PA_1", "inference_abc", KEY)


def test_limits_are_wider_than_those_of_the_clients() -> None:
    """They wait ten seconds for a sign, keep a socket for five minutes and take 4 MiB at once."""
    assert exchange.SILENCE_SECONDS + attendance.TICK_SECONDS < 10
    assert server._PING_SECONDS < 10
    assert tts._IDLE_SECONDS > 300
    assert server._IDLE_SECONDS > 300
    assert stt._IDLE_SECONDS > 300
    assert 4 * tts_line._PIECE_BYTES < 4 << 20
