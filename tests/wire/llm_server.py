"""A small chat server on a real socket that does exactly what a test tells it to.

It writes HTTP by hand, because the faults that matter (half a chunk, a connection that dies between
two bytes, an answer that stalls) are what an HTTP library would not let it do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

STALL = "stall"
CUT = "cut"
"""Steps of an answer beside bytes (one HTTP chunk each) and seconds to wait."""

DONE = b"data: [DONE]\n\n"


def event(**fields: Any) -> bytes:
    """One event of a chat stream."""
    return b"data: " + json.dumps({"id": "chatcmpl-1", **fields}).encode() + b"\n\n"


def delta(finish: str | None = None, **fields: Any) -> bytes:
    """One event with one choice."""
    return event(choices=[{"index": 0, "delta": fields, "finish_reason": finish}])


def usage(**fields: Any) -> bytes:
    """The event with the usage: no choices."""
    return event(choices=[], usage={"prompt_tokens": 11, "completion_tokens": 7, **fields})


def say(*words: str) -> list[bytes]:
    """A whole answer as OpenAI streams it."""
    return [
        delta(role="assistant", content=""),
        *(delta(content=word) for word in words),
        delta("stop"),
        usage(),
        DONE,
    ]


@dataclass(frozen=True)
class Answer:
    """What one request gets. ``length`` sends a plain body, without chunks."""

    steps: Sequence[bytes | float | str] = ()
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = "text/event-stream"
    length: bool = False
    close_after: bool = False

    def head(self) -> bytes:
        fields = {"Content-Type": self.content_type, **self.headers}
        if self.length:
            fields["Content-Length"] = str(sum(len(s) for s in self.steps if isinstance(s, bytes)))
        else:
            fields["Transfer-Encoding"] = "chunked"
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {self.status} Scripted\r\n{lines}\r\n".encode()


NO_ANSWER = Answer(status=0)
"""The connection is closed as soon as the request is there."""


@dataclass(frozen=True)
class Received:
    """A request as it came; ``connection`` counts connections from 0."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: int


class ChatServer:
    """Gives each POST the next answer, and the last one from then on; HEAD gets 404."""

    def __init__(self, *answers: Answer | Iterable[bytes]) -> None:
        self._answers = [a if isinstance(a, Answer) else Answer(tuple(a)) for a in answers]
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[Received] = []
        self.connections = 0
        self.open = 0

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        self.open += 1
        try:
            while await self._serve(reader, writer, number):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away, as some tests want
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> bool:
        """Answer one request; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, path, _ = head[0].split(" ")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append(
            Received(method, path, headers, json.loads(body) if body else None, number)
        )
        if method == "HEAD":
            writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            return True
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is NO_ANSWER:
            return False
        return await self._play(answer, reader, writer)

    async def _play(
        self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        writer.write(answer.head())
        for step in answer.steps:
            if step == CUT:
                return False
            if step == STALL:
                await reader.read()  # until the client hangs up
                return False
            if isinstance(step, bytes):
                writer.write(step if answer.length else b"%x\r\n%b\r\n" % (len(step), step))
                await writer.drain()
            else:
                await asyncio.sleep(float(step))
        if not answer.length:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not answer.close_after
