"""The caller: either the shipped one, who listens before speaking, or a recording as it is.

The shipped caller is one WAV with a cue sheet beside it (``caller.json``, both made by
``scripts/make_caller.py``): each line is a stretch of the WAV and the moment to say it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from typing import Protocol

import msgspec
import numpy as np

from .wav import NOISE_FLOOR_DBFS, SAMPLE_RATE, Samples, decode

SLOT_SAMPLES = SAMPLE_RATE // 50
PATIENCE_S = 15.0
"""How long a caller waits for an answer before giving it up."""
GOODBYE_S = 0.8
"""How long the line stays open after the last answer."""


@dataclass(slots=True)
class Floor:
    """Who has the word, as seconds into the call; kept by the line, read by the caller."""

    agent_started: float = -1.0
    agent_quiet_since: float | None = 0.0
    """None while the agent speaks or prepares to."""

    def update(self, at: float, *, started: float | None, working: bool) -> None:
        """Note what is seen at second ``at``; ``started`` is when the agent last began to speak."""
        if started is not None:
            self.agent_started = started
        if working:
            self.agent_quiet_since = None
        elif self.agent_quiet_since is None:
            self.agent_quiet_since = at

    def answered_since(self, moment: float, at: float, quiet_for: float) -> bool:
        """Whether the agent has spoken after ``moment`` and been quiet for so many seconds."""
        quiet = self.agent_quiet_since
        return self.agent_started >= moment and quiet is not None and at - quiet >= quiet_for


class Caller(Protocol):
    """Somebody who speaks 20 ms at a time."""

    @property
    def spoken(self) -> list[tuple[int, int]]:
        """Milliseconds from and to which the caller is known to have spoken; empty if unknown."""

    def speak(self, at: float, floor: Floor) -> Samples:
        """Return the next 20 ms, which begin at second ``at`` of the call."""

    def hangs_up(self, at: float, floor: Floor) -> bool:
        """Whether the call is over for the caller."""


class CueLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the cue sheet: samples ``start`` to ``stop`` of the WAV.

    It is said ``after_ms`` after the agent's answer ended, or, when ``interrupts``, after the agent
    began to speak.
    """

    text: str
    start: int
    stop: int
    after_ms: int
    interrupts: bool = False


class CueSheet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shipped caller: the flite voice it was made with, and its lines."""

    voice: str
    lines: tuple[CueLine, ...]


class ScriptedCaller:
    """Says each line when its cue has come, or after ``PATIENCE_S`` without an answer."""

    def __init__(self, audio: Samples, sheet: CueSheet) -> None:
        self._audio = audio
        self._lines = list(sheet.lines)
        self._saying = _SILENT
        self._fell_silent = 0.0
        self.spoken: list[tuple[int, int]] = []

    @classmethod
    def shipped(cls) -> ScriptedCaller:
        """Return the caller that comes with the package."""
        folder = resources.files(__package__)
        sheet = msgspec.json.decode((folder / "caller.json").read_bytes(), type=CueSheet)
        return cls(decode((folder / "caller.wav").read_bytes(), "caller.wav"), sheet)

    def speak(self, at: float, floor: Floor) -> Samples:
        if not len(self._saying) and self._lines and self._cued(at, floor, self._lines[0]):
            line = self._lines.pop(0)
            self._saying = self._audio[line.start : line.stop]
            self._fell_silent = at + len(self._saying) / SAMPLE_RATE
            self.spoken.append((round(at * 1000), round(self._fell_silent * 1000)))
        said, self._saying = self._saying[:SLOT_SAMPLES], self._saying[SLOT_SAMPLES:]
        return _padded(said)

    def hangs_up(self, at: float, floor: Floor) -> bool:
        return not self._lines and not len(self._saying) and self._done(at, floor, GOODBYE_S)

    def _cued(self, at: float, floor: Floor, line: CueLine) -> bool:
        after = line.after_ms / 1000
        if not self.spoken:
            return at >= after
        if line.interrupts and floor.agent_started >= self._fell_silent:
            return at - floor.agent_started >= after
        return self._done(at, floor, after)

    def _done(self, at: float, floor: Floor, quiet_for: float) -> bool:
        answered = floor.answered_since(self._fell_silent, at, quiet_for)
        return answered or _out_of_patience(at, self._fell_silent, floor)


class RecordedCaller:
    """Plays a recording from its start to its end, whatever the agent does, then listens."""

    def __init__(self, audio: Samples) -> None:
        self._audio = audio
        self._last_sound = _last_sound(audio) / SAMPLE_RATE
        self._at = 0
        self.spoken: list[tuple[int, int]] = []

    def speak(self, at: float, floor: Floor) -> Samples:
        said = self._audio[self._at : self._at + SLOT_SAMPLES]
        self._at += SLOT_SAMPLES
        return _padded(said)

    def hangs_up(self, at: float, floor: Floor) -> bool:
        if self._at < len(self._audio):
            return False
        answered = floor.answered_since(self._last_sound, at, GOODBYE_S)
        return answered or _out_of_patience(at, self._last_sound, floor)


_SILENT: Samples = np.zeros(0, np.int16)


def _out_of_patience(at: float, fell_silent: float, floor: Floor) -> bool:
    quiet = floor.agent_quiet_since
    return quiet is not None and at - max(quiet, fell_silent) >= PATIENCE_S


def _padded(samples: Samples) -> Samples:
    return np.pad(samples, (0, SLOT_SAMPLES - len(samples)))


def _last_sound(audio: Samples) -> int:
    """Return the sample at which the recording was last above the noise floor."""
    loud = np.flatnonzero(np.abs(audio.astype(np.int32)) > 32768 * 10 ** (NOISE_FLOOR_DBFS / 20))
    return int(loud[-1]) + 1 if len(loud) else 0
