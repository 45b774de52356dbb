"""Deepgram's voices: Aura on ``/v1/speak``, Flux on ``/v2/speak``, by WebSocket and by HTTP.

Sources: Deepgram's documentation ("Text to Speech Streaming", "Flush", "Clear", "Flux TTS: Server
Messages"); livekit-plugins-deepgram 1.8.9 (``tts.py``, ``tts_v2.py``). Audio leaves when a
sentence is complete or at a Flush. An utterance, up to its Flush, is one request on the bill.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from .exchange import Exchange
from .provider import Provider
from .speech import open_voice
from .streams import Speaker, Speakers
from .transport import Rejected, Socket
from .turn import Turn
from .vendor import body, number, text
from .voice import Chunk, wav


class Speak:
    """The handlers of both generations of voices."""

    def __init__(self, settings: Provider) -> None:
        self._settings = settings
        self._voice = open_voice(settings)

    async def aura(self, exchange: Exchange) -> web.StreamResponse:
        """``/v1/speak``: Metadata at the start, Flushed at the end of an utterance."""
        return await self._converse(exchange, _Aura())

    async def flux(self, exchange: Exchange) -> web.StreamResponse:
        """``/v2/speak``: Connected, then SpeechStarted and SpeechMetadata around each turn."""
        return await self._converse(exchange, _Flux())

    async def rest(self, exchange: Exchange) -> web.StreamResponse:
        """One text, one body of audio; ``container=none`` is raw PCM, else WAV."""
        request = exchange.request
        said, rate = text(await body(request), "text"), number(request, "sample_rate", 24000)
        if request.query.get("encoding", "linear16") != "linear16":
            raise Rejected(400, "this double speaks linear16 only")
        turn = await exchange.begin(request.query.get("model", "aura-2-thalia-en"))
        turn.bill.spell(said)
        spoken = await self._voice.say(said, turn.rate(rate))
        stream = await exchange.stream(turn, "audio/l16")
        await stream.mark(b"")
        if request.query.get("container") != "none":
            await stream.mark(wav(spoken.pcm, rate)[:44])  # the header alone
        for chunk in spoken.chunks(self._settings.chunk_ms):
            await turn.make_audio(chunk.seconds)
            if await stream.output(chunk.pcm):
                turn.spoke(chunk.pcm, chunk.rate)
        return await stream.finish()

    async def _converse(self, exchange: Exchange, dialect: _Aura) -> web.StreamResponse:
        request = exchange.request
        rate = number(request, "sample_rate", 24000)
        if request.query.get("encoding", "linear16") != "linear16":
            raise Rejected(400, "this double speaks linear16 only")
        model = request.query.get("model", "aura-2-thalia-en")
        first = await exchange.begin(model)
        socket = await exchange.socket(first)
        speakers = Speakers()
        await socket.mark(first, dialect.hello(first, model))
        try:
            await self._read(exchange, socket, speakers, dialect, (model, rate))
        finally:
            await speakers.close()
        return socket.response

    async def _read(
        self,
        exchange: Exchange,
        socket: Socket,
        speakers: Speakers,
        dialect: _Aura,
        asked: tuple[str, int],
    ) -> None:
        speaker: Speaker | None = None
        utterances = 0
        async for message in socket.objects():
            kind = message.get("type") if isinstance(message, dict) else None
            if isinstance(message, dict) and kind == "Speak":
                if speaker is None:
                    speaker = self._speaker(exchange.turn(asked[0]), socket, dialect, asked[1])
                    speakers.add(str(utterances), speaker)
                    utterances += 1
                speaker.hold(str(message.get("text", "")))
                if str(message.get("text", "")).rstrip().endswith((".", "!", "?")):
                    speaker.flush()
            elif kind == "Flush" and speaker is not None:
                speaker.finish()
                speaker = None
            elif kind == "Clear":
                await speakers.close()
                speaker = None
                await socket.response.send_json(dialect.sequenced("Cleared"))
            elif kind == "Close":
                await socket.response.close()

    def _speaker(self, turn: Turn, socket: Socket, dialect: _Aura, rate: int) -> Speaker:
        async def emit(chunk: Chunk) -> bool:
            for payload in dialect.before(turn):
                await socket.mark(turn, payload)
            return await socket.output(turn, chunk.pcm)

        async def done() -> None:
            for payload in dialect.after(turn):
                await socket.mark(turn, payload)

        return Speaker(turn, self._voice, rate, self._settings.chunk_ms, emit=emit, done=done)


class _Aura:
    """The messages of ``/v1/speak``."""

    def __init__(self) -> None:
        self._sequence = 0

    def hello(self, turn: Turn, model: str) -> dict[str, Any]:
        return {"type": "Metadata", "request_id": turn.id, "model_name": model}

    def before(self, turn: Turn) -> list[dict[str, Any]]:
        """What comes before a chunk of audio."""
        return []

    def after(self, turn: Turn) -> list[dict[str, Any]]:
        """What comes after the last chunk."""
        return [self.sequenced("Flushed")]

    def sequenced(self, kind: str) -> dict[str, Any]:
        message = {"type": kind, "sequence_id": self._sequence}
        self._sequence += 1
        return message


class _Flux(_Aura):
    """The messages of ``/v2/speak``."""

    def __init__(self) -> None:
        super().__init__()
        self._started = ""

    def hello(self, turn: Turn, model: str) -> dict[str, Any]:
        return {"type": "Connected", "request_id": turn.id, "model_name": model}

    def before(self, turn: Turn) -> list[dict[str, Any]]:
        if self._started == turn.id:
            return []
        self._started = turn.id
        return [{"type": "SpeechStarted", "speech_id": turn.id}]

    def after(self, turn: Turn) -> list[dict[str, Any]]:
        units = turn.bill.units
        spoken = {
            "speech_id": turn.id,
            "character_count": units.characters,
            "audio_duration_ms": units.audio_out_ns // 1_000_000,
        }
        return [{"type": "SpeechMetadata", **spoken}, self.sequenced("Flushed")]
