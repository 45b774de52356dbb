"""One process of ``trunkline serve``: uvicorn around the application, reload and drain."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from ..compose import Trunkline
from ..errors import UsageError
from .app import Gateway
from .protocol import Protocol, SocketProtocol

logger = logging.getLogger("trunkline")

DRAIN_SECONDS = 30.0
"""What runs has this long to come to its end."""

_WATCH_SECONDS = 1.0
_IDLE_SECONDS = 330
"""An idle connection is kept longer than LiveKit's clients keep theirs in the pool: 300 s."""

_PING_SECONDS = 5.0
_FRAME_LIMIT = 4 << 20


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UsageError when the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}; choose --host and --port"
        ) from None
    # Connections inherit it. asyncio sets it only where the socket names its protocol; without it
    # the second half of an answer waits for the client's delayed acknowledgement, 40 ms.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def serve(
    trunkline: Trunkline,
    listening: socket.socket,
    host: str,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then end what runs and what it cost; a second one hurries."""
    gateway = Gateway(trunkline, host)
    _Server(configured(gateway), gateway, ready).run([listening])


def configured(gateway: Gateway) -> uvicorn.Config:
    """How uvicorn serves ``gateway``; the listening socket is the server's."""
    return uvicorn.Config(
        gateway,
        loop="uvloop",
        http=Protocol,
        ws=SocketProtocol,
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=1,
        ws_max_size=_FRAME_LIMIT,
        # A parked client answers no ping, and hears it: pings keep it, they do not test it.
        ws_ping_interval=_PING_SECONDS,
        ws_ping_timeout=None,
        ws_per_message_deflate=False,
    )


class _Server(uvicorn.Server):
    """uvicorn with our signals, a drain that the doors know of, and the journal at the end."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._ready = ready
        self._hurried = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, self._gateway.house.reload)
        yield

    def _end(self) -> None:
        if self.should_exit:
            self._hurried.set()
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()
        self._gateway.house.load()

    async def main_loop(self) -> None:
        watching = asyncio.create_task(self._watch())
        try:
            await super().main_loop()
        finally:
            watching.cancel()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        house = self._gateway.house
        for connection in list(self.server_state.connections):
            if isinstance(connection, Protocol):
                connection.shutdown()  # an idle one at once, the others with their answer
        draining = asyncio.create_task(house.drain(DRAIN_SECONDS))
        hurried = asyncio.create_task(self._hurried.wait())
        await asyncio.wait([draining, hurried], return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not draining.done() or not draining.result():
            logger.warning("the gateway ends before everything that runs has ended")
            draining.cancel()
        await super().shutdown(sockets)
        await house.stop_loading()
        await house.plans.aclose()
        await house.trunkline.aclose()

    async def _watch(self) -> None:
        """Reload when the settings file has changed, or another one is in its place."""
        source = self._gateway.house.trunkline.source
        seen = _stamp(source)
        self._gateway.house.reload()  # it may have changed since it was read
        while source is not None:
            await asyncio.sleep(_WATCH_SECONDS)
            now = _stamp(source)
            if now is not None and now != seen:
                self._gateway.house.reload()
            seen = now


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    try:
        stat = path.stat() if path is not None else None
    except OSError:  # an editor may be about to put the new one there
        return None
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino) if stat is not None else None
