"""Unmodified ``livekit.agents.inference`` clients, driven from outside: a JSON object a line in,
one out. It runs in the environment of whatever livekit-agents is to be tested, 1.5 to 1.8.

    {"do": "chat" | "say" | "hear", "model": ..., ...}

Address and credentials come from the environment alone, as in an agent. A failure is an answer like
any other, with what the library said; only what the library does not catch ends the process.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
from typing import Any

import aiohttp
from livekit import rtc
from livekit.agents import APIConnectOptions, APIError, inference, llm, stt

OPTIONS = APIConnectOptions(max_retry=1, retry_interval=0.05, timeout=10.0)


@llm.function_tool
async def book(room: int) -> str:
    """Book a room.

    Args:
        room: its number
    """
    return "done"


def watched(service: Any) -> list[dict[str, Any]]:
    errors: list[dict[str, Any]] = []

    def note(event: Any) -> None:
        status = getattr(event.error, "status_code", None)
        known = {"name": type(event.error).__name__, "message": str(event.error)}
        errors.append({**known, "status": status, "recoverable": event.recoverable})

    service.on("error", note)
    return errors


def push(stream: stt.SpeechStream, pcm: str, rate: int) -> None:
    samples, step = base64.b64decode(pcm), rate // 20 * 2
    for at in range(0, len(samples), step):
        piece = samples[at : at + step]
        stream.push_frame(rtc.AudioFrame(piece, rate, 1, len(piece) // 2))


class Clients:
    """``voices`` keep their pooled connections from one utterance to the next."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.voices: dict[str, Any] = {}

    async def chat(
        self, model: str, text: str, tools: bool = False, cut: int = 0
    ) -> dict[str, Any]:
        """A chat; ``cut`` leaves it after that many chunks with text."""
        brain = inference.LLM(model)
        errors = watched(brain)
        context = llm.ChatContext.empty()
        context.add_message(role="user", content=text)
        said: dict[str, Any] = {"text": "", "calls": [], "usage": None, "errors": errors}
        pieces = 0
        stream = brain.chat(chat_ctx=context, tools=[book] if tools else [], conn_options=OPTIONS)
        try:
            async for chunk in stream:
                content = chunk.delta.content if chunk.delta else None
                said["text"] += content or ""
                for call in chunk.delta.tool_calls if chunk.delta else ():
                    said["calls"].append({"name": call.name, "args": call.arguments})
                if chunk.usage:
                    said["usage"] = {
                        "promptTokens": chunk.usage.prompt_tokens,
                        "completionTokens": chunk.usage.completion_tokens,
                    }
                pieces += 1 if content else 0
                if cut and pieces >= cut:
                    break
        except APIError:
            pass  # it was told to ``error`` as well
        await stream.aclose()
        await brain.aclose()
        return said

    async def say(
        self,
        model: str,
        sentences: list[str],
        cut: float = 0,
        options: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """An utterance on the pooled connection of that voice; ``cut`` seconds leave it early.

        ``options`` change the voice before, and for good.
        """
        if model not in self.voices:
            self.voices[model] = inference.TTS(model, sample_rate=24_000, http_session=self.session)
        if options:
            self.voices[model].update_options(**options)
        errors = watched(self.voices[model])
        pcm, seconds = b"", 0.0
        stream = self.voices[model].stream(conn_options=OPTIONS)
        for sentence in sentences:
            stream.push_text(f"{sentence} ")
        stream.end_input()
        try:
            async for audio in stream:
                pcm += bytes(audio.frame.data.cast("B"))
                seconds += audio.frame.duration
                if cut and seconds >= cut:
                    break
        except APIError:
            pass
        await stream.aclose()
        return {"pcm": base64.b64encode(pcm).decode(), "seconds": seconds, "errors": errors}

    async def hear(
        self, model: str, pcm: str, rate: int, cut: bool = False, then: str = "", language: str = ""
    ) -> dict[str, Any]:
        """Audio at ``rate``, as fast as it goes, and the transcripts that come of it.

        ``cut`` hangs up on the first of them, with the input still open. On the first final the
        stream is told the ``language`` of the audio ``then``, which follows.
        """
        ears = inference.STT(model, sample_rate=rate, http_session=self.session)
        errors = watched(ears)
        stream = ears.stream(conn_options=OPTIONS)
        push(stream, pcm, rate)
        if not cut and not then:
            stream.end_input()
        heard: dict[str, Any] = {"finals": [], "interims": 0, "errors": errors}
        try:
            async for event in stream:
                if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
                    heard["finals"].append(event.alternatives[0].text)
                    if then:
                        ears.update_options(language=language)
                        await asyncio.sleep(0)
                        push(stream, then, rate)
                        stream.end_input()
                        then = ""
                if event.type is stt.SpeechEventType.INTERIM_TRANSCRIPT:
                    heard["interims"] += 1
                if cut and (heard["interims"] or heard["finals"]):
                    break
        except APIError:
            pass
        await stream.aclose()
        await ears.aclose()
        return heard


async def main() -> None:
    async with aiohttp.ClientSession() as session:
        clients = Clients(session)
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            answer = await getattr(clients, asked.pop("do"))(**asked)
            print(json.dumps(answer), flush=True)
        for voice in clients.voices.values():
            await voice.aclose()


logging.basicConfig(level=logging.ERROR)
asyncio.run(main())
