"""Webhooks before real receivers: signed, tried again, never in a call's way, once a machine."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from livekit.agents import APIConnectionError
from livekit.agents.llm import ChatContext

import trunkline
from trunkline import inference
from trunkline.core.budgets import Action
from trunkline.core.events import BudgetReached, Failover, HealthChanged
from trunkline.core.models import Identity, Modality
from trunkline.core.scopes import Unit
from trunkline.core.webhooks import Hook, Message, Notice, headers, key_of
from trunkline.doubles import Double, Provider, Rule
from trunkline.runtime.webhooks import WAITING, Webhooks

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
KEY = bytes(range(32))
PAGE = (Path(__file__).parents[2] / "docs" / "failover.md").read_text("utf-8")
LIMIT = 60.0
"""Seconds after which what has not come will not come."""

EVENT = Failover(
    Identity(call="c1", room="+4930123456", tags=("vip",), key="k", agent="desk"),
    Modality.LLM,
    "turn",
    "a1",
    "openai/gpt-4.1",
    "first_content_timeout",
    "groq/llama",
)


class Receiver:
    """An HTTP server that notes what it got; ``answers`` are statuses, the last one repeating."""

    def __init__(self, *answers: int, hang: bool = False) -> None:
        self.answers = list(answers) or [200]
        self.hang = hang
        self.got: list[tuple[dict[str, str], bytes]] = []

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_post("/{tail:.*}", self._take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook?token=t0ken"
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        named = {name.lower(): value for name, value in request.headers.items()}
        self.got.append((named, await request.read()))
        if self.hang:
            await asyncio.Event().wait()
        status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return web.Response(status=status, headers={"location": "/elsewhere"})

    @property
    def notices(self) -> list[dict[str, Any]]:
        return [json.loads(body) for _, body in self.got]

    @property
    def types(self) -> list[str]:
        return [one["type"] for one in self.notices]


async def until(done: Callable[[], object]) -> None:
    for _ in range(round(LIMIT / 0.01)):
        if done():
            return
        await asyncio.sleep(0.01)
    assert done(), "it did not come"


def verified_by_the_page(secret: str, got: dict[str, str], body: bytes) -> bool:
    """What the page shows to those who receive, run as it is written there."""
    (code,) = re.findall(r"```python\n(import base64\n.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    return bool(names["is_genuine"](secret, got, body))


def hook(url: str, name: str = "ops", *notices: Notice) -> Hook:
    return Hook(name, url, KEY, frozenset(notices or Notice))


def posting(*hooks: Hook, **options: Any) -> Webhooks:
    return Webhooks(hooks, lambda *_: True, **{"pauses": (0.01, 0.01, 0.01), **options})


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example that the scheme's own libraries are tested with."""
    key = key_of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert key is not None
    example = Message("msg_p5jXN8AQM9LWM0D4loKWxJek", Notice.BUDGET, b'{"test": 2432232314}')
    signed = headers(key, example, 1614265330)
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_a_notice_is_signed_and_says_no_more_than_it_should() -> None:
    receiver = Receiver()
    async with receiver.serve() as url:
        posting(hook(url)).tell(EVENT)
        await until(lambda: receiver.got)
    ((got, body),) = receiver.got
    assert verified_by_the_page(SECRET, got, body)
    assert not verified_by_the_page(SECRET, got, body + b" ")
    assert not verified_by_the_page(SECRET.replace("A", "B"), got, body)
    stale = {**got, "webhook-timestamp": str(int(got["webhook-timestamp"]) - 600)}
    assert not verified_by_the_page(SECRET, stale, body)
    assert got["content-type"] == "application/json"
    told = json.loads(body)
    assert told["type"] == "failover"
    assert told["data"]["outcome"] == "first_content_timeout"
    assert told["data"]["call"] == "c1"
    assert not {"+4930123456", "vip", "k"} & set(body.decode().split('"'))
    assert "room" not in told["data"]


@pytest.mark.parametrize("answer", [500, 404, 302, 429])
async def test_what_is_not_taken_is_sent_again_under_the_same_id(answer: int) -> None:
    receiver = Receiver(answer, answer, 204)
    async with receiver.serve() as url:
        posts = posting(hook(url))
        posts.tell(EVENT)
        await until(lambda: len(receiver.got) == 3)
        assert await asyncio.to_thread(posts.flush, LIMIT)
    assert len({got["webhook-id"] for got, _ in receiver.got}) == 1
    assert len(receiver.got) == 3, "a redirect is not followed"
    assert not posts.dropped


async def test_tries_are_bounded_and_what_was_missed_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = Receiver(500)
    async with receiver.serve() as url:
        posts = posting(hook(url))
        posts.tell(EVENT)
        assert await asyncio.to_thread(posts.flush, LIMIT)
    assert len(receiver.got) == 4
    assert posts.dropped == {"ops": 1}
    assert 'webhook "ops" missed 1 events until now: it answered 500' in caplog.text
    assert "t0ken" not in caplog.text, "the address may be what lets somebody in"


async def test_nobody_listens() -> None:
    async with Receiver().serve() as url:
        pass
    posts = posting(hook(url))
    posts.tell(EVENT)
    assert await asyncio.to_thread(posts.flush, LIMIT)
    assert posts.dropped == {"ops": 1}


async def test_a_hook_that_is_gone_gets_no_more() -> None:
    receiver = Receiver(410)
    async with receiver.serve() as url:
        posts = posting(hook(url))
        for _ in range(3):
            posts.tell(EVENT)
        assert await asyncio.to_thread(posts.flush, LIMIT)
    assert len(receiver.got) == 1


async def test_a_hook_that_hangs_holds_up_nobody() -> None:
    hanging, well = Receiver(hang=True), Receiver()
    async with hanging.serve() as slow, well.serve() as quick:
        posts = posting(hook(slow, "slow"), hook(quick, "quick"), timeout=LIMIT)
        posts.tell(EVENT)
        await until(lambda: hanging.got)
        sent = 1
        while posts.dropped["slow"] < 10:
            before = len(well.got)
            posts.tell(EVENT)  # where a call is: nothing is waited for
            sent += 1
            assert sent < 3 * WAITING, "the queue is bounded"
            await until(lambda: len(well.got) > before)  # noqa: B023 - awaited in this round
        assert sent == 1 + WAITING + 10
        assert not posts.dropped["quick"]
        assert not await asyncio.to_thread(posts.flush, 0.05), "waiting for it is bounded"


async def test_only_what_was_asked_for_and_only_what_happened_here() -> None:
    receiver = Receiver()
    key = "openai/gpt-4.1@openai"
    async with receiver.serve() as url:
        posts = posting(hook(url, "ops", Notice.BLOCKED, Notice.RECOVERED, Notice.BUDGET))
        told = [
            EVENT,
            HealthChanged(key, False, "stream_cut", False, False),
            HealthChanged(key, False, "unauthorized", True, True),
            HealthChanged(key, False, "unauthorized", True, False),
            HealthChanged(key, True, "ok", False, False),
            BudgetReached("daily", "daily", Action.WARN, 0.8, 80, 100, Unit.USD),
        ]
        for event in told:
            posts.tell(event)
        assert await asyncio.to_thread(posts.flush, LIMIT)
    assert receiver.types == ["blocked", "recovered", "budget"]
    assert receiver.notices[0]["data"] == {"candidate": key, "cause": "unauthorized"}


def configuration(directory: Path, url: str, double: str, **more: Any) -> Path:
    """Settings with a first candidate that a rule can strike, and a second one."""
    path = directory / "trunkline.yaml"
    made = {
        "version": 1,
        "state": str(directory / "state"),
        "providers": {
            name: {"kind": "openai", "api_key": "sk-hidden", "base_url": double}
            for name in ("first", "second")
        },
        "routes": {"brain": {"modality": "llm", "candidates": ["first/a", "second/b"], **more}},
        "webhooks": {"ops": {"url": url, "secret": "${HOOK_SECRET}"}},
    }
    path.write_text(json.dumps(made))
    return path


async def ask(model: inference.LLM) -> str:
    question = ChatContext.empty()
    question.add_message(role="user", content="Hello.")
    return (await model.chat(chat_ctx=question).collect()).text


async def test_from_a_failing_call_to_the_receiver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    receiver = Receiver()
    async with (
        receiver.serve() as url,
        Double.serve([Provider("openai", replies=("Good morning.",))]) as double,
    ):
        trunkline.configure(configuration(tmp_path, url, double.base_url("openai")))
        model = inference.LLM("brain")
        double.inject(Rule(kind="server_error", model="a"))
        assert await ask(model) == "Good morning."
        await until(lambda: len(receiver.got) >= 2)
        double.heal()
        await until(lambda: "recovered" in receiver.types)  # a probe, after a second or so
        double.inject(Rule(kind="unauthorized", model="a"))
        await ask(model)
        await until(lambda: "blocked" in receiver.types)
        await model.aclose()
        await trunkline.aclose()
    assert sorted(receiver.types) == ["blocked", "degraded", "failover", "failover", "recovered"]
    assert receiver.notices[receiver.types.index("blocked")]["data"] == {
        "candidate": "first/a@first",
        "cause": "unauthorized",
    }
    assert all(b"sk-hidden" not in body for _, body in receiver.got)


CALLER = """
    import asyncio, sys
    import trunkline
    from trunkline import inference
    from livekit.agents.llm import ChatContext

    async def main():
        trunkline.configure(sys.argv[1])
        model = inference.LLM("brain")
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        question = ChatContext.empty()
        question.add_message(role="user", content="Hello.")
        await model.chat(chat_ctx=question).collect()
        await model.aclose()
        await trunkline.aclose()

    asyncio.run(main())
"""


async def test_processes_that_fail_together_tell_it_once(tmp_path: Path) -> None:
    """Each of them finds out for itself when they call in the same moment."""
    receiver = Receiver()
    script = tmp_path / "caller.py"
    script.write_text(textwrap.dedent(CALLER))
    async with (
        receiver.serve() as url,
        Double.serve([Provider("openai", replies=("Good morning.",))]) as double,
    ):
        double.inject(Rule(kind="server_error", model="a"))
        config = configuration(tmp_path, url, double.base_url("openai"))
        command = [sys.executable, str(script), str(config)]
        env = {**os.environ, "HOOK_SECRET": SECRET}
        pipe = subprocess.PIPE
        callers = [
            await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, env=env)
            for _ in range(3)
        ]
        try:
            for caller in callers:
                assert caller.stdout is not None
                async with asyncio.timeout(4 * LIMIT):
                    assert await caller.stdout.readline() == b"ready\n"
            for caller in callers:
                assert caller.stdin is not None
                caller.stdin.write(b"go\n")
            async with asyncio.timeout(4 * LIMIT):
                assert [await caller.wait() for caller in callers] == [0, 0, 0]
        finally:
            for caller in callers:
                with contextlib.suppress(ProcessLookupError):
                    caller.kill()
    assert receiver.types.count("degraded") == 1
    assert 1 <= receiver.types.count("failover") <= 3, "one a call that met the fault"


async def test_a_call_fails_as_before_when_the_hook_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    async with Receiver().serve() as url, Double.serve(["openai"]) as double:
        pass
    trunkline.configure(configuration(tmp_path, url, double.base_url("openai")))
    model = inference.LLM("brain")
    with pytest.raises(APIConnectionError):
        await ask(model)
    await model.aclose()
    await trunkline.aclose()
