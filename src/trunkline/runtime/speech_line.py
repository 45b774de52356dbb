"""A voice's side of the loop: text in, audio out, and where in the text a failure leaves it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, Self

from livekit import rtc
from livekit.agents import tts
from livekit.agents.types import TimedString

from ..clock import new_id
from ..core.models import AfterOutput, Candidate, Modality, Plan, Quality, Usage
from ..core.speech import Alignment, Pace, Script, holds_sentence, is_speakable, resume_at
from ..errors import DeadlineExceeded, EmptyOutput, ProtocolViolation, StreamCut
from .audio import Resampler, is_silent, silence
from .hedge import Held
from .learnt import Learnt
from .line import Line, ProviderStream
from .livekit_compat import set_expressive
from .livekit_voice import PluginVoice
from .livekit_words import set_timed_transcript, shifted, timed_transcript
from .meter import NOTHING, Metered, audio_ns

_AHEAD_SECONDS = 1.0
"""Audio in hand that makes up for what the listener had to wait before."""

_SLOWEST_NS = 100_000_000
"""A character at the pace of the slowest voice."""

_TIMES = (float, int)

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


class _HeldSink:
    """The sink of an attempt that may come to nothing."""

    def __init__(self, sink: SpeechSink, held: Held) -> None:
        self._sink = sink
        self._held = held

    def send(self, frame: rtc.AudioFrame, segment: str, *, final: bool = False) -> None:
        self._held.keep(partial(self._sink.send, frame, segment, final=final))

    def mark_started(self, at: float) -> None:
        self._held.keep(partial(self._sink.mark_started, at))


class _HeldOwner:
    """Told who serves once it is known that it does."""

    def __init__(self, owner: VoiceOwner, held: Held) -> None:
        self.sample_rate = owner.sample_rate
        self._owner = owner
        self._held = held

    def serves(self, candidate: Candidate) -> None:
        self._held.keep(partial(self._owner.serves, candidate))


@dataclass(slots=True)
class _Take:
    """What one attempt has made of the text: the line goes on from the last one's.

    ``owes`` is whether there was more to say at ``since``, a loop time, when ``heard_ns`` of audio
    had come; None while nobody has asked. ``plays_until`` is when a listener has heard all there
    is, ``starved`` the seconds that he had to wait for it.
    """

    resampler: Resampler
    alignment: Alignment
    opened_at: int = 0
    pace: Pace = field(default_factory=Pace)
    voice: PluginVoice | None = None
    owes: bool | None = False
    since: float = 0.0
    heard_ns: int = 0
    plays_until: float = 0.0
    starved: float = 0.0
    attempt_ns: int = 0
    is_whole: bool = False
    is_garbled: bool = False


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
        self._segment = new_id()
        self._before_ns = 0
        self._take = _Take(Resampler(owner.sample_rate), Alignment(self._script, 0))
        self._held = Held()
        self._sides: list[SpeechLine] = [self]
        self._now = asyncio.get_running_loop().time
        self._is_unwatched = False

    @property
    def _text(self) -> str:
        return self._script.text

    async def has_text(self) -> bool:
        """Wait for something to say; False when the utterance ends without it."""
        await self._arrived.wait()
        return is_speakable(self._text)

    def push(self, text: str) -> None:
        for side in self._sides:
            side._owed()  # by the text there was
        self._script.push(text)
        self._is_cut = False
        for side in self._sides:
            side._say(text)
        if is_speakable(text):
            self._arrived.set()

    def _say(self, text: str) -> None:
        self._is_cut = False
        if self._take.voice is not None:
            self._take.voice.push_text(text)
            self._look()

    def release(self) -> None:
        """The text so far is whole sentences: it can be said without waiting for more."""
        self._is_cut = True
        for side in self._sides:
            side._is_cut = True
            if side._take.voice is not None:
                side._take.voice.release()

    def flush(self) -> None:
        for side in self._sides:
            if side._take.voice is not None:
                side._take.voice.flush()

    def end(self) -> None:
        self._arrived.set()
        for side in self._sides:
            side._end()
        self._ended = True

    def _end(self) -> None:
        self._owed()  # by what could be spoken then
        self._ended = True
        if self._take.voice is not None:
            self._take.voice.end_input()
            self._look()

    def rival(self) -> SpeechLine | None:
        held = Held()
        made = self._held_back(held)
        made._script, made._segment, made._held = self._script, self._segment, held
        made._ended, made._is_cut = self._ended, self._is_cut
        made._take.alignment = Alignment(self._script, 0)
        return made

    def _held_back(self, held: Held) -> SpeechLine:
        """A line to where this one goes, that waits for ``held``."""
        sink, owner = _HeldSink(self._sink, held), _HeldOwner(self._owner, held)
        return SpeechLine(sink, owner, expressive=self._expressive)

    def feed(self, *sides: Self) -> None:
        self._sides = list(sides)

    def wins(self) -> None:
        self._held.release()

    def adopt(self, rival: Self) -> None:
        self._take, self._before_ns = rival._take, rival._before_ns
        self.feed(self)

    def open(self, candidate: Candidate) -> ProviderStream[tts.SynthesizedAudio]:
        at = self._commit()
        self._before_ns += self._take.attempt_ns
        alignment, pace = Alignment(self._script, at), _paces.about(candidate)
        self._take = _Take(self._take.resampler, alignment, at, pace)
        self._owner.serves(candidate)
        set_expressive(candidate.live, self._expressive)
        voice = PluginVoice(candidate.live, expressive=self._expressive)
        voice.push_text(self._text[self._take.opened_at :])
        if self._ended:
            voice.end_input()
        elif self._is_cut:
            voice.release()
        self._take.voice = voice
        self._look()
        return voice

    def _commit(self) -> int:
        """Where in the log the words not yet spoken begin."""
        if not self._take.attempt_ns or self._take.is_garbled:
            return self._take.opened_at
        return resume_at(self._text, self._spoken(self._take.attempt_ns, surely=True))

    def _spoken(self, audio_ns: int, *, surely: bool = False) -> float:
        """Characters of the log heard in so much of this attempt's audio; ``surely``, at least."""
        seconds = audio_ns / 1e9
        if self._take.alignment:
            return self._take.alignment.spoken(seconds, self._take.pace, surely=surely)
        letters = self._take.pace.spoken(seconds, surely=surely)
        return self._script.reached(self._take.opened_at, letters)

    def _look(self) -> None:
        """Count what is owed from now on, if the new text is the first that is."""
        take = self._take
        if self._owed() is None:
            take.owes, take.since, take.heard_ns = None, self._now(), take.attempt_ns
            if self._owed() is not None and self.watch is not None:
                self.watch.poke()

    def _heard(self, now: float) -> None:
        """What is owed next is owed since ``now``; whoever wants to know works it out.

        By its pace a voice only gets nearer to the end of a text.
        """
        take = self._take
        if take.owes is not False or take.alignment:
            take.owes, take.since, take.heard_ns = None, now, take.attempt_ns
            if self._is_unwatched and self._owed() is not None and self.watch is not None:
                self.watch.poke()

    def _owed(self) -> float | None:
        """A voice owes audio once it has a whole sentence it has not spoken, or all there is."""
        take = self._take
        if take.owes is None:
            waiting = self._text[int(self._spoken(take.heard_ns)) :]
            take.owes = is_speakable(waiting) and (self._ended or holds_sentence(waiting))
        return take.since if take.owes else None

    def owed_since(self) -> float | None:
        owed = self._owed()
        self._is_unwatched = owed is None
        return owed

    def forgive(self) -> None:
        """Count what is owed from now on: until here nobody could have taken it."""
        if self._owed() is not None:
            self._take.since = self._now()
        if self.watch is not None:
            self.watch.poke()

    def deliver(self, out: tts.SynthesizedAudio) -> bool:
        frame, take, now = out.frame, self._take, self._now()
        words = timed_transcript(frame)
        if words:
            self._check_piece()
        length_ns = audio_ns(frame.samples_per_channel, frame.sample_rate)
        self._play(now, length_ns / 1e9)
        if not take.attempt_ns:
            assert take.voice is not None
            self._sink.mark_started(take.voice.text_sent_at())
        take.attempt_ns += length_ns
        if words:
            words = self._align(words)
        if take.resampler.passes(frame):
            if words and self._before_ns:
                set_timed_transcript(frame, words)
            self._sink.send(frame, self._segment)
        else:
            self._resample(frame, words)
        if is_silent(frame):
            return False
        self._heard(now)
        return True

    def _resample(self, frame: rtc.AudioFrame, words: Sequence[TimedString]) -> None:
        for sent in self._take.resampler.push(frame):
            if words:
                set_timed_transcript(sent, words)
                words = ()
            self._sink.send(sent, self._segment)

    def _check_piece(self) -> None:
        """A voice that speaks sentence by sentence goes on: it must have finished the last one."""
        alignment = self._take.alignment
        if (
            self._judges
            and alignment
            and alignment.falls_short(self._take.attempt_ns / 1e9, self._take.pace)
        ):
            raise StreamCut("the voice left out the end of a sentence")

    def _play(self, now: float, seconds: float) -> None:
        """Note ``seconds`` of audio as a listener plays it, who has waited where it came late.

        A voice slower than speech is never idle for long, and nobody can listen to it.
        """
        take = self._take
        until = take.plays_until
        if now > until:
            if until and (owed := self._owed()) is not None:
                take.starved += max(0.0, now - max(owed, until))
                if self.watch is not None and take.starved > self.watch.idle:
                    raise DeadlineExceeded("idle", self.watch.idle)
            until = now
        take.plays_until = until = until + seconds
        if until - now > _AHEAD_SECONDS:
            take.starved = 0.0

    def _align(self, words: Sequence[TimedString]) -> Sequence[TimedString]:
        """Take note of word timings; return them in the time of the whole utterance."""
        for word in words:
            if isinstance(word.start_time, _TIMES):
                end = word.end_time if isinstance(word.end_time, _TIMES) else None
                self._take.alignment.add(word, word.start_time, end)
        if words and self._before_ns:
            return shifted(words, self._before_ns / 1e9)
        return words

    @property
    def has_begun(self) -> bool:
        """Whether any audio has left for the agent."""
        return bool(self._before_ns or self._take.attempt_ns)

    def play(self, clip: list[rtc.AudioFrame]) -> None:
        """Send recorded audio in place of what nobody spoke."""
        for frame in clip:
            self._sink.send(frame, self._segment)
        self._sink.send(silence(self._owner.sample_rate), self._segment, final=True)

    def finish(self) -> None:
        if not self._take.attempt_ns and is_speakable(self._text[self._take.opened_at :]):
            raise EmptyOutput("the voice ended without audio")
        seconds = self._take.attempt_ns / 1e9
        letters = self._script.length(self._take.opened_at, len(self._text))
        if self._judges:
            self._check_whole(letters, seconds)
            self._take.pace.learn(letters, seconds)
        for frame in self._take.resampler.flush():
            self._sink.send(frame, self._segment)
        self._sink.send(silence(self._owner.sample_rate), self._segment, final=True)
        self._take.is_whole = True

    @property
    def _judges(self) -> bool:
        """Whether the text's length says how long its speech is: markup is not spoken."""
        return not self._expressive

    def _check_whole(self, letters: float, seconds: float) -> None:
        """Raise the ProviderError that a clean end is, when it comes too early to be one."""
        pace, alignment = self._take.pace, self._take.alignment
        if alignment and alignment.outlasts(seconds):
            self._take.is_garbled = True
            raise ProtocolViolation("the audio is not of the rate that it claims: too short")
        if alignment and (
            alignment.falls_short(seconds, pace) or alignment.stops_early(seconds, pace)
        ):
            raise StreamCut("the voice ended before it had spoken its text")
        if pace.falls_short(letters, seconds):
            raise StreamCut("the voice ended before it had spoken its text")

    def may_continue(self, plan: Plan) -> bool:
        return not self._take.attempt_ns or plan.after_output is not AfterOutput.STOP

    def estimate(self, candidate: Candidate) -> Usage:
        characters = len(self._text) - self._commit()
        return Usage(characters=characters, audio_out_ns=characters * _SLOWEST_NS)

    def metered(self) -> Metered:
        voice, take = self._take.voice, self._take
        if voice is None:
            return NOTHING
        usage = voice.used(len(self._text) - take.opened_at, take.attempt_ns)
        # a voice that was cut short may have read less of its text, and made more of its audio
        return Metered(usage, Quality.EXACT if self._take.is_whole else Quality.ESTIMATED)
