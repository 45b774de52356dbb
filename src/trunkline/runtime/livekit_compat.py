"""Every touch of livekit-agents' private parts, and nothing else.

Written against livekit-agents 1.8.9; ``tests/runtime/test_livekit_contract.py`` fails when the SDK
moves one of them. The stream classes here are LiveKit's own with three changes: their retry loop is
off (the engine retries), input goes straight to whoever takes it instead of through a channel, and
an error that ends a stream is reported as one the session survives.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import inspect
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator
from functools import lru_cache
from typing import Any, ClassVar

from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, Plugin, llm, stt, tts
from livekit.agents.job import get_job_context
from livekit.agents.stt import SpeechEvent
from livekit.agents.telemetry import trace_types
from livekit.agents.tts import SynthesizedAudio
from livekit.agents.tts._provider_format import convert_markup, normalize_markup
from livekit.agents.voice import AgentSession, SpeechHandle
from livekit.agents.voice.agent_activity import (
    AgentActivity,
    _AgentActivityContextVar,
    _SpeechHandleContextVar,
)
from opentelemetry import trace

from ..clock import new_id
from ..core.models import Candidate, Plan
from .livekit_outlet import EventOutlet, Outlet
from .meter import audio_ns

_calls: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
_at_end: weakref.WeakKeyDictionary[Any, set[Any]] = weakref.WeakKeyDictionary()


@lru_cache(64)
def no_retry(options: APIConnectOptions) -> APIConnectOptions:
    """The same options with LiveKit's own retry loop off."""
    return dataclasses.replace(options, max_retry=0)


def current_turn() -> str:
    """LiveKit's id of the speech being made, empty outside one."""
    handle = _SpeechHandleContextVar.get(None)
    return handle.id if handle else ""


def current_speech() -> SpeechHandle | None:
    """LiveKit's handle of the speech being made, None outside one."""
    return _SpeechHandleContextVar.get(None)


def session_of(model: rtc.EventEmitter[Any]) -> AgentSession[Any] | None:
    """The session this code runs for, else the one that ``model`` reports to; None without one.

    A recogniser's stream runs in no context of a session; the session's activity listens to it.
    """
    activity = _AgentActivityContextVar.get(None)
    if activity is not None:
        return activity.session
    for listener in model._events.get("error", ()):
        owner = getattr(listener, "__self__", None)
        if isinstance(owner, AgentActivity):
            return owner.session
    return None


def is_closing(session: AgentSession[Any]) -> bool:
    """Whether the session has begun to close."""
    return session._is_closing()


def current_job() -> tuple[str, str, str]:
    """(job id, room sid, agent name) of the job this process runs, empty outside one."""
    context = get_job_context(required=False)
    if context is None:
        return "", "", ""
    job = context.job
    return job.id, job.room.sid, job.agent_name


def current_call() -> str | None:
    """The id of the call this code runs for: one a job, else one a session; None outside both."""
    owner: Any = get_job_context(required=False)
    if owner is None:
        activity = _AgentActivityContextVar.get(None)
        if activity is None:
            return None
        owner = activity.session
    call = _calls.get(owner)
    if call is None:
        call = _calls[owner] = new_id()
    return call


def session_id(session: AgentSession[Any]) -> str:
    """An id of our own for ``session``, the same as long as it lives; LiveKit gives it none."""
    return _calls.setdefault(session, new_id())


def at_job_end(callback: Callable[[], Coroutine[None, None, None]]) -> None:
    """Await ``callback`` when the job of this context shuts down; once a job, nothing outside one.

    LiveKit runs its shutdown callbacks after the session is closed, and ends the process without
    Python's own exit handlers.
    """
    job = get_job_context(required=False)
    if job is not None and callback not in (known := _at_end.setdefault(job, set())):
        known.add(callback)
        job.add_shutdown_callback(callback)


class ChatStream(llm.LLMStream):
    """An LLMStream whose ``_run`` is the engine's. ``send`` hands a chunk to whoever reads it."""

    def __init__(self, owner: llm.LLM[Any], **given: Any) -> None:
        super().__init__(owner, **given)
        self.send: Callable[[llm.ChatChunk], None] = self._event_ch.send_nowait  # once a token

    def report(self, error: APIError) -> None:
        """Tell the session of an error that it did not have to suffer."""
        self._emit_error(error, recoverable=True)

    def mark_served(self, candidate: Candidate, plan: Plan) -> None:
        """Write on the request's span who served it, as LiveKit's own adapter does."""
        _mark_served(self._llm_request_span, candidate, plan)

    def _emit_error(self, api_error: Exception, recoverable: bool) -> None:
        super()._emit_error(api_error, recoverable=True)


def read_past_tee(stream: tts.SynthesizeStream) -> None:
    """Read ``stream``, which has just been made, without the tee that wakes its metrics a frame."""
    outlet = Outlet()
    stream._event_ch = stream._event_aiter = outlet
    stream._monitor_aiter = outlet.measured


def hear_past_tee(stream: stt.RecognizeStream) -> None:
    """The same for a recogniser's stream and its events. Its metrics have begun already."""
    outlet = EventOutlet()
    stream._event_ch = stream._event_aiter = outlet
    stream._metrics_task.cancel()
    stream._metrics_task = asyncio.create_task(stream._metrics_monitor_task(outlet.measured))


class SpeechStream(tts.SynthesizeStream):
    """A SynthesizeStream that hands its text on at once and sends frames as they are.

    Subclasses take text in ``on_text``, ``on_flush`` and ``on_end`` and do their work in
    ``serve``; AudioEmitter's re-framing is left out, the providers' frames are framed already.
    """

    _tts_attempt_span_name: ClassVar[str | None] = None

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        read_past_tee(self)

    def on_text(self, text: str) -> None:
        raise NotImplementedError

    def on_flush(self) -> None:
        raise NotImplementedError

    def on_end(self) -> None:
        raise NotImplementedError

    async def serve(self) -> None:
        """Produce the audio of the text; raises APIError."""
        raise NotImplementedError

    def push_text(self, token: str) -> None:
        if token and not self._input_ch.closed:
            super().push_text(token)
            self.on_text(token)

    def flush(self) -> None:
        if not self._input_ch.closed:
            super().flush()
            self.on_flush()

    def end_input(self) -> None:
        if not self._input_ch.closed:
            super().end_input()
            self.on_end()

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        raise AssertionError("the engine runs in _main_task")

    async def _main_task(self) -> None:
        span = self._tts_request_span = trace.get_current_span()
        span.set_attributes(
            {trace_types.ATTR_TTS_STREAMING: True, trace_types.ATTR_TTS_LABEL: self._tts.label}
        )
        try:
            await self.serve()
            span.set_attribute(trace_types.ATTR_TTS_INPUT_TEXT, self._pushed_text)
        except Exception as error:
            # the boundary to the session: it hears of every error before the stream raises it
            self._emit_error(error, recoverable=True)
            raise

    def report(self, error: APIError) -> None:
        """Tell the session of an error that it did not have to suffer."""
        self._emit_error(error, recoverable=True)

    def mark_served(self, candidate: Candidate, plan: Plan) -> None:
        """Write on the request's span who served it, as LiveKit's own adapter does."""
        _mark_served(self._tts_request_span, candidate, plan)

    def mark_started(self, at: float) -> None:
        """Time to first byte counts from ``at`` (``time.perf_counter``), the first text sent."""
        if not self._started_time:
            self._started_time = at

    def send(self, frame: rtc.AudioFrame, segment: str, *, final: bool = False) -> None:
        self._event_ch.send_nowait(SynthesizedAudio(frame, segment, final, segment))


class TranscriptStream(stt.RecognizeStream):
    """A RecognizeStream that hands its audio on at once, without a channel in between."""

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        hear_past_tee(self)

    def on_frame(self, frame: rtc.AudioFrame) -> None:
        raise NotImplementedError

    def on_flush(self) -> None:
        raise NotImplementedError

    def on_end(self) -> None:
        raise NotImplementedError

    async def serve(self) -> None:
        """Produce the events of the audio; raises APIError."""
        raise NotImplementedError

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        self._check_input_not_ended()
        self._check_not_closed()
        if self._pushed_sr and self._pushed_sr != frame.sample_rate:
            raise ValueError("the sample rate of the input frames must be consistent")
        self._pushed_sr = frame.sample_rate
        if self._needed_sr and self._needed_sr != frame.sample_rate:
            if self._resampler is None:
                self._resampler = rtc.AudioResampler(
                    frame.sample_rate, self._needed_sr, num_channels=frame.num_channels
                )
            for resampled in self._resampler.push(frame):
                self.on_frame(resampled)
        else:
            self.on_frame(frame)

    def flush(self) -> None:
        self._check_input_not_ended()
        self._check_not_closed()
        if self._resampler is not None:
            for resampled in self._resampler.flush():
                self.on_frame(resampled)
        self.on_flush()

    def end_input(self) -> None:
        self.flush()
        self._input_ch.close()
        self.on_end()

    async def _run(self) -> None:
        raise AssertionError("the engine runs in _main_task")

    async def _main_task(self) -> None:
        try:
            await self.serve()
        except Exception as error:
            # the boundary to the session: it hears of every error before the stream raises it
            self._emit_error(error, recoverable=True)
            raise

    def send(self, event: SpeechEvent) -> None:
        self._event_ch.send_nowait(event)


def _mark_served(span: trace.Span | None, candidate: Candidate, plan: Plan) -> None:
    if span is not None and span.is_recording():
        order = plan.candidates
        span.set_attributes(
            {
                trace_types.ATTR_FALLBACK_LABEL: str(candidate),
                trace_types.ATTR_FALLBACK_INDEX: order.index(candidate)
                if candidate in order
                else 0,
                trace_types.ATTR_GEN_AI_RESPONSE_MODEL: candidate.ref.model,
            }
        )


def has_failed(stream: stt.RecognizeStream) -> bool:
    """Whether ``stream`` has ended with an error, which comes after the events still queued."""
    task = stream._task
    return task.done() and not task.cancelled() and task.exception() is not None


def watch_turn_ends(stream: Any, ended: Callable[[], None]) -> bool:
    """Have ``ended`` called before each final that the provider has sent; False where nobody knows.

    Cartesia's plugin for turns calls final what it has of a turn when its connection is gone.
    """
    process = getattr(stream, "_process_stream_event", None)
    if process is None or not hasattr(stream, "_current_transcript"):
        return False

    def watched(message: Any) -> None:
        if message.get("type") == "turn.end" and stream._speaking:
            ended()
        process(message)

    stream._process_stream_event = watched
    return True


def unread_ns(stream: stt.RecognizeStream) -> int:
    """The audio pushed to ``stream`` that its plugin has not taken, so its provider has not."""
    return sum(
        audio_ns(one.samples_per_channel, one.sample_rate)
        for one in stream._input_ch._queue
        if isinstance(one, rtc.AudioFrame)
    )


def unread(stream: stt.RecognizeStream) -> Iterator[int | None]:
    """The same in samples, frame by frame; a flush is None."""
    for one in stream._input_ch._queue:
        yield one.samples_per_channel if isinstance(one, rtc.AudioFrame) else None


def is_waiting(stream: stt.RecognizeStream) -> bool:
    """Whether the plugin has dealt with all that was pushed to ``stream``, and waits for more."""
    channel = stream._input_ch
    waiting = channel._gets
    return bool(waiting) and not waiting[-1].done() and not channel._queue


def told_tokens(request: tts.ChunkedStream) -> tuple[int, int]:
    """The tokens in and out that the provider has told of a voice's request, 0 while it has not."""
    return request._input_tokens, request._output_tokens


async def close_client(plugin: Any) -> None:
    """Close the HTTP client that a recogniser of OpenAI's kind leaves open, sockets and all."""
    client = getattr(plugin, "_client", None)
    if isinstance(plugin, stt.STT) and (close := getattr(client, "close", None)) is not None:
        closing = close()
        if inspect.isawaitable(closing):
            await closing


def text_sent_at(stream: tts.SynthesizeStream) -> float:
    """When ``stream`` sent its first text on (``time.perf_counter``), 0 if it has not."""
    return stream._started_time


_RELEASING = frozenset({"cartesia", "elevenlabs", "fishaudio", "inworld"})
"""Plugins to whose tokenizer a flush is only the end of a sentence. To others (deepgram, google,
xai) it ends the segment, after which a stream takes no more text."""


def release_text(plugin: tts.TTS[Any], stream: tts.SynthesizeStream) -> None:
    """Have ``stream`` say the text it has without waiting for more, if its plugin can.

    A tokenizer holds a sentence back until the next one begins. ``flush`` would release it, and
    refuse what is pushed afterwards.
    """
    names = type(plugin).__module__.split(".")
    known = isinstance(plugin, tts.StreamAdapter) or (
        names[:2] == ["livekit", "plugins"] and names[2] in _RELEASING
    )
    if known and not stream._input_ch.closed:
        stream._input_ch.send_nowait(stream._FlushSentinel())


def forward_keyterms(child: stt.STT[Any], keyterms: list[str]) -> None:
    if child.capabilities.keyterms:
        child._update_session_keyterms(keyterms)


def forward_conversation_item(child: stt.STT[Any], event: Any) -> None:
    if child.capabilities.chat_context:
        child._push_conversation_item(event)


def is_expressive(voice: tts.TTS[Any]) -> bool:
    """Whether the session has asked ``voice`` for expressive speech."""
    return voice._expressive


def set_expressive(child: tts.TTS[Any], enabled: bool) -> None:
    child._set_expressive(enabled)


def markup_key(voice: tts.TTS[Any]) -> str:
    """The markup dialect ``voice`` speaks, empty for none."""
    return voice.markup._provider_key()


def lowered_markup(key: str, text: str) -> str:
    """``text`` with LiveKit's expressive markup brought into the dialect ``key``."""
    return convert_markup(key, normalize_markup(key, text))


@contextlib.contextmanager
def registering_later() -> Iterator[Callable[[], None]]:
    """Let a thread import plugins, which register themselves and may on the main thread only.

    Call what it gives on the main thread, once the imports are done: it registers them.
    """
    waiting: list[Plugin] = []
    register = Plugin.register_plugin

    def put_off(plugin: Plugin) -> None:
        if threading.current_thread() is threading.main_thread():
            register(plugin)
        else:
            waiting.append(plugin)

    def make_up() -> None:
        while waiting:
            register(waiting.pop(0))

    Plugin.register_plugin = staticmethod(put_off)  # type: ignore[method-assign]
    try:
        yield make_up
    finally:
        Plugin.register_plugin = register  # type: ignore[method-assign]
