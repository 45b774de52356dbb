"""Unmodified clients: livekit-agents' inference.LLM by its environment, and openai's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway_house import BEARER, BROKEN, KEY, SECRET, TOOL_PARTS, House, refused, serving, until
from livekit.agents import APIConnectionError, APIConnectOptions, APIStatusError, inference, llm
from llm_server import CUT, STALL, Answer, delta, say

ONCE = APIConnectOptions(max_retry=0, timeout=5.0)


@llm.function_tool
async def book(room: int) -> str:
    """Book a room.

    Args:
        room: its number
    """
    return "done"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVEKIT_API_KEY", KEY)
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRET)


def agent(house: House, monkeypatch: pytest.MonkeyPatch, model: str = "answer", **more: Any) -> Any:
    """LiveKit's own client, told nothing but the address."""
    monkeypatch.setenv("LIVEKIT_INFERENCE_URL", house.url)
    return inference.LLM(model, **more)


def asked() -> llm.ChatContext:
    context = llm.ChatContext.empty()
    context.add_message(role="system", content="Be brief.")
    context.add_message(role="user", content="Have you got a room?")
    return context


async def told(stream: Any) -> list[llm.ChatChunk]:
    async with stream:
        return [chunk async for chunk in stream]


def text(chunks: list[llm.ChatChunk]) -> str:
    return "".join(chunk.delta.content or "" for chunk in chunks if chunk.delta)


async def test_an_agent_gets_text_usage_and_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = [delta(content="One moment."), *TOOL_PARTS, delta("tool_calls"), *say()[-2:]]
    async with serving(tmp_path, (say("Good ", "day."), call)) as (house, servers):
        model = agent(house, monkeypatch)
        chunks = await told(model.chat(chat_ctx=asked(), tools=[book]))
        assert text(chunks) == "Good day."
        assert chunks[-1].usage is not None
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (11, 7)
        sent = servers[0].requests[-1].body
        assert sent["tools"][0]["function"]["name"] == "book"
        assert [m["role"] for m in sent["messages"]] == ["system", "user"]

        chunks = await told(model.chat(chat_ctx=asked(), tools=[book]))
        calls = [c for chunk in chunks if chunk.delta for c in chunk.delta.tool_calls]
        assert [(c.name, c.arguments, c.call_id) for c in calls] == [("book", '{"room": 7}', "c1")]
        await model.aclose()


async def test_an_agents_parameters_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(tmp_path, say("Hi")) as (house, servers):
        extra = {"temperature": 0.2, "max_completion_tokens": 99}
        model = agent(
            house,
            monkeypatch,
            "gpt-x",
            provider="openai",
            inference_class="low",
            extra_kwargs=extra,
        )
        assert text(await told(model.chat(chat_ctx=asked()))) == "Hi"
        sent = servers[0].requests[-1].body
        assert (sent["model"], sent["temperature"], sent["service_tier"]) == ("gpt-x", 0.2, "flex")
        assert sent["max_completion_tokens"] == 99
        await model.aclose()


async def test_an_agent_never_hears_of_a_failover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, BROKEN, say("Served.")) as (house, _):
        model = agent(house, monkeypatch)
        assert text(await told(model.chat(chat_ctx=asked(), conn_options=ONCE))) == "Served."
        await model.aclose()


FINAL = [
    ("a wrong secret", {"api_secret": "x" * 32}, say("Hi"), 401),
    ("an unknown key", {"api_key": "APIx"}, say("Hi"), 401),
    ("an unknown model", {"model": "opanai/gpt"}, say("Hi"), 404),
    ("what every candidate rejects", {}, refused(400), 400),
]
TRANSIENT = [
    ("too many requests", {}, refused(429), 429),
    ("a broken provider", {}, BROKEN, 502),
    ("a refused provider key", {}, refused(401), 502),
]


@pytest.mark.parametrize(
    ("given", "answer", "status", "retryable"),
    [(*row[1:], False) for row in FINAL] + [(*row[1:], True) for row in TRANSIENT],
    ids=[row[0] for row in FINAL + TRANSIENT],
)
async def test_an_agent_knows_what_went_wrong_and_whether_again_helps(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, str],
    answer: Any,
    status: int,
    retryable: bool,
) -> None:
    async with serving(tmp_path, answer) as (house, _):
        model = agent(house, monkeypatch, **given)
        errors: list[Any] = []
        model.on("error", errors.append)
        quick = APIConnectOptions(max_retry=1, retry_interval=0.01, timeout=5.0)
        with pytest.raises((APIStatusError, APIConnectionError)) as raised:
            await told(model.chat(chat_ctx=asked(), conn_options=quick))
        error = raised.value if isinstance(raised.value, APIStatusError) else errors[0].error
        assert isinstance(error, APIStatusError)
        assert error.status_code == status
        assert [one.recoverable for one in errors] == ([True, False] if retryable else [False])
        assert error.request_id
        await model.aclose()


async def test_an_answer_that_broke_is_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, Answer([delta(content="Half "), CUT])) as (house, servers):
        model = agent(house, monkeypatch)
        async with model.chat(chat_ctx=asked()) as stream:
            assert (await anext(stream)).delta.content == "Half "
            with pytest.raises(APIConnectionError):
                await anext(stream)
        assert len(servers[0].requests) == 1
        await model.aclose()


async def test_a_caller_who_cuts_in_ends_the_providers_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, Answer([delta(content="Well "), STALL])) as (house, servers):
        model = agent(house, monkeypatch)
        stream = model.chat(chat_ctx=asked())
        assert (await anext(stream)).delta.content == "Well "
        await stream.aclose()
        await until(lambda: servers[0].open == 0)
        await until(lambda: house.attempts)
        assert [attempt.outcome for attempt in house.attempts] == ["cancelled"]
        await model.aclose()


async def test_an_operators_change_reaches_a_running_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Answer([delta(content="a"), 0.3, *say("b")])
    async with serving(tmp_path, (slow, say("first")), say("second")) as (house, _):
        model = agent(house, monkeypatch)
        running = asyncio.create_task(told(model.chat(chat_ctx=asked())))
        await until(lambda: house.gateway.house.plans.in_use)
        changed = house.file.read_text("utf-8").replace("    - openai/m-openai\n", "")
        house.file.write_text(changed, "utf-8")
        house.gateway.house.reload()
        assert text(await running) == "ab"
        assert text(await told(model.chat(chat_ctx=asked()))) == "second"
        house.file.write_text("version: 1\nroutes: [", "utf-8")
        house.gateway.house.reload()
        assert text(await told(model.chat(chat_ctx=asked()))) == "second"
        await model.aclose()


@pytest.fixture
async def client() -> AsyncIterator[Any]:
    """Makes clients of the openai package and closes them."""
    made: list[openai.AsyncOpenAI] = []

    def make(house: House, **more: Any) -> openai.AsyncOpenAI:
        given = {"api_key": BEARER, "max_retries": 0, **more}
        made.append(openai.AsyncOpenAI(base_url=house.url, **given))
        return made[-1]

    yield make
    for one in made:
        await one.close()


MESSAGES: Any = [{"role": "user", "content": "Good morning?"}]


async def test_the_openai_package_streams_and_waits(tmp_path: Path, client: Any) -> None:
    async with serving(tmp_path, say("Good ", "day.")) as (house, _):
        chat = client(house).chat.completions
        whole = await chat.create(model="answer", messages=MESSAGES)
        assert whole.choices[0].message.content == "Good day."
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage.completion_tokens == 7
        said = ""
        async for chunk in await chat.create(model="answer", messages=MESSAGES, stream=True):
            said += chunk.choices[0].delta.content or ""  # not one without a choice: none was asked
        assert said == "Good day."
        models = [model.id async for model in client(house).models.list()]
        assert "answer" in models
        assert (await client(house).models.retrieve("answer")).id == "answer"


async def test_the_openai_package_gets_its_own_errors(tmp_path: Path, client: Any) -> None:
    answers = (refused(429), Answer([delta(content="Half"), CUT]))
    async with serving(tmp_path, answers, route={"deadlines": {"first_content": 1}}) as (house, _):
        chat = client(house).chat.completions
        with pytest.raises(openai.RateLimitError) as limited:
            await chat.create(model="answer", messages=MESSAGES)
        assert limited.value.response.headers["retry-after"] == "7"
        assert limited.value.request_id
        with pytest.raises(openai.NotFoundError, match="did you mean"):
            await chat.create(model="opanai/x", messages=MESSAGES)
        with pytest.raises(openai.BadRequestError, match="messages"):
            await chat.create(model="answer", messages=[])
        with pytest.raises(openai.AuthenticationError):
            await client(house, api_key="wrong").models.list()
        with pytest.raises(openai.APIError, match="cut") as cut:
            async for _ in await chat.create(model="answer", messages=MESSAGES, stream=True):
                pass
        assert cut.value.code == "stream_cut"
