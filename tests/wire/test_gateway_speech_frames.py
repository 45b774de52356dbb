"""What is wrong with what comes over a speech socket; what is right is the table of conformance.

The application is called as its server calls it, without a network in between.
"""

from __future__ import annotations

import base64
import random
from pathlib import Path

import pytest
from fuzzing import AUDIO, CREATE, DOORS, Called, Frame, message
from gateway_speech import NOVA, SONIC, speech

from trunkline.gateway import stt
from trunkline.gateway.refusal import Refusal
from trunkline.gateway.speech_messages import pcm_of, rate_of
from trunkline.runtime.loud_vad import LoudVAD


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stt, "voice_activity", LoudVAD)
    monkeypatch.setattr(stt, "_END_SECONDS", 0.1)


FLUSH = message("session.flush")
NO_STEP = {"extra": {"audio_chunk_duration_ms": 0}}
PLACE = {"extra": {"directory": "/etc"}}
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
    ("stt", "a step of no time", [message("session.create", settings=NO_STEP)]),
    ("stt", "a place on the disk", [message("session.create", settings=PLACE)]),
    ("tts", "an address", [message("session.create", extra={"ws_url": "ws://127.0.0.1:1"})]),
    ("tts", "a voice beside", [message("session.create", extra={"voice": "../../x?y"})]),
    ("tts", "a voice of two", [message("session.create", extra={"voice": ["a", "b"]})]),
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
