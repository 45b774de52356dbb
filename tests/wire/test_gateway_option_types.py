"""A client's option of a wrong type: one error for whoever sent it, and nothing lost by others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gateway_speech import AURA, FLASH, INK, NOVA, SONIC, Speech, Vendor, Wire, heard, speech

from trunkline.gateway import stt
from trunkline.runtime.loud_vad import LoudVAD

TEXT = "Good morning to you."
SONIC_2 = Vendor("cartesia", "sonic-2")
SCRIBE = Vendor("elevenlabs", "scribe_v2_realtime", "/v1")


@pytest.fixture(autouse=True)
def ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tones are no speech to a model of speech."""
    monkeypatch.setattr(stt, "voice_activity", LoudVAD)


async def asked(house: Speech, door: str, extra: dict[str, Any]) -> Wire:
    wire = await house.connect(door)
    form = {"sample_rate": "16000", "encoding": "pcm_s16le", "extra": extra}
    said = {"settings": form} if door == "stt" else {**form, "sample_rate": "24000"}
    await wire.send("session.create", **said)
    return wire


async def served(house: Speech, door: str, extra: dict[str, Any]) -> None:
    """A call that is heard, or answered, by the first candidate of the route."""
    wire = await asked(house, door, extra)
    assert (await wire.next())["type"] == "session.created"
    if door == "stt":
        await wire.hear(heard(TEXT))
        await wire.send("session.finalize")  # not all of them find an end by themselves
        assert (await wire.until("final_transcript", "error"))["type"] == "final_transcript"
    else:
        assert await wire.spoken(TEXT)
    await wire.close()


@pytest.mark.parametrize(
    ("door", "vendor", "wrong", "told", "right"),
    [
        ("tts", FLASH, {"voice_settings": {"stability": "high"}}, "voice_settings",
         {"voice_settings": {"stability": 0.5, "similarity_boost": 1}}),
        ("stt", SCRIBE, {"server_vad": 0}, "not a number",
         {"server_vad": {"vad_threshold": 0.5}}),
        ("stt", INK, {"keyterm": True}, "a list of texts, not a boolean", {"keyterm": ["Ada"]}),
        ("stt", NOVA, {"replace": True}, "an object of texts", {"replace": {"a": "b"}}),
        ("tts", SONIC, {"speed": {"a": "x" * 5000}}, '"speed" is', {"speed": 1, "volume": None}),
    ],
)  # fmt: skip
async def test_a_wrong_type_is_told_at_once_and_blames_nobody(
    tmp_path: Path, door: str, vendor: Vendor, wrong: Any, told: str, right: Any
) -> None:
    async with speech(tmp_path, **{door: [vendor]}) as house:
        for _ in range(3):  # a failure more often than a breaker bears
            wire = await asked(house, door, wrong)
            error = await wire.until("error")
            assert error["code"] == 400
            assert next(iter(wrong)) in error["message"]
            assert told in error["message"]
            assert len(error["message"]) < 600
            await wire.close()
        assert not house.attempts
        await served(house, door, {})
        await served(house, door, right)
        assert {attempt.outcome for attempt in house.attempts} <= {"ok", "cancelled"}


@pytest.mark.parametrize("vendors", [[AURA, SONIC_2], [SONIC_2, AURA]])
async def test_an_option_goes_to_the_candidates_that_take_its_type(
    tmp_path: Path, vendors: list[Vendor]
) -> None:
    """A speed in words is for Cartesia, whose API has some; Deepgram's is a number."""
    async with speech(tmp_path, tts=vendors) as house:
        await served(house, "tts", {"speed": "fast"})
        assert [attempt.outcome for attempt in house.attempts] == ["ok"]
        wire = await asked(house, "tts", {"speed": ["fast"]})
        assert (await wire.until("error"))["code"] == 400
        await wire.close()
        house.without("sonic")
        wire = await asked(house, "tts", {"speed": "fast"})
        assert "is a number" in (await wire.until("error"))["message"]
        await wire.close()


async def test_a_sentence_of_a_wrong_type_is_an_error_too(tmp_path: Path) -> None:
    async with speech(tmp_path, tts=[FLASH]) as house:
        wire = await asked(house, "tts", {})
        assert (await wire.next())["type"] == "session.created"
        await wire.say(TEXT, extra={"voice_settings": 7})
        error = await wire.until("error", "done")
        assert error["code"] == 400
        assert "voice_settings" in error["message"]
        await wire.close()
        await served(house, "tts", {})
        assert not [a for a in house.attempts if a.outcome not in ("ok", "cancelled")]
