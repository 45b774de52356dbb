"""The server: vendors on ports, and the books that they keep together."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from typing import Self

import msgspec
from aiohttp import web

from ..errors import UsageError
from . import control
from .bill import BillLine, RequestLog
from .config import VENDORS, Config, vendor_for
from .exchange import Exchange
from .faults import FaultScript, Rule
from .provider import Provider
from .transport import Over, Rejected
from .vendor import Endpoint, Vendor


class Double:
    """Vendors' protocols, served on this machine.

        async with Double.serve(["openai", Provider("deepgram", hears="hello")]) as double:
            openai.LLM(base_url=f"{double.url('openai')}/v1", api_key="any")

    Start and stop it in one event loop; nothing of it is safe to call from another thread.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.faults = FaultScript(config.faults, seed=config.seed)
        self.bill: list[BillLine] = []
        self.requests: list[RequestLog] = []
        self.random = random.Random(config.seed)
        self._handlers: set[asyncio.Task[object]] = set()
        self._ports = self._plan()
        self._control = Port("127.0.0.1", config.control, (), self._control_app)

    @classmethod
    @contextlib.asynccontextmanager
    async def serve(
        cls,
        providers: Iterable[str | Provider],
        *,
        faults: Sequence[Rule] = (),
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> AsyncIterator[Self]:
        """Serve ``providers`` until the block ends. Raises UsageError for one that is unknown."""
        chosen = tuple(Provider(p) if isinstance(p, str) else p for p in providers)
        double = cls(
            Config(providers=chosen, faults=tuple(faults), seed=seed, host=host, port=port)
        )
        await double.start()
        try:
            yield double
        finally:
            await double.stop()

    async def start(self) -> None:
        """Listen. Raises UsageError when a port is taken; then nothing listens."""
        try:
            for port in [*self._ports, self._control]:
                await port.start()
        except OSError as error:
            await self.stop()
            raise UsageError(
                f"doubles: cannot listen on {port.host}:{port.number} ({error.strerror});"
                " choose another port, or 0 for a free one"
            ) from None
        self._settle()

    async def stop(self) -> None:
        """Close every port and connection, hung ones too; returns when no task is left."""
        for port in [*self._ports, self._control]:
            port.close()
        for task in self._handlers:
            task.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        for port in [*self._ports, self._control]:
            await port.stop()

    def url(self, provider: str) -> str:
        """Where ``provider`` stands in for its vendor's host, without a slash at the end."""
        for port in self._ports:
            if provider in port.providers:
                return f"http://{port.host}:{port.number}/{provider}"
        raise UsageError(f"doubles: provider {provider!r} is not served here")

    def base_url(self, provider: str) -> str:
        """What a connection to ``provider`` has as ``base_url`` in trunkline.yaml."""
        return f"{self.url(provider)}{VENDORS[provider].base}"

    @property
    def control_url(self) -> str:
        """The address of the control endpoint."""
        return f"http://{self._control.host}:{self._control.number}/_control"

    def inject(self, *rules: Rule) -> None:
        """Put rules in force, after those that are."""
        for rule in rules:
            self.faults.add(rule)
        self._settle()

    def heal(self) -> None:
        """Take every rule out of force."""
        self.faults.replace(())
        self._settle()

    def reset(self) -> None:
        """Forget bill, requests and rules, and go back to those of the configuration."""
        self.bill.clear()
        self.requests.clear()
        self.random.seed(self.config.seed)
        self.faults.replace(self.config.faults)
        self._settle()

    def _settle(self) -> None:
        """Close the ports on which everything is refused, and open the others."""
        for port in self._ports:
            if all(self.faults.shut(provider) for provider in port.providers):
                port.close()
            else:
                port.reopen()

    def _plan(self) -> list[Port]:
        config = self.config
        vendors = [vendor_for(provider) for provider in config.providers]
        shared = [vendor for vendor in vendors if vendor.settings.port is None]
        groups = [(config.port, shared)] if shared else []
        groups += [(v.settings.port, [v]) for v in vendors if v.settings.port is not None]
        return [
            Port(config.host, number, [v.name for v in group], partial(self._app, group))
            for number, group in groups
        ]

    def _app(self, vendors: Sequence[Vendor]) -> web.Application:
        app = web.Application(client_max_size=32 << 20)
        for vendor in vendors:
            for endpoint in vendor.endpoints():
                path = f"/{vendor.name}{endpoint.path}"
                app.router.add_route(endpoint.method, path, self._handler(vendor, endpoint))
        return app

    def _control_app(self) -> web.Application:
        return control.application(self)

    def _handler(self, vendor: Vendor, endpoint: Endpoint) -> control.HttpHandler:
        async def handle(request: web.Request) -> web.StreamResponse:
            task = asyncio.current_task()
            assert task is not None
            self._handlers.add(task)
            try:
                return await self._answer(vendor, endpoint, request)
            finally:
                self._handlers.discard(task)

        return handle

    async def _answer(
        self, vendor: Vendor, endpoint: Endpoint, request: web.Request
    ) -> web.StreamResponse:
        exchange = Exchange(
            self,
            vendor.settings.pace,
            vendor.name,
            endpoint.name,
            request,
            accepted=vendor.accepts(request),
        )
        exchange.headers = vendor.headers(exchange.id)
        outcome = "cancelled"
        try:
            response = await endpoint.handler(exchange)
            outcome = "ok"
            return response
        except Rejected as no:
            outcome = f"status {no.status}"
            return _rejection(vendor, exchange, no)
        except Over as over:
            return over.response or web.Response()
        except ConnectionError:  # the client left in the middle, as callers do
            return web.Response()
        finally:
            exchange.close(outcome)


def _rejection(vendor: Vendor, exchange: Exchange, no: Rejected) -> web.Response:
    headers = dict(exchange.headers)
    if no.retry_after is not None:
        headers["Retry-After"] = str(no.retry_after)
    return web.Response(
        status=no.status,
        body=msgspec.json.encode(vendor.error(no.status, no.message, exchange.id)),
        content_type="application/json",
        headers=headers,
    )


class Port:
    """One listening socket, which can close and open again under the same number."""

    def __init__(
        self, host: str, number: int, providers: Sequence[str], app: control.AppFactory
    ) -> None:
        self.host = host
        self.number = number
        self.providers = providers
        self._app = app
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._opening: asyncio.Task[None] | None = None
        self._bound: socket.socket | None = None

    async def start(self) -> None:
        """Listen. Raises OSError."""
        runner = web.AppRunner(
            self._app(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await runner.setup()
        self._runner = runner
        self._bind()
        await self._open()

    def close(self) -> None:
        """Refuse connections from now on; those that are open stay."""
        if self._opening is not None:
            self._opening.cancel()
            self._opening = None
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._bound is not None:
            self._bound.close()
            self._bound = None

    def reopen(self) -> None:
        """Accept connections from now on; they are served as soon as the event loop comes to it."""
        if self._server is None and self._opening is None and self._runner is not None:
            self._bind()
            self._opening = asyncio.create_task(self._open())

    async def stop(self) -> None:
        """Close the connections too."""
        self.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _bind(self) -> None:
        self._bound = socket.create_server((self.host, self.number), backlog=512)
        self.number = self._bound.getsockname()[1]

    async def _open(self) -> None:
        assert self._runner is not None
        assert self._runner.server is not None
        assert self._bound is not None
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._runner.server, sock=self._bound)
        self._bound = self._opening = None


async def serve_forever(config: Config, *, ready: Callable[[Double], None] | None = None) -> None:
    """Serve until cancelled; ``ready`` is called once everything listens. Raises UsageError."""
    double = Double(config)
    await double.start()
    try:
        if ready is not None:
            ready(double)
        await asyncio.get_running_loop().create_future()
    finally:
        await double.stop()
