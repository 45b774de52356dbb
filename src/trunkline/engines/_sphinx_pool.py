"""The machine's pool of recogniser processes: ``python -m trunkline.engines._sphinx_pool DIR``.

pocketsphinx holds the GIL while it decodes (stalls of a second were measured), so it runs in
processes of its own, shared by every process of the user on this machine:

    launcher    takes the lock of the directory, loads the model, binds the socket, forks the keeper
                and exits; its exit status tells whoever started it that the pool is up
    keeper      holds the lock, forks a worker per core (at most eight) from the loaded model,
                replaces the dead, and ends the pool after some time without an utterance
    worker      takes connections from the common socket and decodes, several utterances in turn

The pool is a session of its own and outlives its starter. Where another pool holds the lock, the
launcher exits at once with status 0: there is a pool. When the keeper dies, its workers finish
what they have and follow, the lock falls free, and the next recogniser starts a new pool.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from ._sphinx_wire import (
    LARGEST,
    LENGTH,
    SAMPLE_RATE,
    Audio,
    Begin,
    End,
    Hypothesis,
    Ready,
    Reply,
    Word,
    decode_request,
    pack,
)

if TYPE_CHECKING:
    from pocketsphinx import Decoder

SOCKET = "pool.sock"
LOCK = "pool.lock"
"""Holds the keeper's process id, for people."""
LOG = "pool.log"
MOST_WORKERS = 8
UTTERANCES_PER_WORKER = 4
"""At once; one takes about a sixth of a core while its caller speaks."""
INTERIM_SAMPLES = SAMPLE_RATE * 3 // 10
STEP_BYTES = 2 * SAMPLE_RATE // 10
"""Decoded in one go before the next utterance of the worker gets its turn: 0.1 s, some 20 ms."""
CLIENT_SECONDS = 1.0
"""How long a client may leave a reply unread before its utterance is dropped."""
REPLACE_SECONDS = 0.05
CMN = "40,3,-1"
FRAMES_PER_SECOND = 100
FILLERS = ("<", "[", "++")


def new_decoder() -> Decoder:
    """Load the English model that the package brings.

    Without the flat second pass (``fwdflat``): the end of an utterance then costs 10 ms, not 200 to
    330, at no loss that we could measure (see docs/embedded-voice.md).
    """
    from pocketsphinx import Decoder, get_model_path

    return Decoder(
        hmm=get_model_path("en-us/en-us"),
        lm=get_model_path("en-us/en-us.lm.bin"),
        dict=get_model_path("en-us/cmudict-en-us.dict"),
        fwdflat=False,
        loglevel="FATAL",
    )


@dataclass(eq=False)
class _Utterance:
    """One connection: what it has sent and how far it is decoded."""

    connection: socket.socket
    decoder: Decoder
    received: bytearray = field(default_factory=bytearray)
    pending: deque[bytes] = field(default_factory=deque)
    begun: bool = False
    ended: bool = False
    decoded: int = 0
    interim_due: int = INTERIM_SAMPLES
    interim: str = ""

    def receive(self) -> None:
        """Take in what has arrived. Raises ConnectionError or DecodeError when this is the end."""
        data = self.connection.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the client has gone")
        self.received += data
        while len(self.received) >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self.received)
            if length > LARGEST:
                raise msgspec.DecodeError("message too long")
            if len(self.received) < LENGTH.size + length:
                break
            body = bytes(self.received[LENGTH.size : LENGTH.size + length])
            del self.received[: LENGTH.size + length]
            self._take(decode_request(body))

    def _take(self, request: Begin | Audio | End) -> None:
        if isinstance(request, Begin) is self.begun:
            raise msgspec.DecodeError("an utterance begins with Begin, once")
        match request:
            case Begin(cmn):
                self.decoder.set_cmn(cmn or CMN)
                self.decoder.start_utt()
                self.begun = True
            case Audio(pcm):
                steps = range(0, len(pcm), STEP_BYTES)
                self.pending.extend(pcm[at : at + STEP_BYTES] for at in steps)
            case End():
                self.ended = True

    @property
    def runnable(self) -> bool:
        return bool(self.pending) or self.ended

    def step(self) -> bool:
        """Decode one step; True when the final hypothesis has been sent."""
        if not self.pending:
            self._close_decoder()
            words = self._words(confident=True)
            self.send(Hypothesis(words, final=True, cmn=self.decoder.get_cmn(False)))
            return True
        pcm = self.pending.popleft()
        self.decoder.process_raw(pcm, False, False)
        self.decoded += len(pcm) // 2
        if self.decoded >= self.interim_due:
            self.interim_due = self.decoded + INTERIM_SAMPLES
            hypothesis = Hypothesis(self._words(confident=False))
            if hypothesis.text != self.interim:
                self.interim = hypothesis.text
                self.send(hypothesis)
        return False

    def _words(self, *, confident: bool) -> list[Word]:
        if self.decoder.hyp() is None:
            return []
        return [
            Word(
                segment.word.partition("(")[0],
                segment.start_frame / FRAMES_PER_SECOND,
                (segment.end_frame + 1) / FRAMES_PER_SECOND,
                min(segment.prob, 1.0) if confident else 0.0,
            )
            for segment in self.decoder.seg()
            if not segment.word.startswith(FILLERS)
        ]

    def send(self, reply: Reply) -> None:
        self.connection.sendall(pack(reply))

    def _close_decoder(self) -> None:
        if self.begun:
            self.decoder.end_utt()
            self.begun = False

    def close(self) -> None:
        self._close_decoder()
        self.connection.close()


class _Worker:
    """Decodes utterances from the common socket until the keeper is gone."""

    def __init__(self, listener: socket.socket, keeper: socket.socket, decoder: Decoder) -> None:
        self._listener = listener
        self._keeper = keeper
        self._idle = [decoder]
        self._utterances: list[_Utterance] = []
        self._selector = selectors.DefaultSelector()
        self._selector.register(keeper, selectors.EVENT_READ)
        self._selector.register(listener, selectors.EVENT_READ)
        self._kept = True

    def run(self) -> None:
        while self._kept or self._utterances:
            busy = any(utterance.runnable for utterance in self._utterances)
            for key, _ in self._selector.select(0 if busy else None):
                if key.fileobj is self._keeper:
                    self._stop_accepting()
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    self._serve(key.data, key.data.receive)
            for utterance in list(self._utterances):
                if utterance.runnable:
                    self._serve(utterance, utterance.step)

    def _stop_accepting(self) -> None:
        self._kept = False
        self._selector.unregister(self._keeper)
        with contextlib.suppress(KeyError):  # not registered while this worker is full
            self._selector.unregister(self._listener)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except BlockingIOError:  # another worker was quicker
            return
        connection.settimeout(CLIENT_SECONDS)
        utterance = _Utterance(connection, self._idle.pop() if self._idle else new_decoder())
        self._utterances.append(utterance)
        self._tell_keeper(b"+")
        self._selector.register(connection, selectors.EVENT_READ, utterance)
        if len(self._utterances) == UTTERANCES_PER_WORKER:
            self._selector.unregister(self._listener)
        self._serve(utterance, lambda: utterance.send(Ready(os.getpid())))

    def _serve(self, utterance: _Utterance, act: Callable[[], bool | None]) -> None:
        """Do one thing for an utterance, which ends when it is done or its client misbehaves."""
        if utterance not in self._utterances:
            return  # ended earlier in this round
        try:
            if not act():
                return
        except (OSError, msgspec.MsgspecError):
            pass
        self._release(utterance)

    def _release(self, utterance: _Utterance) -> None:
        if len(self._utterances) == UTTERANCES_PER_WORKER and self._kept:
            self._selector.register(self._listener, selectors.EVENT_READ)
        self._utterances.remove(utterance)
        self._selector.unregister(utterance.connection)
        utterance.close()
        self._idle.append(utterance.decoder)
        self._tell_keeper(b"-")

    def _tell_keeper(self, change: bytes) -> None:
        with contextlib.suppress(OSError):  # it is gone, which the loop sees too
            self._keeper.send(change)


class _Keeper:
    """Keeps one worker per core alive, and ends the pool when nobody has spoken for a while."""

    def __init__(self, listener: socket.socket, lock: int, idle_seconds: float) -> None:
        self._listener = listener
        self._lock = lock
        self._idle_seconds = idle_seconds
        self._decoder = new_decoder()
        self._selector = selectors.DefaultSelector()
        self._pids: dict[socket.socket, int] = {}
        self._busy: dict[socket.socket, int] = {}

    def run(self) -> None:
        for _ in range(min(os.cpu_count() or 1, MOST_WORKERS)):
            self._fork()
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < self._idle_seconds:
            for key, _ in self._selector.select(min(self._idle_seconds, 1.0)):
                self._hear(key.data)
                quiet_since = time.monotonic()
            if any(self._busy.values()):
                quiet_since = time.monotonic()

    def _hear(self, worker: socket.socket) -> None:
        try:
            changes = worker.recv(4096)
        except OSError:
            changes = b""
        if changes:
            self._busy[worker] += changes.count(b"+") - changes.count(b"-")
        else:
            self._replace(worker)

    def _replace(self, worker: socket.socket) -> None:
        self._selector.unregister(worker)
        worker.close()
        del self._busy[worker]
        os.waitpid(self._pids.pop(worker), 0)
        time.sleep(REPLACE_SECONDS)
        self._fork()

    def _fork(self) -> None:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            self._become_worker(ours, theirs)
        theirs.close()
        self._selector.register(ours, selectors.EVENT_READ, ours)
        self._pids[ours] = pid
        self._busy[ours] = 0

    def _become_worker(self, ours: socket.socket, theirs: socket.socket) -> NoReturn:
        """Let go of everything that is the keeper's, so that its death shows and frees the lock."""
        try:
            self._selector.close()
            os.close(self._lock)
            for end in (ours, *self._pids):
                end.close()
            _Worker(self._listener, theirs, self._decoder).run()
        finally:  # never unwinds into the keeper's code
            os._exit(0)


def launch(directory: Path, idle_seconds: float) -> None:
    """Start the pool of ``directory`` unless there is one; returns in the launcher only."""
    lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    path = directory / SOCKET
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    keeper = _Keeper(listener, lock, idle_seconds)
    listener.bind(str(path))
    listener.listen(128)
    listener.setblocking(False)
    if os.fork():
        return
    os.setsid()
    os.chdir("/")
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    with (directory / LOG).open("w") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    keeper.run()
    path.unlink(missing_ok=True)
    os._exit(0)  # closes the ends that the workers watch


if __name__ == "__main__":
    launch(Path(sys.argv[1]), float(sys.argv[2]))
