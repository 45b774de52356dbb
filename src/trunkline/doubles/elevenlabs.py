"""ElevenLabs: voices by multi-context WebSocket and by HTTP; Scribe in realtime and in batch.

Sources: ElevenLabs' documentation ("Multi-Context WebSocket", "Stream speech", "Realtime speech
to text", "Realtime event reference", "Transcripts and commit strategies", "Create transcript",
"Errors"); livekit-plugins-elevenlabs 1.8.9 (``tts.py``, ``stt.py``). A context is one request on
the bill; the blank text that opens one is free.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from aiohttp import web

from .exchange import Exchange
from .hearing import Listener, Started, Transcript
from .provider import Provider
from .speech import open_ear, open_voice
from .streams import Ears, Speaker, Speakers, listening
from .tones import Heard
from .transport import Rejected, Socket
from .turn import Turn
from .vendor import Endpoint, Vendor, body, read_wav, text
from .voice import Chunk, Mp3, Timed

_ERRORS = {
    401: ("invalid_api_key", "Invalid API key"),
    402: ("payment_required", "The workspace has no credits left."),
    429: ("too_many_concurrent_requests", "Too many concurrent requests."),
    500: ("internal_server_error", "The server could not process the request."),
}
_LEAST_COMMIT_S = 0.3
"""A commit with less new audio ends the session (the plugin's ``stt.py``, ``send_task``)."""
_VAD_PAUSE_S = 1.5
"""The default of ``vad_silence_threshold_secs``."""


class ElevenLabs(Vendor):
    """Served under ``/elevenlabs``; clients take ``<url>/v1`` as ``base_url``."""

    name: ClassVar[str] = "elevenlabs"
    base: ClassVar[str] = "/v1"

    def __init__(self, settings: Provider) -> None:
        super().__init__(settings)
        self._voice = open_voice(settings)

    def endpoints(self) -> list[Endpoint]:
        voice = "/v1/text-to-speech/{voice}"
        return [
            Endpoint("GET", f"{voice}/multi-stream-input", "tts", self._contexts),
            Endpoint("POST", f"{voice}/stream", "tts_stream", self._stream),
            Endpoint("GET", "/v1/speech-to-text/realtime", "scribe_realtime", self._realtime),
            Endpoint("POST", "/v1/speech-to-text", "scribe", self._batch),
        ]

    def key(self, request: web.Request) -> str:
        return request.headers.get("xi-api-key", "")

    def error(self, status: int, message: str, request_id: str) -> dict[str, Any]:
        code, usual = _ERRORS.get(status, ("invalid_request", "Bad request."))
        return {"detail": {"status": code, "message": message or usual}}

    def headers(self, request_id: str) -> dict[str, str]:
        return {"request-id": request_id, "x-trace-id": request_id}

    async def _stream(self, exchange: Exchange) -> web.StreamResponse:
        asked, form = await body(exchange.request), _Form.read(exchange.request)
        said = text(asked, "text")
        turn = await exchange.begin(str(asked.get("model_id") or "eleven_multilingual_v2"))
        turn.bill.spell(said)
        spoken = await self._voice.say(said, turn.rate(form.rate))
        stream = await exchange.stream(turn, form.content_type)
        await stream.mark(b"")
        mp3 = form.encoder()
        for chunk in spoken.chunks(self.settings.chunk_ms):
            await turn.make_audio(chunk.seconds)
            if await stream.output(mp3.feed(chunk.pcm) if mp3 else chunk.pcm):
                turn.spoke(chunk.pcm, chunk.rate)
        if mp3 and not turn.cut:
            await stream.mark(mp3.finish())
        return await stream.finish()

    async def _contexts(self, exchange: Exchange) -> web.StreamResponse:
        form = _Form.read(exchange.request)
        query = exchange.request.query
        model = query.get("model_id", "eleven_multilingual_v2")
        first = await exchange.begin(model)
        socket = await exchange.socket(first)
        speakers = Speakers()
        at_once = query.get("auto_mode") == "true"
        try:
            async for message in socket.objects():
                if not isinstance(message, dict):
                    continue
                if message.get("close_socket"):
                    await socket.response.close()
                    break
                name = str(message.get("context_id", ""))
                speaker = speakers.get(name)
                if speaker is None and message.get("text"):
                    speaker = self._speaker(exchange.turn(model), socket, name, form)
                    speakers.add(name, speaker)
                if speaker is not None:
                    _take(speaker, message, at_once=at_once)
        finally:
            await speakers.close()
        return socket.response

    def _speaker(self, turn: Turn, socket: Socket, context: str, form: _Form) -> Speaker:
        mp3 = form.encoder()

        async def emit(chunk: Chunk) -> bool:
            audio = mp3.feed(chunk.pcm) if mp3 else chunk.pcm
            alignment = _alignment(chunk.words)
            message = {"audio": base64.b64encode(audio).decode(), "contextId": context}
            times = {"alignment": alignment, "normalizedAlignment": alignment}
            return await socket.output(turn, {**message, **times})

        async def done() -> None:
            if mp3 and not turn.cut and (rest := mp3.finish()):
                audio = base64.b64encode(rest).decode()
                await socket.mark(turn, {"audio": audio, "contextId": context})
            await socket.mark(turn, {"isFinal": True, "contextId": context})

        return Speaker(turn, self._voice, form.rate, self.settings.chunk_ms, emit=emit, done=done)

    async def _batch(self, exchange: Exchange) -> web.StreamResponse:
        form = await exchange.request.post()
        model, file = str(form.get("model_id", "")), form.get("file")
        if not model or not isinstance(file, web.FileField):
            raise Rejected(400, "model_id and file are required")
        pcm, rate = read_wav(file.file.read())
        turn = await exchange.begin(model)
        listener = Listener(open_ear(self.settings, rate), rate, endpoint=None)
        events = await listener.feed(pcm) + await listener.finalize()
        words = [w for e in events if isinstance(e, Transcript) and e.final for w in e.words]
        turn.heard(pcm, rate)

        def render(heard: list[Heard]) -> bytes:
            language = {"language_code": "en", "language_probability": 0.99}
            said = {"text": " ".join(w.text for w in heard), "words": _words(heard)}
            return msgspec.json.encode({**language, **said})

        return await exchange.answer(turn, render(words), empty=render([]))

    async def _realtime(self, exchange: Exchange) -> web.StreamResponse:
        session = _Session.read(exchange.request)
        turn = await exchange.begin(session.model)
        async with listening(
            exchange, turn, self.settings, session.rate, endpoint=session.pause
        ) as ears:
            ears.outbox.mark(session.started(turn))
            committed = 0.0
            async for message in ears.socket.objects():
                if not isinstance(message, dict):
                    continue
                pcm = _audio(message)
                if pcm:
                    session.say(ears, await ears.hear(pcm))
                if message.get("commit") or message.get("message_type") == "commit":
                    if round(ears.listener.received - committed, 6) < _LEAST_COMMIT_S:
                        told = {"message_type": "commit_throttled", "error": "too little audio"}
                        ears.outbox.mark(told)
                        ears.outbox.finish()
                        continue
                    committed = ears.listener.received
                    final = await ears.listener.finalize()
                    session.say(ears, final or [Transcript((), committed, final=True)])
            return ears.socket.response


@dataclass(frozen=True, slots=True)
class _Form:
    """``output_format``: mp3_<rate>[_<kbit>] or pcm_<rate>."""

    codec: str
    rate: int
    kilobits: int

    @classmethod
    def read(cls, request: web.Request) -> _Form:
        name = request.query.get("output_format", "mp3_44100_128")
        codec, *numbers = name.split("_")
        if codec not in ("mp3", "pcm") or not numbers or not all(n.isdigit() for n in numbers):
            raise Rejected(400, f"output_format {name} is not spoken by this double")
        return cls(codec, int(numbers[0]), int(numbers[1]) if len(numbers) > 1 else 128)

    @property
    def content_type(self) -> str:
        return "audio/mpeg" if self.codec == "mp3" else "audio/pcm"

    def encoder(self) -> Mp3 | None:
        return Mp3(self.rate, self.kilobits) if self.codec == "mp3" else None


@dataclass(frozen=True, slots=True)
class _Session:
    """The query of a realtime transcription."""

    model: str
    rate: int
    pause: float | None
    stamped: bool

    @classmethod
    def read(cls, request: web.Request) -> _Session:
        query = request.query
        codec, _, rate = query.get("audio_format", "pcm_16000").partition("_")
        if codec != "pcm" or not rate.isdigit():
            raise Rejected(400, "audio_format is not pcm_<rate>, the one heard by this double")
        pause = None
        if query.get("commit_strategy") == "vad":
            pause = float(query.get("vad_silence_threshold_secs", _VAD_PAUSE_S))
        asks = ("include_timestamps", "include_language_detection")
        stamped = any(query.get(name) == "true" for name in asks)
        return cls(query.get("model_id", "scribe_v2_realtime"), int(rate), pause, stamped)

    def started(self, turn: Turn) -> dict[str, Any]:
        config = {"sample_rate": self.rate, "model_id": self.model}
        return {"message_type": "session_started", "session_id": turn.id, "config": config}

    def say(self, ears: Ears, events: list[Started | Transcript]) -> None:
        """A commit is sent twice, the second time with what was asked for about its words."""
        for event in events:
            if isinstance(event, Started):
                continue
            if not event.final:
                partial = {"message_type": "partial_transcript", "text": event.text}
                ears.outbox.output(partial)
                continue
            send = ears.outbox.output if event.words else ears.outbox.mark
            send({"message_type": "committed_transcript", "text": event.text})
            if self.stamped:
                told = {"text": event.text, "language_code": "en", "words": _words(event.words)}
                send({"message_type": "committed_transcript_with_timestamps", **told})


def _take(speaker: Speaker, message: dict[str, Any], *, at_once: bool) -> None:
    """Text, flush and close of a context; ``auto_mode`` speaks every piece at once."""
    speaker.hold(str(message.get("text") or ""))
    if message.get("close_context"):
        speaker.finish()
    elif message.get("flush") or at_once:
        speaker.flush()


def _alignment(words: Iterable[Timed]) -> dict[str, Any] | None:
    """Characters with their times in whole milliseconds; a blank follows each word."""
    letters = [letter for w in words for letter in [*w.letters, (" ", w.end, 0.0)]]
    if not letters:
        return None
    return {
        "chars": [char for char, _, _ in letters],
        "charStartTimesMs": [round(start * 1000) for _, start, _ in letters],
        "charDurationsMs": [round(length * 1000) for _, _, length in letters],
    }


def _words(heard: Iterable[Heard]) -> list[dict[str, Any]]:
    """Words with a spacing between them, as Scribe has them."""
    words: list[dict[str, Any]] = []
    for word in heard:
        if words:
            gap = {"start": words[-1]["end"], "end": word.start}
            words.append({"text": " ", "type": "spacing", **gap})
        times = {"start": word.start, "end": word.end}
        words.append({"text": word.text, "type": "word", "logprob": -0.01, **times})
    return words


def _audio(message: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(str(message.get("audio_base_64") or ""), validate=True)
    except binascii.Error:
        return b""
