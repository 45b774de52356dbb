"""The core of the doubles, over plain HTTP: keys, rules, control, configuration, leaks."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from trunkline.doubles import (
    Config,
    Double,
    Kind,
    Latency,
    Pace,
    Provider,
    Reply,
    Rule,
    ToolCall,
    Word,
    read_config,
    serve_forever,
    tones,
)
from trunkline.doubles.config import vendor_for
from trunkline.doubles.faults import FaultScript, read_rules
from trunkline.doubles.hearing import Listener, Started, Transcript
from trunkline.doubles.speech import open_ear
from trunkline.errors import UsageError

ASK = {"model": "m", "messages": [{"role": "user", "content": "one two three"}]}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def sockets() -> int:
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sum(os.path.exists(link) and "socket:" in os.readlink(link) for link in links)


async def ask(
    double: Double, http: aiohttp.ClientSession, *, key: str = "key", **more: object
) -> tuple[int, dict[str, Any], dict[str, str]]:
    url = f"{double.url('openai')}/v1/chat/completions"
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with http.post(url, json={**ASK, **more}, headers=headers) as answer:
        return answer.status, await answer.json(), dict(answer.headers)


async def said(double: Double, http: aiohttp.ClientSession) -> str:
    _, body, _ = await ask(double, http)
    return str(body["choices"][0]["message"]["content"])


@pytest.mark.parametrize(
    ("keys", "shown", "status"),
    [((), "any", 200), ((), "", 401), (("a", "b"), "b", 200), (("a", "b"), "c", 401)],
)
async def test_keys(
    keys: tuple[str, ...], shown: str, status: int, http: aiohttp.ClientSession
) -> None:
    async with Double.serve([Provider("openai", keys=keys)]) as double:
        answered, body, _ = await ask(double, http, key=shown)
        assert answered == status
        assert bool(double.bill) == (status == 200)
    if status == 401:
        assert body["error"]["code"] == "invalid_api_key"


async def test_replies_come_in_turn_and_the_last_one_repeats(
    http: aiohttp.ClientSession,
) -> None:
    call = Reply(tools=(ToolCall("weather", {"city": "Oslo"}),))
    async with Double.serve([Provider("openai", replies=("first", call, "last"))]) as double:
        assert await said(double, http) == "first"
        _, body, _ = await ask(double, http)
        (choice,) = body["choices"]
        assert choice["finish_reason"] == "tool_calls"
        function = choice["message"]["tool_calls"][0]["function"]
        assert function == {"name": "weather", "arguments": '{"city":"Oslo"}'}
        assert [await said(double, http) for _ in range(2)] == ["last", "last"]


async def test_an_answer_is_a_function_of_the_messages(http: aiohttp.ClientSession) -> None:
    echo = Provider("openai", answer=lambda messages: messages[-1]["content"][::-1])
    async with Double.serve([echo]) as double:
        assert await said(double, http) == "eerht owt eno"


async def test_retry_after(http: aiohttp.ClientSession) -> None:
    rule = Rule(kind=Kind.RATE_LIMITED, retry_after=7)
    async with Double.serve(["openai"], faults=[rule]) as double:
        status, body, headers = await ask(double, http)
    assert (status, headers["Retry-After"]) == (429, "7")
    assert body["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model": 3, "messages": []}', b'{"model": "m"}'])
async def test_a_bad_request_is_told_so(body: bytes, http: aiohttp.ClientSession) -> None:
    async with Double.serve(["openai"]) as double:
        url = f"{double.url('openai')}/v1/chat/completions"
        async with http.post(url, data=body, headers={"Authorization": "Bearer k"}) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["message"]
        assert not double.bill


async def test_a_refusing_port_opens_again(http: aiohttp.ClientSession) -> None:
    async with Double.serve(["openai", Provider("deepgram", port=0)]) as double:
        for _ in range(3):
            assert await said(double, http) == "one two three"
            double.inject(Rule(kind=Kind.REFUSE, provider="openai"))
            with pytest.raises(aiohttp.ClientConnectionError):
                await ask(double, http)
            async with http.get(f"{double.url('deepgram')}/v1/listen") as other:
                assert other.status == 401
            double.heal()


async def test_control(http: aiohttp.ClientSession) -> None:
    kept = Rule(kind=Kind.SERVER_ERROR, nth=(9,))
    async with Double.serve(["openai"], faults=[kept]) as double:
        url = double.control_url
        async with http.post(f"{url}/faults", json={"kind": "server_error", "nth": [1]}) as got:
            assert [rule["kind"] for rule in await got.json()] == ["server_error"] * 2
        assert [(await ask(double, http))[0] for _ in range(2)] == [500, 200]
        async with http.get(f"{url}/bill") as got:
            (line,) = await got.json()
        assert line["units"] == {"tokens_in": 3, "tokens_out": 3}
        async with http.get(f"{url}/requests") as got:
            assert [r["outcome"] for r in await got.json()] == ["server_error", "ok"]
        async with http.post(f"{url}/faults", json={"kind": "sulk"}) as got:
            assert got.status == 400
            assert "sulk" in (await got.json())["error"]
        async with http.post(f"{url}/reset") as got:
            assert got.status == 200
        assert (double.bill, double.requests, double.faults.rules) == ([], [], (kept,))
        async with http.delete(f"{url}/faults") as got:
            assert await got.json() == []


async def test_stop_is_prompt_and_leaves_nothing(http: aiohttp.ClientSession) -> None:
    before, tasks = sockets(), asyncio.all_tasks()
    waiting: list[asyncio.Task[object]] = []
    async with Double.serve(["openai", "deepgram"]) as double:
        double.inject(
            *(Rule(kind=k, nth=(n,)) for n, k in enumerate([Kind.BLACK_HOLE, Kind.HANG], 1)),
            Rule(kind=Kind.HANG_AFTER, nth=(3,)),
        )
        for _ in range(3):
            waiting.append(asyncio.create_task(ask(double, http)))
            await asyncio.sleep(0.02)
        url = f"{double.url('deepgram')}/v1/speak"
        await http.ws_connect(url, headers={"Authorization": "Token key"})
        begun = time.monotonic()
    assert time.monotonic() - begun < 5, "the hanging ones would hang for ever"
    await asyncio.gather(*waiting, return_exceptions=True)
    await http.close()
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == tasks
    assert sockets() == before


async def test_a_handler_ends_when_its_client_goes_away() -> None:
    tasks = asyncio.all_tasks()
    async with Double.serve(["openai"], faults=[Rule(kind=Kind.HANG_AFTER)]) as double:
        idle = len(asyncio.all_tasks())
        for _ in range(5):
            async with aiohttp.ClientSession() as http:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await ask(double, http)
        await asyncio.sleep(0.05)
        assert len(asyncio.all_tasks()) == idle
        assert {log.outcome for log in double.requests} == {"hang_after"}
    assert asyncio.all_tasks() == tasks


async def test_pace(http: aiohttp.ClientSession) -> None:
    pace = Pace(connect=0.05, first=0.05, between=0.02)
    async with Double.serve([Provider("openai", pace=pace)]) as double:
        url = f"{double.url('openai')}/v1/chat/completions"
        headers = {"Authorization": "Bearer key"}
        begun = time.monotonic()
        async with http.post(url, json={**ASK, "stream": True}, headers=headers) as answer:
            assert time.monotonic() - begun >= 0.05
            await answer.read()
        assert time.monotonic() - begun >= 0.05 + 0.05 + 2 * 0.02


def test_latency_has_the_percentiles_it_was_given() -> None:
    import random

    source = random.Random(1)
    drawn = sorted(Latency(0.2, 0.6).draw(source) for _ in range(4000))
    assert drawn[2000] == pytest.approx(0.2, rel=0.05)
    assert drawn[3800] == pytest.approx(0.6, rel=0.08)


def test_rules_choose_by_count_model_endpoint_and_chance() -> None:
    script = FaultScript(
        [
            Rule(kind=Kind.DIE, endpoint="chat", nth=(2,)),
            Rule(kind=Kind.STALL, model="big"),
            Rule(kind=Kind.HANG, provider="deepgram", probability=0.5),
        ],
        seed=3,
    )

    def kinds(provider: str, endpoint: str, model: str, times: int) -> list[str]:
        rules = (script.choose(provider, endpoint, model) for _ in range(times))
        return [rule.kind if rule else "" for rule in rules]

    assert kinds("openai", "chat", "small", 3) == ["", "die", ""]
    assert kinds("openai", "speech", "big", 2) == ["stall", "stall"]
    assert 60 <= kinds("deepgram", "listen", "nova", 200).count("hang") <= 140
    assert script.choose("cartesia", "tts", None) is None
    late = script.choose("cartesia", "tts", "big", late=True)
    assert late is not None
    assert late.kind is Kind.STALL


async def test_scripted_hearing() -> None:
    timed = Provider("x", words=(Word("one", 0.1, 0.4), Word("two", 0.5, 0.9)))
    listener = Listener(open_ear(timed, 16000), 16000, endpoint=0.3)
    events = await listener.feed(bytes(2 * 16000 * 2))
    assert [e.text for e in events if isinstance(e, Transcript)] == ["one", "one two", "one two"]
    assert [e.final for e in events if isinstance(e, Transcript)] == [False, False, True]

    spoken = Provider("x", hears="good morning")
    listener = Listener(open_ear(spoken, 16000), 16000, endpoint=None)
    audio = bytes(16000) + tones.encode("anything at all", 16000)
    events = await listener.feed(audio)
    assert events[0] == Started(pytest.approx(0.5, abs=0.06))
    (final,) = await listener.finalize()
    assert isinstance(final, Transcript)
    assert final.text == "good morning"


@pytest.mark.parametrize(
    ("yaml", "named"),
    [
        ("providers: []", "providers"),
        ("providers: [{name: nobody}]", "nobody"),
        ("providers: [{name: openai}, {name: openai}]", "openai"),
        ("providers: [{name: openai, kyes: [a]}]", "kyes"),
        ("providers: [{name: openai, pace: {first: {p50: 2, p95: 1}}}]", "$.providers[0].pace"),
        ("providers: [{name: openai, chunk_ms: 1}]", "chunk_ms"),
        ("providers: [{name: openai, answer: hi}]", "answer"),
        ("providers: [{name: openai}]\nfaults: [{kind: sulk}]", "sulk"),
        ("providers: [{name: openai}]\nfaults: [{kind: die, nth: [0]}]", "nth"),
        ("providers: [{name: openai}]\nport: 70000", "port"),
        ("providers: [", "YAML"),
    ],
)
def test_a_mistake_in_the_file_is_named(yaml: str, named: str, tmp_path: Path) -> None:
    path = tmp_path / "doubles.yaml"
    path.write_text(yaml)
    with pytest.raises(UsageError) as caught:
        read_config(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value) or named == "nobody"


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"missing\.yaml"):
        read_config(tmp_path / "missing.yaml")


def test_a_rule_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="probability"):
        read_rules({"kind": "die", "probability": 2})


async def test_a_file_is_served_until_cancelled(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    path = tmp_path / "doubles.yaml"
    path.write_text(
        """
        seed: 7
        providers:
          - name: openai
            replies: ["Good morning.", {tools: [{name: weather, arguments: {city: Oslo}}]}]
            pace: {first: {p50: 0.001, p95: 0.002}, between: 0}
          - {name: deepgram, port: 0, words: [[hello, 0.1, 0.4]]}
        faults:
          - {kind: server_error, provider: openai, nth: [2]}
        """
    )
    ready: asyncio.Future[Double] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(serve_forever(read_config(path), ready=ready.set_result))
    double = await asyncio.wait_for(ready, 30)
    assert double.url("openai") != double.url("deepgram")
    assert await said(double, http) == "Good morning."
    assert (await ask(double, http))[0] == 500
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving


async def test_a_taken_port_is_told() -> None:
    async with Double.serve(["openai"]) as double:
        taken = int(double.url("openai").split(":")[2].split("/")[0])
        with pytest.raises(UsageError, match=str(taken)):
            await Double(Config(providers=(Provider("openai"),), port=taken)).start()
    with pytest.raises(UsageError, match="nobody"):
        Double(Config(providers=(Provider("nobody"),)))


def test_the_page_of_the_documentation_is_true(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "doubles.md").read_text()
    path = tmp_path / "doubles.yaml"
    blocks = [block.split("```")[0] for block in page.split("```yaml")[1:]]
    path.write_text(next(block for block in blocks if "version:" not in block))
    config = read_config(path)
    assert config.providers[0].replies[0] == "Good morning."
    named = [
        *Kind,
        *(
            e.name
            for p in ("openai", "deepgram", "cartesia", "elevenlabs")
            for e in vendor_for(Provider(p)).endpoints()
        ),
    ]
    assert [name for name in named if f"`{name}`" not in page] == []
