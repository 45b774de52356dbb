"""A recogniser's side of the pool: starting it, and one utterance that survives its worker."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
from livekit.agents import APIConnectionError, APITimeoutError

from .._version import __version__
from ..errors import UsageError
from ._sphinx_pool import LOG, SOCKET
from ._sphinx_wire import LENGTH, Audio, Begin, End, Hypothesis, Ready, decode_reply, pack

logger = logging.getLogger(__name__)

IDLE_SECONDS = 60.0
START_SECONDS = 15.0
RETRY_SECONDS = 0.05
WORKERS_TRIED = 3
"""A worker that dies is replaced, and the utterance decoded again from its beginning."""
MESSAGE_BYTES = 64 * 1024

_GONE = (OSError, asyncio.IncompleteReadError, msgspec.MsgspecError)


class Pool:
    """The pool whose socket lies in ``directory``, which belongs to this user alone.

    By default one for each user, interpreter and version of Trunkline on this machine.
    """

    def __init__(self, directory: Path | None = None, idle_seconds: float = IDLE_SECONDS) -> None:
        self._directory = directory or _default_directory()
        self._idle_seconds = idle_seconds
        self._socket = str(self._directory / SOCKET)

    def launch(self) -> None:
        """Start the pool unless it runs; blocks for half a second. Raises APIConnectionError."""
        _own(self._directory)
        module = f"{__package__}._sphinx_pool"
        command = [sys.executable, "-m", module, str(self._directory), str(self._idle_seconds)]
        try:
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=START_SECONDS,
                check=True,
            )
        except (OSError, subprocess.SubprocessError) as error:
            told = getattr(error, "stderr", None) or b""
            last = told.decode(errors="replace").strip().rpartition("\n")[2]
            raise APIConnectionError(f"the pocketsphinx pool did not start: {last}") from error

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the pool, starting it where needed. Raises APIConnectionError."""
        give_up = time.monotonic() + START_SECONDS
        while True:
            try:
                return await asyncio.open_unix_connection(self._socket)
            except OSError as error:
                if time.monotonic() > give_up:
                    log = self._directory / LOG
                    raise APIConnectionError(f"no pocketsphinx pool, see {log}") from error
            await asyncio.to_thread(self.launch)
            await asyncio.sleep(RETRY_SECONDS)


def _default_directory() -> Path:
    # Processes that share a pool must agree on what runs in it.
    identity = hashlib.sha256(f"{sys.executable} {__version__}".encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir()) / f"trunkline-{os.getuid()}-sphinx-{identity}"


def _own(directory: Path) -> None:
    """Make the directory; refuse one that another user could have put in its place."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
    except OSError as error:
        raise UsageError(f"directory {directory} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise UsageError(f"directory {directory} is not this user's own; remove it")


class Utterance:
    """One utterance being decoded while its audio comes in.

    ``on_interim`` gets each changed hypothesis. All audio is kept until the end: when a worker
    dies, another one hears it all again.
    """

    def __init__(self, pool: Pool, *, cmn: str, on_interim: Callable[[Hypothesis], None]) -> None:
        self._pool = pool
        self._cmn = cmn
        self._on_interim = on_interim
        self._audio = bytearray()
        self._ended = False
        self._writer: asyncio.StreamWriter | None = None
        self._task = asyncio.create_task(self._decode())

    @property
    def seconds(self) -> float:
        return len(self._audio) / 32_000

    def push(self, pcm: bytes) -> None:
        self._audio += pcm
        if self._writer is not None:
            self._writer.write(pack(Audio(pcm)))

    async def final(self, within: float) -> Hypothesis:
        """End the utterance. Raises APIConnectionError or, after ``within`` s, APITimeoutError."""
        self._ended = True
        if self._writer is not None:
            self._writer.write(pack(End()))
        try:
            async with asyncio.timeout(within):
                return await self._task
        except TimeoutError as error:
            raise APITimeoutError(f"no result from pocketsphinx in {within:g} s") from error

    async def abandon(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _decode(self) -> Hypothesis:
        for _ in range(WORKERS_TRIED):
            reader, writer = await self._pool.connect()
            try:
                await self._send_all(writer)
                return await self._receive(reader)
            except _GONE as error:
                cause = error
                logger.warning("a pocketsphinx worker was lost; the utterance starts again")
            finally:
                self._writer = None
                writer.close()
        raise APIConnectionError(
            f"{WORKERS_TRIED} pocketsphinx workers were lost on one utterance"
        ) from cause

    async def _send_all(self, writer: asyncio.StreamWriter) -> None:
        """Send what there is so far; from then on ``push`` and ``final`` send by themselves."""
        writer.write(pack(Begin(self._cmn)))
        sent = 0
        while sent < len(self._audio):
            piece = bytes(self._audio[sent : sent + MESSAGE_BYTES])
            writer.write(pack(Audio(piece)))
            sent += len(piece)
            await writer.drain()
        if self._ended:
            writer.write(pack(End()))
        self._writer = writer

    async def _receive(self, reader: asyncio.StreamReader) -> Hypothesis:
        while True:
            (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
            reply = decode_reply(await reader.readexactly(length))
            if isinstance(reply, Ready):
                continue
            if reply.final:
                return reply
            self._on_interim(reply)
