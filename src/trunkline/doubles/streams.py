"""Work that goes on beside the reading of a WebSocket: transcripts out, or speech out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from .exchange import Exchange
from .hearing import Listener, Started, Transcript
from .provider import Provider
from .speech import open_ear
from .transport import Over, Socket
from .turn import Turn
from .voice import Chunk, Voice

Payload = bytes | dict[str, Any]


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[asyncio.Task[None]]:
    """Run ``work`` until the block ends. Its failure is raised then; Over and a lost client not."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Over, ConnectionError):
            await task


class Outbox:
    """What a recogniser says, sent in order and at its pace while audio goes on being read."""

    def __init__(self, socket: Socket, turn: Turn) -> None:
        self._socket = socket
        self._turn = turn
        self._queue: asyncio.Queue[tuple[Payload, bool] | None] = asyncio.Queue()

    def output(self, payload: Payload) -> None:
        """Queue content."""
        self._queue.put_nowait((payload, True))

    def mark(self, payload: Payload) -> None:
        """Queue a message that is no content."""
        self._queue.put_nowait((payload, False))

    def finish(self) -> None:
        """Close the connection once everything queued has left."""
        self._queue.put_nowait(None)

    async def run(self) -> None:
        """Send until finished."""
        while (entry := await self._queue.get()) is not None:
            payload, content = entry
            if content:
                await self._socket.output(self._turn, payload)
            else:
                await self._socket.mark(self._turn, payload)
        await self._socket.finish(self._turn)


class Speaker:
    """One utterance: text in by pieces, audio out in order at the voice's pace.

    ``emit`` sends a chunk and says whether it left, ``told`` what is to be told about a chunk that
    left, ``done`` the end marker. Times of words count from the first sample of the utterance.
    """

    def __init__(
        self,
        turn: Turn,
        voice: Voice,
        rate: int,
        chunk_ms: int,
        *,
        emit: Callable[[Chunk], Awaitable[bool]],
        told: Callable[[Chunk], Awaitable[None]] | None = None,
        done: Callable[[], Awaitable[None]],
    ) -> None:
        self.turn = turn
        self.seconds = 0.0
        self._voice = voice
        self._rate = rate
        self._chunk_ms = chunk_ms
        self._emit = emit
        self._told = told
        self._done = done
        self._received = ""
        self._waiting = ""
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()

    def hold(self, text: str) -> None:
        """Receive text, and wait for more of it before speaking."""
        self._received += text
        self._waiting += text
        self.turn.bill.spell(self._received)

    def flush(self) -> None:
        """Speak what has been received."""
        if self._waiting.strip():
            self._queue.put_nowait(self._waiting)
        self._waiting = ""

    def finish(self) -> None:
        """Speak what has been received, then send the end marker."""
        self.flush()
        self._queue.put_nowait(None)

    async def run(self) -> None:
        """Speak until finished, or until the connection is."""
        with contextlib.suppress(Over, ConnectionError):
            await self._speak()

    async def _speak(self) -> None:
        while (text := await self._queue.get()) is not None:
            spoken = await self._voice.say(text, self.turn.rate(self._rate))
            for chunk in spoken.chunks(self._chunk_ms, self.seconds):
                await self.turn.make_audio(chunk.seconds)
                if await self._emit(chunk):
                    self.turn.spoke(chunk.pcm, chunk.rate)
                    if self._told is not None:
                        await self._told(chunk)
            self.seconds += spoken.seconds
        await self._done()
        self.turn.done()


class Speakers:
    """The utterances of one connection, each in a task of its own, by name."""

    def __init__(self) -> None:
        self._speakers: dict[str, Speaker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def get(self, name: str) -> Speaker | None:
        return self._speakers.get(name)

    def add(self, name: str, speaker: Speaker) -> Speaker:
        """Start an utterance; it is forgotten once it has ended."""
        self._speakers[name] = speaker
        task = self._tasks[name] = asyncio.create_task(speaker.run())
        task.add_done_callback(lambda _: self._forget(name, speaker))
        return speaker

    async def cancel(self, name: str) -> None:
        """Stop an utterance without its end marker."""
        task, speaker = self._tasks.get(name), self._speakers.get(name)
        if task is not None and speaker is not None:
            speaker.turn.stop()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def close(self) -> None:
        """Stop all of them."""
        for name in list(self._tasks):
            await self.cancel(name)

    def _forget(self, name: str, speaker: Speaker) -> None:
        if self._speakers.get(name) is speaker:
            del self._speakers[name], self._tasks[name]


@dataclass(frozen=True, slots=True)
class Ears:
    """What a recogniser's handler works with while its connection is open."""

    socket: Socket
    turn: Turn
    listener: Listener
    outbox: Outbox
    rate: int

    async def hear(self, pcm: bytes) -> list[Started | Transcript]:
        """Bill audio, and return what is to be said about it."""
        self.turn.heard(pcm, self.rate)
        return await self.listener.feed(pcm)


@contextlib.asynccontextmanager
async def listening(
    exchange: Exchange, turn: Turn, settings: Provider, rate: int, *, endpoint: float | None
) -> AsyncIterator[Ears]:
    """Answer the upgrade of a recogniser; its transcripts leave until the block ends.

    ``endpoint`` is the pause in seconds that makes words final, None for none; real speech pauses
    inside words, so a local engine waits longer.
    """
    if endpoint is not None and settings.engine == "local":
        endpoint = max(endpoint, 0.3)
    socket = await exchange.socket(turn)
    outbox = Outbox(socket, turn)
    listener = Listener(open_ear(settings, rate), rate, endpoint=endpoint)
    async with beside(outbox.run()):
        yield Ears(socket, turn, listener, outbox, rate)
