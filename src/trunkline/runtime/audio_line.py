"""A recogniser's side of the loop: audio in, transcripts out, and what must be said again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import Protocol

from livekit import rtc
from livekit.agents import stt
from livekit.agents.types import NotGivenOr
from livekit.agents.utils import is_given
from livekit.agents.vad import VAD

from ..core.models import Candidate, Deadlines, Modality, Plan, Quality, Terms, Usage
from ..core.speech import speech_seconds
from ..errors import (
    ConnectFailed,
    DeadlineExceeded,
    EmptyOutput,
    ProviderError,
    ProviderFault,
    RequestRejected,
    StreamCut,
    TrunklineError,
)
from .audio import SILENCE_PEAK, peak
from .audio_buffer import AudioBuffer
from .doubt import Doubt, is_doubtful
from .line import Line, Moved, ProviderStream, language_of
from .livekit_recogniser import Attended, Recogniser, end_of
from .livekit_segments import open_recogniser
from .meter import NOTHING, Metered, audio_ns
from .stall import WORD_NS, Debt
from .witness import Witness

_BUFFER_NS = 60_000_000_000
"""How much audio since the last final is kept to be said again: longer than any utterance."""
_LEAD_NS = 300_000_000
"""How much silence before an utterance is said again with it."""
_RESIDUE_NS = 250_000_000
"""How late a provider may say that the last word of a final ended."""
_PAUSE_NS = 1_000_000_000
"""Quiet after which an utterance is over, whatever became of its end."""
_SETTLED_SECONDS = 5.0
"""A provider that hangs up on a silent line after this long is not ill."""
_FAREWELL_SECONDS = 0.25
"""What a recogniser that owes nothing may still say after the end of the input."""
_HANGING_UP = (ConnectFailed, ProviderFault, StreamCut, RequestRejected)
"""What the end of a connection looks like: close codes are statuses to some plugins."""

_SLICE_NS = 30_000_000_000
"""Audio that is reserved at once, again and again while the stream lasts."""

_Event = stt.SpeechEventType
_WORDS = frozenset(
    {_Event.INTERIM_TRANSCRIPT, _Event.PREFLIGHT_TRANSCRIPT, _Event.FINAL_TRANSCRIPT}
)


class TranscriptSink(Protocol):
    """Where the events go: the stream that the agent reads."""

    @property
    def start_time_offset(self) -> float: ...
    def send(self, event: stt.SpeechEvent) -> None: ...
    def understood(self, audio: AudioBuffer) -> None:
        """``audio`` begins with what has just become final."""


class AudioLine(Line[stt.SpeechEvent]):
    """The input log is the audio; a final transcript commits the audio up to its end.

    Without an end time a final commits up to the pause that made it final. A recogniser that stays
    silent while somebody speaks has stalled: the live path only listens for loudness, and when loud
    audio has gone unanswered for a deadline a VAD looks at the buffer whether that was speech.
    """

    modality = Modality.STT

    def __init__(
        self,
        sink: TranscriptSink,
        serves: Callable[[Candidate], None],
        language: NotGivenOr[str],
        vad: VAD | None,
        deadlines: Deadlines,
    ) -> None:
        self._sink = sink
        self._serves = serves
        self._language = language
        self._vad = vad
        self._deadlines = deadlines
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._buffer = AudioBuffer(_BUFFER_NS, _LEAD_NS)
        self._quiet_ns = 0
        self._opened_ns = 0
        self._answered_ns = 0
        self._witness = Witness(self._buffer, vad)
        self._doubt: Doubt | None = None
        self._opened_at: float | None = None
        self._recogniser: Recogniser | None = None
        self._opened: Recogniser | None = None
        self._debt = Debt(deadlines, interim=False, turn_seconds=None)
        self._timer: asyncio.TimerHandle | None = None
        self._fires_at = inf
        self._farewell: asyncio.TimerHandle | None = None
        self._suspicion: asyncio.Task[None] | None = None
        self._arrived = asyncio.Event()
        self._marks = self._speaking = self._resumed = self._moving = False
        self._flush_is_final = self._has_words = False
        self._ended = self._is_told = self._done = self._dismissed = self._is_whole = False

    async def has_audio(self) -> bool:
        """Wait for audio that needs a recogniser; False when the stream has ended without more."""
        await self._arrived.wait()
        return self._buffer.pushed_ns > 0 and not self._done

    def remember(self, seconds: float) -> None:
        self._buffer.limit_ns = max(_BUFFER_NS, int(seconds * 1e9) + _LEAD_NS)

    def push(self, frame: rtc.AudioFrame) -> None:
        length = audio_ns(frame.samples_per_channel, frame.sample_rate)
        height = peak(frame)
        is_loud = height > SILENCE_PEAK
        self._buffer.push(frame, length, height)
        if self._recogniser is None:
            if is_loud or self._opened_at is None:
                self._arrived.set()
            return
        self._recogniser.push_frame(frame)
        if is_loud:
            paused_ns, self._quiet_ns = self._quiet_ns, 0
            if self._debt.loud(length, self._clock(), paused_ns):
                self._arm()
            return
        self._quiet_ns += length
        if self._buffer.loud_ns:
            if self._debt.quiet(self._clock()):
                self._arm()
        elif self._resumed or self._moving:
            self._pause()

    def flush(self) -> None:
        self._buffer.flush()
        if self._recogniser is not None:
            self._recogniser.flush()
            self._ask()

    def end(self) -> None:
        self._ended = True
        self._arrived.set()
        if self._recogniser is not None:
            self._end_input(self._recogniser)
        elif self._opened_at is not None:
            self._done = True

    def move(self) -> None:
        """Leave the current candidate at the next boundary between utterances: now, if silent."""
        self._moving = True
        self._pause()

    def close(self) -> None:
        """Stop everything that runs beside the engine."""
        for timer in (self._timer, self._farewell):
            if timer is not None:
                timer.cancel()
        if self._suspicion is not None:
            self._suspicion.cancel()

    # What the engine asks.

    def open(self, candidate: Candidate) -> ProviderStream[stt.SpeechEvent]:
        able = candidate.live.capabilities
        self._buffer.settle()
        self._opened_at = self._clock()
        self._opened_ns = self._answered_ns = self._buffer.begins_ns
        self._moving = self._dismissed = self._is_told = self._is_whole = self._has_words = False
        if self._speaking and not self._owes:
            self._end_speech()
        self._resumed = self._speaking
        self._debt = Debt.of(candidate, self._deadlines)
        begins = max(0.0, self._sink.start_time_offset + self._opened_ns / 1e9)
        recogniser = self._recogniser = self._opened = open_recogniser(
            candidate, self._language, begins, self._vad, self._deadlines, self._interrupt
        )
        self._flush_is_final = candidate.flush_is_final
        self._serves(candidate)
        recogniser.replay(self._buffer.entries())
        self._count_again()
        if able.manual_flush and None in self._buffer.entries():
            self._ask()
        if self._ended:
            self._end_input(recogniser)
        return Attended(recogniser, self._conclude)

    def deliver(self, out: stt.SpeechEvent) -> bool:
        says = bool(out.alternatives and out.alternatives[0].text)
        if out.type is _Event.START_OF_SPEECH:
            if self._speaking:
                return True  # the utterance began on the candidate before
            self._marks = self._speaking = True
        elif out.type is _Event.END_OF_SPEECH:
            if not self._speaking:
                return False
            self._speaking = self._resumed = False
        elif out.type is _Event.FINAL_TRANSCRIPT:
            if not says and self.may_ask() and is_doubtful(out):
                self._doubt = self._doubt or Doubt(out)
                self._witness.accuse()
                raise EmptyOutput("the recogniser found no word in the speech", doubted=True)
            self._judge(out)
            if says:
                self._sink.understood(self._buffer)
            self._commit(out)
        elif says and out.type in _WORDS:
            self._has_words = True
            self._answered_ns = self._buffer.pushed_ns
            self._go_on()
            self._debt.answered(self._clock())
        if says or out.type is not _Event.FINAL_TRANSCRIPT:
            self._sink.send(out)
        if self._ended:
            self._expect_farewell()
        elif self._moving:
            self._pause()
        return says or out.type is _Event.START_OF_SPEECH

    def owed_since(self) -> float | None:
        """Nothing by the clock alone: what is owed depends on whether it was speech."""
        return None

    def excuses(self, error: ProviderError) -> bool:
        if self._owes and not self._dismissed:
            return False
        if self._ended:
            # A recogniser that has nothing to say to silence may end in any way it likes.
            self._is_whole = self._dismissed  # it has had all there was, and a while for it
            self._done = self._dismissed or isinstance(error, _HANGING_UP)
            return self._done
        if not isinstance(error, _HANGING_UP) or self._speaking or self._opened_at is None:
            return False
        if self._clock() - self._opened_at < _SETTLED_SECONDS:
            return False
        # Enough of a silent line: the next sound opens it again.
        self._recogniser = None
        self._arrived.clear()
        return True

    def finish(self) -> None:
        self._done = self._is_whole = True

    def may_continue(self, plan: Plan) -> bool:
        return True

    def doubted(self, prove: Callable[[], object]) -> None:
        if self._doubt is not None:
            self._doubt.accused.append(prove)

    def stands(self) -> bool:
        doubt, self._doubt = self._doubt, None
        if doubt is None:
            return False
        self._commit(doubt.final)
        if self._speaking:
            self._end_speech()
        self._done = self._ended and not self._owes
        return True

    def terms(self, candidate: Candidate) -> Terms:
        language = self._language if is_given(self._language) else language_of(candidate)
        streams = candidate.live.capabilities.streaming
        return Terms(mode="" if streams else "batch", language=language)

    def estimate(self, candidate: Candidate) -> Usage:
        return Usage(audio_in_ns=self._buffer.held_ns + _SLICE_NS)

    def metered(self) -> Metered:
        opened = self._opened
        if opened is None:
            return NOTHING
        # a plugin that is stopped keeps the last part of a chunk to itself
        return Metered(opened.used, Quality.EXACT if self._is_whole else Quality.ESTIMATED)

    # Utterances.

    @property
    def _owes(self) -> bool:
        """Whether something loud is not yet final."""
        return self._buffer.loud_ns >= WORD_NS

    def _commit(self, final: stt.SpeechEvent) -> None:
        """Forget the audio that a final covers."""
        end = end_of(final.alternatives[0]) if final.alternatives else 0.0
        end_ns = round((end - self._sink.start_time_offset) * 1e9)
        if self._opened_ns < end_ns <= self._buffer.pushed_ns + _RESIDUE_NS:
            self._buffer.forget(end_ns)
            self._buffer.hush_tail(_RESIDUE_NS)
        elif self._ended:
            # what a final without times covers is a guess: everything, unless more words come, so
            # that after it nothing more is waited for than the deadline
            text = final.alternatives[0].text if final.alternatives else ""
            self._buffer.cover_to_pause(speech_seconds(text))
            self._is_told = True
        else:
            self._buffer.forget_to_pause()
        self._has_words = False
        self._answered_ns = max(self._answered_ns, self._buffer.begins_ns)
        self._debt.content = True
        self._count_again()

    def _judge(self, final: stt.SpeechEvent) -> None:
        """Settle a doubt: words prove it, and without any the first candidate was right."""
        doubt, self._doubt = self._doubt, None
        if doubt is not None and not doubt.is_proven_by(final):
            self._moving = True  # back to the first one, once this utterance is over

    def _go_on(self) -> None:
        """Words come: the last final was not for everything."""
        if self._is_told:
            self._is_told = False
            self._buffer.uncover()
            self._count_again()

    def _count_again(self) -> None:
        """What is owed, by what the buffer holds now."""
        self._debt.paid()
        now = self._clock()
        if self._owes:
            self._debt.loud(self._buffer.loud_ns, now)
            if self._quiet_ns:
                self._debt.quiet(now)
            self._arm()

    def _pause(self) -> None:
        """Do what waits for the end of an utterance, if this is one."""
        if self._ended or (self._speaking and self._quiet_ns < _PAUSE_NS):
            return
        if self._owes and self._marks:
            return
        if self._resumed:
            self._end_speech()  # what the candidate before began, this one has no word for
        if self._moving:
            self._interrupt(Moved("the plan has changed"))

    def _end_speech(self) -> None:
        self._speaking = self._resumed = False
        self._sink.send(stt.SpeechEvent(_Event.END_OF_SPEECH))

    def _interrupt(self, reason: TrunklineError) -> None:
        if self.watch is not None:
            self.watch.interrupt(reason)

    # Stalls.

    def _ask(self) -> None:
        """Everything heard is to become final now."""
        if self._owes:
            self._debt.ask(self._clock())
            self._arm()

    @property
    def _due(self) -> float | None:
        return self._debt.due(self._opened.behind if self._opened is not None else 0.0)

    def _arm(self) -> None:
        due = self._due
        if due is None or self._fires_at <= due:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._fires_at = self._loop.call_at(due, self._fire), due

    def _fire(self) -> None:
        self._timer, self._fires_at = None, inf
        due = self._due
        if due is None or self._is_told or self.watch is None:
            return
        if due > self._clock():
            self._arm()
        elif self._suspicion is None or self._suspicion.done():
            self._suspicion = self._loop.create_task(self._investigate())

    async def _investigate(self) -> None:
        """Interrupt the attempt if the unanswered audio holds speech; else it owes nothing."""
        watch, debt = self.watch, self._debt
        since = self._buffer.begins_ns if debt.wants_final else self._answered_ns
        until = self._buffer.pushed_ns
        was_speech = await self._witness.heard_speech(since)
        if watch is None or watch is not self.watch:
            self._arm()  # another attempt has begun, and its deadline may have come meanwhile
            return
        if (due := self._due) is not None and due <= self._clock():
            if was_speech:
                watch.interrupt(DeadlineExceeded(debt.phase, debt.seconds))
                return
            self._buffer.hush(since, until)
            self._count_again()
        self._arm()
        if self._ended:
            self._expect_farewell()

    # The end of the input.

    def _end_input(self, recogniser: Recogniser) -> None:
        """Ask for everything heard. Where a flush will do, the input stays open while it is owed:
        a plugin whose input has ended may take the loss of its connection for a farewell.
        """
        if self._owes and self._flush_is_final:
            recogniser.flush()
        else:
            recogniser.end_input()
        self._expect_farewell()

    def _expect_farewell(self) -> None:
        """Give the recogniser a deadline for what it owes, a moment when it owes nothing."""
        if self._farewell is not None:
            self._farewell.cancel()
            self._farewell = None
        if self._owes and not self._is_told:
            self._ask()
            return
        is_short = self._debt.content and not self._owes
        seconds = _FAREWELL_SECONDS if is_short else self._debt.seconds
        self._farewell = self._loop.call_later(seconds, self._dismiss)

    def _dismiss(self) -> None:
        """End a stream that does not end by itself; one that never listened has failed."""
        self._farewell = None
        if not self._owes or self._is_told:
            self._dismissed = self._opened is not None and self._opened.listens
            self._interrupt(DeadlineExceeded(self._debt.phase, self._debt.seconds))

    async def _conclude(self) -> None:
        """Judge the end of a stream that its provider ended. Raises ProviderError."""
        if not self._ended:
            raise StreamCut("the recogniser ended its stream while audio was still coming")
        owes = self._owes and not self._is_told
        if owes and (self._has_words or await self._witness.heard_speech(self._buffer.begins_ns)):
            if self._debt.content:
                raise StreamCut("the recogniser ended its stream before everything was final")
            raise EmptyOutput("the recogniser ended its stream without a word")
