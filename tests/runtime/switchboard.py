"""A server that keeps every request, for tests of what reaches a provider or a gateway.

It speaks just enough of OpenAI's chat, Deepgram's listen, Cartesia's voices and LiveKit's gateway
for the official clients to be served by it.
"""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from aiohttp import WSMsgType, web
from livekit.agents import llm, stt, tts

import trunkline
from trunkline.core.models import Settlement

TONE = b"\x00\x40" * 2400
HEARD = "good morning"


@dataclass
class Asked:
    """One request: its path, headers and query, and the JSON of its body or messages."""

    path: str
    headers: dict[str, str]
    query: dict[str, str]
    messages: list[dict[str, Any]] = field(default_factory=list)

    @property
    def body(self) -> dict[str, Any]:
        return self.messages[0]


class Switchboard:
    """Serves on ``port`` of 127.0.0.1, 0 for a free one.

    ``replies`` are chat deltas, one list a request; None in one waits for ``interrupted``.
    """

    def __init__(self, *, port: int = 0) -> None:
        self.port = port
        self.asked: list[Asked] = []
        self.replies: list[list[Any]] = []
        self.interrupted = asyncio.Event()
        app = web.Application()
        app.router.add_post("/{any:.*}chat/completions", self._chat)
        app.router.add_get("/v1/listen", self._listen)
        app.router.add_get("/tts/websocket", self._speak)
        app.router.add_get("/v1/stt", self._gateway_ears)
        app.router.add_get("/v1/tts", self._gateway_voice)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._runner.cleanup()

    def _note(self, request: web.Request) -> Asked:
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.path, headers, dict(request.query))
        self.asked.append(asked)
        return asked

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self._note(request).messages.append(await request.json())
        deltas = self.replies.pop(0) if self.replies else [{"content": "At your service."}]
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        for delta in deltas:
            if delta is None:
                await self.interrupted.wait()
                return answer
            finish = "tool_calls" if "tool_calls" in delta else None
            choice = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}
            await self._event(answer, choices=[choice])
        await self._event(answer, choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
        await self._event(answer, choices=[], usage={"prompt_tokens": 11, "completion_tokens": 7})
        await answer.write(b"data: [DONE]\n\n")
        return answer

    async def _event(self, answer: web.StreamResponse, **fields: Any) -> None:
        await answer.write(b"data: " + json.dumps({"id": "chat-1", **fields}).encode() + b"\n\n")

    async def _messages(self, request: web.Request) -> Any:
        """The socket of a request, and its messages as they come; sound is one message."""
        asked = self._note(request)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                asked.messages.append(json.loads(message.data))
                yield socket, asked.messages[-1]
            else:
                yield socket, {"type": "sound"}

    async def _listen(self, request: web.Request) -> web.StreamResponse:
        said, socket = False, web.WebSocketResponse()
        async for socket, message in self._messages(request):
            if message["type"] == "sound" and not said:
                said = True
                heard = {"transcript": HEARD, "confidence": 1, "words": []}
                await socket.send_json(
                    {
                        "type": "Results",
                        "is_final": True,
                        "speech_final": True,
                        "metadata": {"request_id": "listen-1"},
                        "channel": {"alternatives": [heard]},
                        "start": 0,
                        "duration": 0.1,
                    }
                )
            if message["type"] == "CloseStream":
                await socket.close()
        return socket

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        async for socket, message in self._messages(request):
            about = {"context_id": message["context_id"], "status_code": 206}
            if message["transcript"].strip():
                pcm = base64.b64encode(TONE).decode()
                await socket.send_json({"type": "chunk", "data": pcm, "done": False, **about})
            if not message.get("continue"):
                await socket.send_json({"type": "done", "done": True, **about})
        return socket

    async def _gateway_ears(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        async for socket, message in self._messages(request):
            if message["type"] == "session.create":
                await socket.send_json({"type": "session.created", "session_id": "s"})
            elif message["type"] == "session.finalize":
                await socket.send_json({"type": "final_transcript", "transcript": HEARD})
                await socket.send_json({"type": "session.closed", "session_id": "s"})
        return socket

    async def _gateway_voice(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        async for socket, message in self._messages(request):
            if message["type"] == "session.create":
                await socket.send_json({"type": "session.created", "session_id": "s"})
            elif message["type"] == "session.flush":
                pcm = base64.b64encode(TONE).decode()
                await socket.send_json({"type": "output_audio", "session_id": "s", "audio": pcm})
                await socket.send_json({"type": "done", "session_id": "s"})
        return socket


def settings(place: Path, url: str = "http://127.0.0.1:9", **more: Any) -> Path:
    """trunkline.yaml (as JSON) with openai, deepgram and cartesia at ``url``, used from now on."""
    path = place / "trunkline.yaml"
    providers = {
        "openai": {"api_key": "key-o", "base_url": f"{url}/v1"},
        "groq": {"api_key": "key-g", "base_url": f"{url}/groq"},
        "deepgram": {"api_key": "key-d", "base_url": url},
        "cartesia": {"api_key": "key-c", "base_url": url},
    }
    path.write_text(json.dumps({"version": 1, "providers": providers, **more}))
    trunkline.configure(path)
    return path


def settled() -> list[Settlement]:
    """The settlements of this process from now on."""
    records: list[Settlement] = []
    trunkline.on("settled", records.append)
    return records


async def ask(model: llm.LLM[Any], text: str = "hello", **chat: Any) -> str:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content=text)
    said = ""
    async with asyncio.timeout(30), model.chat(chat_ctx=context, **chat) as stream:
        async for chunk in stream:
            said += (chunk.delta.content or "") if chunk.delta else ""
    return said


async def say(voice: tts.TTS[Any], text: str = "Good morning.") -> float:
    """Seconds of sound that ``voice`` makes of ``text``."""
    loud = 0.0
    async with asyncio.timeout(30), voice.stream() as stream:
        stream.push_text(text)
        stream.end_input()
        async for audio in stream:
            loud += audio.frame.duration if any(audio.frame.data) else 0.0
    return loud


async def hear(recogniser: stt.STT[Any], frames: list[Any]) -> str:
    """The first final transcript; plugins take seconds to end a stream, so it is left then."""
    async with asyncio.timeout(30), recogniser.stream() as stream:
        for frame in frames:
            stream.push_frame(frame)
            await asyncio.sleep(0)
        stream.end_input()
        async for event in stream:
            if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT and event.alternatives:
                return event.alternatives[0].text
    return ""
