"""What a client is told of a limit that it has reached."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from gateway_house import House, serving, until
from gateway_speech import NOVA, SONIC, Wire, heard, speech
from llm_server import Answer, delta, say

from trunkline.gateway import stt
from trunkline.runtime.loud_vad import LoudVAD

RATE = {"limits": {"few": {"amount": {"requests": 1}, "per": "minute"}}}
STREAMS = {"limits": {"few": {"amount": {"streams": 1}, "notice": False}}}


async def _status(house: House) -> int:
    async with house.ask() as answer:
        await answer.read()
        return int(answer.status)


@pytest.mark.parametrize(
    ("rules", "quotas"),
    [(RATE, {"rpm": ("1", "1")}), (STREAMS, {})],
    ids=["a rate", "streams at once"],
)
async def test_a_limit_says_how_much_of_it_is_used(
    tmp_path: Path, rules: dict[str, Any], quotas: dict[str, tuple[str, str]]
) -> None:
    """LiveKit's client logs these headers of a 429."""
    slow = Answer([delta(content="Good "), 1.0, *say("day.")])
    async with serving(tmp_path, slow, **rules) as (house, servers):
        first = asyncio.create_task(_status(house))
        await until(lambda: servers[0].requests)
        async with house.ask() as refused:
            assert refused.status == 429
            found = {k.lower(): v for k, v in refused.headers.items() if "inference" in k.lower()}
        assert found == {
            f"x-livekit-inference-{name}-{what}": value
            for name, pair in quotas.items()
            for what, value in zip(("limit", "used"), pair, strict=True)
        }
        assert await first == 200


async def test_a_limit_is_an_error_on_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stt, "voice_activity", LoudVAD)
    async with speech(tmp_path, tts=[SONIC], stt=[NOVA], **STREAMS) as house:
        holding = await house.connect("stt")
        await holding.create()
        await holding.hear(heard("Good morning.", after=0.0))
        await holding.until("interim_transcript")
        voice: Wire = await house.connect("tts")
        await voice.create()
        await voice.say("Good day.")
        error = await voice.until("error", "done")
        assert (error["type"], error["code"]) == ("error", 429)
        assert "few" in error["message"]
        await holding.close()
