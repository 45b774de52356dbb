"""A route that hedges, asked through the gateway: who has content first is heard, in every door."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from gateway_house import ASK, AUTH, events, text_of, until
from gateway_speech import FLASH, GPT, RATE, SONIC, Speech, Vendor, speech

from trunkline.doubles import Kind, Rule, tones

HANG = Rule(kind=Kind.HANG)
# Nobody has to be quick here: what is tested is who answers.
HEDGED = {
    name: {
        "hedge": {"after": 0.05, "share": 1.0},
        "deadlines": {"connect": 30, "first_content": 60, "idle": 60},
    }
    for name in ("brain", "mouth")
}
WORDS = ["good", "day"]


async def streamed(house: Speech) -> list[str]:
    body = {"model": "brain", "stream": True, **ASK}
    async with house.session.post(
        f"{house.url}/chat/completions", json=body, headers=AUTH
    ) as answer:
        assert answer.headers["x-trunkline-model"] == "llm1/gpt-4.1"
        return text_of(events(await answer.read())).lower().strip(".").split()


async def whole(house: Speech) -> list[str]:
    body = {"model": "brain", **ASK}
    async with house.session.post(
        f"{house.url}/chat/completions", json=body, headers=AUTH
    ) as answer:
        [choice] = (await answer.json())["choices"]
        return str(choice["message"]["content"]).lower().strip(".").split()


async def over_a_socket(house: Speech) -> list[str]:
    wire = await house.connect("tts")
    await wire.create(sample_rate=str(RATE))
    # The sentence that comes while two are asked is spoken by whoever is heard.
    await wire.say("Good", flush=False)
    await until(lambda: len([d for d in house.doubles.values() if d.requests]) == 2)
    found = await wire.spoken("day.")
    await wire.close()
    return found


async def over_http(house: Speech) -> list[str]:
    body = {"model": "mouth", "voice": "default", "input": "Good day.", "response_format": "pcm"}
    async with house.session.post(f"{house.url}/audio/speech", json=body, headers=AUTH) as answer:
        return tones.decode(await answer.read(), RATE)


Asking = Callable[[Speech], Awaitable[list[str]]]
DOORS: dict[str, tuple[str, Asking]] = {
    "a streamed chat": ("llm", streamed),
    "a whole chat": ("llm", whole),
    "a socket": ("tts", over_a_socket),
    "HTTP": ("tts", over_http),
}
GPT_SAYS = Vendor("openai", "gpt-4.1", "/v1", more={"replies": ("Good day.",)})


def house_of(tmp_path: Path, *struck: str) -> Any:
    return speech(
        tmp_path,
        tts=[SONIC, FLASH],
        llm=[GPT, GPT_SAYS],
        faults={name: [HANG] for name in struck},
        policy=HEDGED,
    )


@pytest.mark.parametrize("door", DOORS)
async def test_a_candidate_that_hangs_is_outrun(tmp_path: Path, door: str) -> None:
    modality, ask = DOORS[door]
    async with house_of(tmp_path, "llm0", "tts0") as house:
        async with asyncio.timeout(100):
            assert await ask(house) == WORDS
        await until(lambda: len(house.attempts) == 2)
        rows = {(a.connection, a.outcome, a.purpose.value) for a in house.attempts}
        assert rows == {
            (f"{modality}0", "cancelled", "hedge"),
            (f"{modality}1", "ok", "serve"),
        }
        assert not house.gateway.house.plans.in_use


@pytest.mark.parametrize("door", DOORS)
async def test_who_hangs_up_during_a_race_ends_both(tmp_path: Path, door: str) -> None:
    modality, ask = DOORS[door]
    async with house_of(tmp_path, "llm0", "llm1", "tts0", "tts1") as house:
        asking = asyncio.ensure_future(ask(house))
        both = [house.doubles[f"{modality}{place}"] for place in range(2)]
        await until(lambda: all(one.requests for one in both))
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        await house.session.close()
        await until(lambda: len(house.attempts) == 2)
        rows = {(a.connection, a.outcome, a.purpose.value) for a in house.attempts}
        assert rows == {
            (f"{modality}0", "cancelled", "serve"),
            (f"{modality}1", "cancelled", "hedge"),
        }
        await until(lambda: not house.gateway.house.plans.in_use)
