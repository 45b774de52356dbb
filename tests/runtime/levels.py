"""A caller whose every word is a level of its own, and a recogniser that knows them by it."""

from __future__ import annotations

from typing import Any

import numpy as np
from livekit import rtc
from livekit.agents import APIConnectOptions, LanguageCode, stt
from livekit.agents.stt import SpeechEventType
from plugins import END, _play

RATE = 16000
WORDS = [f"w{n}" for n in range(12)]
SENTENCE = 4
"""Words between two pauses that end an utterance."""
WORD, GAP, PAUSE = 0.3, 0.1, 0.7
_FRAME = 0.05
_FLOOR, _STEP = 2000, 400
_FINAL_AFTER = 0.3
"""Seconds of silence that make what was heard final."""
_ENOUGH = 0.2
"""Seconds of a word by which it is known."""


def call() -> list[rtc.AudioFrame]:
    """Everything the caller says, in frames of 50 ms."""
    parts = []
    for n in range(len(WORDS)):
        pause = PAUSE if n % SENTENCE == SENTENCE - 1 else GAP
        parts += [np.full(round(WORD * RATE), _FLOOR + _STEP * n), np.zeros(round(pause * RATE))]
    pcm = np.concatenate(parts).astype(np.int16).tobytes()
    step = 2 * round(_FRAME * RATE)
    pieces = [pcm[at : at + step] for at in range(0, len(pcm), step)]
    return [rtc.AudioFrame(piece, RATE, 1, len(piece) // 2) for piece in pieces]


class Levels(stt.STT[Any]):
    """Hears as its ``takes`` say: a whole number is so many words, else as in ``plugins``.

    When the steps are through it hears the rest. With ``timed`` its finals have times.
    """

    def __init__(self, takes: Any, *, timed: bool) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))
        self.takes, self.timed = takes, timed

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        raise NotImplementedError

    def stream(
        self, *, language: Any = None, conn_options: APIConnectOptions
    ) -> stt.RecognizeStream:
        return _Ears(self, conn_options)


class _Ears(stt.RecognizeStream):
    def __init__(self, owner: Levels, conn_options: APIConnectOptions) -> None:
        self._owner = owner
        self._steps: list[Any] = list(owner.takes.take())
        self._budget = 0.0
        self._words: list[tuple[str, float, float]] = []
        super().__init__(stt=owner, conn_options=conn_options)

    async def _run(self) -> None:
        at, begun, quiet, mark = 0.0, 0.0, 0.0, -1
        known = -1
        async for frame in self._input_ch:
            if not isinstance(frame, rtc.AudioFrame):
                continue
            level = int(np.median(np.frombuffer(frame.data, np.int16)))
            heard = round((level - _FLOOR) / _STEP) if level > _FLOOR // 2 else -1
            heard = min(heard, len(WORDS))  # a probe says nothing that a caller says
            if heard != mark:
                mark, begun = heard, at
            at += frame.duration
            quiet = 0.0 if heard >= 0 else quiet + frame.duration
            if heard >= 0 and heard != known and at - begun >= _ENOUGH - 1e-6:
                if not await self._step():
                    return
                known = heard
                self._words.append(([*WORDS, "probe"][heard], begun, begun + WORD))
                self._say(SpeechEventType.INTERIM_TRANSCRIPT)
            if self._words and quiet >= _FINAL_AFTER - 1e-6:
                self._say(SpeechEventType.FINAL_TRANSCRIPT)
                self._words = []
        if self._words:
            self._say(SpeechEventType.FINAL_TRANSCRIPT)

    async def _step(self) -> bool:
        """Play what comes before the next word; False when the stream ends there."""
        while self._budget < 1:
            step = self._steps.pop(0) if self._steps else float("inf")
            if isinstance(step, int) or step == float("inf"):
                self._budget = step
            elif step is END:
                return False
            else:
                await _play(step)
        self._budget -= 1
        return True

    def _say(self, kind: SpeechEventType) -> None:
        data = stt.SpeechData(
            language=LanguageCode("en"), text=" ".join(word for word, _, _ in self._words)
        )
        if self._owner.timed:
            data.start_time = self.start_time_offset + self._words[0][1]
            data.end_time = self.start_time_offset + self._words[-1][2]
        self._event_ch.send_nowait(stt.SpeechEvent(type=kind, alternatives=[data]))
