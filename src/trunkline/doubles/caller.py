"""A caller who speaks tones to a recogniser, and what of them came back as words.

Importing this file loads livekit-agents.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

from livekit import rtc
from livekit.agents import stt

from . import tones

RATE = 16000
FLUSH_AFTER = 0.3
"""Seconds of silence after which an agent's VAD would have ended the utterance."""


def speech(text: str, *, before: float = 0.0, pause: float = 0.8, after: float = 0.8) -> bytes:
    """The sentences of ``text`` with ``pause`` seconds between them."""
    sentences = [f"{one.strip()}." for one in text.split(".") if one.strip()]
    gap = bytes(2 * round(pause * RATE))
    spoken = gap.join(tones.encode(one, RATE) for one in sentences)
    return bytes(2 * round(before * RATE)) + spoken + bytes(2 * round(after * RATE))


def cut(pcm: bytes, milliseconds: float = 50) -> list[rtc.AudioFrame]:
    step = 2 * round(RATE * milliseconds / 1000)
    pieces = [pcm[at : at + step] for at in range(0, len(pcm), step)]
    return [rtc.AudioFrame(piece, RATE, 1, len(piece) // 2) for piece in pieces]


async def say(
    stream: Any,
    pcm: bytes,
    *,
    faster: float,
    milliseconds: float = 50,
    flushes: bool = False,
    said: Callable[[float], object] = lambda _: None,
) -> None:
    """Push ``pcm`` ``faster`` than real time; with ``flushes``, flush in each pause.

    ``said`` is told how many seconds have been pushed.
    """
    clock = asyncio.get_running_loop().time
    due, quiet, spoke, at = clock(), 0.0, False, 0.0
    for frame in cut(pcm, milliseconds):
        with contextlib.suppress(RuntimeError):  # a stream that is over says so
            stream.push_frame(frame)
            silent = not any(frame.data)
            quiet = quiet + frame.duration if silent else 0.0
            spoke = spoke or not silent
            if flushes and spoke and quiet > FLUSH_AFTER:
                stream.flush()
                spoke = False
        at += frame.duration
        said(at)
        due += frame.duration / faster
        await asyncio.sleep(max(0.0, due - clock()))


def marks(events: list[stt.SpeechEvent]) -> str:
    """Starts and ends of speech in order, as S and E."""
    kinds = {stt.SpeechEventType.START_OF_SPEECH: "S", stt.SpeechEventType.END_OF_SPEECH: "E"}
    return "".join(kinds.get(one.type, "") for one in events)


def finals(events: list[stt.SpeechEvent]) -> list[stt.SpeechData]:
    """What was final, in order."""
    wanted = stt.SpeechEventType.FINAL_TRANSCRIPT
    return [one.alternatives[0] for one in events if one.type is wanted and one.alternatives]


def words(events: list[stt.SpeechEvent]) -> list[str]:
    """The words of what was final."""
    return [word for said in finals(events) for word in said.text.lower().split()]


def times(events: list[stt.SpeechEvent]) -> list[tuple[str, Any, Any]]:
    """Words with their times, of the finals that have them."""
    return [
        (str(word).lower(), word.start_time, word.end_time)
        for said in finals(events)
        for word in said.words or []
        if str(word).strip()
    ]
