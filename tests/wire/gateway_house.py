"""A gateway on a real socket in the test's own loop, before chat servers that a test scripts."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import uvicorn
import yaml
from llm_server import Answer, ChatServer, delta

from trunkline.compose import Trunkline, configure
from trunkline.core.models import Attempt, Settlement
from trunkline.gateway.app import Gateway
from trunkline.gateway.server import configured, listen

KEY, SECRET, BEARER = "APItest", "a-secret-of-thirty-two-characters", "bearer-of-a-test"
AUTH = {"Authorization": f"Bearer {BEARER}"}
ASK = {"messages": [{"role": "user", "content": "Good morning?"}]}


BROKEN = Answer(status=500, content_type="application/json", steps=[b"{}"], length=True)
RING = {"name": "ring", "arguments": "{}"}
TOOL_PARTS = [
    delta(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "book", "arguments": ""}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '{"room'}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '": 7}'}}]),
]


@dataclass
class Talk:
    """A client of a socket whose messages are JSON. ``pcm`` and ``seen`` are what came so far."""

    socket: aiohttp.ClientWebSocketResponse
    pcm: bytes = b""
    seen: list[dict[str, Any]] = field(default_factory=list)

    def audio_in(self, message: dict[str, Any]) -> str:
        """The audio in a message, as base64."""
        return ""

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send_str(json.dumps({"type": kind, **fields}))

    async def next(self, seconds: float = 20.0) -> dict[str, Any]:
        """The next message; ``{"type": "closed"}`` at the end."""
        async with asyncio.timeout(seconds):
            frame = await self.socket.receive()
        if frame.type is not aiohttp.WSMsgType.TEXT:
            return {"type": "closed", "code": self.socket.close_code}
        message: dict[str, Any] = json.loads(frame.data)
        self.pcm += base64.b64decode(self.audio_in(message))
        self.seen.append(message)
        return message

    async def until(self, *kinds: str, seconds: float = 20.0) -> dict[str, Any]:
        """The next message of one of ``kinds``, or the end."""
        async with asyncio.timeout(seconds):
            while (message := await self.next(seconds))["type"] not in (*kinds, "closed"):
                pass
        return message

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.seen]

    async def close(self) -> None:
        await self.socket.close()


def refused(status: int, **error: Any) -> Answer:
    """A provider's refusal in OpenAI's form."""
    body = json.dumps({"error": {"message": "no", **error}}).encode()
    headers = {"Retry-After": "7"} if status == 429 else {}
    return Answer(
        status=status, content_type="application/json", steps=[body], length=True, headers=headers
    )


def token(secret: str = SECRET, headers: dict[str, Any] | None = None, **claims: Any) -> str:
    """A token as LiveKit's clients make it, with ``claims`` instead of the usual; None omits.

    ``nbf`` and ``exp`` are seconds from now.
    """
    usual = {"iss": KEY, "sub": "agent", "nbf": 0, "exp": 600, "inference": {"perform": True}}
    given = {name: value for name, value in {**usual, **claims}.items() if value is not None}
    for name in {"nbf", "exp"} & given.keys():
        given[name] += int(time.time())
    return jwt.encode(given, secret, algorithm="HS256", headers=headers)


@dataclass
class House:
    """A running gateway. ``attempts`` are those that were settled so far, in order.

    ``connections`` are those that the server has.
    """

    url: str
    gateway: Gateway
    trunkline: Trunkline
    file: Path
    session: aiohttp.ClientSession
    attempts: list[Attempt] = field(default_factory=list)
    connections: set[Any] = field(default_factory=set)

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    def ask(self, headers: Mapping[str, str] = AUTH, **body: Any) -> Any:
        """POST a chat for the route ``answer``; to be used with ``async with``."""
        return self.session.post(
            f"{self.url}/chat/completions",
            json={"model": "answer", **ASK, **body},
            headers=headers,
        )

    async def raw(self, data: bytes, seconds: float = 30.0) -> bytes:
        """Send bytes on a connection of their own; returns what comes until it is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            async with asyncio.timeout(seconds):
                writer.write(data)
                return await reader.read()
        finally:
            writer.close()


def settings(
    servers: Mapping[str, ChatServer], route: Mapping[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    """One provider a server, named as the servers are, and the route ``answer`` over all."""
    providers = {
        name: {"kind": "openai", "api_key": f"sk-{name}", "base_url": server.base_url}
        if name != "openai"
        else {"api_key": "sk-openai", "base_url": server.base_url}
        for name, server in servers.items()
    }
    candidates = [f"{name}/m-{name}" for name in servers]
    return {
        "version": 1,
        "providers": providers,
        "routes": {"answer": {"modality": "llm", "candidates": candidates, **(route or {})}},
        "gateway": {"keys": {KEY: SECRET}, "bearer": [BEARER]},
        **more,
    }


@contextlib.asynccontextmanager
async def running(tmp_path: Path, said: Mapping[str, Any]) -> AsyncIterator[House]:
    """A gateway with the settings ``said``."""
    file = tmp_path / "trunkline.yaml"
    file.write_text(yaml.safe_dump(said), "utf-8")
    trunkline = configure(file)
    gateway = Gateway(trunkline)
    listening = listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = uvicorn.Server(configured(gateway))
    serving = asyncio.create_task(server.serve([listening]))
    async with aiohttp.ClientSession() as session:
        house = House(f"http://127.0.0.1:{port}/v1", gateway, trunkline, file, session)
        house.connections = server.server_state.connections

        def settled(settlement: Settlement) -> None:
            house.attempts.append(settlement.attempt)

        trunkline.on("settled", settled)
        try:
            yield house
        finally:
            server.should_exit = True
            await session.close()
            await asyncio.wait_for(serving, 30)
            await gateway.house.plans.aclose()
            await trunkline.aclose()


@contextlib.asynccontextmanager
async def serving(
    tmp_path: Path, *answers: Any, route: Mapping[str, Any] | None = None, **more: Any
) -> AsyncIterator[tuple[House, list[ChatServer]]]:
    """A gateway before one chat server for each of ``answers`` (an answer or a list of them)."""
    async with contextlib.AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(
                ChatServer(*(one if isinstance(one, tuple) else (one,)))
            )
            for one in answers
        ]
        names = ["openai", "second", "third"][: len(servers)]
        said = settings(dict(zip(names, servers, strict=True)), route, **more)
        yield await stack.enter_async_context(running(tmp_path, said)), servers


def events(body: bytes) -> list[Any]:
    """The payloads of a stream of events: JSON read, ``[DONE]`` as it is."""
    found = [part for part in body.decode().split("\n\n") if part.startswith("data: ")]
    texts = [part.removeprefix("data: ") for part in found]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def text_of(chunks: list[Any]) -> str:
    """The visible text of the first choice."""
    return "".join(
        choice["delta"].get("content") or ""
        for chunk in chunks
        if isinstance(chunk, dict)
        for choice in chunk.get("choices", ())[:1]
    )


async def until(met: Any, seconds: float = 30.0) -> None:
    """Wait, bounded, for ``met()``."""
    async with asyncio.timeout(seconds):
        while not met():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)
