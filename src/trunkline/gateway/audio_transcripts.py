"""Transcripts in the formats of OpenAI's audio API.

https://platform.openai.com/docs/api-reference/audio/json-object
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec
from livekit.agents.stt import SpeechData
from livekit.agents.types import TimedString

TYPES = {
    "json": b"application/json",
    "verbose_json": b"application/json",
    "text": b"text/plain; charset=utf-8",
    "srt": b"application/x-subrip; charset=utf-8",
    "vtt": b"text/vtt; charset=utf-8",
}


class Transcript:
    """The finals of a recording of ``seconds``, in order."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._finals: list[SpeechData] = []

    def add(self, said: SpeechData) -> str:
        """Take a final; returns what it adds to the text."""
        text = said.text.strip()
        self._finals.append(said)
        return text if len(self._finals) == 1 else f" {text}"

    def forget(self) -> None:
        self._finals.clear()

    @property
    def text(self) -> str:
        return " ".join(said.text.strip() for said in self._finals)

    @property
    def usage(self) -> dict[str, Any]:
        """What OpenAI bills by: whole seconds."""
        return {"type": "duration", "seconds": math.ceil(self._seconds)}

    def rendered(self, form: str, granularities: frozenset[str]) -> bytes:
        """The whole answer in one of TYPES."""
        if form == "text":
            return f"{self.text}\n".encode()
        if form in ("srt", "vtt"):
            return _subtitles(self._spans(), form)
        answer: dict[str, Any] = {"text": self.text, "usage": self.usage}
        if form == "verbose_json":
            answer = {**self._verbose(granularities), **answer}
        return msgspec.json.encode(answer)

    def _verbose(self, granularities: frozenset[str]) -> dict[str, Any]:
        languages = [str(said.language) for said in self._finals if said.language]
        answer: dict[str, Any] = {
            "task": "transcribe",
            "language": languages[0] if languages else "",
            "duration": round(self._seconds, 3),
        }
        if "segment" in granularities:
            answer["segments"] = [
                {"id": index, "start": start, "end": end, "text": text}
                for index, (start, end, text) in enumerate(self._spans())
            ]
        if "word" in granularities:
            words = (word for said in self._finals for word in said.words or ())
            answer["words"] = list(map(_word, words))
        return answer

    def _spans(self) -> list[tuple[float, float, str]]:
        """Each final with its times; one that has none fills the gap in which it lies."""
        spans: list[tuple[float, float, str]] = []
        begins = 0.0
        for said in self._finals:
            end = said.end_time or self._seconds
            start = max(begins, said.start_time if said.end_time else begins)
            end = max(start, min(end, self._seconds))
            spans.append((round(start, 3), round(end, 3), said.text.strip()))
            begins = end
        return spans


def _word(word: TimedString) -> dict[str, Any]:
    start = word.start_time if isinstance(word.start_time, float | int) else 0.0
    end = word.end_time if isinstance(word.end_time, float | int) else start
    return {"word": str(word).strip(), "start": round(start, 3), "end": round(end, 3)}


def _subtitles(spans: Sequence[tuple[float, float, str]], form: str) -> bytes:
    """SubRip, or WebVTT (https://www.w3.org/TR/webvtt1/)."""
    comma = "," if form == "srt" else "."
    parts = [] if form == "srt" else ["WEBVTT\n\n"]
    for number, (start, end, text) in enumerate(spans, 1):
        if form == "srt":
            parts.append(f"{number}\n")
        said = " ".join(text.replace("-->", "->").split())
        parts.append(f"{_clock(start, comma)} --> {_clock(end, comma)}\n{said}\n\n")
    return "".join(parts).encode()


def _clock(seconds: float, comma: str) -> str:
    milliseconds = round(seconds * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{comma}{rest % 1000:03}"
