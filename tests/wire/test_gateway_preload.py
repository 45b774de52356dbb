"""What a gateway imports before its first call: what its settings name, and nothing else."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from gateway_house import BEARER
from test_gateway_server import MAIN, started

from trunkline.config import load
from trunkline.gateway.preload import _targets

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
    ("no routes", {"providers": OPENAI}, {"stt openai", "tts openai"}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("said", "loaded"), [row[1:] for row in SETTINGS], ids=[row[0] for row in SETTINGS]
)
def test_what_is_named_is_loaded(tmp_path: Path, said: dict[str, Any], loaded: set[str]) -> None:
    file = tmp_path / "trunkline.yaml"
    file.write_text(yaml.safe_dump({"version": 1, **said}), "utf-8")
    targets = {(str(m), module) for m, module in _targets(load(file, {}))}
    assert {f"{m} {module.split('.')[2]}" for m, module in targets} == loaded


async def test_a_gateway_for_speech_has_it_all_before_it_is_ready(tmp_path: Path) -> None:
    wanted = ["livekit.plugins.deepgram", "livekit.plugins.silero", "trunkline.gateway.stt"]
    told = f"[name in sys.modules for name in {wanted}]"
    code = f"import atexit, sys; atexit.register(lambda: print({told}, flush=True)); {MAIN}"
    said = {"version": 1, "providers": DEEPGRAM, "routes": EARS, "gateway": {"bearer": [BEARER]}}
    async with started(tmp_path, code=code, **said) as gateway:
        async with aiohttp.ClientSession() as session:
            health = f"{gateway.url.removesuffix('/v1')}/healthz"
            async with session.get(health) as answer:
                assert answer.status == 200
        gateway.process.send_signal(signal.SIGTERM)
        status, out = await gateway.ended(30)
    assert status == 0
    assert "[True, True, True]" in out
