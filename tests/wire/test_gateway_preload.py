"""What a gateway imports before its first call: what its settings name, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from gateway_house import AUTH, BEARER, House, serving, settings, until
from llm_server import ChatServer, say
from test_gateway_server import MAIN, resident, started

from trunkline.config import load
from trunkline.core.models import Modality
from trunkline.gateway import preload, switchboard
from trunkline.gateway.plans import Ask, Plans
from trunkline.gateway.preload import Target, targets_in

OPENAI = {"openai": {"api_key": "x"}}
DEEPGRAM = {"deepgram": {"api_key": "x"}}
BRAIN = {"brain": {"modality": "llm", "candidates": ["openai/gpt-4.1"]}}
EARS = {"ears": {"modality": "stt", "candidates": ["deepgram/nova-3"]}}
VOICE = {"mouth": {"modality": "tts", "candidates": ["openai/gpt-4o-mini-tts"]}}
LOCAL = {"mouth": {"modality": "tts", "candidates": ["flite/slt"]}}

SETTINGS: list[tuple[str, dict[str, Any], set[str]]] = [
    ("chats alone", {"providers": OPENAI, "routes": BRAIN}, set()),
    ("a recogniser", {"providers": {**OPENAI, **DEEPGRAM}, "routes": {**BRAIN, **EARS}},
     {"stt deepgram", "tts deepgram"}),
    ("a provider of speech beside", {"providers": {**OPENAI, **DEEPGRAM}, "routes": BRAIN},
     {"stt deepgram", "tts deepgram"}),
    ("a voice of a language model's provider", {"providers": OPENAI, "routes": {**BRAIN, **VOICE}},
     {"tts openai"}),
    ("an embedded voice", {"providers": OPENAI, "routes": {**BRAIN, **LOCAL}}, {"tts flite"}),
    ("a stack of routes", {"providers": {**OPENAI, **DEEPGRAM}, "routes": {**BRAIN, **EARS},
     "stacks": {"default": {"stt": "ears", "llm": "brain", "tts": "openai/gpt-4o-mini-tts"}}},
     {"stt deepgram", "tts deepgram", "tts openai"}),
    ("a stack of one's own", {"providers": OPENAI, "routes": BRAIN,
     "stacks": {"front": {"stt": "pocketsphinx", "llm": "brain", "tts": "flite"}}},
     {"stt pocketsphinx", "tts flite"}),
    ("what decides", {"providers": {**OPENAI, "anthropic": {"api_key": "x"}}, "routes": BRAIN,
     "gateway": {"decisions": "anthropic/claude-sonnet-4-5"}}, {"llm anthropic"}),
    ("no routes", {"providers": OPENAI}, {"stt openai", "tts openai"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "loaded"), [row[1:] for row in SETTINGS], ids=[row[0] for row in SETTINGS]
)
def test_what_is_named_is_loaded(tmp_path: Path, said: dict[str, Any], loaded: set[str]) -> None:
    file = tmp_path / "trunkline.yaml"
    file.write_text(yaml.safe_dump({"version": 1, **said}), "utf-8")
    targets = {(str(m), module) for m, module in targets_in(load(file, {}))}
    assert {f"{m} {module.split('.')[2]}" for m, module in targets} == loaded


async def test_a_gateway_for_speech_is_ready_before_its_imports_and_loads_them_all(
    tmp_path: Path,
) -> None:
    wanted = ["livekit.plugins.deepgram", "livekit.plugins.silero", "trunkline.gateway.stt"]
    plugins = "[p.package for p in sys.modules['livekit.agents'].Plugin.registered_plugins]"
    told = f"[name in sys.modules for name in {wanted}], sorted({plugins})"
    code = f"import atexit, sys; atexit.register(lambda: print({told}, flush=True)); {MAIN}"
    said = {"version": 1, "providers": DEEPGRAM, "routes": EARS, "gateway": {"bearer": [BEARER]}}
    async with (
        started(tmp_path, code=code, **said) as gateway,
        aiohttp.ClientSession() as session,
    ):
        health = f"{gateway.url.removesuffix('/v1')}/healthz"

        async def missing() -> list[str]:
            async with session.get(health) as answer:
                assert answer.status == 200
                return (await answer.json()).get("loading", [])

        assert await missing() == ["stt", "tts"]
        async with asyncio.timeout(120):
            while await missing():  # noqa: ASYNC110 - another process's
                await asyncio.sleep(0.05)
        gateway.process.send_signal(signal.SIGTERM)
        status, out = await gateway.ended(60)
    assert status == 0
    assert "[True, True, True] ['livekit.plugins.deepgram', 'livekit.plugins.silero']" in out


SLOW = """
import threading
asked, go_on = threading.Event(), threading.Event()
asked.set()
go_on.wait(60)
"""


@contextlib.asynccontextmanager
async def loading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> AsyncIterator[tuple[House, Callable[[], None]]]:
    """A gateway that imports a module as long as nobody calls what this gives."""
    (tmp_path / f"{name}.py").write_text(SLOW, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(preload, "targets_in", lambda _: {(Modality.STT, name)})
    async with serving(tmp_path, say("Hi")) as (house, _):
        loader = house.gateway.house.load()
        try:
            await until(lambda: name in sys.modules, 120)
            yield house, lambda: sys.modules[name].go_on.set()
        finally:
            await until(lambda: hasattr(sys.modules[name], "go_on"))
            sys.modules[name].go_on.set()
            await loader.aclose()


async def test_while_speech_is_loaded_chats_are_answered_and_speech_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with loading(tmp_path, monkeypatch, "slow_plugin") as (house, go_on):
        async with house.ask() as answer:
            assert answer.status == 200
        assert house.gateway.house.loading == ["stt"]
        upgrade = asyncio.create_task(
            house.session.ws_connect(f"{house.url}/stt?model=nobody/here", headers=AUTH)
        )
        recording = asyncio.create_task(
            house.session.post(f"{house.url}/audio/transcriptions", headers=AUTH, data={"x": "y"})
        )
        house.file.write_text(house.file.read_text("utf-8").replace("answer", "reply"), "utf-8")
        house.gateway.house.reload()
        async with house.ask() as answer:
            assert answer.status == 200, "a reload waits as well"
        assert not upgrade.done()
        assert not recording.done()
        go_on()
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await upgrade
        assert refused.value.status == 404
        assert (await recording).status == 415
        await until(lambda: not house.gateway.house.loading)
        async with house.ask(model="reply") as answer:
            assert answer.status == 200


async def test_whoever_would_wait_too_long_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preload, "_PATIENCE_SECONDS", 0.1)
    async with loading(tmp_path, monkeypatch, "slower_plugin") as (house, _):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await house.session.ws_connect(f"{house.url}/tts", headers=AUTH)
        assert refused.value.status == 503
        async with house.session.post(f"{house.url}/audio/speech", headers=AUTH) as answer:
            assert answer.status == 503
            assert answer.headers["retry-after"] == "1"
            assert (await answer.json())["error"]["code"] == "loading"


async def test_what_was_not_named_is_imported_beside_the_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first caller waits, and nobody else."""
    (tmp_path / "late_plugin.py").write_text(SLOW, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Plans, "targets", late)
    async with serving(tmp_path, say("Hi")) as (house, _):
        body = {"model": "nobody/here", "input": "Good day."}
        speech = asyncio.create_task(
            house.session.post(f"{house.url}/audio/speech", headers=AUTH, json=body)
        )
        await until(lambda: hasattr(sys.modules.get("late_plugin"), "go_on"), 120)
        async with house.ask() as answer:
            assert answer.status == 200
        assert house.gateway.house.loading == ["tts"]
        assert not speech.done()
        sys.modules["late_plugin"].go_on.set()
        assert (await speech).status == 404
        assert house.gateway.house.loading == []


async def test_what_a_reload_needs_is_imported_beside_the_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is there, what is in use goes on as it was."""
    (tmp_path / "new_plugin.py").write_text(SLOW, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    async with serving(tmp_path, say("Hi"), say("Hello")) as (house, servers):
        async with house.ask(model="answer") as answer:
            assert answer.status == 200
        monkeypatch.setattr(switchboard, "targets_in", lambda _: {(Modality.LLM, "new_plugin")})
        turned = house.file.read_text("utf-8").replace("openai/m-openai", "second/m-second")
        house.file.write_text(turned, "utf-8")
        house.gateway.house.reload()
        await until(lambda: hasattr(sys.modules.get("new_plugin"), "go_on"), 120)
        async with house.ask(model="answer") as answer:
            assert answer.status == 200
        assert [len(server.requests) for server in servers] == [2, 0]
        sys.modules["new_plugin"].go_on.set()
        await until(lambda: not house.gateway.house.loading)
        async with house.ask(model="answer") as answer:
            assert answer.status == 200
        assert [len(server.requests) for server in servers] == [2, 1]


def late(self: Plans, ask: Ask) -> set[Target]:
    return {(ask.modality, "late_plugin")} if ask.modality is Modality.TTS else set()


async def test_nonsense_is_refused_without_an_import(tmp_path: Path) -> None:
    async with (
        ChatServer(say("Hi")) as server,
        started(tmp_path, **settings({"openai": server})) as gateway,
        aiohttp.ClientSession() as session,
    ):
        for path in ("/stt?model=nobody/here", "/tts?model=groq/voice"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(gateway.url + path, headers=AUTH)
            assert refused.value.status == 404
        assert await gateway.ask(session) == "Hi"
        assert resident(gateway.process.pid) < 90 << 10, "livekit is not loaded"
