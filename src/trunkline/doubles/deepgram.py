"""Deepgram: live transcription by Nova and by Flux, pre-recorded transcription, and speech.

Sources: Deepgram's documentation ("Live Audio", "Configure Endpointing and Interim Results",
"Utterance End", "Finalize", "Audio Keep Alive", "Close Stream", "Understanding the Flux State
Machine", "Errors"); livekit-plugins-deepgram 1.8.9 (``stt.py``, ``stt_v2.py``). Speech is in
``deepgram_speak.py``. All audio that arrives is billed, silence too, and an open connection
without audio is not ("Audio Keep Alive").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from aiohttp import web

from .deepgram_speak import Speak
from .exchange import Exchange
from .hearing import Listener, Started, Transcript
from .provider import Provider
from .speech import open_ear
from .streams import Ears, listening
from .tones import Heard
from .vendor import Endpoint, Vendor, number, read_wav

_ERRORS = {
    401: ("INVALID_AUTH", "Invalid credentials."),
    402: (
        "ASR_PAYMENT_REQUIRED",
        "Project does not have enough credits for an ASR request"
        " and does not have an overage agreement.",
    ),
    429: ("TOO_MANY_REQUESTS", "Too many requests. Please try again later."),
    500: ("INTERNAL_SERVER_ERROR", "The server could not process the request."),
}
_DEFAULT_ENDPOINTING_MS = 10
"""What ``endpointing`` is when it is not given ("Endpointing")."""
_FLUX_PAUSE_S = 0.2
"""Silence that ends a turn here; Flux weighs words and sound, and needs about 260 ms."""


class Deepgram(Vendor):
    """Served under ``/deepgram``; the plugins take ``<url>/v1/listen`` and so on."""

    name: ClassVar[str] = "deepgram"

    def __init__(self, settings: Provider) -> None:
        super().__init__(settings)
        self._speak = Speak(settings)

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("GET", "/v1/listen", "listen", self._nova),
            Endpoint("POST", "/v1/listen", "prerecorded", self._prerecorded),
            Endpoint("GET", "/v2/listen", "flux", self._flux),
            Endpoint("GET", "/v1/speak", "speak", self._speak.aura),
            Endpoint("GET", "/v2/speak", "flux_speak", self._speak.flux),
            Endpoint("POST", "/v1/speak", "speak_rest", self._speak.rest),
            Endpoint("POST", "/v2/speak", "flux_speak_rest", self._speak.rest),
        ]

    def key(self, request: web.Request) -> str:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        return key.strip() if scheme.lower() in ("token", "bearer") else ""

    def error(self, status: int, message: str, request_id: str) -> dict[str, Any]:
        code, usual = _ERRORS.get(status, ("Bad Request", "Bad request."))
        return {"err_code": code, "err_msg": message or usual, "request_id": request_id}

    def headers(self, request_id: str) -> dict[str, str]:
        return {"dg-request-id": request_id}

    async def _nova(self, exchange: Exchange) -> web.StreamResponse:
        asked = _Live.read(exchange.request)
        turn = await exchange.begin(asked.model)
        async with listening(
            exchange, turn, self.settings, asked.rate, endpoint=asked.endpoint
        ) as ears:
            await _Nova(asked, ears).read()
            return ears.socket.response

    async def _prerecorded(self, exchange: Exchange) -> web.StreamResponse:
        pcm, rate = read_wav(await exchange.request.read())
        turn = await exchange.begin(exchange.request.query.get("model", "base"))
        listener = Listener(open_ear(self.settings, rate), rate, endpoint=None)
        events = await listener.feed(pcm) + await listener.finalize()
        words = [w for e in events if isinstance(e, Transcript) and e.final for w in e.words]
        turn.heard(pcm, rate)
        metadata = {"request_id": turn.id, "duration": listener.received, "channels": 1}

        def render(heard: Iterable[Heard]) -> bytes:
            results = {"channels": [{"alternatives": [_alternative(list(heard))]}]}
            return msgspec.json.encode({"metadata": metadata, "results": results})

        return await exchange.answer(turn, render(words), empty=render(()))

    async def _flux(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        rate = number(request, "sample_rate", 16000)
        turn = await exchange.begin(request.query.get("model", "flux-general-en"))
        async with listening(exchange, turn, self.settings, rate, endpoint=_FLUX_PAUSE_S) as ears:
            await _Flux(ears).read()
            return ears.socket.response


@dataclass(frozen=True, slots=True)
class _Live:
    """The query of a live transcription that changes what is sent."""

    model: str
    rate: int
    endpoint: float | None
    interim: bool
    events: bool
    utterance_end: float | None

    @classmethod
    def read(cls, request: web.Request) -> _Live:
        query = request.query
        spoken_off = query.get("endpointing") == "false"
        pause = 0 if spoken_off else number(request, "endpointing", _DEFAULT_ENDPOINTING_MS)
        gap = number(request, "utterance_end_ms", 1000) if "utterance_end_ms" in query else 0
        return cls(
            model=query.get("model", "base"),
            rate=number(request, "sample_rate", 16000),
            endpoint=pause / 1000 or None,
            interim=query.get("interim_results") == "true",
            events=query.get("vad_events") == "true",
            utterance_end=gap / 1000 or None,
        )


class _Nova:
    """One live transcription on ``/v1/listen``."""

    def __init__(self, asked: _Live, ears: Ears) -> None:
        self._asked = asked
        self._ears = ears
        self._window = 0.0
        self._last_word: float | None = None

    async def read(self) -> None:
        """Take audio and commands until the client closes."""
        async for message in self._ears.socket.objects():
            if isinstance(message, bytes) and message:
                self._say(await self._ears.hear(message))
                self._utterance_end()
            elif isinstance(message, bytes) or message.get("type") == "CloseStream":
                # An empty binary message closes the stream too ("Close Stream").
                self._say(await self._ears.listener.finalize())
                self._ears.outbox.mark(self._metadata())
                self._ears.outbox.finish()
            elif message.get("type") == "Finalize":
                self._say(await self._ears.listener.finalize(), finalize=True)

    def _say(self, events: list[Started | Transcript], *, finalize: bool = False) -> None:
        for event in events:
            if isinstance(event, Started):
                if self._asked.events:
                    started = {"channel": [0], "timestamp": event.at}
                    self._ears.outbox.mark({"type": "SpeechStarted", **started})
            elif event.final or self._asked.interim:
                self._ears.outbox.output(self._results(event, finalize=finalize))
            if isinstance(event, Transcript) and event.final:
                self._window, self._last_word = event.received, event.words[-1].end

    def _utterance_end(self) -> None:
        gap, last = self._asked.utterance_end, self._last_word
        if gap is not None and last is not None and self._ears.listener.received - last >= gap:
            self._ears.outbox.mark(
                {"type": "UtteranceEnd", "channel": [0, 1], "last_word_end": last}
            )
            self._last_word = None

    def _results(self, said: Transcript, *, finalize: bool) -> dict[str, Any]:
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "start": self._window,
            "duration": said.received - self._window,
            "is_final": said.final,
            "speech_final": said.endpoint,
            "from_finalize": finalize,
            "channel": {"alternatives": [_alternative(said.words)]},
            "metadata": {
                "request_id": self._ears.turn.id,
                "model_info": {"name": self._asked.model, "version": "0", "arch": "double"},
                "model_uuid": "00000000-0000-0000-0000-000000000000",
            },
        }

    def _metadata(self) -> dict[str, Any]:
        return {
            "type": "Metadata",
            "request_id": self._ears.turn.id,
            "duration": self._ears.listener.received,
            "channels": 1,
        }


class _Flux:
    """One conversation on ``/v2/listen``: turns, each from StartOfTurn to EndOfTurn.

    Eager ends of turns are not sent: Flux sends none unless ``eager_eot_threshold`` asks for
    them, and what it would think of a pause cannot be told from a threshold alone.
    """

    def __init__(self, ears: Ears) -> None:
        self._ears = ears
        self._sequence = 0
        self._index = 0
        self._window = 0.0
        self._open = False

    async def read(self) -> None:
        """Take audio and commands until the client closes."""
        self._ears.outbox.mark(self._message("Connected"))
        async for message in self._ears.socket.objects():
            if isinstance(message, bytes):
                self._say(await self._ears.hear(message))
            elif message.get("type") == "CloseStream":
                self._say(await self._ears.listener.finalize())
                self._ears.outbox.finish()
            elif message.get("type") == "ForceEndTurn":
                self._say(await self._ears.listener.finalize(), trigger="manual")
            elif message.get("type") == "Configure":
                self._ears.outbox.mark(self._message("ConfigureSuccess"))

    def _say(self, events: list[Started | Transcript], *, trigger: str = "model") -> None:
        for event in events:
            if isinstance(event, Started):
                continue  # a turn starts with its first word, so that StartOfTurn has a transcript
            if not self._open:
                self._ears.outbox.output(self._info("StartOfTurn", event))
                self._open = True
            if not event.final:
                self._ears.outbox.output(self._info("Update", event))
                continue
            self._ears.outbox.output({**self._info("EndOfTurn", event), "trigger": trigger})
            self._open, self._index, self._window = False, self._index + 1, event.received

    def _info(self, event: str, said: Transcript) -> dict[str, Any]:
        return {
            **self._message("TurnInfo"),
            "event": event,
            "turn_index": self._index,
            "audio_window_start": self._window,
            "audio_window_end": said.received,
            "transcript": said.text,
            "words": [_word(word) for word in said.words],
            "end_of_turn_confidence": 0.9 if said.final else 0.1,
        }

    def _message(self, kind: str) -> dict[str, Any]:
        message = {"type": kind, "request_id": self._ears.turn.id, "sequence_id": self._sequence}
        self._sequence += 1
        return message


def _word(word: Heard) -> dict[str, Any]:
    return {
        "word": word.text,
        "start": word.start,
        "end": word.end,
        "confidence": 0.99,
        "punctuated_word": word.text,
    }


def _alternative(words: Iterable[Heard]) -> dict[str, Any]:
    heard = [_word(word) for word in words]
    return {
        "transcript": " ".join(word["word"] for word in heard),
        "confidence": 0.99 if heard else 0.0,
        "words": heard,
    }
