"""OpenAI's API: chat completions, transcriptions, speech, models, and realtime sessions.

Sources: OpenAI's API reference ("Create chat completion", "Streaming events", "Create
transcription", "Create speech", "Errors"); livekit-plugins-openai 1.8.9 (``stt.py``, ``tts.py``)
and livekit-agents 1.8.9 (``inference/llm.py``) for what the official client reads.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import msgspec
from aiohttp import web

from .exchange import Exchange
from .hearing import Listener, Transcript
from .language import arguments_of, count, tokens
from .openai_realtime import serve as realtime
from .provider import Provider, Reply
from .speech import open_ear, open_model, open_voice
from .transport import Rejected, Stream
from .turn import Turn
from .vendor import Endpoint, Vendor, body, read_wav, text
from .voice import Chunk, Mp3, Spoken, wav

_RATE = 24000
"""Speech comes at 24 kHz ("Create speech"; ``SAMPLE_RATE`` in the plugin's ``tts.py``)."""
_AUDIO_TOKENS_IN = 1000 / 60
_AUDIO_TOKENS_OUT = 1250 / 60
"""Tokens a second of audio: what OpenAI's pricing page estimates for a minute (0.006 USD at 6 USD
a million heard by gpt-4o-transcribe, 0.015 at 12 spoken by gpt-4o-mini-tts)."""
_BY_CHARACTER = ("tts-1", "tts-1-hd")
"""These take no ``sse`` and are billed by characters (``AUDIO_STREAM_MODELS`` in the plugin)."""

_ERRORS = {
    401: ("Incorrect API key provided.", "invalid_request_error", "invalid_api_key"),
    402: ("You have no credit left.", "insufficient_quota", "insufficient_quota"),
    429: ("Rate limit reached for requests.", "requests", "rate_limit_exceeded"),
    500: ("The server had an error while processing your request.", "server_error", None),
}


class OpenAI(Vendor):
    """Served under ``/openai``; clients take ``<url>/v1`` as ``base_url``."""

    name: ClassVar[str] = "openai"
    base: ClassVar[str] = "/v1"

    def __init__(self, settings: Provider) -> None:
        super().__init__(settings)
        self._model = open_model(settings)
        self._voice = open_voice(settings)

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint("POST", "/v1/chat/completions", "chat", self._chat),
            Endpoint("POST", "/v1/audio/transcriptions", "transcriptions", self._transcribe),
            Endpoint("POST", "/v1/audio/speech", "speech", self._speech),
            Endpoint("GET", "/v1/models", "models", self._models),
            Endpoint("GET", "/v1/realtime", "realtime", self._realtime),
        ]

    def key(self, request: web.Request) -> str:
        return request.headers.get("Authorization", "").removeprefix("Bearer ").strip()

    def error(self, status: int, message: str, request_id: str) -> dict[str, Any]:
        usual, kind, code = _ERRORS.get(status, ("Bad request.", "invalid_request_error", None))
        return {"error": {"message": message or usual, "type": kind, "param": None, "code": code}}

    async def _realtime(self, exchange: Exchange) -> web.StreamResponse:
        model = exchange.request.query.get("model", "")
        if not model:
            raise Rejected(400, "You must provide a model parameter.")
        return await realtime(exchange, self.settings, model, self._model, self._voice)

    async def _models(self, exchange: Exchange) -> web.StreamResponse:
        turn = await exchange.begin("")
        names = ("gpt-4o-mini", "gpt-4o-mini-transcribe", "gpt-4o-mini-tts", "tts-1", "whisper-1")
        data = [{"id": n, "object": "model", "created": 0, "owned_by": "openai"} for n in names]
        answer = msgspec.json.encode({"object": "list", "data": data})
        return await exchange.answer(turn, answer, empty=b'{"object":"list","data":[]}')

    async def _chat(self, exchange: Exchange) -> web.StreamResponse:
        asked = await body(exchange.request)
        messages = asked.get("messages")
        if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
            raise Rejected(400, "messages is not a list of objects")
        turn = await exchange.begin(text(asked, "model"))
        reply = await self._model.reply(messages)
        turn.bill.charge(tokens_in=count(messages))
        if not asked.get("stream"):
            return await self._complete(exchange, turn, reply)
        options = asked.get("stream_options")
        stream = await exchange.stream(turn, "text/event-stream")
        chunk = _Chunk(turn, with_usage=isinstance(options, dict) and options.get("include_usage"))
        await stream.mark(chunk({"role": "assistant", "content": ""}))
        for delta in _deltas(reply):
            if await stream.output(chunk(delta)):
                turn.bill.charge(tokens_out=1)
        await stream.mark(chunk({}, finish=_finish(reply)))
        if chunk.with_usage:
            await stream.mark(chunk.usage())
        await stream.mark(b"data: [DONE]\n\n")
        return await stream.finish()

    async def _complete(self, exchange: Exchange, turn: Turn, reply: Reply) -> web.StreamResponse:
        turn.bill.charge(tokens_out=sum(1 for _ in _deltas(reply)))
        message: dict[str, Any] = {"role": "assistant", "content": reply.text or None}
        if reply.tools:
            message["tool_calls"] = [
                {
                    "id": _call_id(turn, index),
                    "type": "function",
                    "function": {"name": call.name, "arguments": "".join(arguments_of(call))},
                }
                for index, call in enumerate(reply.tools)
            ]
        choice = {"index": 0, "message": message, "finish_reason": _finish(reply)}
        whole = {
            "id": f"chatcmpl-{turn.id}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": turn.log.model,
            "choices": [choice],
            "usage": _usage(turn),
        }
        blank = {**choice, "message": {"role": "assistant", "content": ""}}
        empty = msgspec.json.encode({**whole, "choices": [blank]})
        return await exchange.answer(turn, msgspec.json.encode(whole), empty=empty)

    async def _transcribe(self, exchange: Exchange) -> web.StreamResponse:
        form = await exchange.request.post()
        model, file = str(form.get("model", "")), form.get("file")
        if not model or not isinstance(file, web.FileField):
            raise Rejected(400, "model and file are required")
        pcm, rate = read_wav(file.file.read())
        turn = await exchange.begin(model)
        listener = Listener(open_ear(self.settings, rate), rate, endpoint=None)
        events = await listener.feed(pcm) + await listener.finalize()
        said = " ".join(e.text for e in events if isinstance(e, Transcript) and e.final)
        turn.heard(pcm, rate)
        self._bill_tokens(turn, said)
        usage = _heard_usage(turn)
        if form.get("stream") in ("true", "True", "1") and model != "whisper-1":
            return await self._stream_transcript(exchange, turn, said, usage)
        answer: dict[str, Any] = {"text": said, "usage": usage}
        if form.get("response_format") == "verbose_json":
            seconds = listener.received
            answer |= {"task": "transcribe", "language": "english", "duration": seconds}
            answer |= {"segments": []}
        empty = msgspec.json.encode({**answer, "text": ""})
        return await exchange.answer(turn, msgspec.json.encode(answer), empty=empty)

    @staticmethod
    def _bill_tokens(turn: Turn, said: str) -> None:
        if turn.log.model != "whisper-1":
            audio = round(turn.bill.units.audio_in_ns * _AUDIO_TOKENS_IN / 1e9)
            turn.bill.charge(tokens_in=audio, tokens_audio_in=audio, tokens_out=len(tokens(said)))

    @staticmethod
    async def _stream_transcript(
        exchange: Exchange, turn: Turn, said: str, usage: dict[str, Any]
    ) -> web.StreamResponse:
        stream = await exchange.stream(turn, "text/event-stream")
        for token in tokens(said):
            await stream.output(_event({"type": "transcript.text.delta", "delta": token}))
        done = {"type": "transcript.text.done", "text": said, "usage": usage}
        await stream.mark(_event(done))
        return await stream.finish()

    async def _speech(self, exchange: Exchange) -> web.StreamResponse:
        asked = await body(exchange.request)
        model, said = text(asked, "model"), text(asked, "input")
        form = asked.get("response_format") or "mp3"
        if form not in ("mp3", "wav", "pcm"):
            raise Rejected(400, f"response_format {form} is not spoken by this double")
        turn = await exchange.begin(model)
        turn.bill.spell(said)
        if model not in _BY_CHARACTER:
            turn.bill.charge(tokens_in=len(tokens(said)))
        spoken = await self._voice.say(said, turn.rate(_RATE))
        events = asked.get("stream_format") == "sse" and model not in _BY_CHARACTER
        stream = await exchange.stream(turn, "text/event-stream" if events else _AUDIO_TYPES[form])
        await stream.mark(b"")
        await self._play(stream, turn, spoken, form, events=events)
        if events:
            units = turn.bill.units
            usage = _totals(units.tokens_in, units.tokens_out)
            await stream.mark(_event({"type": "speech.audio.done", "usage": usage}))
        return await stream.finish()

    async def _play(
        self, stream: Stream, turn: Turn, spoken: Spoken, form: str, *, events: bool
    ) -> None:
        coder = Mp3(_RATE, 64) if form == "mp3" else None
        head = wav(spoken.pcm, _RATE)[:44] if form == "wav" else b""
        for chunk in spoken.chunks(self.settings.chunk_ms):
            await turn.make_audio(chunk.seconds)
            audio = head + (coder.feed(chunk.pcm) if coder else chunk.pcm)
            head = b""
            if await stream.output(_delta(audio) if events else audio):
                self._bill_speech(turn, chunk)
        if coder and not turn.cut:
            rest = coder.finish()
            await stream.mark(_delta(rest) if events else rest)

    @staticmethod
    def _bill_speech(turn: Turn, chunk: Chunk) -> None:
        turn.spoke(chunk.pcm, chunk.rate)
        if turn.log.model not in _BY_CHARACTER:
            due = round(turn.bill.units.audio_out_ns * _AUDIO_TOKENS_OUT / 1e9)
            more = due - turn.bill.units.tokens_audio_out
            turn.bill.charge(tokens_out=more, tokens_audio_out=more)


def _delta(audio: bytes) -> bytes:
    return _event({"type": "speech.audio.delta", "audio": base64.b64encode(audio).decode()})


_AUDIO_TYPES = {"mp3": "audio/mpeg", "wav": "audio/wav", "pcm": "audio/pcm"}


class _Chunk:
    """Renders the chunks of one streamed completion."""

    def __init__(self, turn: Turn, *, with_usage: object) -> None:
        self.with_usage = bool(with_usage)
        self._turn = turn
        self._created = int(time.time())

    def __call__(self, delta: dict[str, Any], *, finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        if "tool_calls" in delta:
            for call in delta["tool_calls"]:
                if "id" in call:
                    call["id"] = _call_id(self._turn, call["index"])
        return self._render([choice], {"usage": None} if self.with_usage else {})

    def usage(self) -> bytes:
        return self._render([], {"usage": _usage(self._turn)})

    def _render(self, choices: list[dict[str, Any]], more: dict[str, Any]) -> bytes:
        return _event(
            {
                "id": f"chatcmpl-{self._turn.id}",
                "object": "chat.completion.chunk",
                "created": self._created,
                "model": self._turn.log.model,
                "choices": choices,
                **more,
            }
        )


def _deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    """What the model streams, one token each."""
    for token in tokens(reply.text):
        yield {"content": token}
    for index, call in enumerate(reply.tools):
        function = {"name": call.name, "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": "", "type": "function", "function": function}]}
        for piece in arguments_of(call):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _finish(reply: Reply) -> str:
    return "tool_calls" if reply.tools else "stop"


def _call_id(turn: Turn, index: int) -> str:
    return f"call_{turn.id.replace('-', '')[-20:]}{index}"


def _event(data: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _totals(tokens_in: int, tokens_out: int) -> dict[str, Any]:
    return {
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }


def _usage(turn: Turn) -> dict[str, Any]:
    units = turn.bill.units
    return {
        "prompt_tokens": units.tokens_in,
        "completion_tokens": units.tokens_out,
        "total_tokens": units.tokens_in + units.tokens_out,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    }


def _heard_usage(turn: Turn) -> dict[str, Any]:
    """By duration for whisper-1, by tokens for the others ("Create transcription")."""
    units = turn.bill.units
    if turn.log.model == "whisper-1":
        return {"type": "duration", "seconds": -(-units.audio_in_ns // 1_000_000_000)}
    details = {"text_tokens": 0, "audio_tokens": units.tokens_audio_in}
    return {
        "type": "tokens",
        "input_token_details": details,
        **_totals(units.tokens_in, units.tokens_out),
    }
