"""How far a voice is into its text, and where another voice goes on: pure arithmetic on words."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

_WORD = re.compile(r"\S+")
_SENTENCE_END = re.compile(r"[.!?…。！？][\"')\]]*(\s|$)|\n")

DEFAULT_PACE = 15.0
"""Letters a second of middling English speech, until a voice has been measured."""

_SHORTEST_SENTENCE, _NEXT_BEGUN = 20, 10
"""Characters; as LiveKit's sentence tokenizers have them (``min_sentence_len``, context)."""

_NEW_SHARE = 0.3
_NEAR = 24

_SURE_SHARE, _SURE_LETTERS = 0.97, 1.5

_LONG_ENOUGH = 20
"""Letters below which a length says nothing about a pace, nor a pace about a length."""

_CUT_SHORT = 0.7
"""An end before this share of the time that the text needs at the voice's fastest is no end."""

_UNTIMED = 0.9
"""The same for a voice whose own timings stop before the text does."""


def is_speakable(text: str) -> bool:
    """Whether ``text`` has anything that a voice could say: a letter or a digit."""
    return any(character.isalnum() for character in text)


def holds_sentence(text: str) -> bool:
    """Whether ``text`` has a whole sentence that a voice has been given to speak.

    Plugins hand a sentence on when the next one has begun, and short ones together with it.
    """
    ends = (end.end() for end in _SENTENCE_END.finditer(text))
    return any(
        end >= _SHORTEST_SENTENCE and len(text) - end >= _NEXT_BEGUN and is_speakable(text[:end])
        for end in ends
    )


def resume_at(text: str, spoken: float) -> int:
    """Where to go on in ``text`` after ``spoken`` characters of it were heard.

    That is the start of the word being spoken, so that no word is lost and at most that one is
    said twice; a word heard to its end is not said again.
    """
    at = 0
    for word in _WORD.finditer(text):
        if word.end() > spoken + 0.5:
            return word.start()
        at = word.end()
    return at if spoken < len(text) else len(text)


class Script:
    """A text that grows, and how long its parts are when they are spoken.

    The unit is a letter of an alphabet. A digit is a word, an ideograph a syllable or two, a mark
    a pause: rough figures, which make texts of one voice comparable.
    """

    __slots__ = ("_ends", "_mark", "text")

    def __init__(self) -> None:
        self.text = ""
        self._ends = [0.0]
        self._mark = ""

    def push(self, text: str) -> None:
        self.text += text
        for character in text:
            self._ends.append(self._ends[-1] + self._length(character))
            self._mark = character

    def _length(self, character: str) -> float:
        if character.isspace():
            return 0.0 if self._mark.isspace() else _PAUSES.get(self._mark, 1.0)
        if character.isdigit():
            return 4.0
        if character.isalpha():
            return 1.0 if character < _IDEOGRAPHS else 3.0
        return _PAUSES.get(character, 0.0) if character > _IDEOGRAPHS else 0.0

    def length(self, start: int, end: int) -> float:
        """Letters from character ``start`` to ``end``."""
        return self._ends[end] - self._ends[start]

    def reached(self, start: int, letters: float) -> float:
        """The character reached so many letters after character ``start``."""
        target = self._ends[start] + letters
        at = bisect_right(self._ends, target) - 1
        if at + 1 >= len(self._ends):
            return float(at)
        return at + (target - self._ends[at]) / (self._ends[at + 1] - self._ends[at])


_PAUSES = {**dict.fromkeys(".!?…。！？", 5.0), **dict.fromkeys(",;:、，", 2.0)}
_IDEOGRAPHS = "\u2e80"


def speech_seconds(text: str) -> float:
    """About how long it takes to say ``text``."""
    script = Script()
    script.push(text)
    return script.length(0, len(text)) / DEFAULT_PACE


class Pace:
    """Letters a second of one voice, learnt from what it has spoken to the end."""

    __slots__ = ("fastest", "measured", "per_second")

    def __init__(self, per_second: float = DEFAULT_PACE) -> None:
        self.per_second = self.fastest = per_second
        self.measured = False

    def learn(self, letters: float, seconds: float) -> None:
        """Note that ``letters`` took ``seconds``; the latest count most, short ones nothing."""
        if letters < _LONG_ENOUGH or seconds <= 0:
            return
        heard = letters / seconds
        self.fastest = max(self.fastest, heard)
        if self.measured:
            heard = self.per_second + _NEW_SHARE * (heard - self.per_second)
        self.per_second, self.measured = heard, True

    def spoken(self, seconds: float, *, surely: bool = False) -> float:
        """How many letters are heard in ``seconds``; ``surely``, at least how many.

        A word said twice is a stutter, a word left out may be the one that matters.
        """
        letters = seconds * self.per_second
        return max(0.0, letters * _SURE_SHARE - _SURE_LETTERS) if surely else letters

    def falls_short(self, letters: float, seconds: float, share: float = _CUT_SHORT) -> bool:
        """Whether this voice could not have spoken so much in ``seconds``, be it ever so fast."""
        return (
            self.measured and letters >= _LONG_ENOUGH and seconds * self.fastest < share * letters
        )


@dataclass(frozen=True, slots=True)
class _Timed:
    """A piece of text with the second it begins; ``end`` is None where only that is known."""

    start_at: int
    end_at: int
    start: float
    end: float | None


class Alignment:
    """Where a voice is in its text, by the timings that its provider gives for pieces of it.

    Positions are characters of the whole text, times seconds of this voice's audio. Pieces come
    with most frames and are seldom asked about: they are looked up in the text when they are.
    """

    __slots__ = ("_at", "_found", "_script", "_text_from", "_told")

    def __init__(self, script: Script, start_at: int) -> None:
        self._script = script
        self._text_from = start_at
        self._at = start_at
        self._told: list[tuple[str, float, float | None]] = []
        self._found: list[_Timed] = []

    def add(self, piece: str, start: float, end: float | None) -> None:
        """Note that ``piece``, the next of the text, is spoken from ``start`` on."""
        if piece and not piece.isspace():
            self._told.append((piece, start, end))

    @property
    def _pieces(self) -> list[_Timed]:
        """The pieces where they are in the text.

        Providers normalise what they speak: a piece not found nearby counts its own length.
        """
        text = self._script.text
        for piece, start, end in self._told[len(self._found) :]:
            said = piece.strip()
            found = text.find(said, self._at, self._at + len(said) + _NEAR)
            begins = found if found >= 0 else self._at
            self._at = min(len(text), begins + len(said))
            self._found.append(_Timed(begins, self._at, start, end))
        return self._found

    def spoken(self, seconds: float, pace: Pace, *, surely: bool = False) -> float:
        """The character reached after ``seconds``; inside a piece without an end by ``pace``."""
        reached = float(self._text_from)
        for piece in self._pieces:
            if piece.start > seconds:
                break
            if piece.end is None:
                letters = pace.spoken(seconds - piece.start, surely=surely)
                said = self._script.reached(piece.start_at, letters)
                reached = min(float(piece.end_at), said)
            else:
                reached = float(piece.end_at if piece.end <= seconds else piece.start_at)
        return reached

    def falls_short(self, seconds: float, pace: Pace) -> bool:
        """Whether the last piece, ended by ``seconds``, cannot have been spoken in its time."""
        if self._told[-1][2] is not None:
            return False
        last = self._pieces[-1]
        letters = self._script.length(last.start_at, last.end_at)
        return pace.falls_short(letters, seconds - last.start)

    def stops_early(self, seconds: float, pace: Pace) -> bool:
        """Whether the timings, and after them the audio, end before the text does."""
        if self._pieces[-1].end is None:  # which also brings ``_at`` to the last
            return False
        untimed = self._script.length(self._at, len(self._script.text))
        whole = self._script.length(self._text_from, len(self._script.text))
        return untimed >= _LONG_ENOUGH and pace.falls_short(whole, seconds, _UNTIMED)

    def outlasts(self, seconds: float) -> bool:
        """Whether the timings go on long after ``seconds``, when the audio has ended."""
        end = self._told[-1][2]
        return end is not None and end > 1.3 * seconds + 0.3

    def __bool__(self) -> bool:
        return bool(self._told)
