"""Cartesia: Sonic voices by WebSocket contexts and by HTTP; Ink transcription with and without
turns.

Sources: Cartesia's documentation ("Text to Speech (WebSocket)", "Contexts", "Text to Speech
(Bytes)", "Speech-to-Text (Streaming)", "Speech-to-Text with turns", "Compare STT endpoints");
livekit-plugins-cartesia 1.8.9 (``tts.py``, ``_recognize_streams/*.py``). A context is one request
on the bill. The plugin closes a context with a blank transcript, which is free.
"""

from __future__ import annotations

import base64
from typing import Any, ClassVar

from aiohttp import web

from .exchange import Exchange
from .hearing import Started, Transcript
from .provider import Provider
from .speech import open_voice
from .streams import Ears, Speaker, Speakers, listening
from .transport import Rejected, Socket
from .turn import Turn
from .vendor import Endpoint, Vendor, body, number, text
from .voice import Chunk

_ERRORS = {
    401: ("unauthorized", "Invalid API key", "The API key is missing or not valid."),
    402: ("payment_required", "Payment required", "The account has no credits left."),
    429: ("concurrency_limited", "Too many requests", "Too many concurrent requests."),
    500: ("internal_error", "Internal error", "The server could not process the request."),
}
_TURN_PAUSE_S = 0.2
_WHISPER_PAUSE_S = 0.4
"""Silences that make a transcript final here; the documentation gives no figures."""


class Cartesia(Vendor):
    """Served under ``/cartesia``; clients take ``<url>`` as ``base_url``."""

    name: ClassVar[str] = "cartesia"

    def __init__(self, settings: Provider) -> None:
        super().__init__(settings)
        self._voice = open_voice(settings)

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("GET", "/tts/websocket", "tts", self._contexts),
            Endpoint("POST", "/tts/bytes", "tts_bytes", self._bytes),
            Endpoint("GET", "/stt/turns/websocket", "stt_turns", self._turns),
            Endpoint("GET", "/stt/websocket", "stt", self._whisper),
        ]

    def key(self, request: web.Request) -> str:
        return request.headers.get("X-API-Key", "") or request.query.get("api_key", "")

    def error(self, status: int, message: str, request_id: str) -> dict[str, Any]:
        code, title, usual = _ERRORS.get(status, ("bad_request", "Bad request", "Bad request."))
        told = {"error_code": code, "title": title, "message": message or usual}
        return {**told, "status_code": status, "request_id": request_id}

    async def _bytes(self, exchange: Exchange) -> web.StreamResponse:
        asked = await body(exchange.request)
        said, rate = text(asked, "transcript"), _raw_rate(asked)
        turn = await exchange.begin(text(asked, "model_id"))
        turn.bill.spell(said)
        spoken = await self._voice.say(said, turn.rate(rate))
        stream = await exchange.stream(turn, "audio/pcm")
        await stream.mark(b"")
        for chunk in spoken.chunks(self.settings.chunk_ms):
            await turn.make_audio(chunk.seconds)
            if await stream.output(chunk.pcm):
                turn.spoke(chunk.pcm, chunk.rate)
        return await stream.finish()

    async def _contexts(self, exchange: Exchange) -> web.StreamResponse:
        first = await exchange.begin(None)
        socket = await exchange.socket(first)
        speakers = Speakers()
        try:
            async for message in socket.objects():
                if not isinstance(message, dict):
                    continue
                try:
                    await self._take(exchange, socket, speakers, message)
                except Rejected as no:
                    context = {"type": "error", "done": True, "context_id": _context(message)}
                    error = {**context, **self.error(no.status, no.message, exchange.id)}
                    await socket.response.send_json(error)
        finally:
            await speakers.close()
        return socket.response

    async def _take(
        self, exchange: Exchange, socket: Socket, speakers: Speakers, message: dict[str, Any]
    ) -> None:
        name = _context(message)
        if message.get("cancel"):
            await speakers.cancel(name)
            return
        speaker = speakers.get(name)
        if speaker is None:
            rate, model = _raw_rate(message), text(message, "model_id")
            stamps = bool(message.get("add_timestamps"))
            turn = exchange.turn(model)
            speaker = self._speaker(turn, socket, name, rate, stamps=stamps)
            speakers.add(name, speaker)
        said = str(message.get("transcript", ""))
        speaker.hold(said)
        if not message.get("continue"):
            speaker.finish()
        elif message.get("max_buffer_delay_ms") == 0 or said.rstrip().endswith((".", "!", "?")):
            speaker.flush()

    def _speaker(
        self, turn: Turn, socket: Socket, context: str, rate: int, *, stamps: bool
    ) -> Speaker:
        common = {"status_code": 206, "context_id": context}

        async def emit(chunk: Chunk) -> bool:
            data = base64.b64encode(chunk.pcm).decode()
            message = {"type": "chunk", "data": data, "done": False, "step_time": 0, **common}
            return await socket.output(turn, message)

        async def told(chunk: Chunk) -> None:
            if stamps and chunk.words:
                times = {
                    "words": [word.text for word in chunk.words],
                    "start": [word.start for word in chunk.words],
                    "end": [word.end for word in chunk.words],
                }
                stamped = {"type": "timestamps", "done": False, "word_timestamps": times}
                await socket.mark(turn, {**stamped, **common})

        async def done() -> None:
            await socket.mark(turn, {"type": "done", "done": True, **common})

        length = self.settings.chunk_ms
        return Speaker(turn, self._voice, rate, length, emit=emit, told=told, done=done)

    async def _turns(self, exchange: Exchange) -> web.StreamResponse:
        rate = number(exchange.request, "sample_rate", 16000)
        turn = await exchange.begin(exchange.request.query.get("model", "ink-2"))
        async with listening(exchange, turn, self.settings, rate, endpoint=_TURN_PAUSE_S) as ears:
            ears.outbox.mark({"type": "connected", "request_id": turn.id})
            async for message in ears.socket.objects():
                if isinstance(message, bytes):
                    _say_turns(ears, await ears.hear(message))
                elif message.get("type") == "close":
                    _say_turns(ears, await ears.listener.finalize())
                    ears.outbox.finish()
            return ears.socket.response

    async def _whisper(self, exchange: Exchange) -> web.StreamResponse:
        rate = number(exchange.request, "sample_rate", 16000)
        turn = await exchange.begin(exchange.request.query.get("model", "ink-whisper"))
        async with listening(
            exchange, turn, self.settings, rate, endpoint=_WHISPER_PAUSE_S
        ) as ears:
            transcripts = _Transcripts(ears)
            async for message in ears.socket.messages():
                if isinstance(message, bytes):
                    transcripts.say(await ears.hear(message))
                elif message == "finalize":
                    transcripts.say(await ears.listener.finalize())
                    ears.outbox.mark({"type": "flush_done", "request_id": turn.id})
                elif message in ("close", "done"):
                    transcripts.say(await ears.listener.finalize())
                    ears.outbox.mark({"type": "done", "request_id": turn.id})
                    ears.outbox.finish()
            return ears.socket.response


def _say_turns(ears: Ears, events: list[Started | Transcript]) -> None:
    """``/stt/turns/websocket``: transcripts are cumulative within a turn."""
    for event in events:
        if isinstance(event, Started):
            ears.outbox.mark({"type": "turn.start", "request_id": ears.turn.id})
            continue
        kind = "turn.end" if event.final else "turn.update"
        said = {"type": kind, "transcript": event.text, "request_id": ears.turn.id}
        ears.outbox.output(said)


class _Transcripts:
    """``/stt/websocket``: each transcript holds what came since the last final one."""

    def __init__(self, ears: Ears) -> None:
        self._ears = ears
        self._window = 0.0

    def say(self, events: list[Started | Transcript]) -> None:
        for event in events:
            if isinstance(event, Transcript):
                self._ears.outbox.output(self._message(event))
                self._window = event.received if event.final else self._window

    def _message(self, said: Transcript) -> dict[str, Any]:
        return {
            "type": "transcript",
            "is_final": said.final,
            "request_id": self._ears.turn.id,
            "text": said.text,
            "duration": said.received - self._window,
            "words": [{"word": w.text, "start": w.start, "end": w.end} for w in said.words],
        }


def _context(message: dict[str, Any]) -> str:
    return str(message.get("context_id", ""))


def _raw_rate(message: dict[str, Any]) -> int:
    """The rate of ``output_format``. Raises Rejected unless it is raw 16-bit PCM."""
    form = message.get("output_format")
    if not isinstance(form, dict) or form.get("encoding", "pcm_s16le") != "pcm_s16le":
        raise Rejected(400, "output_format is missing, or not pcm_s16le, the one spoken here")
    rate = form.get("sample_rate")
    if form.get("container", "raw") != "raw" or not isinstance(rate, int) or rate < 8000:
        raise Rejected(400, "output_format has no sample_rate, or a container that is not raw")
    return rate
