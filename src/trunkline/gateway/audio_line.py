"""A recogniser's side of the loop when all the audio is there from the beginning.

The deadlines of a call ask when a caller hears nothing; here a recogniser owes what is left of the
recording, for which it has its deadline and a part of the time that the recording lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from livekit import rtc
from livekit.agents import NOT_GIVEN, stt, utils
from livekit.agents.vad import VAD, VADCapabilities, VADEvent, VADEventType, VADStream

from ..core.models import Candidate, Deadlines, Modality, Plan, Quality, Terms, Usage
from ..errors import DeadlineExceeded, EmptyOutput, ProviderError, StreamCut
from ..runtime.gate_rules import Audience
from ..runtime.line import Line, ProviderStream, language_of
from ..runtime.livekit_recogniser import Attended, PluginRecogniser, Recogniser
from ..runtime.livekit_segments import SegmentRecogniser
from ..runtime.meter import NOTHING, Metered
from ..runtime.stall import WORD_NS
from ..runtime.witness import Witness
from .audio_recording import Recording
from .flushing import Flushing

_SLOWEST = 4.0
"""How many times faster than it was said a recording is recognised, at the least."""

_RESIDUE_NS = 250_000_000
"""How late a provider may say that its last word ended, and how early."""

_FAREWELL_SECONDS = 0.25
"""What a recogniser that owes nothing may still say."""

_Event = stt.SpeechEventType
_WORDS = frozenset({_Event.INTERIM_TRANSCRIPT, _Event.PREFLIGHT_TRANSCRIPT})


class TranscriptSink(Protocol):
    """Where the finals go. ``whole`` says that all of them can still be forgotten."""

    whole: bool

    def serves(self, candidate: Candidate) -> None: ...
    def put(self, said: stt.SpeechData) -> None: ...
    def forget(self) -> None:
        """Another recogniser begins at the beginning."""

    async def flush(self) -> None:
        """Send what is ready; waits while the client takes none."""


class RecordingLine(Line[stt.SpeechEvent]):
    """The input log is the recording; a final commits it up to its end.

    The next candidate goes on from there. After a final that has no times it begins anew, as long
    as nothing of it has left.
    """

    modality = Modality.STT
    audience = Audience.NOBODY

    def __init__(self, recording: Recording, sink: TranscriptSink, plan: Plan, vad: VAD) -> None:
        self._recording = recording
        self._sink = sink
        self._deadlines = plan.deadlines
        self._witness = Witness(recording, vad)
        self._loop = asyncio.get_running_loop()
        self._recogniser: Recogniser | None = None
        self._farewell: asyncio.TimerHandle | None = None
        self._committed_ns = self._opened_ns = 0
        self._owed = 0.0
        self._patience = 0.0
        self._said = self._heard = self._untimed = self._is_whole = self._is_wordless = False
        self._accused: list[Callable[[], object]] = []
        """Each blames a recogniser whose answer without words was wrong, once another has some."""

    def open(self, candidate: Candidate) -> ProviderStream[stt.SpeechEvent]:
        if self._untimed:
            self._sink.forget()
            self._committed_ns, self._said, self._untimed = 0, False, False
        self._opened_ns, self._heard, self._is_whole = self._committed_ns, False, False
        self._is_wordless = False
        speed = min(candidate.replay_speed or _SLOWEST, _SLOWEST)
        self._patience = (self._recording.pushed_ns - self._opened_ns) / 1e9 / speed
        self._owed = self._loop.time()
        self._sink.serves(candidate)
        recogniser = self._recogniser = self._made(candidate)
        recogniser.replay(self._recording.pieces(self._opened_ns))
        recogniser.end_input()
        return Flushing(Attended(recogniser, self._conclude), self._sink.flush)

    def _made(self, candidate: Candidate) -> Recogniser:
        begins = self._opened_ns / 1e9
        if not candidate.live.capabilities.streaming:
            timeout = self._deadlines.first_content + self._patience
            whole = _OneUtterance(self._recording.pushed_ns - self._opened_ns)
            return SegmentRecogniser(candidate.live, NOT_GIVEN, begins, vad=whole, timeout=timeout)
        return PluginRecogniser(
            candidate.live,
            NOT_GIVEN,
            begins,
            connect_timeout=self._deadlines.connect,
            replay_speed=candidate.replay_speed,
            failed=self._interrupt,
        )

    def deliver(self, out: stt.SpeechEvent) -> bool:
        said = out.alternatives[0] if out.alternatives else None
        is_final = out.type is _Event.FINAL_TRANSCRIPT
        if said is None or not said.text.strip():
            self._is_wordless = self._is_wordless or is_final
            return False
        if is_final:
            self._commit(said)
        elif out.type not in _WORDS:
            return False
        self._heard = True
        self._owed = self._loop.time()
        return True

    def _commit(self, said: stt.SpeechData) -> None:
        end_ns = round(said.end_time * 1e9)
        self._said = True
        while self._accused:
            self._accused.pop()()
        if self._committed_ns < end_ns <= self._recording.pushed_ns + _RESIDUE_NS:
            self._committed_ns = end_ns
        else:
            self._untimed = True
        self._sink.put(said)
        if not self._owes:
            self._dismiss_soon()

    @property
    def _owes(self) -> bool:
        """Whether there may be words after the last final."""
        residue = _RESIDUE_NS if self._said else 0
        return self._untimed or self._recording.loud_ns(self._committed_ns + residue) >= WORD_NS

    def _dismiss_soon(self) -> None:
        """End a stream that has said everything and does not end by itself."""
        if self._farewell is not None:
            self._farewell.cancel()
        gone = DeadlineExceeded("idle", _FAREWELL_SECONDS)
        self._farewell = self._loop.call_later(_FAREWELL_SECONDS, self._interrupt, gone)

    def _interrupt(self, reason: ProviderError) -> None:
        if self.watch is not None:
            self.watch.interrupt(reason)

    def owed_since(self) -> float:
        return self._owed + self._patience

    def excuses(self, error: ProviderError) -> bool:
        """Silence has no words; and who has said all the words may end in any way it likes."""
        self._is_whole = not self._owes and (
            self._said or isinstance(error, DeadlineExceeded | StreamCut)
        )
        return self._is_whole

    def finish(self) -> None:
        """A clean end was judged when it came."""
        self._is_whole = True

    async def _conclude(self) -> None:
        """Judge the end of a stream that its provider ended. Raises ProviderError."""
        if self._untimed or not self._owes:
            return
        if await self._witness.heard_speech(self._committed_ns):
            if self._heard:
                raise StreamCut("the recogniser ended before what it heard was final")
            if self._is_wordless and not self.may_ask():
                return  # a VAD takes much for speech: without another to ask, it is believed
            told = "the recogniser found no word in the recording"
            raise EmptyOutput(told, doubted=self._is_wordless)

    def doubted(self, prove: Callable[[], object]) -> None:
        self._accused.append(prove)

    def stands(self) -> bool:
        return bool(self._accused)

    def may_continue(self, plan: Plan) -> bool:
        return self._sink.whole or not self._untimed

    def close(self) -> None:
        """Stop what runs beside the engine."""
        if self._farewell is not None:
            self._farewell.cancel()

    def estimate(self, candidate: Candidate) -> Usage:
        return Usage(audio_in_ns=self._recording.pushed_ns - self._committed_ns)

    def terms(self, candidate: Candidate) -> Terms:
        mode = "" if candidate.live.capabilities.streaming else "batch"
        return Terms(mode=mode, language=language_of(candidate))

    def metered(self) -> Metered:
        heard = self._recogniser
        if heard is None:
            return NOTHING
        # a plugin that is stopped keeps the last part of a chunk to itself
        return Metered(heard.used, Quality.EXACT if self._is_whole else Quality.ESTIMATED)


def patient(deadlines: Deadlines, recording: Recording) -> Deadlines:
    """``deadlines`` for a recording: the time for all of it grows with its length."""
    return replace(deadlines, total=deadlines.total + recording.seconds, adaptive=False)


class _OneUtterance(VAD):
    """Takes the first ``length_ns`` for one utterance: a recording is recognised in one piece."""

    def __init__(self, length_ns: int) -> None:
        super().__init__(capabilities=VADCapabilities(update_interval=0.1))
        self.length_ns = length_ns

    def stream(self) -> VADStream:
        return _Utterance(self)


class _Utterance(VADStream):
    def __init__(self, vad: _OneUtterance) -> None:
        super().__init__(vad)
        self._length = vad.length_ns / 1e9

    async def _main_task(self) -> None:
        frames: list[rtc.AudioFrame] = []
        length = 0.0
        async for frame in self._input_ch:
            if isinstance(frame, rtc.AudioFrame) and length < self._length - 1e-6:
                frames.append(frame)
                length += frame.duration
        if frames:
            self._event_ch.send_nowait(
                VADEvent(
                    type=VADEventType.END_OF_SPEECH,
                    samples_index=round(length * frames[0].sample_rate),
                    timestamp=length,
                    speech_duration=length,
                    silence_duration=0.0,
                    frames=[utils.merge_frames(frames)],
                    speaking=False,
                )
            )
