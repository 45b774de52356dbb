"""A probe by the official plugins: well is who answers in order, ill is who does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from livekit.plugins import cartesia, deepgram, elevenlabs, openai
from matrix import caller
from plugins import Ledger, candidate

from trunkline.core.models import Deadlines, Identity, Modality, Plan, Purpose
from trunkline.doubles import Double, Kind, Rule, tones
from trunkline.errors import TrunklineError
from trunkline.runtime.attempt import Engine
from trunkline.runtime.gate import Gate
from trunkline.runtime.health import HealthBook
from trunkline.runtime.probes import probe

VENDORS = ("openai", "deepgram", "cartesia", "elevenlabs")


@pytest.fixture
async def double() -> AsyncIterator[Double]:
    async with Double.serve(VENDORS) as double:
        yield double


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def plugin(name: str, double: Double, http: aiohttp.ClientSession) -> Any:
    vendor = name.partition("-")[0]
    url = double.url(vendor)
    match name:
        case "deepgram-stt":
            return deepgram.STT(api_key="k", base_url=f"{url}/v1/listen", http_session=http)
        case "cartesia-stt":
            return cartesia.STT(api_key="k", base_url=url, http_session=http)
        case "elevenlabs-stt":
            url = f"{url}/v1"
            model = "scribe_v2_realtime"
            return elevenlabs.STT(api_key="k", base_url=url, model=model, http_session=http)
        case "openai-stt":
            return openai.STT(model="whisper-1", api_key="k", base_url=f"{url}/v1")
        case "cartesia-tts":
            return cartesia.TTS(api_key="k", base_url=url, http_session=http)
        case "elevenlabs-tts":
            return elevenlabs.TTS(api_key="k", base_url=f"{url}/v1", http_session=http)
        case "openai-llm":
            return openai.LLM(model="gpt-4.1", api_key="k", base_url=f"{url}/v1")
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("deepgram-stt", Kind.SERVER_ERROR),
        ("cartesia-stt", Kind.SERVER_ERROR),
        ("elevenlabs-stt", Kind.STALL),
        ("openai-stt", Kind.SERVER_ERROR),
        ("cartesia-tts", Kind.SERVER_ERROR),
        ("elevenlabs-tts", Kind.SERVER_ERROR),
        ("openai-llm", Kind.SERVER_ERROR),
    ],
)
async def test_a_probe_tells_the_well_from_the_ill(
    double: Double, http: aiohttp.ClientSession, name: str, fault: Kind
) -> None:
    """Scribe's plugin never ends: it is asked with words, and a silent connection is not well."""
    ledger = Ledger()
    engine = Engine(Gate(ledger, lambda _: None, lambda _: None), HealthBook(), lambda _: None)
    one = candidate(name, plugin(name, double, http))
    plan = Plan((one,), Deadlines(total=3.0))  # some recognisers take 5 s to end
    modality = Modality(name.partition("-")[2])
    said = caller.cut(tones.encode("Good morning.", caller.RATE)) if fault is Kind.STALL else ()

    async def ask() -> None:
        async with asyncio.timeout(20):
            await probe(engine, modality, one, plan, lambda: Identity(call="c"), said=said)

    await ask()
    double.inject(Rule(kind=fault))
    with pytest.raises(TrunklineError):
        await ask()
    await one.live.aclose()
    await engine.aclose()
    purposes = {record.attempt.purpose for record in ledger.records}
    assert purposes == {Purpose.PROBE}
    assert [record.attempt.outcome == "ok" for record in ledger.records] == [True, False]
