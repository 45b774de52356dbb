"""Random frames, requests and connections: none breaks the gateway, none stays in it.

A seeded sample of each here, a million in ``make soak``: about fifteen minutes of two processors.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import fuzzing
import pytest
from fuzzing import CREATE, Failures, message
from gateway_house import ASK, AUTH, BEARER, events, text_of, until
from gateway_speech import GPT, NOVA, SONIC, Speech, speech

from trunkline.gateway import exchange, protocol, stt, websocket
from trunkline.gateway import speech as speech_door
from trunkline.runtime.loud_vad import LoudVAD

SAMPLE = {"frames": 600, "requests": 300, "connections": 100}
SOAK = (420_000, 70_000, 10_000)
"""Frames, requests and connections of each of two processes."""


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stt, "voice_activity", LoudVAD)
    monkeypatch.setattr(stt, "_END_SECONDS", 0.1)


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_sent_breaks_nothing_and_leaves_nothing(
    tmp_path: Path, seed: int
) -> None:
    failures = Failures()
    logging.getLogger("trunkline").addHandler(failures)
    try:
        async with speech(tmp_path, tts=[SONIC], stt=[NOVA], llm=[GPT]) as house:
            seen: Counter[str] = Counter()
            await fuzzing.frames(house, 100, seed, seen)  # connections and caches that stay
            await fuzzing.well(house)
            before = len(asyncio.all_tasks())
            assert await fuzzing.frames(house, SAMPLE["frames"], seed + 100, seen)
            assert await fuzzing.requests(house, SAMPLE["requests"], seed, seen)
            assert await fuzzing.connections(house, SAMPLE["connections"], seed)
            await fuzzing.well(house)
            await until(lambda: len(asyncio.all_tasks()) <= before + 30)
            assert failures.found == []
            assert seen["errors"] > 50
            assert {"200", "400", "401", "404"} <= seen.keys()
    finally:
        logging.getLogger("trunkline").removeHandler(failures)


@pytest.mark.soak
async def test_a_million_break_nothing_and_leave_nothing() -> None:
    async def process(seed: int) -> Any:
        amounts = [str(amount) for amount in (*SOAK, seed)]
        one = await asyncio.create_subprocess_exec(
            *(sys.executable, fuzzing.__file__, *amounts),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            out, _ = await asyncio.wait_for(one.communicate(), 3600)
            assert one.returncode == 0, f"python fuzzing.py {' '.join(amounts)}"
            return json.loads(out)
        finally:
            with contextlib.suppress(ProcessLookupError):
                one.kill()

    both = await asyncio.gather(process(1000), process(2000))
    print(*both, sep="\n")
    assert sum(sum(one["sent"]) for one in both) >= 1_000_000
    for one in both:
        assert one["failures"] == []
        assert one["tasks"][-1] <= one["tasks"][0] + 30
        settled = one["kilobytes"][2:]
        assert settled[-1] - settled[0] < 12_000, "memory grows with what is sent"


# Who takes a place and does nothing with it.

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
KEY = b"Authorization: Bearer %b\r\n" % BEARER.encode()
LONG = message("input_transcript", transcript="word " * 4000)


def socket(door: str, *frames: str) -> bytes:
    """An upgrade and frames behind it."""
    chance = random.Random(0)
    head = fuzzing.UPGRADE % (door.encode(), fuzzing.DOORS[door].encode(), BEARER.encode())
    return head + b"".join(fuzzing.frame_of(chance, text.encode(), wrong=0.0) for text in frames)


IDLE = {
    "says nothing": b"",
    "drips a head": POST,
    "owes a body": POST + KEY + b"Content-Length: 9\r\n\r\n",
    "opens a socket": socket("stt"),
    "opens a voice's": socket("tts"),
    "never reads": socket("tts", CREATE["tts"], *[LONG] * 8, message("session.flush")),
}


async def test_a_crowd_that_does_nothing_is_sent_home_while_others_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in (
        (protocol, "HEAD_SECONDS"),
        (exchange, "BODY_SECONDS"),
        (speech_door, "CREATE_SECONDS"),
        (websocket, "STALL_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 2.0)
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA], llm=[GPT]) as house:
        assert await served(house)
        before = len(asyncio.all_tasks())
        crowd = []
        for data in list(IDLE.values()) * 12:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.port, limit=1 << 10)
            writer.write(data)
            crowd.append((reader, writer, data))
        for _ in range(5):
            assert await served(house)
            for _, writer, data in crowd:
                if data == POST:
                    with contextlib.suppress(OSError):
                        writer.write(b"x: y\r\n")
        for reader, writer, data in crowd:
            if data != IDLE["never reads"]:
                async with asyncio.timeout(60):
                    with contextlib.suppress(ConnectionError):
                        while await reader.read(1 << 16):
                            pass
            writer.transport.abort()
        await until(lambda: len(asyncio.all_tasks()) <= before + 30, 60)
        await until(lambda: not house.gateway.house.plans.in_use, 60)
        assert await served(house)


async def served(house: Speech) -> bool:
    body = {"model": "brain", "stream": True, **ASK}
    url = f"{house.url}/chat/completions"
    async with house.session.post(url, json=body, headers=AUTH) as answer:
        return bool(text_of(events(await answer.read())))
