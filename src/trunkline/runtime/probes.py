"""What a probe asks: the smallest input of each modality, its output dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
from .meter import Metered
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
) -> None:
    """Attempt ``candidate`` alone on a tiny input, or on ``chat_ctx`` as the last caller asked it.

    Raises the attempt's error. Both outcomes are metered and recorded with the purpose ``probe``.
    """
    single = replace(plan, candidates=(candidate,), retries=0)
    sink = _Dropped(chat_ctx)
    if modality is Modality.LLM:
        params = {"max_completion_tokens": _TOKENS} if chat_ctx is None else {}
        line: Line[Any] = ChatLine(sink, single, sink.serves, params, False)
    elif modality is Modality.TTS:
        line = SpeechLine(sink, sink, expressive=False)
        line.push("Hello.")
        line.end()
    else:
        line = _HearingProbe(plan)
        deadlines = replace(plan.deadlines, first_content=_FAREWELL, total=float("inf"))
        single = replace(single, deadlines=deadlines)
    await engine.run(line, single, identity(), purpose=Purpose.PROBE)


class _HearingProbe(Line[stt.SpeechEvent]):
    """Half a second of a click, then the end: well is whoever takes it and ends in order.

    Words are not asked for, a click has none. A recogniser that hangs lets the deadline pass.
    """

    modality = Modality.STT

    def __init__(self, plan: Plan) -> None:
        self._connect = plan.deadlines.connect
        self._opened = 0.0

    def open(self, candidate: Candidate) -> Attended:
        loop = asyncio.get_running_loop()
        self._opened = loop.time()
        recogniser = self._made(candidate)
        for _ in range(_CLICKS):
            recogniser.push_frame(loudness(_RATE))
        # when it has been said: some plugins do not even connect for input that has ended already
        loop.call_later(_CLICKS * 0.01, recogniser.end_input)
        return Attended(recogniser, _accept)

    def _made(self, candidate: Candidate) -> PluginRecogniser | SegmentRecogniser:
        plugin = candidate.live
        if not plugin.capabilities.streaming:
            return SegmentRecogniser(plugin, NOT_GIVEN, 0.0, vad=LoudVAD(), timeout=_FAREWELL)
        return PluginRecogniser(
            plugin,
            NOT_GIVEN,
            0.0,
            connect_timeout=self._connect,
            replay_speed=0.0,
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
        return Metered(Usage(audio_in_ns=_CLICKS * 10_000_000), Quality.EXACT)


async def _accept() -> None:
    """A clean end needs no judgement."""


def _ping() -> llm.ChatContext:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="ping")
    return context
