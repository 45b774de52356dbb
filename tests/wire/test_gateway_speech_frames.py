"""What comes over a speech socket, right and wrong: the protocol as a table, and random frames.

The application is called as its server calls it, without a network in between.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from gateway_house import BEARER, until
from gateway_speech import NOVA, SONIC, Speech, speech

from trunkline.gateway import stt
from trunkline.gateway.refusal import Refusal
from trunkline.gateway.speech_messages import pcm_of, rate_of
from trunkline.runtime.loud_vad import LoudVAD

ROUNDS = int(os.environ.get("TRUNKLINE_FUZZ", "300"))
DOORS = {"stt": "ears", "tts": "mouth"}
AUDIO = base64.b64encode(bytes(1600)).decode()

Frame = str | bytes


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stt, "voice_activity", LoudVAD)
    monkeypatch.setattr(stt, "_END_SECONDS", 0.1)


def message(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


CREATE = {
    "stt": message("session.create", settings={"sample_rate": "16000", "extra": {}}),
    "tts": message("session.create", sample_rate="24000", encoding="pcm_s16le", extra={}),
}


class Called:
    """One socket: ``frames`` go in, ``sent`` is what came out. The client hangs up at the end,
    or when it has waited for ``wants``, the type of a message."""

    def __init__(self, house: Speech, door: str, frames: Iterable[Frame], wants: str = "") -> None:
        self.sent: list[dict[str, Any]] = []
        self._house = house
        self._frames = list(frames)
        self._wants = wants
        self._scope = {
            "type": "websocket",
            "path": f"/v1/{door}",
            "query_string": f"model={DOORS[door]}".encode(),
            "headers": [(b"authorization", f"Bearer {BEARER}".encode())],
        }
        self._connected = False
        self._over = asyncio.Event()

    async def run(self) -> Called:
        async with asyncio.timeout(20):
            await self._house.gateway(self._scope, self._receive, self._send)
        return self

    async def _receive(self) -> dict[str, Any]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        await asyncio.sleep(0)
        if self._frames:
            frame = self._frames.pop(0)
            key = "text" if isinstance(frame, str) else "bytes"
            return {"type": "websocket.receive", key: frame}
        if self._wants:
            async with asyncio.timeout(15):
                await self._over.wait()
        return {"type": "websocket.disconnect", "code": 1005}

    async def _send(self, event: Any) -> None:
        await asyncio.sleep(0)
        self.sent.append(event)
        if self._wants in self.types or event["type"] == "websocket.close":
            self._over.set()

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(e["text"]) for e in self.sent if e["type"] == "websocket.send"]

    @property
    def types(self) -> list[str]:
        return [m["type"] for m in self.messages]

    def check(self) -> None:
        """At most one error, the last message, with an id; after the close nothing."""
        errors = [m for m in self.messages if m["type"] == "error"]
        assert len(errors) <= 1
        if errors:
            assert self.types[-1] == "error"
            assert errors[0]["request_id"] in errors[0]["message"]
            assert isinstance(errors[0]["code"], int)
        ends = [i for i, event in enumerate(self.sent) if event["type"] == "websocket.close"]
        assert not ends or ends == [len(self.sent) - 1]
        assert self.sent[0]["type"] == "websocket.accept"


# The protocol as a table: what a client sends, and what it is sent until it has what it waits for.

CONFORMS: list[tuple[str, str, list[Frame], list[str]]] = [
    ("stt", "a session", [CREATE["stt"]], ["session.created"]),
    ("stt", "without settings", [message("session.create")], ["session.created"]),
    (
        "stt",
        "finalize, then nothing",
        [CREATE["stt"], message("input_audio", audio=AUDIO), message("session.finalize")],
        ["session.created", "session.finalized", "session.closed"],
    ),
    (
        "stt",
        "an update, and a kind of a later client",
        [
            CREATE["stt"],
            message("session.update", settings={"language": "en"}),
            message("session.something", data=1),
            message("session.finalize"),
        ],
        ["session.created", "session.finalized"],
    ),
    (
        "stt",
        "fallbacks without extra",
        [
            message(
                "session.create",
                model="ears",
                settings={"sample_rate": "16000", "encoding": "pcm_s16le", "extra": None},
                fallback={"models": [{"model": "ears", "extra": None}]},
                connection={"timeout": 10.0, "retries": 3},
            )
        ],
        ["session.created"],
    ),
    ("tts", "a session", [CREATE["tts"]], ["session.created"]),
    ("tts", "without fields", [message("session.create")], ["session.created"]),
    (
        "tts",
        "empty input",
        [CREATE["tts"], message("session.flush")],
        ["session.created", "done"],
    ),
    (
        "tts",
        "two flushes",
        [CREATE["tts"], message("session.flush"), message("session.flush")],
        ["session.created", "done"],
    ),
    (
        "tts",
        "text that is no word",
        [CREATE["tts"], message("input_transcript", transcript="... "), message("session.flush")],
        ["session.created", "output_audio", "done"],
    ),
    (
        "tts",
        "an old client's sentence",
        [
            CREATE["tts"],
            message("input_transcript", transcript="- ", generation_config=None, extra=None),
            message("session.flush"),
        ],
        ["session.created", "output_audio", "done"],
    ),
]


@pytest.mark.parametrize(
    ("door", "frames", "types"),
    [(door, frames, types) for door, _, frames, types in CONFORMS],
    ids=[f"{door}: {name}" for door, name, _, _ in CONFORMS],
)
async def test_the_protocol(
    tmp_path: Path, door: str, frames: list[Frame], types: list[str]
) -> None:
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA]) as house:
        called = await Called(house, door, frames, wants=types[-1]).run()
        assert called.types[: len(types)] == types
        called.check()


FLUSH = message("session.flush")
TEXT_100K = "x" * 100_001
DEEP = '{"type":"session.create","extra":' + "[" * 5000 + "]" * 5000 + "}"

WRONG: list[tuple[str, str, list[Frame]]] = [
    *[
        (door, name, [frame])
        for door in DOORS
        for name, frame in (
            ("no JSON", "{"),
            ("nothing", ""),
            ("no object", "[1, 2]"),
            ("no type", "{}"),
            ("a type that is no text", '{"type": 7}'),
            ("binary", b"\x00\x01"),
            ("nested without end", DEEP),
            ("a model of another type", message("session.create", model=["x"])),
            ("a connection of another type", message("session.create", connection=[])),
            ("a timeout below zero", message("session.create", connection={"timeout": -1})),
            (
                "many fallbacks",
                message("session.create", fallback={"models": [{"model": "x"}] * 99}),
            ),
            ("a model that is not here", message("session.create", model="no/such")),
            ("traversal", message("session.create", model="tts0/../../x")),
        )
    ],
    ("stt", "audio first", [message("input_audio", audio=AUDIO)]),
    ("stt", "finalize first", [message("session.finalize")]),
    ("stt", "created twice", [CREATE["stt"], CREATE["stt"]]),
    ("stt", "no base64", [CREATE["stt"], message("input_audio", audio="*")]),
    ("stt", "not ASCII", [CREATE["stt"], message("input_audio", audio="\u00e4\u00e4\u00e4\u00e4")]),
    ("stt", "half a sample", [CREATE["stt"], message("input_audio", audio="AAAA")]),
    ("stt", "audio as a number", [CREATE["stt"], message("input_audio", audio=1)]),
    ("stt", "no audio", [CREATE["stt"], message("input_audio")]),
    ("stt", "a rate of none", [message("session.create", settings={"sample_rate": "fast"})]),
    ("stt", "a rate too high", [message("session.create", settings={"sample_rate": "192000"})]),
    ("stt", "a rate of zero", [message("session.create", settings={"sample_rate": 0})]),
    ("stt", "opus", [message("session.create", settings={"encoding": "opus"})]),
    ("stt", "a language", [message("session.create", settings={"language": "en?key=x"})]),
    ("stt", "an option", [message("session.create", settings={"extra": {"no_such_option": 1}})]),
    ("stt", "a secret", [message("session.create", settings={"extra": {"api_key": "x"}})]),
    ("tts", "text first", [message("input_transcript", transcript="Hi. ")]),
    ("tts", "flush first", [message("session.flush")]),
    ("tts", "created twice", [CREATE["tts"], CREATE["tts"]]),
    ("tts", "a rate too low", [message("session.create", sample_rate="100")]),
    ("tts", "mp3", [message("session.create", encoding="mp3")]),
    ("tts", "a voice", [message("session.create", voice="../../secrets")]),
    ("tts", "an option", [message("session.create", extra={"no_such_option": 1})]),
    ("tts", "an address", [message("session.create", extra={"base_url": "http://x"})]),
    ("tts", "text as a list", [CREATE["tts"], message("input_transcript", transcript=["x"])]),
    ("tts", "much text", [CREATE["tts"], message("input_transcript", transcript=TEXT_100K)]),
    (
        "tts",
        "a voice that is not here",
        [
            CREATE["tts"],
            message("input_transcript", transcript="Hi. ", generation_config={"model": "no/such"}),
        ],
    ),
    (
        "tts",
        "many utterances at once",
        [CREATE["tts"], *[message("input_transcript", transcript="Hi. "), FLUSH] * 20],
    ),
]


@pytest.mark.parametrize(
    ("door", "frames"),
    [(door, frames) for door, _, frames in WRONG],
    ids=[f"{door}: {name}" for door, name, _ in WRONG],
)
async def test_what_is_wrong_is_one_error_with_an_id(
    tmp_path: Path, door: str, frames: list[Frame], caplog: pytest.LogCaptureFixture
) -> None:
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA]) as house:
        called = await Called(house, door, frames, wants="error").run()
        assert called.types[-1:] == ["error"]
        called.check()
        error = called.messages[-1]
        assert 400 <= error["code"] < 500
        assert "x" * 1000 not in error["message"]
        logged = [r.getMessage() for r in caplog.records if error["request_id"] in r.getMessage()]
        assert len(logged) == 1
        assert not house.gateway.house.plans.in_use
        well = await Called(house, door, [CREATE[door]], wants="session.created").run()
        assert well.types == ["session.created"]


@pytest.mark.parametrize("value", ["16000", 16000, "8000", "48000"])
def test_rates_are_texts_and_numbers(value: str | int) -> None:
    assert rate_of(value) == int(value)


@pytest.mark.parametrize("value", ["", "16000.5", "7999", "48001", "-1", "1e4", "９" * 9])
def test_what_is_no_rate(value: str) -> None:
    with pytest.raises(Refusal, match="sample_rate"):
        rate_of(value)


@pytest.mark.parametrize("size", [0, 2, 1600, 65536])
def test_audio_is_read_as_it_was_sent(size: int) -> None:
    pcm = random.Random(size).randbytes(size)
    assert pcm_of(base64.b64encode(pcm).decode()) == pcm


# Random frames.

VALID: dict[str, list[str]] = {
    "stt": [
        CREATE["stt"],
        message("input_audio", audio=AUDIO),
        message("input_audio", audio=""),
        message("session.update", settings={"language": "en", "extra": {"keyterm": ["x"]}}),
        message("session.finalize"),
        message("session.close"),
    ],
    "tts": [
        CREATE["tts"],
        message("input_transcript", transcript="Hi. ", generation_config={}, extra={}),
        message("input_transcript", transcript="- "),
        message("session.flush"),
        message("session.close"),
    ],
}
JUNK = ["null", '"', "\x00", '{"type":', "1e999", '{"type":"input_audio","audio":"="}', "[" * 99]


def mutated(chance: random.Random, frame: str) -> Frame:
    """``frame``, mostly as it is, else cut, swollen, scrambled or something else altogether."""
    match chance.randrange(12):
        case 0:
            return frame[: chance.randrange(len(frame))]
        case 1:
            at = chance.randrange(len(frame))
            return frame[:at] + chr(chance.randrange(1, 0x250)) + frame[at + 1 :]
        case 2:
            return chance.randbytes(chance.randrange(64))
        case 3:
            return frame.replace('"', chance.choice(["'", "", '"x']), 1)
        case 4:
            return chance.choice(JUNK)
        case 5:
            return frame[:-1] + f', "more": "{"z" * chance.randrange(100_000)}"' + "}"
    return frame


def conversation(chance: random.Random, door: str) -> list[Frame]:
    """Up to a dozen frames, most often in an order that makes sense at first."""
    frames = [chance.choice(VALID[door]) for _ in range(chance.randrange(12))]
    if chance.random() < 0.8:
        frames.insert(0, CREATE[door])
    return [mutated(chance, frame) for frame in frames]


async def fuzz(house: Speech, rounds: int, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(rounds):
        door = chance.choice(list(DOORS))
        frames = conversation(chance, door)
        try:
            called = await Called(house, door, frames).run()
            called.check()
        except Exception as error:
            raise AssertionError(f"{door} {frames!r}") from error


@pytest.mark.parametrize("seed", [1, 2])
async def test_random_frames_break_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, seed: int
) -> None:
    caplog.set_level(logging.ERROR, "trunkline")
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA]) as house:
        await fuzz(house, 20, seed)  # connections and caches that stay
        await house.trunkline.engine.settled()
        before = len(asyncio.all_tasks())
        await fuzz(house, ROUNDS // 2, seed + 100)
        await until(lambda: not house.gateway.house.plans.in_use, 20)
        await house.trunkline.engine.settled()
        await until(lambda: len(asyncio.all_tasks()) <= before + 20, 20)
        assert not [r for r in caplog.records if "failed" in r.getMessage() and r.exc_info]
        well = await Called(
            house, "tts", [CREATE["tts"], message("session.flush")], wants="done"
        ).run()
        assert well.types == ["session.created", "done"]


@pytest.mark.soak
async def test_random_frames_break_nothing_for_long(tmp_path: Path) -> None:
    rounds = int(os.environ.get("TRUNKLINE_FUZZ_SOAK", "200000"))
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA]) as house:
        for seed in range(rounds // 1000):
            await fuzz(house, 1000, seed)
            house.attempts.clear()
        assert not house.gateway.house.plans.in_use
