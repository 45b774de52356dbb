"""The lean streaming client for every endpoint that speaks OpenAI's chat completions.

One connection pool, the request serialised once, the body parsed as it comes, no task and no timer
for a token. Deadlines for content are the engine's: it cancels the wait. Only the connect deadline
is kept here, because only here a connection is told from an answer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import lru_cache
from typing import Any, Self

import aiohttp
from aiohttp.payload import BytesPayload

from .._version import __version__
from ..core.models import Usage
from ..core.quirks import ChatQuirks
from ..errors import ConnectFailed, ProtocolViolation, ProviderError, StreamCut
from .chat import ChatDelta, ChatRequest
from .sse import SseParser, WholeBody
from .wire_chunks import ChunkReader
from .wire_errors import from_status, from_transport
from .wire_pool import Connector, has_served
from .wire_request import WireRequest, encode, endpoint, header_value

KEEP_ALIVE = 120.0
"""Seconds an idle connection stays in the pool: longer than a caller is silent between turns."""

_ERROR_BODY_LIMIT = 8192
_ERROR_BODY_WAIT = 0.5
_PREWARM_WAIT = 5.0
_LINGER = 1.0
_DONE = b"[DONE]"
_UNSENT = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    aiohttp.InvalidURL,
)
"""Failures before a connection was there; after any other the request may have been read."""


class WireLLM:
    """One endpoint with one key; its connections belong to the event loop that uses it.

    ``base_url`` is what precedes ``/chat/completions``. ``api_key`` None sends no credential. The
    key goes to this origin only: redirects are not followed and proxies of the environment are
    not used. Raises UsageError for a base_url, key or header that cannot be used.
    """

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None,
        headers: Mapping[str, str] = {},
        quirks: ChatQuirks = ChatQuirks(),  # noqa: B008 - frozen
        connect_timeout: float = 2.0,
    ) -> None:
        self._base = endpoint(base_url)
        self._url = self._base.joinpath("chat", "completions").with_query(self._base.query)
        self.quirks = quirks
        self.connect_timeout = connect_timeout
        self.secrets = (api_key,) if api_key else ()
        self._headers = {
            "Accept": "text/event-stream, application/json",
            "Accept-Encoding": "identity",  # a compressor would hold tokens back
            "Content-Type": "application/json",
            "User-Agent": f"trunkline/{__version__}",
            **{name: header_value(name, value) for name, value in headers.items()},
        }
        if api_key:
            self._headers["Authorization"] = f"Bearer {header_value('api_key', api_key)}"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._left: list[aiohttp.ClientSession] = []
        self._pool: aiohttp.ClientSession | None = None
        self._single: aiohttp.ClientSession | None = None
        self._closed = False

    def stream(
        self,
        model: str,
        request: ChatRequest,
        *,
        connect_timeout: float | None = None,
        verbatim: bool = False,
        before_wait: Callable[[], Awaitable[None]] | None = None,
    ) -> WireStream:
        """Return the answer to ``request`` as an iterator; it is sent at the first ``anext``.

        ``connect_timeout`` in seconds outranks the client's. With ``verbatim`` every chunk gives a
        delta that holds it as it came, in ``raw``. ``before_wait`` is awaited before each wait for
        the network and before a failure, not between pieces that came in one read. Raises
        UsageError when the request cannot be written as JSON.
        """
        seconds = self.connect_timeout if connect_timeout is None else connect_timeout
        wire = encode(model, request, self.quirks)
        return WireStream(self, wire, seconds, verbatim=verbatim, before_wait=before_wait)

    async def post(self, stream: WireStream, request: WireRequest) -> aiohttp.ClientResponse:
        """Send ``request`` for ``stream`` and return once the answer's head is there.

        Raises ConnectFailed when this client is closed, and what aiohttp raises.
        """
        try:
            return await self._send(self._pooled(), stream, request)
        except aiohttp.ClientConnectionError:
            if not stream.reused or self._closed:
                raise
        # The server closed an idle connection just as we took it. Nothing was answered, so once
        # more is safe; the pool may hold more like it, hence a connection outside of it.
        return await self._send(self._unpooled(), stream, request)

    async def prewarm(self) -> None:
        """Put an open connection into the pool. A failure is left for the first request to meet."""
        try:
            async with self._pooled().head(
                self._base.joinpath("models").with_query(self._base.query),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_PREWARM_WAIT),
            ):
                pass
        except (aiohttp.ClientError, OSError, ConnectFailed):
            return

    async def aclose(self) -> None:
        """Close every connection; streams still open end with StreamCut. Idempotent."""
        self._closed = True
        for session in (self._pool, self._single):
            if session is not None:
                await session.close()

    async def _send(
        self, session: aiohttp.ClientSession, stream: WireStream, request: WireRequest
    ) -> aiohttp.ClientResponse:
        try:
            return await session.post(
                self._url,
                data=BytesPayload(request.body),  # aiohttp would search for what bytes are
                headers=request.headers,
                params=request.query,
                allow_redirects=False,
                timeout=_connecting(stream.connect_timeout),
            )
        finally:
            stream.reused = has_served.get()

    def _pooled(self) -> aiohttp.ClientSession:
        if self._closed:
            raise ConnectFailed("no connection: the client is closed")
        self._settle_in(asyncio.get_running_loop())
        if self._pool is None:
            self._pool = self._session(Connector(KEEP_ALIVE))
        return self._pool

    def _settle_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave the connections of another loop, which has ended or belongs to the parent process.

        They are kept unused: closing what a fork copied would take the parent's sockets out of the
        event queue that both share.
        """
        if self._loop is not loop:
            self._left += [one for one in (self._pool, self._single) if one is not None]
            self._loop, self._pool, self._single = loop, None, None

    def _unpooled(self) -> aiohttp.ClientSession:
        if self._single is None:
            self._single = self._session(Connector())
        return self._single

    def _session(self, connector: Connector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            timeout=_connecting(self.connect_timeout),
        )


@lru_cache(64)
def _connecting(seconds: float) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, connect=seconds)


class WireStream:
    """The pieces of one answer, in order. Raises ProviderError; ends only when the answer is whole.

    It is whole at ``[DONE]``, and at the end of a body in which a finish reason came.

    A wait may be cancelled: while the body comes, the next ``anext`` goes on; before it began,
    the request is given up and the stream has ended. ``aclose`` must be called in every case.
    """

    def __init__(
        self,
        client: WireLLM,
        request: WireRequest,
        connect_timeout: float,
        *,
        verbatim: bool,
        before_wait: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.connect_timeout = connect_timeout
        self.reused = False
        """Whether the request went out on a connection that had served before."""
        self._client = client
        self._before_wait = before_wait
        self._request = request
        self._response: aiohttp.ClientResponse | None = None
        self._body: SseParser | WholeBody = SseParser()
        self._reader = ChunkReader(client.quirks, client.secrets, verbatim=verbatim)
        self._ready: deque[ChatDelta] = deque()
        self._sent = False
        self._ended = False
        self._failure: ProviderError | None = None
        self._header_id = ""

    @property
    def request_id(self) -> str:
        """The provider's id: the ``x-request-id`` header, else the completion's id."""
        return self._header_id or self._reader.id

    @property
    def usage(self) -> Usage | None:
        """The provider's own count, None until it came."""
        return self._reader.usage

    @property
    def text_chars(self) -> int:
        """Visible characters received, for an estimate when the usage never comes."""
        return self._reader.text_chars

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatDelta:
        while not self._ready:
            failure, self._failure = self._failure, None
            if failure is None and self._ended:
                raise StopAsyncIteration
            if self._before_wait is not None:
                await self._before_wait()
            if failure is not None:
                raise failure
            await self._receive()
        return self._ready.popleft()

    async def aclose(self) -> None:
        """The same as ``close`` with what it leaves to wait for, for ``contextlib.aclosing``."""
        rest = self.close()
        if rest is not None:
            await rest

    def close(self) -> Coroutine[Any, Any, Usage | None] | None:
        """Give up what has not come. Idempotent; a whole answer's connection stays in the pool.

        Where the answer is whole but for its usage, that is left to wait for: nothing more is made,
        so it costs nothing.
        """
        untold = any(delta.usage is not None for delta in self._ready)
        self._ready.clear()
        response = self._response
        if self._ended or response is None:
            self._ended = True
            return self._last(None) if untold else None
        self._ended = True
        if self._reader.finish_reason and self._failure is None:
            return self._last(response)
        response.close()
        return None

    async def _last(self, response: aiohttp.ClientResponse | None) -> Usage | None:
        """The usage of an answer that nobody waits for, as far as it comes soon."""
        if response is None:
            return self.usage if self._reader.is_counted else None
        try:
            async with asyncio.timeout(_LINGER):
                while not self._reader.is_counted and (data := await _more(response)):
                    for payload in self._body.feed(data):
                        if payload != _DONE:
                            self._reader.read(payload)
        except (aiohttp.ClientError, OSError, ProviderError):
            pass  # TimeoutError is an OSError; the attempt is settled by an estimate
        finally:
            response.close()
        return self.usage if self._reader.is_counted else None

    async def _receive(self) -> None:
        """Wait for more of the answer; a failure is kept until what came before it is taken."""
        try:
            if self._response is None:
                await self._open()
            else:
                self._take(await _more(self._response))
            return
        except ProviderError as error:
            failure = error
        except (aiohttp.ClientError, OSError) as error:
            # Not chained: aiohttp's exceptions hold the request, with the key in its headers.
            failure = from_transport(
                error,
                answered=self._response is not None,
                connect_timeout=self.connect_timeout,
            )
            failure.served = self._response is not None or not isinstance(error, _UNSENT)
        failure.request_id = failure.request_id or self.request_id or None
        self._failure = failure
        self._ended = True
        if self._response is not None:
            self._response.close()

    async def _open(self) -> None:
        if self._sent:
            raise StreamCut("the request was given up before an answer came")
        self._sent = True
        response = self._response = await self._client.post(self, self._request)
        self._header_id = response.headers.get("x-request-id", "")
        if response.status >= 300:
            body = await _excerpt(response)
            raise from_status(response.status, body, response.headers, secrets=self._client.secrets)
        media = response.headers.get("content-type", "").lower()
        if media.startswith("application/json"):
            self._body = WholeBody()
        elif media.startswith("text/html"):
            raise ProtocolViolation("the answer is a web page: check base_url")

    def _take(self, data: bytes) -> None:
        """Read what came of the body; nothing means that it has ended."""
        if not data:
            self._finish()
            return
        payloads = self._body.feed(data)
        is_whole = _DONE in payloads
        if is_whole:
            del payloads[payloads.index(_DONE) :]
        self._ready.extend(self._reader.deltas(payloads))
        if is_whole:
            self._complete()

    def _finish(self) -> None:
        rest = self._body.rest()
        if isinstance(self._body, WholeBody):
            if (delta := self._reader.read(rest)) is not None:
                self._ready.append(delta)
        elif rest != _DONE and not self._reader.finish_reason:
            raise StreamCut("the stream ended before the answer was whole")
        self._complete()

    def _complete(self) -> None:
        """The answer is whole: let its connection return to the pool when the body's end comes."""
        self._ended = True
        delta = self._reader.end()
        if delta is not None:
            self._ready.append(delta)
        response = self._response
        if response is not None and not response.content.is_eof():
            timer = asyncio.get_running_loop().call_later(_LINGER, response.close)
            response.content.on_eof(timer.cancel)


async def _more(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.content.readany()
    except RuntimeError:  # what aiohttp has for a connection that we closed ourselves
        raise StreamCut("the client was closed while the answer came") from None


async def _excerpt(response: aiohttp.ClientResponse) -> bytes:
    """Return the begin of an error's body, or what has come of it soon."""
    body = b""
    try:
        async with asyncio.timeout(_ERROR_BODY_WAIT):
            while len(body) < _ERROR_BODY_LIMIT and (data := await response.content.readany()):
                body += data
    except (aiohttp.ClientError, OSError):
        pass  # the status says enough
    return body[:_ERROR_BODY_LIMIT]
