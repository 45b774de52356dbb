"""OpenAI's Realtime API on a WebSocket: a conversation that hears, thinks and speaks.

Sources: OpenAI's API reference ("Realtime": client events, server events) and guides ("Realtime
conversations", "Managing costs": a token each 100 ms heard and each 50 ms spoken); livekit-agents
1.8.9 (``llm/_realtime/openai.py``) for what the official client reads.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web

from ..clock import new_id
from .bill import BillLine
from .exchange import Exchange
from .hearing import Listener, Started, Transcript
from .language import LanguageModel, tokens
from .openai_items import Context, Item, Units, audio_tokens, read_item
from .openai_response import Response
from .provider import Provider
from .speech import open_ear
from .transport import Over, Socket
from .turn import Turn
from .voice import Voice

RATE = 24000
"""The one rate of ``audio/pcm``."""

_PAUSE_S = 0.5
"""Silence that ends a turn: ``silence_duration_ms`` of server VAD, when it is not given."""

_FIXED = ("id", "object", "model", "type", "expires_at")
"""What a client cannot change of a session."""


class Refused(Exception):
    """An event that the session does not take."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


async def serve(
    exchange: Exchange, settings: Provider, model: str, mind: LanguageModel, voice: Voice
) -> web.StreamResponse:
    """Hold one conversation, until the client or a fault ends it."""
    turn = await exchange.begin(model)
    socket = await exchange.socket(turn)
    session = RealtimeSession(exchange, socket, settings, turn, mind, voice)
    await session.run()
    return socket.response


class RealtimeSession:
    """What one connection says and keeps."""

    def __init__(
        self,
        exchange: Exchange,
        socket: Socket,
        settings: Provider,
        turn: Turn,
        mind: LanguageModel,
        voice: Voice,
    ) -> None:
        self.settings = settings
        self.mind = mind
        self.voice = voice
        self.context = Context()
        self.config = _session(turn.log.model)
        self._exchange = exchange
        self._socket = socket
        self._turn = turn
        self._response: Response | None = None
        self._responding: asyncio.Task[None] | None = None
        self._buffer = bytearray()
        self._speech: tuple[str, float] | None = None
        self._listener = self._listens()

    async def run(self) -> None:
        await self.mark("session.created", session=self.config)
        try:
            async for message in self._socket.objects():
                if isinstance(message, bytes):
                    await self._error(Refused("invalid_json", "expected a text frame"), None)
                    continue
                try:
                    await self._take(message)
                except Refused as refused:
                    await self._error(refused, message.get("event_id"))
        finally:
            await self._stop_responding()

    async def mark(self, kind: str, **fields: Any) -> None:
        """Send an event that is no content."""
        await self._socket.mark(self._turn, self._event(kind, fields))

    async def output(self, kind: str, **fields: Any) -> bool:
        """Send content when it is due; False when it was left out."""
        return await self._socket.output(self._turn, self._event(kind, fields))

    @staticmethod
    def _event(kind: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        return {"type": kind, "event_id": f"event_{new_id()[-12:]}", **fields}

    async def _error(self, refused: Refused, event_id: object) -> None:
        error = {
            "type": "invalid_request_error",
            "code": refused.code,
            "message": str(refused),
            "param": refused.param,
            "event_id": event_id,
        }
        await self.mark("error", error=error)

    async def _take(self, message: dict[str, Any]) -> None:
        kinds: dict[str, Callable[[dict[str, Any]], Awaitable[None]]] = {
            "session.update": self._update,
            "input_audio_buffer.append": self._append,
            "input_audio_buffer.commit": self._commit,
            "input_audio_buffer.clear": self._clear,
            "conversation.item.create": self._create_item,
            "conversation.item.delete": self._delete_item,
            "conversation.item.truncate": self._truncate_item,
            "conversation.item.retrieve": self._retrieve_item,
            "response.create": self._create_response,
            "response.cancel": self._cancel_response,
        }
        take = kinds.get(str(message.get("type")))
        if take is None:
            told = f"Invalid value: '{message.get('type')}'."
            raise Refused("invalid_value", told, "type")
        await take(message)

    # The session.

    async def _update(self, message: dict[str, Any]) -> None:
        asked = message.get("session")
        if not isinstance(asked, dict):
            raise Refused("missing_required_parameter", "session is required", "session")
        if asked.get("model") not in (None, self.config["model"]):
            raise Refused("invalid_value", "Cannot update model of a session.", "session.model")
        before = self._turn_detection
        _merge(self.config, {k: v for k, v in asked.items() if k not in _FIXED})
        if before != self._turn_detection:
            self._listener = self._listens()
        await self.mark("session.updated", session=self.config)

    @property
    def _turn_detection(self) -> dict[str, Any] | None:
        found = self.config["audio"]["input"]["turn_detection"]
        return found if isinstance(found, dict) else None

    @property
    def _transcription(self) -> str:
        found = self.config["audio"]["input"]["transcription"]
        return str(found.get("model") or "") if isinstance(found, dict) else ""

    # What is heard.

    def _listens(self) -> Listener:
        vad = self._turn_detection
        pause = None
        if vad is not None:
            pause = vad.get("silence_duration_ms", _PAUSE_S * 1000) / 1000
        return Listener(open_ear(self.settings, RATE), RATE, endpoint=pause)

    async def _append(self, message: dict[str, Any]) -> None:
        try:
            pcm = base64.b64decode(str(message.get("audio", "")), validate=True)
        except binascii.Error:
            raise Refused("invalid_value", "Invalid 'audio': not base64.", "audio") from None
        self._buffer += pcm
        for event in await self._listener.feed(pcm):
            if self._turn_detection is None:
                continue
            if isinstance(event, Started):
                await self._speech_started(event)
            elif event.final and event.endpoint:
                await self._speech_stopped(event)

    async def _speech_started(self, event: Started) -> None:
        vad = self._turn_detection or {}
        self._speech = f"item_{new_id()[-12:]}", event.at
        if vad.get("interrupt_response", True):
            await self._stop_responding("turn_detected")
        await self.mark(
            "input_audio_buffer.speech_started",
            audio_start_ms=round(event.at * 1000),
            item_id=self._speech[0],
        )

    async def _speech_stopped(self, event: Transcript) -> None:
        name, began = self._speech or (f"item_{new_id()[-12:]}", event.received)
        self._speech = None
        self._buffer.clear()
        end_ms = round(event.received * 1000)
        await self.mark("input_audio_buffer.speech_stopped", audio_end_ms=end_ms, item_id=name)
        await self._heard(name, event.text, event.received - began)
        if (self._turn_detection or {}).get("create_response", True):
            await self._respond({})

    async def _commit(self, _: dict[str, Any]) -> None:
        if not self._buffer:
            told = "Error committing input audio buffer: the buffer is too small."
            raise Refused("input_audio_buffer_commit_empty", told)
        seconds = len(self._buffer) / 2 / RATE
        self._buffer.clear()
        heard = [e for e in await self._listener.finalize() if isinstance(e, Transcript)]
        text = " ".join(event.text for event in heard)
        await self._heard(f"item_{new_id()[-12:]}", text, seconds)

    async def _clear(self, _: dict[str, Any]) -> None:
        self._buffer.clear()
        self._listener = self._listens()
        await self.mark("input_audio_buffer.cleared")

    async def _heard(self, name: str, text: str, seconds: float) -> None:
        """What was said is an item of the conversation, and written down if that is wanted."""
        units = Units(audio=audio_tokens(seconds, 0.1))
        content = [{"type": "input_audio", "transcript": None}]
        item = Item(name, {"type": "message", "role": "user", "content": content}, units, text)
        previous = self.context.add(item)
        await self.mark("input_audio_buffer.committed", previous_item_id=previous, item_id=name)
        await self.told_item(item, previous)
        if self._transcription:
            await self._transcribe(item, seconds)

    async def _transcribe(self, item: Item, seconds: float) -> None:
        line = self._exchange.also(self._transcription)
        kind = "conversation.item.input_audio_transcription"
        words = tokens(item.said)
        for index, word in enumerate(words):
            delta = {"item_id": item.id, "content_index": 0, "delta": word}
            await self.mark(f"{kind}.delta", **delta, logprobs=None, obfuscation=str(index))
        usage = _transcript_usage(line, seconds, len(words))
        done = {"item_id": item.id, "content_index": 0, "transcript": item.said}
        await self.mark(f"{kind}.completed", **done, usage=usage)

    # The conversation.

    async def told_item(self, item: Item, previous: str | None) -> None:
        for kind in ("added", "done"):
            await self.mark(
                f"conversation.item.{kind}", previous_item_id=previous, item=item.rendered()
            )

    async def _create_item(self, message: dict[str, Any]) -> None:
        item = read_item(message.get("item"))
        if item is None:
            raise Refused("invalid_value", "Invalid 'item'.", "item")
        if item.id in self.context:
            told = f"Error adding item: an item with id '{item.id}' already exists."
            raise Refused("item_create_duplicate_item_id", told)
        previous = message.get("previous_item_id")
        if previous not in (None, "root") and previous not in self.context:
            told = f"Error adding item: the previous item with id '{previous}' does not exist."
            raise Refused("item_create_invalid_previous_item_id", told, "previous_item_id")
        await self.told_item(item, self.context.add(item, previous))

    async def _delete_item(self, message: dict[str, Any]) -> None:
        name = str(message.get("item_id"))
        if not self.context.remove(name):
            raise Refused("item_delete_invalid_item_id", f"Item with id '{name}' does not exist.")
        await self.mark("conversation.item.deleted", item_id=name)

    async def _truncate_item(self, message: dict[str, Any]) -> None:
        item = self.context.get(str(message.get("item_id")))
        end_ms = message.get("audio_end_ms")
        if item is None or not isinstance(end_ms, int):
            raise Refused("item_truncate_invalid_item_id", "there is no such item to truncate")
        item.units = Units(audio=min(item.units.audio, audio_tokens(end_ms / 1000, 0.05)))
        told = {"item_id": item.id, "content_index": message.get("content_index", 0)}
        await self.mark("conversation.item.truncated", **told, audio_end_ms=end_ms)

    async def _retrieve_item(self, message: dict[str, Any]) -> None:
        item = self.context.get(str(message.get("item_id")))
        if item is None:
            raise Refused("item_retrieve_invalid_item_id", "there is no such item")
        await self.mark("conversation.item.retrieved", item=item.rendered())

    # What it says.

    async def _create_response(self, message: dict[str, Any]) -> None:
        if self._response is not None:
            told = "Conversation already has an active response in progress."
            raise Refused("conversation_already_has_active_response", told)
        asked = message.get("response")
        await self._respond(asked if isinstance(asked, dict) else {})

    async def _cancel_response(self, _: dict[str, Any]) -> None:
        if self._response is None:
            told = "Cancellation failed: no active response found"
            raise Refused("response_cancel_not_active", told)
        await self._stop_responding("client_cancelled")

    async def _respond(self, asked: dict[str, Any]) -> None:
        await self._stop_responding("turn_detected")
        self._turn = turn = self._exchange.turn(self.config["model"])
        response = self._response = Response(self, turn, asked)

        async def respond() -> None:
            with contextlib.suppress(Over, ConnectionError):
                try:
                    await response.run()
                finally:
                    if self._response is response:
                        self._response = None

        self._responding = asyncio.create_task(respond())

    async def _stop_responding(self, reason: str = "") -> None:
        """Stop what is being said; ``reason`` is told, unless the connection has ended."""
        response, task = self._response, self._responding
        self._response = self._responding = None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if response is not None:
            response.turn.stop()
            if reason:
                await response.cancelled(reason)


def _session(model: str) -> dict[str, Any]:
    pcm = {"type": "audio/pcm", "rate": RATE}
    vad = {
        "type": "server_vad",
        "threshold": 0.5,
        "prefix_padding_ms": 300,
        "silence_duration_ms": round(_PAUSE_S * 1000),
        "create_response": True,
        "interrupt_response": True,
    }
    heard = {"format": pcm, "noise_reduction": None, "transcription": None, "turn_detection": vad}
    return {
        "type": "realtime",
        "object": "realtime.session",
        "id": f"sess_{new_id()[-12:]}",
        "model": model,
        "output_modalities": ["audio"],
        "instructions": "You are helpful.",
        "tools": [],
        "tool_choice": "auto",
        "max_output_tokens": "inf",
        "audio": {"input": heard, "output": {"format": pcm, "voice": "marin", "speed": 1.0}},
    }


def _merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Put ``changes`` over what is there, section by section; VAD and tools as a whole."""
    for name, value in changes.items():
        if isinstance(value, dict) and name in ("audio", "input", "output"):
            _merge(into.setdefault(name, {}), value)
        elif name == "turn_detection" and isinstance(value, dict):
            into[name] = {k: v for k, v in value.items() if v is not None}
        else:
            into[name] = value


def _transcript_usage(line: BillLine, seconds: float, words: int) -> dict[str, Any]:
    """By duration for whisper-1, by tokens for the others."""
    if line.model == "whisper-1":
        whole = -(-round(seconds * 1000) // 1000)
        line.charge(audio_in_ns=whole * 1_000_000_000)
        return {"type": "duration", "seconds": whole}
    audio = audio_tokens(seconds, 0.06)
    line.charge(tokens_in=audio, tokens_audio_in=audio, tokens_out=words)
    details = {"text_tokens": 0, "audio_tokens": audio}
    return {
        "type": "tokens",
        "input_tokens": audio,
        "output_tokens": words,
        "total_tokens": audio + words,
        "input_token_details": details,
    }
