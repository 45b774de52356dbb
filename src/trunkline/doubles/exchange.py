"""One connection from its head to its end: what is decided before an answer, and the kinds of it.

Protocol handlers send everything through here, so that no handler knows about faults.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web

from ..clock import new_id
from .bill import BillLine, RequestLog
from .faults import UNBILLED, Kind
from .latency import Pace
from .transport import Over, Rejected, Socket, Stream, garble, hang, reset
from .turn import Books, Turn, Verdict


class Exchange:
    """One HTTP request or WebSocket, as a handler of a protocol sees it."""

    def __init__(
        self,
        books: Books,
        pace: Pace,
        provider: str,
        endpoint: str,
        request: web.Request,
        *,
        accepted: bool,
    ) -> None:
        self.request = request
        self.headers: Mapping[str, str] = {}
        self.id = new_id()
        self._books = books
        self._pace = pace
        self._provider = provider
        self._endpoint = endpoint
        self._accepted = accepted
        self._turns: list[Turn] = []
        self._fresh: Turn | None = None
        self._pings: asyncio.Task[None] | None = None

    async def begin(self, model: str | None) -> Turn:
        """Open the books, and let happen what happens before the headers.

        ``model`` is None when the protocol names it only later. Raises Over or Rejected.
        """
        turn = self._fresh = self._open(model)
        kind = turn.fault.kind if turn.fault else None
        if kind in UNBILLED:
            turn.log.outcome = str(kind)
        if kind is Kind.REFUSE:
            reset(self.request)
            raise Over
        if kind in (Kind.BLACK_HOLE, Kind.HANG):
            await hang(self.request)
        if not self._accepted:
            turn.log.outcome = Kind.UNAUTHORIZED.value
            raise Rejected(401, "")
        if turn.fault and turn.status:
            limited = turn.fault.kind is Kind.RATE_LIMITED
            raise Rejected(turn.status, "", turn.fault.retry_after if limited else None)
        await turn.wait(self._pace.draw("connect", self._books.random))
        return turn

    def turn(self, model: str) -> Turn:
        """The turn of the next utterance on this connection: the first one is ``begin``'s."""
        turn, self._fresh = self._fresh, None
        if turn is None:
            return self._open(model)
        if not turn.log.model:
            turn.log.model = model
            late = self._books.faults.choose(self._provider, self._endpoint, model, late=True)
            if turn.fault is None and late is not None:
                turn.fault, turn.log.fault = late, late.kind
        return turn

    def also(self, model: str) -> BillLine:
        """A further line of the bill, for what another model does on this connection."""
        line = BillLine(
            provider=self._provider, endpoint=self._endpoint, model=model, request_id=self.id
        )
        self._books.bill.append(line)
        return line

    def close(self, outcome: str) -> None:
        """Everything that still runs on this connection has ended with ``outcome``."""
        if self._pings is not None:
            self._pings.cancel()
        for turn in self._turns:
            if turn.log.outcome == "running":
                turn.log.outcome = outcome

    async def answer(
        self, turn: Turn, body: bytes, *, empty: bytes, content_type: str = "application/json"
    ) -> web.Response:
        """A whole answer, which is one output; ``empty`` is the one without any content."""
        verdict = await turn.output()
        if verdict is Verdict.RESET:
            reset(self.request)
            raise Over
        if verdict is Verdict.SILENCE:
            response = web.StreamResponse(headers={**self.headers, "Content-Type": content_type})
            response.content_length = len(body)
            await response.prepare(self.request)
            await hang(self.request)
        if verdict is Verdict.GARBAGE:
            garble(self.request)
            raise Over
        body = {Verdict.DROP: empty, Verdict.CLOSE: b""}.get(verdict, body)
        return web.Response(body=body, content_type=content_type, headers=self.headers)

    async def stream(self, turn: Turn, content_type: str) -> Stream:
        """Send the headers of an answer that comes in pieces."""
        headers = {**self.headers, "Content-Type": content_type}
        response = web.StreamResponse(headers=headers)
        await response.prepare(self.request)
        return Stream(self.request, turn, response, events="event-stream" in content_type)

    async def socket(self, turn: Turn) -> Socket:
        """Answer the WebSocket upgrade."""
        response = web.WebSocketResponse(timeout=1.0, max_msg_size=16 << 20, compress=False)
        response.headers.update(self.headers)
        await response.prepare(self.request)
        opened = Socket(self.request, response)
        if turn.fault and turn.fault.kind is Kind.KEEP_ALIVE:
            self._pings = asyncio.create_task(opened.ping(turn.fault.every))
        return opened

    def _open(self, model: str | None) -> Turn:
        first = not self._turns
        log = RequestLog(
            id=self.id if first else new_id(),
            provider=self._provider,
            endpoint=self._endpoint,
            model=model or "",
        )
        self._books.requests.append(log)
        fault = self._books.faults.choose(self._provider, self._endpoint, model)
        turn = Turn(self._books, self._pace, log, fault)
        self._turns.append(turn)
        return turn
