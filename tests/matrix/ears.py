"""The columns of recognisers: somebody speaks tones to them, and their finals are read."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import aiohttp
from livekit.agents import stt

from trunkline import inference
from trunkline.core.models import Modality
from trunkline.doubles import tones
from trunkline.runtime.loud_vad import LoudVAD

from . import caller
from .column import Column, Heard
from .faults import DEADLINE, Fault

TEXT = "Good morning. My room is cold."
"""Two sentences, no word twice."""
PAUSE = 0.3
"""Seconds between the sentences and after them, over the quarter that a full stop has."""
FASTER = 4.0
"""How many times faster than real the caller speaks."""
AT_ONCE = 1000.0

_VAD_SECONDS = 0.2
"""What ``LoudVAD`` waits for to end an utterance."""


class Ears(Column):
    """A recogniser that streams; times count from the end of the first word.

    ``turn`` is how long it may wait for the speaker to go on. With ``flushes`` the caller's VAD
    tells it that an utterance is over. One that does not promise ``interim`` results is heard of
    when the sentence is over, so that nobody can miss its words before.
    """

    modality = Modality.STT
    expected: ClassVar[list[str]] = tones.words_of(TEXT)
    ends_as_output = False

    def __init__(
        self,
        name: str,
        vendor: str,
        *,
        model: str,
        turn: float = 0.0,
        flushes: bool = False,
        interim: bool = True,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(name, vendor, model=model, options=options)
        self.turn = turn
        self.flushes = flushes
        self.faster = FASTER
        self._pcm = caller.speech(TEXT, pause=PAUSE, after=PAUSE)
        self._spoken = {word.text: word for word in tones.hear(self._pcm, caller.RATE)}
        self._enough = self._spoken[self.expected[0]].end
        last = tones.words_of(TEXT.partition(".")[0])[-1]
        self._rest = 0.0 if interim else self._spoken[last].end - self._enough

    @property
    def opens_after(self) -> float:
        return self._enough / self.faster

    def hurried(self) -> Self:
        """The same with everything said at once, and the end of the input with it."""
        other = copy.copy(self)
        other.faster = AT_ONCE
        return other

    def at_speed(self, faster: float) -> Self:
        """The same with another caller, ``faster`` times as fast as people speak."""
        other = copy.copy(self)
        other.faster = faster
        return other

    def owed(self, fault: Fault) -> float:
        """Midway also the rest of the sentence, and the turn that may go on."""
        if not fault.waits:
            return 0.0
        if not fault.midway:
            return DEADLINE + self._rest / self.faster
        rest = sum(word.end - word.start for word in self._spoken.values())
        return DEADLINE + rest / self.faster + self.turn

    def open(self, route: str, http: aiohttp.ClientSession) -> Any:
        return inference.STT(route, http_session=http, vad=LoudVAD(_VAD_SECONDS))

    async def use(self, client: Any, heard: Heard, **options: Any) -> None:
        self._events: list[stt.SpeechEvent] = []
        async with client.stream(**options) as stream:
            listening = asyncio.create_task(self._listen(stream, heard))
            speaking = asyncio.create_task(self._speak(stream, heard))
            try:
                await asyncio.wait([listening, speaking], return_when=asyncio.FIRST_COMPLETED)
                if speaking.done():
                    _end(stream)
                await listening
            finally:
                listening.cancel()
                speaking.cancel()
                await asyncio.wait([listening, speaking])

    async def occupy(self, client: Any) -> None:
        """Stay on the line, silent, when everything has been said."""
        self._events = []
        async with client.stream() as stream:
            listening = asyncio.create_task(self._listen(stream, Heard()))
            try:
                await self._speak(stream, Heard())
                await listening
            finally:
                listening.cancel()

    async def _speak(self, stream: Any, heard: Heard) -> None:
        enough = self._enough

        def said(seconds: float) -> None:
            nonlocal enough
            if seconds >= enough:
                heard.begin()
                enough = float("inf")

        await caller.say(stream, self._pcm, faster=self.faster, flushes=self.flushes, said=said)

    async def _listen(self, stream: Any, heard: Heard) -> None:
        async for event in stream:
            self._events.append(event)
            if event.alternatives and event.alternatives[0].text:
                heard.output()

    def read(self, heard: Heard) -> None:
        heard.words = caller.words(self._events)
        starts = [start for _, start, _ in caller.times(self._events)]
        if starts != sorted(starts):
            heard.problems.append(f"times go back: {starts}")
        marks = caller.marks(self._events)
        if not heard.error and marks and marks.replace("SE", ""):
            heard.problems.append(f"starts and ends of speech: {marks}")

    def compare(self, heard: Sequence[str]) -> tuple[int, int]:
        """A part of a word that is final is a duplicate, too."""
        lost, _ = super().compare(heard)
        return lost, len(heard) - (len(self.expected) - lost)

    def seconds_lost(self, heard: Sequence[str]) -> float | None:
        return sum(one.end - one.start for word, one in self._spoken.items() if word not in heard)


class Recordings(Ears):
    """A recogniser of whole utterances; times count from the end of the first one."""

    def __init__(self, name: str, vendor: str, *, model: str) -> None:
        super().__init__(name, vendor, model=model)
        first = tones.words_of(TEXT.partition(".")[0])[-1]
        self._enough = self._spoken[first].end + _VAD_SECONDS

    def rule(self, fault: Fault, name: str) -> dict[str, Any]:
        """An utterance is a request: what strikes midway strikes the second one.

        The backup is asked for that one only.
        """
        given = dict(fault.rule)
        if fault.midway:
            given.pop("after", None)
            if name == "primary":
                given["nth"] = list(range(2, 100))
        return given

    def outcomes(self, fault: Fault) -> frozenset[str]:
        """The answer to an utterance comes at once: it is the first content of its request."""
        if fault.midway and fault.waits:
            return fault.outcomes - {"idle_timeout"} | {"first_content_timeout"}
        return fault.outcomes

    def is_agreed(self, fault: Fault) -> bool:
        """An answer whose only output is left out has no word, as that to a cough.

        One candidate's is doubted; when all say so, nobody can know better.
        """
        return fault.rule.get("kind") in ("empty", "truncate")

    def bare(self, url: str, http: aiohttp.ClientSession, kind: str = "") -> Any:
        ears = super().bare(url, http, kind)
        if ears.capabilities.streaming:
            return ears
        return stt.StreamAdapter(stt=ears, vad=LoudVAD(_VAD_SECONDS))


def adapter(plugins: list[Any]) -> Any:
    """LiveKit's own adapter, with our deadline."""
    return stt.FallbackAdapter(plugins, vad=LoudVAD(_VAD_SECONDS), attempt_timeout=DEADLINE)


def _end(stream: Any) -> None:
    with contextlib.suppress(RuntimeError):  # it is over already
        stream.end_input()
