"""When a recogniser owes an answer: arithmetic on loudness and time, one step a frame."""

from __future__ import annotations

from ..core.models import Candidate, Deadlines

WORD_NS = 60_000_000
"""Loud audio that may be a word; less is a click."""
_SENTENCE_NS = 1_000_000_000
"""Loud audio after the last interim for which the next one is owed; less is a word's tail."""
_UTTERANCE_NS = 500_000_000
"""Quiet after which a recogniser without interims has to take an utterance for finished."""


class Debt:
    """What one attempt owes since when, in loop time.

    While somebody speaks, a recogniser with ``interim`` results owes words within the deadline.
    Once it is quiet, or it was asked, everything heard has to become final within the deadline and
    the ``turn_seconds`` that a recogniser which finds the ends of turns may wait for the speaker
    to go on; None says that it makes nothing final unless it is asked. One that has only finals
    owes them after each long pause, whether the speaker goes on or not.
    """

    __slots__ = (
        "_asked",
        "_deadlines",
        "_finished",
        "_interim",
        "_loud_ns",
        "_quiet",
        "_speech",
        "_turn_seconds",
        "content",
    )

    def __init__(self, deadlines: Deadlines, *, interim: bool, turn_seconds: float | None) -> None:
        self._deadlines = deadlines
        self._interim = interim
        self._turn_seconds = turn_seconds
        self._loud_ns = 0
        self._finished = False
        self._speech: float | None = None
        self._quiet: float | None = None
        self._asked: float | None = None
        self.content = False

    @classmethod
    def of(cls, candidate: Candidate, deadlines: Deadlines) -> Debt:
        """What ``candidate`` owes, by what its plugin can do."""
        able = candidate.live.capabilities
        if not able.streaming:
            # its own deadline counts from the end of the utterance, which its VAD has to find first
            return cls(deadlines, interim=False, turn_seconds=deadlines.first_content)
        turn = None if able.manual_flush else candidate.turn_seconds
        return cls(deadlines, interim=able.interim_results, turn_seconds=turn)

    @property
    def phase(self) -> str:
        """The deadline that runs: ``first_content`` until the attempt has said something."""
        return "idle" if self.content else "first_content"

    @property
    def seconds(self) -> float:
        return self._deadlines.idle if self.content else self._deadlines.first_content

    def due(self, behind: float) -> float | None:
        """When the first deadline passes, None while nothing is owed.

        ``behind`` is how many seconds the audio is late that is being said again.
        """
        dues = [self._speech] if self._speech is not None else []
        if self._asked is not None:
            dues.append(self._asked + behind)
        if self._quiet is not None and self._turn_seconds is not None:
            dues.append(self._quiet + self._turn_seconds + behind)
        return min(dues) + self.seconds if dues else None

    @property
    def wants_final(self) -> bool:
        """Whether it is quiet or was asked, so that all that was heard is owed, not only more."""
        return self._quiet is not None or self._asked is not None

    def loud(self, length_ns: int, now: float, paused_ns: int = 0) -> bool:
        """Take loud audio after a pause; True when a deadline has begun to run."""
        if paused_ns >= _UTTERANCE_NS and not (self._interim or self._turn_seconds):
            self._finished = self._quiet is not None
        if not self._finished:
            self._quiet = None
        self._loud_ns += length_ns
        if self._speech is not None or not self._interim:
            return False
        if self._loud_ns < (_SENTENCE_NS if self.content else WORD_NS):
            return False
        self._speech = now
        return True

    def quiet(self, now: float) -> bool:
        """Take quiet audio while something loud is not final; True when a deadline has begun."""
        if self._quiet is not None:
            return False
        self._quiet = now
        return True

    def ask(self, now: float) -> None:
        """Everything heard is to be final at once."""
        self._asked = now

    def answered(self, now: float) -> None:
        """Words came: everything up to now was heard, and the provider is alive."""
        self.content = True
        self._finished = False
        self._loud_ns = 0
        self._speech = None
        self._quiet = now if self._quiet is not None else None
        self._asked = now if self._asked is not None else None

    def paid(self) -> None:
        """Everything heard is final, or was no speech."""
        self._finished = False
        self._loud_ns = 0
        self._speech = self._quiet = self._asked = None
