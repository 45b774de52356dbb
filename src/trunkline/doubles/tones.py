"""Speech that a test can read back: every character is a tone, every word a short burst of them.

A word is START, one tone for each character, END; each symbol is ``SYMBOL_S`` of tone closed by
``GAP_S`` of silence, and a pause follows a full stop. All tones lie between 400 and 3200 Hz, so
audio survives resampling between 8 and 48 kHz, and the two markers tell a whole word from the
rest of one that was cut: ``decode`` gives ``"hel-"`` for a lost end and ``"-lo"`` for a lost
beginning. Letters are folded to lower case and punctuation is not spoken; see ``words_of``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SYMBOL_S = 0.040
GAP_S = 0.010
PAUSE_S = 0.250
"""Silence after a full stop, a question mark or an exclamation mark."""

_SILENT = 0.02
"""Amplitude, as a part of full scale, under which audio is silence."""
_HOP_S = 0.0025
_SHORTEST_S = 0.014
"""A tone shorter than this is the rag of a cut and stands for nothing."""

_START, _END, _UNKNOWN = "^", "$", "?"
_ALPHABET = _START + _END + "abcdefghijklmnopqrstuvwxyz0123456789'" + _UNKNOWN
_BASE_HZ, _STEP_HZ = 400.0, 70.0

Samples = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Heard:
    """A word read back, with its first and last moment in seconds. ``whole`` if both ends came."""

    text: str
    start: float
    end: float
    whole: bool = True

    def __str__(self) -> str:
        return self.text


def words_of(text: str) -> list[str]:
    """The words of ``text`` as ``decode`` will give them back."""
    return [word for raw in text.split() if (word := _spoken(raw))]


def duration(word: str) -> float:
    """Seconds that ``word`` takes, with the pause that its punctuation asks for."""
    return (len(_spoken(word)) + 2) * (SYMBOL_S + GAP_S) + pause_after(word)


def pause_after(word: str) -> float:
    """Seconds of silence that the punctuation of ``word`` asks for."""
    stops = word.rstrip("\"')”’").endswith((".", "?", "!"))
    return PAUSE_S if stops and _spoken(word) else 0.0


def encode(words: str | Iterable[str], rate: int) -> bytes:
    """Speak ``words`` (or the words of a text) as 16-bit little-endian mono PCM at ``rate`` Hz."""
    spoken = words.split() if isinstance(words, str) else words
    return b"".join(_word(word, rate) for word in spoken if _spoken(word))


def decode(pcm: bytes, rate: int) -> list[str]:
    """Read the words back; a word that lost an end carries a hyphen there."""
    return [word.text for word in hear(pcm, rate)]


def hear(pcm: bytes, rate: int) -> list[Heard]:
    """Like ``decode``, with the time of each word in seconds from the start of ``pcm``."""
    words: list[Heard] = []
    letters, begun, start, end = "", False, 0.0, 0.0
    for symbol, at, until in _symbols(pcm, rate):
        if symbol == _START:
            if letters:
                words.append(_cut(letters, begun, False, start, end))
            letters, begun, start = "", True, at
        elif symbol == _END:
            if letters:
                words.append(_cut(letters, begun, True, start, until))
            letters, begun = "", False
        else:
            start = at if not letters and not begun else start
            letters, end = letters + symbol, until
    if letters:
        words.append(_cut(letters, begun, False, start, end))
    return words


def _cut(letters: str, begun: bool, ended: bool, start: float, end: float) -> Heard:
    text = f"{'' if begun else '-'}{letters}{'' if ended else '-'}"
    return Heard(text, start, end, begun and ended)


def _spoken(word: str) -> str:
    folded = re.sub(r"[^\w']|_", "", word.lower())
    return "".join(c if c in _ALPHABET else _UNKNOWN for c in folded)


def _word(word: str, rate: int) -> bytes:
    tones = b"".join(_tone(symbol, rate) for symbol in f"{_START}{_spoken(word)}{_END}")
    return tones + bytes(2 * round(pause_after(word) * rate))


@lru_cache(maxsize=1024)
def _tone(symbol: str, rate: int) -> bytes:
    count, fade = round(SYMBOL_S * rate), max(round(0.002 * rate), 1)
    hertz = _BASE_HZ + _STEP_HZ * _ALPHABET.index(symbol)
    wave = 0.4 * np.sin(2 * np.pi * hertz * np.arange(count) / rate)
    ramp = np.arange(fade) / fade
    wave[:fade] *= ramp
    wave[-fade:] *= ramp[::-1]
    silence = np.zeros(round((SYMBOL_S + GAP_S) * rate) - count)
    return (np.concatenate([wave, silence]) * 32767).astype("<i2").tobytes()


def _symbols(pcm: bytes, rate: int) -> Iterator[tuple[str, float, float]]:
    """Each tone with its start and end in seconds; a burst that changes pitch is several tones."""
    audio = np.frombuffer(pcm[: len(pcm) // 2 * 2], dtype="<i2").astype(np.float64) / 32768
    hop = max(round(_HOP_S * rate), 1)
    for first, last in _bursts(audio, hop):
        yield from _tones(audio, first * hop, min(last * hop, len(audio)), rate)


def _bursts(audio: Samples, hop: int) -> Iterator[tuple[int, int]]:
    """Runs of hops over the silence level, as (first, one past the last)."""
    hops = len(audio) // hop
    loud = np.abs(audio[: hops * hop]).reshape(hops, hop).max(axis=1, initial=0.0) > _SILENT
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(np.int8)))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _tones(audio: Samples, first: int, last: int, rate: int) -> Iterator[tuple[str, float, float]]:
    if (last - first) / rate < _SHORTEST_S:
        return
    if (last - first) / rate <= SYMBOL_S + GAP_S:
        yield _pitch(audio[first:last], rate), first / rate, last / rate
        return
    # Two tones met at a seam: look through a window that slides over the burst.
    window, step = round(_SHORTEST_S * rate), max(round(_HOP_S * rate), 1)
    begun, current = first, ""
    for at in [*range(first, last - window + 1, step), last]:
        heard = _pitch(audio[at : at + window], rate) if at < last else ""
        if heard == current:
            continue
        if current and (at - begun) / rate >= _SHORTEST_S:
            yield current, begun / rate, min(at + window // 2, last) / rate
        begun, current = at, heard


def _pitch(audio: Samples, rate: int) -> str:
    bins = 1 << (rate // 8).bit_length()  # a line each 4 to 8 Hz, and longer than any tone
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio)), bins))
    hertz = float(np.argmax(spectrum)) * rate / bins
    index = round((hertz - _BASE_HZ) / _STEP_HZ)
    return _ALPHABET[min(max(index, 0), len(_ALPHABET) - 1)]
