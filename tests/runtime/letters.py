"""A voice that says letters, each a tone level of its own, so that a test hears every one.

A letter takes a character's time at the voice's pace, as do the blanks and stops between them,
which are silent: what was heard is known to the sample, whoever spoke it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from string import ascii_letters
from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents import APIConnectOptions, tts, utils
from livekit.agents.types import TimedString
from plugins import END, HANG, _play

TEXT = "ABCDE FGHIJK. LMNO PQRSTU VWXYZ? abcde fghij klmno pqrst"
"""Words of at least four letters, every letter once, in sentences."""
RATE = 24000
_FLOOR, _STEP = 2000, 400
_SHORTEST = RATE // 100


@dataclass(frozen=True)
class Letter:
    """A letter that was heard: its place in ``TEXT``, and for how long."""

    at: int
    seconds: float


class Letters(tts.TTS[Any]):
    """Speaks as its ``takes`` say: a whole number is so many characters, else as in ``plugins``.

    When the steps are through it speaks the rest. ``END`` is played only where it cuts off more
    than half of a text that is long enough: a voice may be quick.
    """

    def __init__(self, takes: Any, *, per_second: float, rate: int, aligned: bool) -> None:
        able = tts.TTSCapabilities(streaming=True, aligned_transcript=aligned)
        super().__init__(capabilities=able, sample_rate=rate, num_channels=1)
        self.takes, self.per_second, self.aligned = takes, per_second, aligned

    def synthesize(self, text: str, *, conn_options: Any) -> tts.ChunkedStream:
        raise NotImplementedError

    def stream(self, *, conn_options: APIConnectOptions) -> tts.SynthesizeStream:
        return _Speech(self, conn_options)


class _Speech(tts.SynthesizeStream):
    def __init__(self, owner: Letters, conn_options: APIConnectOptions) -> None:
        self._owner = owner
        self._steps: list[Any] = list(owner.takes.take())
        self._text, self._at, self._budget = "", 0, 0.0
        super().__init__(tts=owner, conn_options=conn_options)

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=self._owner.sample_rate,
            num_channels=1,
            mime_type="audio/pcm",
            stream=True,
        )
        output_emitter.start_segment(segment_id="letters")
        async for part in self._input_ch:
            self._text += part if isinstance(part, str) else ""
            if not await self._speak(output_emitter, self._text.rfind(" ") + 1):
                return
        await self._speak(output_emitter, len(self._text))
        output_emitter.flush()

    async def _speak(self, emitter: tts.AudioEmitter, until: int) -> bool:
        """Speak up to there, step by step; False when the voice ends first."""
        while self._at < until:
            while self._budget < 1:
                step = self._steps.pop(0) if self._steps else float("inf")
                if isinstance(step, int) or step == float("inf"):
                    self._budget = step
                elif step is END:
                    async for part in self._input_ch:
                        self._text += part if isinstance(part, str) else ""
                    if len(self._text) >= 20 and self._at < len(self._text) / 2:
                        return False
                else:
                    await _play(step)
            spoken = int(min(self._budget, until - self._at))
            self._budget -= spoken
            self._say(emitter, spoken)
        return True

    def _say(self, emitter: tts.AudioEmitter, characters: int) -> None:
        pace, rate = self._owner.per_second, self._owner.sample_rate
        for at in range(self._at, self._at + characters):
            if self._owner.aligned and (at == 0 or self._text[at - 1] == " "):
                word = self._text[at:].partition(" ")[0]
                end = (at + len(word)) / pace
                emitter.push_timed_transcript(
                    TimedString(word + " ", start_time=at / pace, end_time=end)
                )
            samples = round((at + 1) * rate / pace) - round(at * rate / pace)
            emitter.push(np.full(samples, _level(self._text[at]), np.int16).tobytes())
        self._at += characters


def _level(character: str) -> int:
    return _FLOOR + _STEP * ascii_letters.index(character) if character.isalpha() else 0


def heard(frames: Iterable[rtc.AudioFrame]) -> list[Letter]:
    """The letters of ``frames``, in order; what is shorter than 10 ms is the edge of one."""
    data = [np.frombuffer(frame.data, np.int16) for frame in frames]
    audio = np.concatenate(data).astype(int) if data else np.zeros(0, int)
    marks = np.where(audio > _FLOOR // 2, np.rint((audio - _FLOOR) / _STEP), -1)
    edges = [0, *(np.flatnonzero(np.diff(marks)) + 1).tolist(), len(marks)]
    return [
        Letter(TEXT.index(ascii_letters[int(marks[a])]), (b - a) / RATE)
        for a, b in pairwise(edges)
        if b - a >= _SHORTEST and 0 <= marks[a] < len(ascii_letters)
    ]


def seams(letters: Sequence[Letter]) -> int:
    """How often what was heard goes back to say a word again.

    Fails when a letter is missing, or when it goes back further than to the word it was in.
    """
    count, at = 0, 0
    begin = {i: TEXT.rfind(" ", 0, i) + 1 for i in range(len(TEXT))}
    previous: int | None = None
    for letter in letters:
        at = letter.at
        if previous is None:
            assert at == 0, f"the beginning up to {at} is missing"
        elif at <= previous:
            assert at == begin[previous], f"from {previous} back to {at}"
            count += 1
        else:
            left_out = TEXT[previous + 1 : at]
            assert not any(c.isalpha() for c in left_out), f"{left_out!r} was not said"
        previous = at
    return count


__all__ = ["HANG", "RATE", "TEXT", "Letter", "Letters", "heard", "seams"]
