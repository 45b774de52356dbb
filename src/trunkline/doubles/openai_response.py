"""One response of OpenAI's Realtime API: its events in their order, and its usage."""

from __future__ import annotations

import base64
from typing import Any, Protocol

import msgspec

from ..clock import new_id
from .language import LanguageModel, arguments_of, tokens
from .openai_items import Context, Item, Units, audio_tokens
from .provider import Provider, ToolCall
from .turn import Turn
from .voice import Voice

_RATE = 24000


class Conversation(Protocol):
    """The session that a response is said in."""

    settings: Provider
    mind: LanguageModel
    voice: Voice
    context: Context
    config: dict[str, Any]

    async def mark(self, kind: str, **fields: Any) -> None: ...
    async def output(self, kind: str, **fields: Any) -> bool: ...


class Response:
    """What the model says to the conversation so far, billed as it leaves.

    The input counts from the start, a word when it leaves, a token of audio for each 50 ms.
    """

    def __init__(self, session: Conversation, turn: Turn, asked: dict[str, Any]) -> None:
        self.turn = turn
        self._session = session
        self._id = f"resp_{new_id()[-12:]}"
        self._metadata = asked.get("metadata")
        config = {**session.config, **asked}
        self._instructions = str(config.get("instructions") or "")
        self._tools = config.get("tools") or []
        self._speaks = "audio" in (config.get("output_modalities") or ["audio"])
        most = config.get("max_output_tokens")
        self._most = most if isinstance(most, int) else None
        self._output: list[dict[str, Any]] = []
        self._cached = Units()
        self._item: Item | None = None
        self._spoken = 0
        self._words = 0
        self._is_cut_short = False

    async def run(self) -> None:
        """Say it all."""
        session = self._session
        text = tokens(self._instructions) + tokens(msgspec.json.encode(self._tools).decode())
        whole, self._cached = session.context.prompt(Units(text=len(text)))
        messages = [item.message() for item in session.context.items]
        reply = await session.mind.reply(messages)
        self.turn.bill.charge(
            tokens_in=whole.text + whole.audio,
            tokens_audio_in=whole.audio,
            tokens_cached=self._cached.text + self._cached.audio,
            tokens_cached_audio=self._cached.audio,
        )
        await session.mark("response.created", response=self._rendered("in_progress"))
        if reply.text or not reply.tools:
            await self._say(reply.text)
        for call in reply.tools:
            await self._call(call)
        status = "incomplete" if self._is_cut_short else "completed"
        details = {"type": "incomplete", "reason": "max_output_tokens"}
        await self._done(status, details if self._is_cut_short else None)
        self.turn.done()

    async def cancelled(self, reason: str) -> None:
        """Tell that the rest does not come."""
        if self._item is not None:
            await self._end_item(self._item, "incomplete")
        await self._done("cancelled", {"type": "cancelled", "reason": reason})

    async def _done(self, status: str, details: dict[str, Any] | None) -> None:
        rendered = {**self._rendered(status), "status_details": details, "usage": self._usage()}
        await self._session.mark("response.done", response=rendered)

    def _rendered(self, status: str) -> dict[str, Any]:
        return {
            "object": "realtime.response",
            "id": self._id,
            "status": status,
            "status_details": None,
            "output": self._output,
            "output_modalities": ["audio" if self._speaks else "text"],
            "metadata": self._metadata,
            "usage": None,
        }

    def _usage(self) -> dict[str, Any]:
        units, cached = self.turn.bill.units, self._cached
        return {
            "total_tokens": units.tokens_in + units.tokens_out,
            "input_tokens": units.tokens_in,
            "output_tokens": units.tokens_out,
            "input_token_details": {
                "text_tokens": units.tokens_in - units.tokens_audio_in,
                "audio_tokens": units.tokens_audio_in,
                "image_tokens": 0,
                "cached_tokens": units.tokens_cached,
                "cached_tokens_details": {
                    "text_tokens": cached.text,
                    "audio_tokens": cached.audio,
                    "image_tokens": 0,
                },
            },
            "output_token_details": {
                "text_tokens": units.tokens_out - units.tokens_audio_out,
                "audio_tokens": units.tokens_audio_out,
            },
        }

    async def _begin_item(self, body: dict[str, Any]) -> Item:
        session = self._session
        item = self._item = Item(f"item_{new_id()[-12:]}", body, Units())
        at = {"response_id": self._id, "output_index": len(self._output)}
        rendered = {**item.rendered("in_progress")}
        await session.mark("response.output_item.added", **at, item=rendered)
        previous = session.context.add(item)
        await session.mark("conversation.item.added", previous_item_id=previous, item=rendered)
        return item

    async def _end_item(self, item: Item, status: str = "completed") -> None:
        session = self._session
        self._item = None
        item.units = Units(self._words, audio_tokens(self._spoken / 2 / _RATE, 0.05))
        rendered = item.rendered(status)
        at = {"response_id": self._id, "output_index": len(self._output)}
        self._output.append(rendered)
        await session.mark("response.output_item.done", **at, item=rendered)
        names = [one.id for one in session.context.items]
        before = names.index(item.id) if item.id in names else 0
        previous = names[before - 1] if before else None
        await session.mark("conversation.item.done", previous_item_id=previous, item=rendered)

    async def _say(self, text: str) -> None:
        session = self._session
        part: dict[str, Any] = {"type": "audio", "transcript": ""}
        if not self._speaks:
            part = {"type": "text", "text": ""}
        item = await self._begin_item({"type": "message", "role": "assistant", "content": []})
        at = {
            "response_id": self._id,
            "item_id": item.id,
            "output_index": len(self._output),
            "content_index": 0,
        }
        await session.mark("response.content_part.added", **at, part=part)
        if self._speaks:
            await self._speak(item, text, at)
        else:
            await self._write(item, text, at)
        kind = "output_audio" if self._speaks else "output_text"
        said = {"transcript": item.said} if self._speaks else {"text": item.said}
        await session.mark(f"response.{kind}.done", **at, **({} if self._speaks else said))
        if self._speaks:
            await session.mark("response.output_audio_transcript.done", **at, **said)
        part = {"type": f"output_{part['type']}", **said}
        item.body["content"] = [part]
        await session.mark("response.content_part.done", **at, part={**part, "type": kind[7:]})
        await self._end_item(item, "incomplete" if self._is_cut_short else "completed")

    async def _speak(self, item: Item, text: str, at: dict[str, Any]) -> None:
        session, turn = self._session, self.turn
        spoken = await session.voice.say(text, turn.rate(_RATE))
        for chunk in spoken.chunks(session.settings.chunk_ms):
            await turn.make_audio(chunk.seconds)
            for word in chunk.words:
                delta = f" {word.text}" if item.said else word.text
                await session.mark("response.output_audio_transcript.delta", **at, delta=delta)
                item.said += delta
                self._words += 1
                turn.bill.charge(tokens_out=1)
            audio = base64.b64encode(chunk.pcm).decode()
            if await session.output("response.output_audio.delta", **at, delta=audio):
                self._bill_audio(chunk.pcm)
            if self._is_full():
                return

    def _bill_audio(self, pcm: bytes) -> None:
        self._spoken += len(pcm)
        due = audio_tokens(self._spoken / 2 / _RATE, 0.05)
        more = due - self.turn.bill.units.tokens_audio_out
        self.turn.bill.charge(tokens_out=more, tokens_audio_out=more)

    async def _write(self, item: Item, text: str, at: dict[str, Any]) -> None:
        for token in tokens(text):
            if await self._session.output("response.output_text.delta", **at, delta=token):
                item.said += token
                self._words += 1
                self.turn.bill.charge(tokens_out=1)
            if self._is_full():
                return

    def _is_full(self) -> bool:
        most = self._most
        self._is_cut_short = most is not None and self.turn.bill.units.tokens_out >= most
        return self._is_cut_short

    async def _call(self, call: ToolCall) -> None:
        name = f"call_{new_id()[-12:]}"
        asked = {"type": "function_call", "name": call.name, "call_id": name, "arguments": ""}
        item = await self._begin_item(asked)
        at = {
            "response_id": self._id,
            "item_id": item.id,
            "output_index": len(self._output),
            "call_id": name,
        }
        for piece in arguments_of(call):
            kind = "response.function_call_arguments.delta"
            if await self._session.output(kind, **at, delta=piece):
                item.said += piece
                self._words += 1
                self.turn.bill.charge(tokens_out=1)
        item.body["arguments"] = item.said
        done = "response.function_call_arguments.done"
        await self._session.mark(done, **at, name=call.name, arguments=item.said)
        await self._end_item(item)
