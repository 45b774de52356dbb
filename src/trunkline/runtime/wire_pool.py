"""Connections to an endpoint, and whether the one that a request got had served before."""

from __future__ import annotations

from contextvars import ContextVar
from weakref import WeakSet

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

_DNS_SECONDS = 300

has_served: ContextVar[bool] = ContextVar("has_served", default=False)
"""Whether the connection that this task got last had served another request.

aiohttp's traces tell it too; they cost a request more than everything that we do for it here.
"""


class Connector(aiohttp.TCPConnector):
    """aiohttp's, which sets TCP_NODELAY itself. No limit: calls wait for no other call.

    ``keep`` is how many seconds an idle connection is kept; None: each serves once.
    """

    def __init__(self, keep: float | None = None) -> None:
        super().__init__(
            limit=0, ttl_dns_cache=_DNS_SECONDS, keepalive_timeout=keep, force_close=keep is None
        )
        self._known: WeakSet[ResponseHandler] = WeakSet()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        has_served.set(False)
        connection = await super().connect(req, traces, timeout)
        protocol = connection.protocol
        if protocol is not None:
            has_served.set(protocol in self._known)
            self._known.add(protocol)
        return connection
