"""What a probe asks: the smallest input of each modality, its output dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from livekit import rtc
from livekit.agents import NOT_GIVEN, llm, stt

from ..core.models import Candidate, Identity, Modality, Plan, Purpose, Quality, Usage
from ..errors import ProviderError
from .attempt import Engine
from .audio import loudness
from .chat_line import ChatLine
from .line import Line
from .livekit_recogniser import Attended, PluginRecogniser
from .livekit_segments import SegmentRecogniser
from .loud_vad import LoudVAD
from .meter import Metered, audio_ns
from .speech_line import SpeechLine

_RATE = 16000
_CLICKS = 50
"""Of 10 ms each."""
_FAREWELL = 8.0
"""Seconds a recogniser may take to end: some plugins wait 5 s for a task of their own."""
_TOKENS = 16
"""Reasoning models refuse a smaller limit than this."""


class _Dropped:
    """A sink for what a probe brings back."""

    start_time_offset = 0.0
    sample_rate = _RATE

    def __init__(self, chat_ctx: llm.ChatContext | None = None) -> None:
        self.chat_ctx = chat_ctx or _ping()
        self.tools: list[llm.Tool] = []

    def send(self, *_: object, **__: object) -> None: ...
    def mark_started(self, at: float) -> None: ...
    def serves(self, candidate: Candidate) -> None: ...


async def probe(
    engine: Engine,
    modality: Modality,
    candidate: Candidate,
    plan: Plan,
    identity: Callable[[], Identity],
    chat_ctx: llm.ChatContext | None = None,
    said: Sequence[rtc.AudioFrame] = (),
) -> None:
    """Attempt ``candidate`` alone on a tiny input, or on ``chat_ctx`` as the last caller asked it.

    A recogniser that streams is asked what a caller has ``said``, if that is known.
    Raises the attempt's error. Both outcomes are metered and recorded with the purpose ``probe``.
    """
    single = replace(plan, candidates=(candidate,), retries=0)
    sink = _Dropped(chat_ctx)
    if modality is Modality.LLM:
        params = {"max_completion_tokens": _TOKENS} if chat_ctx is None else {}
        chat = ChatLine(sink, single, sink.serves, params, False)
        chat.may_only_think = True
        line: Line[Any] = chat
    elif modality is Modality.TTS:
        line = SpeechLine(sink, sink, expressive=False)
        line.push("Hello.")
        line.end()
    else:
        line = _HearingProbe(plan, said)
        deadlines = replace(plan.deadlines, first_content=_FAREWELL, total=float("inf"))
        single = replace(single, deadlines=deadlines)
    await engine.run(line, single, identity(), purpose=Purpose.PROBE)


class _HearingProbe(Line[stt.SpeechEvent]):
    """Half a second of a click, or what was said, then the end.

    Well is whoever answers with words, or takes it all and ends in order: a click has no words, and
    some plugins do not end. A recogniser that hangs lets the deadline pass.
    """

    modality = Modality.STT

    def __init__(self, plan: Plan, said: Sequence[rtc.AudioFrame]) -> None:
        self._connect = plan.deadlines.connect
        self._said = said
        self._opened = 0.0
        self._length_ns = 0
        self._answer: _Answer | None = None

    def open(self, candidate: Candidate) -> Attended:
        loop = asyncio.get_running_loop()
        self._opened = loop.time()
        recogniser = self._made(candidate)
        streams = candidate.live.capabilities.streaming
        audio = (streams and self._said) or [loudness(_RATE)] * _CLICKS
        self._length_ns = sum(audio_ns(one.samples_per_channel, one.sample_rate) for one in audio)
        recogniser.replay(audio)
        # after a while: some plugins do not even connect for input that has ended already
        loop.call_later(_CLICKS * 0.01, recogniser.end_input)
        self._answer = _Answer(recogniser, _accept)
        return self._answer

    def _made(self, candidate: Candidate) -> PluginRecogniser | SegmentRecogniser:
        plugin = candidate.live
        if not plugin.capabilities.streaming:
            return SegmentRecogniser(plugin, NOT_GIVEN, 0.0, vad=LoudVAD(), timeout=_FAREWELL)
        return PluginRecogniser(
            plugin,
            NOT_GIVEN,
            0.0,
            connect_timeout=self._connect,
            replay_speed=candidate.replay_speed,
            failed=self._failed,
        )

    def _failed(self, error: ProviderError) -> None:
        if self.watch is not None:
            self.watch.interrupt(error)

    def deliver(self, out: stt.SpeechEvent) -> bool:
        return False

    def owed_since(self) -> float:
        return self._opened

    def finish(self) -> None:
        """However it ended in order, it is well."""

    def may_continue(self, plan: Plan) -> bool:
        return False

    def metered(self) -> Metered:
        is_cut = self._answer is not None and self._answer.has_words
        quality = Quality.ESTIMATED if is_cut else Quality.EXACT
        return Metered(Usage(audio_in_ns=self._length_ns), quality)


class _Answer(Attended):
    """What a recogniser has to say; its first words are enough."""

    has_words = False

    async def __anext__(self) -> stt.SpeechEvent:
        if self.has_words:
            raise StopAsyncIteration
        event = await super().__anext__()
        self.has_words = bool(event.alternatives and event.alternatives[0].text)
        return event


async def _accept() -> None:
    """A clean end needs no judgement."""


def _ping() -> llm.ChatContext:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="ping")
    return context
