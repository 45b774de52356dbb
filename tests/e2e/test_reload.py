"""An operator changes the routes of a running gateway: whoever is in a call goes on."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from livekit import rtc
from livekit.agents import inference, llm
from livekit.agents.stt import SpeechEventType
from serving import BACKUP, KEY, PRIMARY, SECRET, double, gateway, routes, until

from trunkline.doubles import Pace, tones

RATE = 16_000
LONG = "This is a long answer that has only begun when the routes change."


def speech_of(text: str) -> list[rtc.AudioFrame]:
    pcm = tones.encode(text, RATE) + bytes(2 * RATE)
    step = RATE // 20 * 2
    pieces = [pcm[at : at + step] for at in range(0, len(pcm), step)]
    return [rtc.AudioFrame(piece, RATE, 1, len(piece) // 2) for piece in pieces]


async def heard(stream: Any, text: str) -> tuple[list[str], str]:
    """The words of the next utterance, and who heard it."""
    for frame in speech_of(text):
        stream.push_frame(frame)
    async for event in stream:
        if event.type is SpeechEventType.FINAL_TRANSCRIPT:
            said = event.alternatives[0]
            return said.text.lower().split(), said.metadata["served_by"]
    raise AssertionError("the stream ended")


async def asked(brain: inference.LLM) -> str:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="Good morning?")
    async with brain.chat(chat_ctx=context) as chat:
        return "".join([chunk.delta.content or "" async for chunk in chat if chunk.delta])


async def spoken(stream: AsyncIterator[Any], pcm: bytes = b"") -> list[str]:
    async for audio in stream:
        pcm += bytes(audio.frame.data.cast("B"))
    return tones.decode(pcm, 24_000)


@pytest.mark.parametrize("told_by", ["SIGHUP", "the file"])
async def test_no_stream_is_dropped_and_the_next_utterance_goes_the_new_way(
    tmp_path: Path, told_by: str
) -> None:
    slow = {"openai": {"replies": (LONG,), "pace": Pace(between=0.4)}}
    quick = {"openai": {"replies": ("New.",)}}
    async with (
        double(PRIMARY, **slow) as before,
        double(BACKUP, **quick) as after,
        gateway(tmp_path, **routes(dict.fromkeys(PRIMARY, before))) as house,
        aiohttp.ClientSession() as session,
    ):
        known: dict[str, Any] = {"base_url": house.url, "api_key": KEY, "api_secret": SECRET}
        brain = inference.LLM("brain", **known)
        mouth = inference.TTS("mouth", http_session=session, **known)
        ears = inference.STT("ears", http_session=session, **known)
        async with asyncio.timeout(100), ears.stream() as hearing:
            assert await heard(hearing, "good morning") == (
                ["good", "morning"],
                "stt-a/nova-3",
            )
            speaking = mouth.stream()
            speaking.push_text("I am the first sentence of this. And I")
            first = await speaking.__anext__()
            chat = asyncio.create_task(asked(brain))
            await until(lambda: [one for one in before.requests if one.model == "gpt-4.1"])

            said = {"version": 1, "gateway": {"keys": {KEY: SECRET}}}
            changed = tmp_path / "changed.yaml"
            changed.write_text(json.dumps({**said, **routes(dict.fromkeys(BACKUP, after))}))
            changed.rename(tmp_path / "trunkline.yaml")
            if told_by == "SIGHUP":
                house.process.send_signal(signal.SIGHUP)
            while await asked(brain) != "New.":
                pass

            assert await chat == LONG
            speaking.push_text(" am the second. ")
            speaking.end_input()
            words = await spoken(speaking, bytes(first.frame.data.cast("B")))
            assert words == tones.words_of("I am the first sentence of this. And I am the second.")
            async with mouth.stream() as again:
                again.push_text("And this is another utterance.")
                again.end_input()
                assert await spoken(again) == tones.words_of("And this is another utterance.")
            assert await heard(hearing, "and good night") == (
                ["and", "good", "night"],
                "stt-b/nova-3",
            )
        for one in (brain, mouth, ears):
            await one.aclose()
        attempts = await house.attempts()
    by = {kind: [a for a in attempts if a.modality == kind] for kind in ("stt", "llm", "tts")}
    assert [(a.connection, a.outcome) for a in by["tts"]] == [("tts-a", "ok"), ("tts-b", "ok")]
    assert [(a.connection, a.outcome) for a in by["stt"]] == [
        ("stt-a", "moved"),
        ("stt-b", "cancelled"),
    ]
    assert {a.outcome for a in by["llm"]} == {"ok"}
    assert by["llm"][-1].connection == "llm-b"
