"""The control endpoint: faults, bill and requests of a double that runs in another process.

It has a port of its own on the loopback interface, so that it answers while a vendor refuses.

===========================  =====================================================================
``GET /_control/faults``     the rules in force
``POST /_control/faults``    put a rule, or a list of them, in force after those
``DELETE /_control/faults``  take them all out of force
``GET /_control/bill``       the lines of the bill
``GET /_control/requests``   the requests seen
``POST /_control/reset``     forget bill and requests, go back to the configured rules
===========================  =====================================================================
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec
from aiohttp import web

from ..errors import UsageError
from .bill import BillLine, RequestLog
from .faults import FaultScript, Rule, read_rules

HttpHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]
AppFactory = Callable[[], web.Application]


class Controlled(Protocol):
    """What the control endpoint works on: a ``Double``."""

    faults: FaultScript
    bill: list[BillLine]
    requests: list[RequestLog]

    def inject(self, *rules: Rule) -> None: ...
    def heal(self) -> None: ...
    def reset(self) -> None: ...


def application(double: Controlled) -> web.Application:
    """The control endpoint of ``double``."""

    async def faults(_: web.Request) -> web.Response:
        return _json(double.faults.rules)

    async def inject(request: web.Request) -> web.Response:
        try:
            rules = read_rules(msgspec.json.decode(await request.read()))
        except (UsageError, msgspec.DecodeError) as error:
            return _json({"error": str(error)}, status=400)
        double.inject(*rules)
        return _json(double.faults.rules)

    async def heal(_: web.Request) -> web.Response:
        double.heal()
        return _json(())

    async def bill(_: web.Request) -> web.Response:
        return _json(double.bill)

    async def requests(_: web.Request) -> web.Response:
        return _json(double.requests)

    async def reset(_: web.Request) -> web.Response:
        double.reset()
        return _json({})

    app = web.Application()
    app.router.add_get("/_control/faults", faults)
    app.router.add_post("/_control/faults", inject)
    app.router.add_delete("/_control/faults", heal)
    app.router.add_get("/_control/bill", bill)
    app.router.add_get("/_control/requests", requests)
    app.router.add_post("/_control/reset", reset)
    return app


def _json(data: object, *, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(data), content_type="application/json", status=status
    )
