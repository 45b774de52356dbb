"""Agents' clients that were never changed, each a process of its own, at ``trunkline serve``.

``@livekit/agents`` on Node, and a livekit-agents of a year ago in its own environment. What
``scripts/clients`` cannot install here is skipped, with the reason.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from serving import BACKUP, PRIMARY, double, gateway, installed, program, routes, until

from trunkline.doubles import Double, Kind, Rule, tones
from trunkline.doubles.provider import Reply, ToolCall

HERE = Path(__file__).parent / "clients"
RATE = 16_000
BOOKING = Reply(text="One moment.", tools=(ToolCall("book", {"room": 7}),))


@pytest.fixture(params=["node", "older"])
def command(request: pytest.FixtureRequest, tmp_path: Path) -> list[str | Path]:
    """How to start the client."""
    if request.param == "older":
        return [installed("older") / "bin" / "python", HERE / "client.py"]
    (tmp_path / "node_modules").symlink_to(installed("node") / "node_modules")
    return ["node", shutil.copy(HERE / "node" / "client.mjs", tmp_path)]


class Client:
    """One client process: ``await client.chat(...)``, ``say`` and ``hear`` as it has them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def chat(self, **asked: Any) -> Any:
        return await self._do("chat", **{"model": "brain", **asked})

    async def say(self, *sentences: str, **asked: Any) -> Any:
        said = await self._do("say", **{"model": "mouth", "sentences": sentences, **asked})
        return {**said, "words": tones.decode(base64.b64decode(said["pcm"]), 24_000)}

    async def hear(self, text: str, then: str = "", **asked: Any) -> Any:
        pcm = tones.encode(text, RATE) + bytes(2 * RATE)
        given = {"model": "ears", "pcm": base64.b64encode(pcm).decode(), "rate": RATE, **asked}
        if then:
            pcm = bytes(2 * RATE) + tones.encode(then, RATE) + bytes(2 * RATE)
            given["then"] = base64.b64encode(pcm).decode()
        heard = await self._do("hear", **given)
        return {**heard, "words": " ".join(heard["finals"]).lower().split()}

    async def _do(self, what: str, **asked: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": what, **asked}).encode() + b"\n")
        line = await asyncio.wait_for(self.process.stdout.readline(), 90)
        assert line, f"the client died of {what}"
        return json.loads(line)


@contextlib.asynccontextmanager
async def client(
    place: Path, command: list[str | Path], variables: dict[str, str]
) -> AsyncIterator[Client]:
    env = {**os.environ, **variables}
    pipe = asyncio.subprocess.PIPE
    log = place / "client.log"
    async with program(log, *command, env=env, stdin=pipe, stdout=pipe, limit=1 << 26) as process:
        yield Client(process)
        assert process.stdin is not None
        process.stdin.close()
        assert await asyncio.wait_for(process.wait(), 60) == 0


@pytest.fixture
async def doubles() -> AsyncIterator[tuple[Double, Double]]:
    """The primary and the backup of every modality."""
    chat = {"openai": {"replies": ("Good day to you.", BOOKING)}}
    async with double(PRIMARY, **chat) as primary, double(BACKUP, **chat) as backup:
        yield primary, backup


def settings(doubles: tuple[Double, Double]) -> dict[str, Any]:
    primary, backup = doubles
    return routes({**dict.fromkeys(PRIMARY, primary), **dict.fromkeys(BACKUP, backup)})


async def test_it_gets_what_it_asks_for(
    tmp_path: Path, command: list[str | Path], doubles: tuple[Double, Double]
) -> None:
    async with (
        gateway(tmp_path, **settings(doubles)) as house,
        client(tmp_path, command, house.variables) as agent,
    ):
        chat = await agent.chat(text="Good morning?")
        assert (chat["text"], chat["errors"]) == ("Good day to you.", [])
        assert chat["usage"]["completionTokens"] == 4
        chat = await agent.chat(text="A room, please.", tools=True)
        assert chat["text"] == "One moment."
        assert [(c["name"], json.loads(c["args"])) for c in chat["calls"]] == [
            ("book", {"room": 7})
        ]
        for sentences in (["Good morning.", "How are you?"], ["I am well."]):
            said = await agent.say(*sentences)
            assert said["errors"] == []
            assert said["words"] == tones.words_of(" ".join(sentences).lower())
        for text in ("good morning", "and good night"):
            heard = await agent.hear(text)
            assert heard["errors"] == []
            assert heard["words"] == text.split()
        served = await house.attempts()
        assert {a.outcome for a in served} == {"ok"}
        assert {a.connection for a in served} == {place.name for place in PRIMARY}
        assert {a.identity.key for a in served} == {"APIclients"}


async def test_it_never_hears_of_an_outage(
    tmp_path: Path, command: list[str | Path], doubles: tuple[Double, Double]
) -> None:
    async with (
        gateway(tmp_path, **settings(doubles)) as house,
        client(tmp_path, command, house.variables) as agent,
    ):
        assert (await agent.say("Good morning."))["words"] == ["good", "morning"]
        await doubles[0].stop()
        said = await agent.say("I am well.")
        assert (said["words"], said["errors"]) == (["i", "am", "well"], [])
        chat = await agent.chat(text="Good morning?")
        assert (chat["text"], chat["errors"]) == ("Good day to you.", [])
        heard = await agent.hear("good evening")
        assert (heard["words"], heard["errors"]) == (["good", "evening"], [])
        served = {a.connection for a in await house.attempts() if a.outcome == "ok"}
        assert {place.name for place in BACKUP} <= served


async def test_its_options_change_while_it_is_connected(
    tmp_path: Path, command: list[str | Path], doubles: tuple[Double, Double]
) -> None:
    """The one on Node opens a new connection for another voice; the other goes on on the same."""
    async with (
        gateway(tmp_path, **settings(doubles)) as house,
        client(tmp_path, command, house.variables) as agent,
    ):
        assert (await agent.say("One.", model="tts-a/sonic-3"))["words"] == ["one"]
        other = {"model": "tts-b/eleven_flash_v2_5", "voice": "another"}
        said = await agent.say("Two.", model="tts-a/sonic-3", options=other)
        assert (said["words"], said["errors"]) == (["two"], [])
        more = {"model": "stt-a/nova-3", "then": "how are you", "language": "de"}
        heard = await agent.hear("good morning", **more)
        assert (heard["words"], heard["errors"]) == (["good", "morning", "how", "are", "you"], [])
        served = await house.attempts()
    assert [a.connection for a in served if a.modality == "tts"] == ["tts-a", "tts-b"]
    assert [a.outcome for a in served if a.modality == "stt"] == ["moved", "ok"]


async def test_two_hundred_utterances_have_one_socket(
    tmp_path: Path, command: list[str | Path], doubles: tuple[Double, Double]
) -> None:
    async with (
        gateway(tmp_path, **settings(doubles)) as house,
        client(tmp_path, command, house.variables) as agent,
    ):
        for number in range(200):
            said = await agent.say(f"N{number}.")
            assert (said["words"], said["errors"]) == ([f"n{number}"], [])
        served = await house.attempts()
    assert [a.outcome for a in served] == ["ok"] * 200
    assert len({a.identity.session for a in served}) == 1


async def test_what_runs_ends_well_when_the_gateway_does(
    tmp_path: Path, command: list[str | Path], doubles: tuple[Double, Double]
) -> None:
    doubles[0].inject(Rule(kind=Kind.DRIP, every=0.5))
    another = tmp_path / "another"
    another.mkdir()
    async with (
        gateway(tmp_path, **settings(doubles)) as house,
        client(tmp_path, command, house.variables) as agent,
        client(another, command, house.variables) as other,
    ):
        chat = asyncio.create_task(agent.chat(text="Good morning?"))
        saying = asyncio.create_task(other.say("One two three four five six."))
        asked = doubles[0].requests
        await until(lambda: {one.model for one in asked} == {"gpt-4.1", "sonic-3"}, 90)
        served = await house.attempts()  # which ends it
        answered, said = await chat, await saying
    assert (answered["text"], answered["errors"]) == ("Good day to you.", [])
    assert (said["words"], said["errors"]) == (["one", "two", "three", "four", "five", "six"], [])
    assert {a.modality: a.outcome for a in served} == {"llm": "ok", "tts": "ok"}


async def test_it_may_leave_at_any_moment(
    tmp_path: Path, command: list[str | Path], doubles: tuple[Double, Double]
) -> None:
    """An interruption in each modality. On Node 20 one more frame after the end of a socket would
    end the whole process."""
    doubles[0].inject(Rule(kind=Kind.DRIP, every=1.0))
    async with (
        gateway(tmp_path, **settings(doubles)) as house,
        client(tmp_path, command, house.variables) as agent,
    ):
        assert (await agent.chat(text="Good morning?", cut=1))["text"].strip() == "Good"
        assert (await agent.say("One two three four five six.", cut=0.1))["seconds"] > 0
        for _ in range(3):
            heard = await agent.hear("one two three four five six", cut=True)
            assert (heard["interims"] + len(heard["finals"]), heard["errors"]) == (1, [])
        doubles[0].heal()
        assert (await agent.say("I am well."))["words"] == ["i", "am", "well"]
        assert (await agent.hear("good evening"))["words"] == ["good", "evening"]
        left = {a.modality for a in await house.attempts() if a.outcome == "cancelled"}
        assert {"llm", "tts"} <= left


async def test_it_is_told_what_is_wrong_and_whether_again_helps(
    tmp_path: Path, command: list[str | Path], doubles: tuple[Double, Double]
) -> None:
    async with gateway(tmp_path, **settings(doubles)) as house:
        wrong = {**house.variables, "LIVEKIT_INFERENCE_API_SECRET": "x" * 32}
        async with client(tmp_path, command, wrong) as agent:
            for refused in await everything(agent):
                assert_final(refused["errors"], 401)
        async with client(tmp_path, command, house.variables) as agent:
            for refused in await everything(agent, model="deepgran/nova"):
                assert_final(refused["errors"], 404)
            for one in doubles:
                one.inject(Rule(kind=Kind.RATE_LIMITED))
            refused = await agent.chat(text="Good morning?")
            assert refused["errors"][0]["status"] == 429
            # The one on Node ends a stream without a word about errors that come inside it.
            assert (await agent.hear("hello"))["words"] == []
            assert (await agent.say("Hello."))["words"] == []
            for one in doubles:
                one.heal()
            again = await agent.chat(text="Good morning?")
            assert (again["text"], again["errors"]) == ("Good day to you.", [])


def assert_final(errors: list[Any], status: int) -> None:
    """Older clients ask once more, with the same answer."""
    assert {error["status"] for error in errors} == {status}
    assert errors[-1]["recoverable"] is False


async def everything(agent: Client, **asked: Any) -> list[Any]:
    """What comes of a request in each modality."""
    return [
        await agent.chat(text="Good morning?", **asked),
        await agent.say("Good morning.", **asked),
        await agent.hear("good morning", **asked),
    ]
