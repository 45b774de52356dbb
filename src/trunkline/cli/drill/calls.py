"""One synthetic call in each modality, through the door that agents use, as a caller hears it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from livekit.agents import llm, stt

from ... import inference
from ...core.models import Modality
from ...doubles import caller, tones
from ...errors import AllCandidatesFailed
from ...runtime.loud_vad import LoudVAD
from ...services.drill_verdicts import NEVER, Take

TEXT = "Good morning, this is the front desk. Your room is ready and breakfast starts at seven."
"""What every model answers, and every voice is asked to say."""
SAID = "Good morning. My room is cold."
"""What is said to a recogniser."""

_PAUSE = 0.3
"""Seconds between the caller's sentences, over the quarter that a full stop has."""
_AFTER = 0.8
_VAD_SECONDS = 0.2
"""What ends an utterance for a recogniser that cannot stream."""

EXPECTED = {
    Modality.STT: tones.words_of(SAID),
    Modality.LLM: TEXT.split(),
    Modality.TTS: tones.words_of(TEXT),
}


def open_client(modality: Modality, name: str, http: aiohttp.ClientSession) -> Any:
    """The class of the in-process door that serves ``name``. Raises UsageError."""
    if modality is Modality.STT:
        return inference.STT(name, http_session=http, vad=LoudVAD(_VAD_SECONDS))
    if modality is Modality.TTS:
        return inference.TTS(name, http_session=http)
    return inference.LLM(name)


async def call(modality: Modality, client: Any, patience: float) -> Take:
    """Use ``client`` once, at most ``patience`` seconds long; what came of it."""
    use: dict[Modality, Callable[[Any, _Clock], Awaitable[None]]] = {
        Modality.STT: _speak_to,
        Modality.LLM: _ask,
        Modality.TTS: _have_read,
    }
    clock = _Clock()
    try:
        async with asyncio.timeout(patience):
            await use[modality](client, clock)
    except TimeoutError:
        clock.take.error = NEVER
    except Exception as error:  # noqa: BLE001 - whatever a session would get is the finding
        cause = error.__cause__
        told = cause if isinstance(cause, AllCandidatesFailed) else error
        clock.take.error = getattr(told, "message", "") or str(told) or type(told).__name__
        clock.silence()
    clock.take.took = clock.now
    return clock.take


class _Clock:
    """Notes when outputs come. A voice is heard as it is played: what came early fills a gap."""

    def __init__(self) -> None:
        self.take = Take(words=[])
        self._begun = time.perf_counter()
        self._heard_until = 0.0

    @property
    def now(self) -> float:
        """Seconds since the call began."""
        return time.perf_counter() - self._begun

    def output(self, seconds: float = 0.0) -> None:
        """An output came, which takes so many seconds to be heard."""
        now = self.now
        if self.take.first is None:
            self.take.first = self._heard_until = now
        self.silence()
        self._heard_until = max(self._heard_until, now) + seconds

    def silence(self) -> None:
        """The silence until now counts as one between two outputs."""
        if self.take.first is not None:
            self.take.gap = max(self.take.gap, self.now - self._heard_until)


async def _ask(client: llm.LLM[Any], clock: _Clock) -> None:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="Is my room ready?")
    said = ""
    try:
        async with client.chat(chat_ctx=context) as stream:
            async for chunk in stream:
                if chunk.delta and chunk.delta.content:
                    clock.output()
                    said += chunk.delta.content
    finally:
        clock.take.words = said.split()


async def _have_read(client: Any, clock: _Clock) -> None:
    pcm, rate = bytearray(), 0
    try:
        async with client.stream() as stream:
            for piece in TEXT.partition(". "):
                stream.push_text(piece)
            stream.end_input()
            async for audio in stream:
                frame = audio.frame
                piece_pcm, rate = bytes(frame.data), frame.sample_rate
                pcm += piece_pcm
                if clock.take.first is not None or any(piece_pcm):
                    clock.output(frame.duration)
    finally:
        clock.take.words = tones.decode(bytes(pcm), rate) if pcm else []


async def _speak_to(client: stt.STT[Any], clock: _Clock) -> None:
    """Say two sentences, and stay on the line until they are final."""
    events: list[stt.SpeechEvent] = []
    pcm = caller.speech(SAID, pause=_PAUSE, after=_AFTER)

    async def listen(stream: Any) -> None:
        async for event in stream:
            if event.alternatives and event.alternatives[0].text:
                events.append(event)
                clock.output()
                if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
                    clock.take.last = clock.now

    async def speak(stream: Any) -> None:
        await caller.say(stream, pcm, faster=1.0, flushes=True)
        silence, waited = bytes(2 * caller.RATE // 4), 0.0
        while len(caller.words(events)) < len(EXPECTED[Modality.STT]) and waited < _LONGEST_WAIT:
            await caller.say(stream, silence, faster=1.0)
            waited += 0.25
        with contextlib.suppress(RuntimeError):  # it is over already
            stream.end_input()

    async with client.stream() as stream:
        tasks = [asyncio.create_task(listen(stream)), asyncio.create_task(speak(stream))]
        try:
            await tasks[0]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            clock.take.words = caller.words(events)


_LONGEST_WAIT = 12.0
"""Seconds of silence after which what was said and is not final counts as lost."""
