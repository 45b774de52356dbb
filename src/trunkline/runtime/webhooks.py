"""What happens in this process, posted to whoever asked for it: in a thread of its own.

A call only puts its event into a queue. The thread signs and sends, one message at a time to each
hook and in order, and tries again what was not taken. A hook that hangs holds up nobody but itself:
its queue is bounded, and what no longer fits is dropped and counted.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..clock import new_id, now_ns
from ..core.webhooks import Hook, Message, headers, message
from ..store.process import own

if TYPE_CHECKING:
    import aiohttp

logger = logging.getLogger("trunkline")

WAITING = 256
"""Messages that may wait for one hook."""

TIMEOUT = 5.0
"""Seconds in which a hook has to answer."""

PAUSES = (1.0, 4.0, 15.0)
"""Seconds before each further try."""

_FAREWELL = 1.0
_GONE = 410

Lease = Callable[[str, float], bool]
"""Whether this process, alone of the machine, may do what is named for so many seconds."""


class Webhooks:
    """Posts the events it is told to ``hooks``.

    ``dropped`` counts by hook what found no room or was never taken.
    """

    def __init__(
        self,
        hooks: Sequence[Hook],
        lease: Lease,
        *,
        timeout: float = TIMEOUT,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self.hooks = tuple(hooks)
        self._timeout = timeout
        self._pauses = tuple(pauses)
        self.dropped: Counter[str] = Counter()
        self._lease = lease
        self._begin()
        own(self)

    def after_fork(self) -> None:
        """Begin anew in the child: what waits is the parent's to send, as is the thread."""
        self.dropped.clear()
        self._begin()

    def _begin(self) -> None:
        self._starting = threading.Lock()
        self._counting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
        self._unsent = 0
        self._gone: set[str] = set()

    def tell(self, event: object) -> None:
        """Have ``event`` posted; returns at once. From any thread."""
        told = message(event, new_id(), now_ns())
        if told is None or not any(told.notice in hook.notices for hook in self.hooks):
            return
        if self._inbox.qsize() >= WAITING:
            for hook in self.hooks:
                self._drop(hook, "too many events wait")
            return
        self._count(1)
        self._inbox.put(told)
        self._wake()

    def flush(self, timeout: float = _FAREWELL) -> bool:
        """Wait until nothing waits any more, at most ``timeout`` seconds; whether that came.

        Blocks; from an event loop call it in a thread.
        """
        deadline = time.monotonic() + timeout
        while self._unsent:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def _wake(self) -> None:
        with self._starting:
            if self._thread is None:
                target = self._run
                self._thread = threading.Thread(target=target, name="webhooks", daemon=True)
                self._thread.start()
                atexit.register(self.flush)
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._news.set)

    def _run(self) -> None:
        asyncio.run(self._post())

    async def _post(self) -> None:
        from aiohttp import ClientSession, ClientTimeout  # 0.1 s that no process should wait for

        self._news = asyncio.Event()
        with self._starting:
            self._loop = asyncio.get_running_loop()
        waiting = {hook.name: asyncio.Queue[Message](WAITING) for hook in self.hooks}
        async with (
            ClientSession(timeout=ClientTimeout(self._timeout)) as http,
            asyncio.TaskGroup() as group,
        ):
            for hook in self.hooks:
                group.create_task(self._serve(http, hook, waiting[hook.name]))
            while True:
                while not self._inbox.empty():
                    self._hand_out(self._inbox.get_nowait(), waiting)
                await self._news.wait()
                self._news.clear()

    def _hand_out(self, told: Message, waiting: dict[str, asyncio.Queue[Message]]) -> None:
        """Give ``told`` to the hooks that want it, unless another process tells it.

        Asking may take half a second, in which nothing is sent: there are no helpers to ask when
        the interpreter ends.
        """
        if not told.once or self._lease(told.once, told.seconds):
            for hook in self.hooks:
                if told.notice not in hook.notices or hook.name in self._gone:
                    continue
                try:
                    waiting[hook.name].put_nowait(told)
                    self._count(1)
                except asyncio.QueueFull:
                    self._drop(hook, "it takes them too slowly")
        self._count(-1)

    async def _serve(
        self, http: aiohttp.ClientSession, hook: Hook, waiting: asyncio.Queue[Message]
    ) -> None:
        while True:
            told = await waiting.get()
            if hook.name not in self._gone:
                await self._deliver(http, hook, told)
            self._count(-1)

    async def _deliver(self, http: aiohttp.ClientSession, hook: Hook, told: Message) -> None:
        from aiohttp import ClientError

        wrong = ""
        for pause in (0.0, *self._pauses):
            await asyncio.sleep(pause)
            signed = headers(hook.key, told, now_ns() // 1_000_000_000)
            try:
                async with http.post(
                    hook.url, data=told.body, headers=signed, allow_redirects=False
                ) as answer:
                    if 200 <= answer.status < 300:
                        return
                    wrong = f"it answered {answer.status}"
                    if answer.status == _GONE:
                        self._gone.add(hook.name)
                        break
            except (ClientError, OSError, ValueError) as error:
                wrong = type(error).__name__  # its text may hold the address
        self._drop(hook, wrong)

    def _drop(self, hook: Hook, why: str) -> None:
        with self._counting:
            self.dropped[hook.name] += 1
            dropped = self.dropped[hook.name]
        if dropped & (dropped - 1) == 0:  # the first, the second, the fourth, ...
            logger.warning('webhook "%s" missed %d events until now: %s', hook.name, dropped, why)

    def _count(self, by: int) -> None:
        with self._counting:
            self._unsent += by
