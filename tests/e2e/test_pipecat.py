"""Pipecat's services for OpenAI, unchanged and in an environment of their own, at the gateway."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

from serving import BACKUP, PRIMARY, double, gateway, installed, program, routes

from trunkline.doubles import Kind, Rule, tones

CALL = Path(__file__).parent / "clients" / "pipecat_call.py"
BEARER = "a-bearer-of-thirty-two-characters"
RATE = 16_000


async def turn(place: Path, url: str, text: str) -> dict[str, Any]:
    """What Pipecat hears, answers and speaks when the caller says ``text``."""
    pcm = tones.encode(text, RATE) + bytes(2 * RATE)
    asked = {"base_url": url, "key": BEARER, "pcm": base64.b64encode(pcm).decode()}
    pipe = asyncio.subprocess.PIPE
    command = (installed("pipecat") / "bin" / "python", CALL)
    log = place / "pipecat.log"
    async with program(log, *command, stdin=pipe, stdout=pipe, limit=1 << 26) as process:
        out, _ = await asyncio.wait_for(process.communicate(json.dumps(asked).encode()), 120)
    made: dict[str, Any] = json.loads(out)
    return {**made, "spoken": tones.decode(base64.b64decode(made["pcm"]), 24_000)}


async def test_a_turn_is_heard_answered_and_spoken(tmp_path: Path) -> None:
    installed("pipecat")
    says = {"openai": {"replies": ("Good day to you.",)}}
    async with double(PRIMARY, **says) as primary, double(BACKUP, **says) as backup:
        primary.inject(Rule(kind=Kind.SERVER_ERROR))
        places = {**dict.fromkeys(PRIMARY, primary), **dict.fromkeys(BACKUP, backup)}
        said = routes(places, gateway={"bearer": [BEARER]})
        async with gateway(tmp_path, **said) as house:
            made = await turn(tmp_path, house.url, "good morning")
            assert made["errors"] == []
            assert " ".join(made["heard"]).lower().split() == ["good", "morning"]
            assert made["spoken"] == ["good", "day", "to", "you"]
            attempts = await house.attempts()
    served = {a.connection for a in attempts if a.outcome == "ok"}
    assert served == {place.name for place in BACKUP}
    assert {a.identity.key for a in attempts} == {"bearer[0]"}
