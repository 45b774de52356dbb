"""The recogniser of a double: words tied to audio, and the end of an utterance.

An ear turns audio into words with times in seconds of the audio received; the listener above it
says when speech starts, what is heard so far, and what is final. Nothing here waits: time is the
position in the audio, however fast it is sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from . import tones
from .tones import Heard

_SOUND = 0.02 * 32768
"""The amplitude of a 16-bit sample that counts as sound."""
_STEP_S = 0.05
"""Audio is looked at in steps of this length, so that a pause inside one message is seen."""


@dataclass(frozen=True, slots=True)
class Started:
    """Speech began ``at`` seconds."""

    at: float


@dataclass(frozen=True, slots=True)
class Transcript:
    """Words since the last final. ``endpoint`` if a pause (not a message) made them final."""

    words: Sequence[Heard]
    received: float
    final: bool = False
    endpoint: bool = False

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


class Ear(Protocol):
    """Hears words in 16-bit mono PCM."""

    words: list[Heard]
    sound_until: float
    """The last moment with sound, in seconds; what is after it is silence so far."""

    def hear(self, pcm: bytes) -> None:
        """Take the next audio."""

    async def settle(self) -> None:
        """The utterance is over: make words of whatever was heard and is not yet a word."""


class ToneEar:
    """Reads the words that ``tones.encode`` put into the audio."""

    def __init__(self, rate: int) -> None:
        self.words: list[Heard] = []
        self.sound_until = 0.0
        self._rate = rate
        self._tail = bytearray()
        self._tail_at = 0

    def hear(self, pcm: bytes) -> None:
        self._tail += pcm
        loud = _last_sound(pcm)
        if loud >= 0:
            total = self._tail_at + len(self._tail) // 2
            self.sound_until = (total - len(pcm) // 2 + loud + 1) / self._rate
            self._read(whole=True)
        elif not tones.hear(bytes(self._tail), self._rate):
            self._drop(len(self._tail) // 2 - self._rate // 10)

    async def settle(self) -> None:
        self._read(whole=False)
        self._drop(len(self._tail) // 2)

    def _read(self, *, whole: bool) -> None:
        heard = tones.hear(bytes(self._tail), self._rate)
        if whole and heard and heard[-1].text.endswith("-"):
            heard.pop()  # perhaps not all of it has come yet
        offset = self._tail_at / self._rate
        for word in heard:
            times = offset + word.start, offset + word.end
            self.words.append(Heard(word.text, *times, word.whole))
        if heard:
            self._drop(round(heard[-1].end * self._rate))

    def _drop(self, samples: int) -> None:
        samples = max(min(samples, len(self._tail) // 2), 0)
        del self._tail[: 2 * samples]
        self._tail_at += samples


class ScriptEar:
    """Hears given words when their time has come, whatever the audio is.

    With ``from_sound`` their times count from the first sound; else from the first sample.
    """

    def __init__(self, words: Sequence[Heard], rate: int, *, from_sound: bool = False) -> None:
        self.words: list[Heard] = []
        self.sound_until = 0.0
        self._script = list(words)
        self._rate = rate
        self._samples = 0
        self._offset = None if from_sound else 0.0

    def hear(self, pcm: bytes) -> None:
        if self._offset is None and (loud := _first_sound(pcm)) >= 0:
            self._offset = (self._samples + loud) / self._rate
        self._samples += len(pcm) // 2
        now = self._samples / self._rate
        while self._offset is not None and self._script:
            word, offset = self._script[0], self._offset
            if word.start + offset < now:
                self.sound_until = min(word.end + offset, now)
            if word.end + offset > now:
                return
            self.words.append(Heard(word.text, word.start + offset, word.end + offset))
            self._script.pop(0)

    async def settle(self) -> None:
        return


class Listener:
    """What a recogniser says about the audio that it is given."""

    def __init__(self, ear: Ear, rate: int, *, endpoint: float | None) -> None:
        self._ear = ear
        self._rate = rate
        self._endpoint = endpoint
        self._samples = 0
        self._final = 0
        self._said = 0
        self._speaking = False

    @property
    def received(self) -> float:
        """Seconds of audio so far."""
        return self._samples / self._rate

    async def feed(self, pcm: bytes) -> list[Started | Transcript]:
        """Take audio; return what the recogniser would say about it, in order."""
        step = 2 * round(_STEP_S * self._rate)
        events: list[Started | Transcript] = []
        for at in range(0, len(pcm), step):
            events += await self._step(pcm[at : at + step])
        return events

    async def finalize(self) -> list[Started | Transcript]:
        """Everything heard so far is final."""
        return await self._finish(endpoint=False)

    async def _step(self, pcm: bytes) -> list[Started | Transcript]:
        before = self.received
        self._samples += len(pcm) // 2
        self._ear.hear(pcm)
        events: list[Started | Transcript] = []
        sounding = self._ear.sound_until > before
        if sounding and not self._speaking:
            self._speaking = True
            events.append(Started(before))
        if len(self._ear.words) > self._said:
            self._said = len(self._ear.words)
            events.append(Transcript(self._ear.words[self._final :], self.received))
        pause = self.received - self._ear.sound_until
        if self._speaking and self._endpoint is not None and pause >= self._endpoint:
            events += await self._finish(endpoint=True)
        return events

    async def _finish(self, *, endpoint: bool) -> list[Started | Transcript]:
        await self._ear.settle()
        words = self._ear.words[self._final :]
        self._final = self._said = len(self._ear.words)
        self._speaking = False
        return [Transcript(words, self.received, final=True, endpoint=endpoint)] if words else []


def laid_out(text: str) -> list[Heard]:
    """``text`` as words, each as long as its tone would be."""
    at, words = 0.0, []
    for word in text.split():
        length = (len(word) + 2) * (tones.SYMBOL_S + tones.GAP_S)
        words.append(Heard(word, at, at + length))
        at += length
    return words


def _loud(pcm: bytes) -> NDArray[np.intp]:
    samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], dtype="<i2")
    return np.flatnonzero(np.abs(samples.astype(np.int32)) > _SOUND)


def _last_sound(pcm: bytes) -> int:
    """Index of the last loud sample, or -1."""
    loud = _loud(pcm)
    return int(loud[-1]) if loud.size else -1


def _first_sound(pcm: bytes) -> int:
    """Index of the first loud sample, or -1."""
    loud = _loud(pcm)
    return int(loud[0]) if loud.size else -1
