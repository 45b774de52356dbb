"""One process of callers: ``python -m soak.caller``, its task as JSON on standard input.

It writes a line of JSON for each call as it ends, and last what the process itself has used.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from livekit import rtc
from livekit.agents import APIError, llm
from livekit.agents.stt import SpeechEventType

import trunkline
from trunkline import inference
from trunkline.core.models import Modality
from trunkline.doubles import tones
from trunkline.errors import AllCandidatesFailed, Refused
from trunkline.runtime.loud_vad import LoudVAD

from .vendors import ANSWER

_NEVER = 30.0
_RATE = 16000
_FASTER = 8


class Task(msgspec.Struct):
    """What a process of callers is to do: ``calls`` calls, ``lines`` of them at a time.

    After ``session`` calls a line hangs up and starts anew, with new clients.
    """

    config: str
    state: str
    seed: str
    calls: int
    lines: int
    session: int = 20


class Call(msgspec.Struct):
    """What one caller got. ``silence`` is the longest wait in seconds, also for the end.

    ``error`` is the exception's name, empty for a clean end, ``never`` where there was neither;
    ``causes`` are the candidates that one error names, ``told`` is what a refusal says.
    """

    modality: str
    words: list[str] = []
    silence: float = 0.0
    error: str = ""
    causes: list[str] = []
    told: str = ""


class Used(msgspec.Struct):
    """What a process holds, at its first and its second half's end: KiB and descriptors."""

    kib: list[int]
    descriptors: list[int]
    tasks: list[str]


class Session:
    """The clients of one session, and a call with each."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.clients: dict[str, Any] = {
            Modality.LLM: inference.LLM("llm"),
            Modality.TTS: inference.TTS("tts", http_session=http),
            Modality.STT: inference.STT("stt", http_session=http, language="en", vad=LoudVAD()),
        }

    async def aclose(self) -> None:
        for client in self.clients.values():
            await client.aclose()

    async def call(self, modality: str) -> Call:
        call = Call(modality)
        self._last = time.monotonic()
        uses = {Modality.LLM: self._chat, Modality.TTS: self._speak, Modality.STT: self._listen}
        try:
            async with asyncio.timeout(_NEVER):
                await uses[Modality(modality)](self.clients[modality], call)
        except TimeoutError:
            call.error = "never"
        except APIError as error:
            call.error = type(error).__name__
            cause = error.__cause__
            if isinstance(cause, AllCandidatesFailed):
                call.causes = [name for name, _ in cause.causes]
            elif isinstance(cause, Refused):
                call.told = str(cause)
        self._output(call)
        return call

    def _output(self, call: Call) -> None:
        now = time.monotonic()
        call.silence = max(call.silence, now - self._last)
        self._last = now

    async def _chat(self, client: Any, call: Call) -> None:
        context = llm.ChatContext.empty()
        context.add_message(role="user", content="Is my room ready?")
        text = ""
        try:
            async with client.chat(chat_ctx=context) as stream:
                async for chunk in stream:
                    if chunk.delta and chunk.delta.content:
                        text += chunk.delta.content
                        self._output(call)
        finally:
            call.words = text.split()

    async def _speak(self, client: Any, call: Call) -> None:
        pcm, rate = bytearray(), _RATE
        try:
            async with client.stream() as stream:
                for piece in ANSWER.partition(". "):
                    stream.push_text(piece)
                stream.end_input()
                async for audio in stream:
                    pcm += bytes(audio.frame.data)
                    rate = audio.frame.sample_rate
                    self._output(call)
        finally:
            call.words = tones.decode(bytes(pcm), rate)

    async def _listen(self, client: Any, call: Call) -> None:
        async with client.stream() as stream:
            speaking = asyncio.create_task(self._say(stream))
            try:
                async for event in stream:
                    self._output(call)
                    if event.type is SpeechEventType.FINAL_TRANSCRIPT:
                        call.words += event.alternatives[0].text.lower().split()
            finally:
                speaking.cancel()

    async def _say(self, stream: Any) -> None:
        step = 2 * _RATE // 20
        pcm = tones.encode(ANSWER, _RATE) + bytes(_RATE)
        for at in range(0, len(pcm), step):
            piece = pcm[at : at + step]
            stream.push_frame(rtc.AudioFrame(piece, _RATE, 1, len(piece) // 2))
            await asyncio.sleep(0.05 / _FASTER)
        stream.end_input()


async def line(task: Task, number: int, http: aiohttp.ClientSession) -> None:
    """Call after call, as one caller after another makes them on one line."""
    draw = random.Random(f"{task.seed} {number}")
    session = Session(http)
    for done in range(number, task.calls, task.lines):
        if done // task.lines % task.session == task.session - 1:
            await session.aclose()
            session = Session(http)
        session_call = await session.call(draw.choices(["llm", "tts", "stt"], [5, 3, 2])[0])
        _tell(session_call)
    await session.aclose()


async def main(task: Task) -> None:
    trunkline.configure(task.config, task.state)
    used = Used([], [], [])
    for half in range(2):
        # The first half warms up; what the second adds to it is what each call leaves behind.
        half_task = msgspec.structs.replace(task, calls=task.calls // 2, seed=f"{task.seed} {half}")
        async with aiohttp.ClientSession() as http:
            await asyncio.gather(*(line(half_task, n, http) for n in range(task.lines)))
        await asyncio.sleep(0.5)
        used.kib.append(_resident_kib())
        used.descriptors.append(len(os.listdir("/proc/self/fd")))
    await trunkline.aclose()
    await asyncio.sleep(0.1)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    used.tasks = [str(task.get_coro()) for task in others]
    _tell(used)


def _tell(told: msgspec.Struct) -> None:
    print(json.dumps(msgspec.to_builtins(told)), flush=True)


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.stdin.buffer.read(), type=Task)))
