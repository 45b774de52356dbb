"""From a recogniser's events to the messages of ``/v1/stt``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

from livekit.agents.stt import SpeechData, SpeechEvent, SpeechEventType
from livekit.agents.types import TimedString

from .speech_messages import text_of
from .stt_messages import Final, Interim, Preflight, StartOfSpeech, Transcript, Word

_KINDS: Mapping[SpeechEventType, type[Transcript]] = {
    SpeechEventType.INTERIM_TRANSCRIPT: Interim,
    SpeechEventType.PREFLIGHT_TRANSCRIPT: Preflight,
    SpeechEventType.FINAL_TRANSCRIPT: Final,
}

_NO_WORDS = "…"


_NUMBER = (float, int)


class Transcripts:
    """The utterances of one stream.

    A final is the end of an utterance for the client, also one without words. ``served`` says who
    hears. ``pause`` is set between two utterances, ``unanswered`` when one has ended without words:
    some recognisers say that it has ended before they say what it was.
    """

    def __init__(self, session_id: str, served: Callable[[], str]) -> None:
        self.pause = asyncio.Event()
        self.pause.set()
        self.unanswered = asyncio.Event()
        self._session_id = session_id
        self._served = served
        self._begun = False

    def messages(self, event: SpeechEvent) -> Iterator[str]:
        """What the client is told of ``event``."""
        if event.type is SpeechEventType.START_OF_SPEECH:
            if not self._begun:
                self._begin()
                yield text_of(StartOfSpeech())
        elif event.type is SpeechEventType.END_OF_SPEECH:
            if self._begun:
                self.unanswered.set()
        elif (kind := _KINDS.get(event.type)) and event.alternatives:
            said = event.alternatives[0]
            is_final = kind is Final
            if said.text or is_final:
                if not is_final:
                    self._begin()
                yield text_of(self._transcript(kind, event, said))
                if is_final:
                    self._end()

    def rest(self) -> Iterator[str]:
        """End an utterance that nobody understood: its client waits for the end of it."""
        if self._begun:
            self._end()
            yield text_of(Final("", self._session_id, self._session_id))

    def prompt(self) -> str:
        """An utterance without words that an agent answers all the same: it skips an empty one."""
        self._end()
        return text_of(Final(_NO_WORDS, self._session_id, self._session_id))

    def _begin(self) -> None:
        self._begun = True
        self.pause.clear()

    def _end(self) -> None:
        self._begun = False
        self.pause.set()
        self.unanswered.clear()

    def _transcript(
        self, kind: type[Transcript], event: SpeechEvent, said: SpeechData
    ) -> Transcript:
        start = max(0.0, said.start_time)
        return kind(
            transcript=said.text,
            request_id=event.request_id or self._session_id,
            session_id=self._session_id,
            start=_rounded(start),
            duration=_rounded(max(0.0, said.end_time - start)),
            language=str(said.language) or None,
            confidence=said.confidence or None,
            speaker_id=said.speaker_id,
            words=[_word(word) for word in said.words or ()],
            extra={**(said.metadata or {}), "served_by": self._served()},
        )


def _word(word: TimedString) -> Word:
    start, end = word.start_time, word.end_time
    begins = _rounded(start) if isinstance(start, _NUMBER) else 0.0
    return Word(
        str(word),
        begins,
        _rounded(end) if isinstance(end, _NUMBER) else begins,
        word.confidence if isinstance(word.confidence, _NUMBER) else None,
        word.speaker_id if isinstance(word.speaker_id, str) else None,
    )


def _rounded(seconds: float) -> float:
    """To a tenth of a millisecond: what is less is the noise of a float."""
    return round(seconds * 1e4) / 1e4  # a fifth of what it costs to let ``round`` count digits
