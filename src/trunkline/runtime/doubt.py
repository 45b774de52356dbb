"""A recogniser that answers without a word where the VAD heard speech: is it deaf, or is it right?

A cough is no word, and a VAD takes much for speech. Only another recogniser can tell: whoever is
well is asked, and words prove the first one wrong. Without any it was right, and nobody is blamed.
"""

from __future__ import annotations

from collections.abc import Callable

from livekit.agents import stt

_WORD_SECONDS = 0.2
"""Less speech than this is not asked about: it holds no word."""


class Doubt:
    """One such answer, ``final``. Each of ``accused`` blames a candidate that gave it."""

    def __init__(self, final: stt.SpeechEvent) -> None:
        self.final = final
        self.accused: list[Callable[[], object]] = []

    def is_proven_by(self, final: stt.SpeechEvent) -> bool:
        """Whether ``final`` has words for the same audio; then all the accused are blamed."""
        said = final.alternatives[0] if final.alternatives else None
        if said is None or not said.text:
            return False
        is_later = said.end_time > 0 and said.start_time >= self.final.alternatives[0].end_time
        if not is_later:
            for blame in self.accused:
                blame()
        return not is_later


def is_doubtful(final: stt.SpeechEvent) -> bool:
    """Whether a final without words covers as much speech as a word needs."""
    if not final.alternatives:
        return False
    said = final.alternatives[0]
    return said.end_time - said.start_time >= _WORD_SECONDS
