"""A call in a real room: LiveKit's own server, its agent worker, WebRTC, and our gateway."""

from __future__ import annotations

import ctypes.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from livekit_room import KEY, SECRET, caller, livekit_server
from serving import BACKUP, PRIMARY, double, gateway, installed, program, routes, until

from trunkline.core.models import Purpose

AGENT = Path(__file__).parent / "room" / "agent.py"

pytestmark = pytest.mark.skipif(
    ctypes.util.find_library("flite") is None, reason="needs flite: apt-get install libflite1"
)


@pytest.fixture
def server() -> Path:
    return installed("livekit") / "server"


async def speech(text: str) -> bytes:
    """flite's speech with silence around it."""
    from trunkline.engines.flite import TTS

    frame = await TTS(voice="rms").synthesize(text).collect()
    return bytes(16_000) + bytes(frame.data.cast("B")) + bytes(64_000)


async def test_an_agent_in_a_room_goes_on_when_its_providers_die(
    tmp_path: Path, server: Path
) -> None:
    question = await speech("Hello, what are your opening hours?")
    asked: list[tuple[str, str]] = []

    def vendors(name: str, hears: str, reply: str) -> dict[str, Any]:
        def answer(messages: Sequence[dict[str, Any]]) -> str:
            asked.append((name, str(messages[-1]["content"])))
            return reply

        return {"deepgram": {"hears": hears}, "openai": {"answer": answer}}

    first = vendors("primary", "hello what are your opening hours", "From nine to five, madam.")
    second = vendors("backup", "and on sunday", "On Sunday we are closed, I am afraid.")
    async with (
        double(PRIMARY, **first) as primary,
        double(BACKUP, **second) as backup,
        livekit_server(tmp_path, server) as url,
        gateway(
            tmp_path,
            **routes({**dict.fromkeys(PRIMARY, primary), **dict.fromkeys(BACKUP, backup)}),
        ) as house,
    ):
        env = {
            **os.environ,
            **house.variables,
            "LIVEKIT_URL": url,
            "LIVEKIT_API_KEY": KEY,
            "LIVEKIT_API_SECRET": SECRET,
        }
        command = (sys.executable, AGENT, "dev", "--no-reload")
        log = tmp_path / "worker.log"
        async with program(log, *command, env=env, cwd=tmp_path) as worker:
            await until(lambda: "registered worker" in log.read_text("utf-8"), 120, worker)
            async with caller(url, "desk") as phone:
                await phone.answered(0.0)  # the greeting
                await phone.ask(question)
                assert {name for name, _ in asked} == {"primary"}
                await primary.stop()
                await phone.ask(question)
        attempts = [a for a in await house.attempts() if a.purpose is Purpose.SERVE]
    # A turn may be answered in two parts when the machine lets words come late.
    assert asked[0][1].startswith("hello")
    assert asked[-1][0] == "backup"
    assert [text for name, text in asked if name == "backup" and "on sunday" in text]
    assert {a.connection for a in attempts} == {place.name for place in (*PRIMARY, *BACKUP)}
    served = {a.connection for a in attempts if a.outcome in {"ok", "cancelled"}}
    assert {place.name for place in BACKUP} | {"llm-a", "tts-a"} <= served
    assert len({a.identity.job for a in attempts}) == 1
    assert {a.identity.room[:3] for a in attempts} == {"RM_"}
