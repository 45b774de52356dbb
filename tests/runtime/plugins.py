"""LiveKit plugins that behave as a list of steps says; what a test gives the engine to serve by.

A step is a word (said, spoken or recognised), a number (seconds of waiting), ``HANG``, ``END`` (a
clean end before the rest) or an exception to raise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from livekit import rtc
from livekit.agents import APIConnectOptions, LanguageCode, llm, stt, tts, utils

from trunkline.core.models import Candidate, Entry, Modality, ModelRef, Settlement

HANG = object()
END = object()
RATE = 16000
WORD_SECONDS = 0.2

Steps = Sequence[Any]


class Ledger:
    """A journal in memory."""

    def __init__(self) -> None:
        self.records: list[Settlement] = []

    def append(self, record: Settlement | Entry) -> None:
        assert isinstance(record, Settlement)
        self.records.append(record)

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        return [(r.attempt.provider, r.attempt.outcome) for r in self.records]


async def _play(step: Any) -> str | None:
    """The word of a step, None when it is none; waits, hangs or raises as it says."""
    if isinstance(step, BaseException):
        raise step
    if step is HANG:
        await asyncio.sleep(3600)
    if isinstance(step, int | float):
        await asyncio.sleep(step)
    return step if isinstance(step, str) else None


class FakeLLM(llm.LLM[Any]):
    def __init__(self, steps: Steps, usage: llm.CompletionUsage | None = None) -> None:
        super().__init__()
        self.steps, self.usage, self.chats = steps, usage, 0

    @property
    def model(self) -> str:
        return "fake"

    @property
    def provider(self) -> str:
        return "fake"

    @property
    def asked(self) -> int:
        return self.chats

    def chat(self, *, chat_ctx: Any, tools: Any, conn_options: Any, **_: Any) -> llm.LLMStream:
        self.chats += 1
        return _FakeChat(self, chat_ctx=chat_ctx, tools=tools, conn_options=conn_options)


class _FakeChat(llm.LLMStream):
    def __init__(self, owner: FakeLLM, **given: Any) -> None:
        self._steps = owner.steps
        super().__init__(owner, **given)

    async def _run(self) -> None:
        owner = self._llm
        assert isinstance(owner, FakeLLM)
        for step in self._steps:
            if step is END:
                return
            if isinstance(step, llm.FunctionToolCall):
                delta = llm.ChoiceDelta(role="assistant", tool_calls=[step])
                self._event_ch.send_nowait(llm.ChatChunk(id="fake", delta=delta))
            elif word := await _play(step):
                delta = llm.ChoiceDelta(role="assistant", content=word + " ")
                self._event_ch.send_nowait(llm.ChatChunk(id="fake", delta=delta))
        if owner.usage is not None:
            self._event_ch.send_nowait(llm.ChatChunk(id="fake", usage=owner.usage))


class ScheduledLLM(FakeLLM):
    """A model whose steps are ``takes.take()``, asked anew with each chat."""

    def __init__(self, takes: Any) -> None:
        super().__init__(())
        self._takes = takes

    def chat(self, **given: Any) -> llm.LLMStream:
        self.steps = self._takes.take()
        return super().chat(**given)


class FakeTTS(tts.TTS[Any]):
    """Speaks each word of its text as ``WORD_SECONDS`` of a loud frame, then its own steps' way."""

    def __init__(self, steps: Steps = (), rate: int = RATE) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=True), sample_rate=rate, num_channels=1
        )
        self.steps, self.texts, self.asked = steps, list[str](), 0

    def synthesize(self, text: str, *, conn_options: Any) -> tts.ChunkedStream:
        return self._synthesize_with_stream(text, conn_options=conn_options)

    def stream(self, *, conn_options: APIConnectOptions) -> tts.SynthesizeStream:
        self.asked += 1
        return _FakeSpeech(tts=self, conn_options=conn_options)


class _FakeSpeech(tts.SynthesizeStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        owner = self._tts
        assert isinstance(owner, FakeTTS)
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=owner.sample_rate,
            num_channels=1,
            mime_type="audio/pcm",
            stream=True,
        )
        output_emitter.start_segment(segment_id="fake")
        self._mark_started()
        text = ""
        async for part in self._input_ch:
            text += part if isinstance(part, str) else ""
        owner.texts.append(text)
        for step in owner.steps or text.split():
            if step is END:
                break
            if await _play(step):
                samples = int(owner.sample_rate * WORD_SECONDS)
                output_emitter.push(b"\x00\x40" * samples)
        output_emitter.flush()


class FakeSTT(stt.STT[Any]):
    """Hears a word of its steps for every ``WORD_SECONDS`` of audio; a final at the end."""

    def __init__(self, steps: Steps) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))
        self.steps, self.heard = steps, list[float]()

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        raise NotImplementedError

    def stream(self, *, language: Any = None, conn_options: Any) -> stt.RecognizeStream:
        return _FakeEars(stt=self, conn_options=conn_options)


class _FakeEars(stt.RecognizeStream):
    async def _run(self) -> None:
        owner = self._stt
        assert isinstance(owner, FakeSTT)
        steps, words, seconds = list(owner.steps), list[str](), 0.0
        index = len(owner.heard)
        owner.heard.append(0.0)
        async for frame in self._input_ch:
            if not isinstance(frame, rtc.AudioFrame):
                continue
            seconds += frame.duration
            owner.heard[index] += frame.duration
            while steps and seconds >= WORD_SECONDS * (len(words) + 1) - 1e-9:
                step = steps.pop(0)
                if step is END:
                    return
                if word := await _play(step):
                    words.append(word)
                    self._say(stt.SpeechEventType.INTERIM_TRANSCRIPT, words, seconds)
        self._say(stt.SpeechEventType.FINAL_TRANSCRIPT, words, seconds)

    def _say(self, kind: stt.SpeechEventType, words: list[str], end: float) -> None:
        data = stt.SpeechData(
            language=LanguageCode("en"),
            text=" ".join(words),
            start_time=self.start_time_offset,
            end_time=self.start_time_offset + end,
        )
        self._event_ch.send_nowait(stt.SpeechEvent(type=kind, alternatives=[data]))


def candidate(name: str, live: Any) -> Candidate:
    return Candidate(ModelRef(name, "fake"), name, live=live, own=True)


def frames(seconds: float, rate: int = RATE, step: float = 0.05) -> list[rtc.AudioFrame]:
    """Loud audio in frames of ``step`` seconds."""
    samples = int(rate * step)
    return [rtc.AudioFrame(b"\x00\x40" * samples, rate, 1, samples)] * round(seconds / step)


MODALITIES = (Modality.STT, Modality.LLM, Modality.TTS)
