"""A voice's side of the loop: text in, audio out, and where in the text a failure leaves it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from livekit import rtc
from livekit.agents import tts
from livekit.agents.types import TimedString

from ..clock import new_id
from ..core.models import AfterOutput, Candidate, Modality, Plan, Quality, Usage
from ..core.speech import Alignment, Pace, Script, holds_sentence, is_speakable, resume_at
from ..errors import DeadlineExceeded, EmptyOutput, ProtocolViolation, StreamCut
from .audio import Resampler, is_silent, silence
from .learnt import Learnt
from .line import Line, ProviderStream
from .livekit_compat import (
    set_expressive,
    set_timed_transcript,
    shifted,
    timed_transcript,
)
from .livekit_voice import PluginVoice
from .meter import NOTHING, Metered, audio_ns

_AHEAD_SECONDS = 1.0
"""Audio in hand that makes up for what the listener had to wait before."""

_SLOWEST_NS = 100_000_000
"""A character at the pace of the slowest voice."""

_paces = Learnt(Pace)


class SpeechSink(Protocol):
    """Where the audio goes: the stream that the agent reads."""

    def send(self, frame: rtc.AudioFrame, segment: str, *, final: bool = False) -> None: ...
    def mark_started(self, at: float) -> None: ...


class VoiceOwner(Protocol):
    """Whose utterance it is; told which candidate serves it."""

    @property
    def sample_rate(self) -> int: ...
    def serves(self, candidate: Candidate) -> None: ...


class SpeechLine(Line[tts.SynthesizedAudio]):
    """The input log is the text; the commit is how much of it has been spoken.

    The commit is known by the provider's word timings where it gives them, else by this voice's
    measured pace; the next candidate goes on from the start of the word in which it lies.
    """

    modality = Modality.TTS

    def __init__(self, sink: SpeechSink, owner: VoiceOwner, *, expressive: bool) -> None:
        self._sink = sink
        self._owner = owner
        self._expressive = expressive
        self._script = Script()
        self._ended = self._is_cut = False
        self._arrived = asyncio.Event()
        self._voice: PluginVoice | None = None
        self._resampler = Resampler(owner.sample_rate)
        self._segment = new_id()
        self._pace = Pace()
        self._opened_at = 0
        self._alignment = Alignment(self._script, 0)
        self._owed: float | None = None
        self._plays_until = 0.0
        self._starved = 0.0
        self._before_ns = 0
        self._attempt_ns = 0
        self._is_whole = False
        self._is_garbled = False

    @property
    def _text(self) -> str:
        return self._script.text

    async def has_text(self) -> bool:
        """Wait for something to say; False when the utterance ends without it."""
        await self._arrived.wait()
        return is_speakable(self._text)

    def push(self, text: str) -> None:
        self._script.push(text)
        self._is_cut = False
        if self._voice is not None:
            self._voice.push_text(text)
            self._look()
        elif is_speakable(text):
            self._arrived.set()

    def release(self) -> None:
        """The text so far is whole sentences: it can be said without waiting for more."""
        self._is_cut = True
        if self._voice is not None:
            self._voice.release()

    def flush(self) -> None:
        if self._voice is not None:
            self._voice.flush()

    def end(self) -> None:
        self._ended = True
        self._arrived.set()
        if self._voice is not None:
            self._voice.end_input()
            self._look()

    def open(self, candidate: Candidate) -> ProviderStream[tts.SynthesizedAudio]:
        self._opened_at = self._commit()
        self._before_ns += self._attempt_ns
        self._attempt_ns, self._owed = 0, None
        self._plays_until = self._starved = 0.0
        self._is_garbled = False
        self._alignment = Alignment(self._script, self._opened_at)
        self._pace = _paces.about(candidate)
        self._owner.serves(candidate)
        set_expressive(candidate.live, self._expressive)
        voice = PluginVoice(candidate.live, expressive=self._expressive)
        voice.push_text(self._text[self._opened_at :])
        if self._ended:
            voice.end_input()
        elif self._is_cut:
            voice.release()
        self._voice = voice
        self._look()
        return voice

    def _commit(self) -> int:
        """Where in the log the words not yet spoken begin."""
        if not self._attempt_ns or self._is_garbled:
            return self._opened_at
        return resume_at(self._text, self._spoken(surely=True))

    def _spoken(self, *, surely: bool = False) -> float:
        """Characters of the log heard so far; ``surely``, at least."""
        seconds = self._attempt_ns / 1e9
        if self._alignment:
            return self._alignment.spoken(seconds, self._pace, surely=surely)
        letters = self._pace.spoken(seconds, surely=surely)
        return self._script.reached(self._opened_at, letters)

    def _look(self) -> None:
        """A voice owes audio once it has a whole sentence it has not spoken, or all there is."""
        if self._owed is None:
            waiting = self._text[int(self._spoken()) :]
            if is_speakable(waiting) and (self._ended or holds_sentence(waiting)):
                self._owed = asyncio.get_running_loop().time()
                if self.watch is not None:
                    self.watch.poke()

    def deliver(self, out: tts.SynthesizedAudio) -> bool:
        frame, voice = out.frame, self._voice
        assert voice is not None
        timed = timed_transcript(frame)
        if timed:
            self._check_piece()
        length_ns = audio_ns(frame.samples_per_channel, frame.sample_rate)
        self._play(length_ns / 1e9)
        self._sink.mark_started(voice.text_sent_at())
        self._attempt_ns += length_ns
        words = self._align(timed)
        for sent in self._resampler.push(frame):
            if words:
                set_timed_transcript(sent, words)
                words = ()
            self._sink.send(sent, self._segment)
        if is_silent(frame):
            return False
        self._owed = None
        self._look()
        return True

    def _check_piece(self) -> None:
        """A voice that speaks sentence by sentence goes on: it must have finished the last one."""
        alignment = self._alignment
        if self._judges and alignment and alignment.falls_short(self._attempt_ns / 1e9, self._pace):
            raise StreamCut("the voice left out the end of a sentence")

    def _play(self, seconds: float) -> None:
        """Note ``seconds`` of audio as a listener plays it, who has waited where it came late.

        A voice slower than speech is never idle for long, and nobody can listen to it.
        """
        now = asyncio.get_running_loop().time()
        if self._owed is not None and self._plays_until:
            self._starved += max(0.0, now - max(self._owed, self._plays_until))
            if self.watch is not None and self._starved > self.watch.idle:
                raise DeadlineExceeded("idle", self.watch.idle)
        self._plays_until = max(now, self._plays_until) + seconds
        if self._plays_until - now > _AHEAD_SECONDS:
            self._starved = 0.0

    def _align(self, words: Sequence[TimedString]) -> Sequence[TimedString]:
        """Take note of word timings; return them in the time of the whole utterance."""
        for word in words:
            if isinstance(word.start_time, float | int):
                end = word.end_time if isinstance(word.end_time, float | int) else None
                self._alignment.add(word, word.start_time, end)
        if words and self._before_ns:
            return shifted(words, self._before_ns / 1e9)
        return words

    @property
    def has_begun(self) -> bool:
        """Whether any audio has left for the agent."""
        return bool(self._before_ns or self._attempt_ns)

    def play(self, clip: list[rtc.AudioFrame]) -> None:
        """Send recorded audio in place of what nobody spoke."""
        for frame in clip:
            self._sink.send(frame, self._segment)
        self._sink.send(silence(self._owner.sample_rate), self._segment, final=True)

    def owed_since(self) -> float | None:
        return self._owed

    def finish(self) -> None:
        if not self._attempt_ns and is_speakable(self._text[self._opened_at :]):
            raise EmptyOutput("the voice ended without audio")
        seconds = self._attempt_ns / 1e9
        letters = self._script.length(self._opened_at, len(self._text))
        if self._judges:
            self._check_whole(letters, seconds)
            self._pace.learn(letters, seconds)
        for frame in self._resampler.flush():
            self._sink.send(frame, self._segment)
        self._sink.send(silence(self._owner.sample_rate), self._segment, final=True)
        self._is_whole = True

    @property
    def _judges(self) -> bool:
        """Whether the text's length says how long its speech is: markup is not spoken."""
        return not self._expressive

    def _check_whole(self, letters: float, seconds: float) -> None:
        """Raise the ProviderError that a clean end is, when it comes too early to be one."""
        pace, alignment = self._pace, self._alignment
        if alignment and alignment.outlasts(seconds):
            self._is_garbled = True
            raise ProtocolViolation("the audio is not of the rate that it claims: too short")
        if alignment and (
            alignment.falls_short(seconds, pace) or alignment.stops_early(seconds, pace)
        ):
            raise StreamCut("the voice ended before it had spoken its text")
        if pace.falls_short(letters, seconds):
            raise StreamCut("the voice ended before it had spoken its text")

    def may_continue(self, plan: Plan) -> bool:
        return not self._attempt_ns or plan.after_output is not AfterOutput.STOP

    def estimate(self, candidate: Candidate) -> Usage:
        characters = len(self._text) - self._commit()
        return Usage(characters=characters, audio_out_ns=characters * _SLOWEST_NS)

    def metered(self) -> Metered:
        if self._voice is None:
            return NOTHING
        usage = self._voice.used(len(self._text) - self._opened_at, self._attempt_ns)
        # a voice that was cut short may have read less of its text, and made more of its audio
        return Metered(usage, Quality.EXACT if self._is_whole else Quality.ESTIMATED)
