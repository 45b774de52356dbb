"""A call in a real room: LiveKit's own server, its agent worker, WebRTC, and our gateway."""

from __future__ import annotations

import contextlib
import ctypes.util
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from livekit_room import KEY, SECRET, Caller, caller, livekit_server
from serving import (
    BACKUP,
    PRIMARY,
    Gateway,
    Place,
    double,
    gateway,
    installed,
    program,
    routes,
    until,
)

from trunkline.core.models import Purpose
from trunkline.doubles import Pace, tones

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


@contextlib.asynccontextmanager
async def call(
    place: Path, server: Path, said: dict[str, Any]
) -> AsyncIterator[tuple[Gateway, Caller]]:
    """A gateway with the settings ``said``, and a caller whom an agent has greeted by it."""
    async with livekit_server(place, server) as url, gateway(place, **said) as house:
        env = {
            **os.environ,
            **house.variables,
            "LIVEKIT_URL": url,
            "LIVEKIT_API_KEY": KEY,
            "LIVEKIT_API_SECRET": SECRET,
        }
        command = (sys.executable, AGENT, "dev", "--no-reload")
        log = place / "worker.log"
        async with program(log, *command, env=env, cwd=place) as worker:
            await until(lambda: "registered worker" in log.read_text("utf-8"), 120, worker)
            async with caller(url, "desk") as phone:
                await phone.answered(0.0)
                yield house, phone


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
    async with double(PRIMARY, **first) as primary, double(BACKUP, **second) as backup:
        said = routes({**dict.fromkeys(PRIMARY, primary), **dict.fromkeys(BACKUP, backup)})
        async with call(tmp_path, server, said) as (house, phone):
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


# It is sent each utterance by itself, so it hears the same words in every one.
WHISPER = (Place("stt-w", "stt", "openai", "whisper-1", "/v1"),)


async def test_a_caller_who_cuts_in_is_listened_to(tmp_path: Path, server: Path) -> None:
    question = await speech("Hello, what are your opening hours?")
    long = "From nine to five on every day of the week but not on Sunday. " * 12
    asked: list[str] = []

    def answer(messages: Sequence[dict[str, Any]]) -> str:
        asked.append(str(messages[-1]["content"]))
        return long if len(asked) == 1 else "Of course."

    slow = {"openai": {"answer": answer}, "cartesia": {"pace": Pace(rtf=0.6)}}
    async with (
        double(WHISPER, openai={"hears": "hello what"}) as ears,
        double(PRIMARY[1:], **slow) as vendors,
    ):
        said = routes({**dict.fromkeys(WHISPER, ears), **dict.fromkeys(PRIMARY[1:], vendors)})
        async with call(tmp_path, server, said) as (house, phone):
            begun = time.monotonic()
            await phone.speak(question)
            await until(lambda: phone.audible(begun) > 1.5, 90)
            await phone.speak(question)
            await until(lambda: len(asked) > 1, 90)
            await phone.answered(time.monotonic(), 0.2)
            heard = phone.audible(begun)
            attempts = await house.attempts()
    voices = [a for a in attempts if a.modality == "tts"]
    cut = next(a for a in voices if a.usage.characters > 60)
    assert cut.outcome == "cancelled"
    assert len(voices) > voices.index(cut) + 1
    assert heard < len(tones.encode(long, 16_000)) / 32_000 / 2, "the agent stopped"
