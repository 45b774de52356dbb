"""Errors of LiveKit, of vendors' packages and of HTTP libraries, translated once; and back."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import anthropic
import google.genai.errors as genai
import httpx2
import openai
import pytest
from aiohttp.client_reqrep import ConnectionKey
from livekit import agents
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from trunkline import errors
from trunkline.errors import (
    AllCandidatesFailed,
    ConnectFailed,
    DeadlineExceeded,
    EmptyOutput,
    PaymentRequired,
    ProtocolViolation,
    ProviderError,
    ProviderFault,
    RateLimited,
    Refused,
    Remedy,
    RequestRejected,
    StreamCut,
    TrunklineError,
    Unauthorized,
)
from trunkline.runtime.livekit_errors import from_livekit, may_be_sent, to_livekit

WORDS = "my name is Ada Lovelace"
REQUEST = httpx2.Request("POST", "https://vendor.example/v1?api_key=sk-secret")


def answer(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=REQUEST)


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def handshake(status: int) -> aiohttp.WSServerHandshakeError:
    about: Any = SimpleNamespace(real_url="wss://vendor.example?key=sk-secret", headers={})
    return aiohttp.WSServerHandshakeError(about, (), status=status, message="no")


class ConnectionClosed(Exception):
    """As in websockets: what was received is in ``rcvd``."""

    def __init__(self, code: int | None) -> None:
        super().__init__(f"received {code}; then sent {code}")
        self.rcvd = SimpleNamespace(code=code) if code else None


class ConnectionClosedError(ConnectionClosed):
    pass


KEY = ConnectionKey("vendor.example", 443, True, True, None, None, None)
REFUSED = aiohttp.ClientConnectorError(KEY, ConnectionRefusedError(111, "Connection refused"))
RESOLVE = aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name or service not known"))

TABLE: list[tuple[BaseException, type[ProviderError], str]] = [
    # livekit
    (APIStatusError("no", status_code=400), RequestRejected, "HTTP 400"),
    (APIStatusError("no", status_code=401), Unauthorized, "HTTP 401"),
    (APIStatusError("no", status_code=402), PaymentRequired, "HTTP 402"),
    (APIStatusError("no", status_code=403), Unauthorized, "HTTP 403"),
    (APIStatusError("no", status_code=404), RequestRejected, "HTTP 404"),
    (APIStatusError("no", status_code=408), ProviderFault, "HTTP 408"),
    (APIStatusError("no", status_code=422), RequestRejected, "HTTP 422"),
    (APIStatusError("no", status_code=429), RateLimited, "HTTP 429"),
    (APIStatusError("no", status_code=499), StreamCut, "closed (499)"),
    (APIStatusError("no", status_code=500), ProviderFault, "HTTP 500"),
    (APIStatusError("no", status_code=529), ProviderFault, "HTTP 529"),
    (APIStatusError("closed unexpectedly", status_code=1006), StreamCut, "closed (1006)"),
    (APIStatusError("closed unexpectedly", status_code=4001), StreamCut, "closed (4001)"),
    (APIStatusError("closed unexpectedly", body=f"{WORDS=}"), StreamCut, "closed unexpectedly"),
    (APITimeoutError(), ConnectFailed, "timed out"),
    (APIConnectionError(), ConnectFailed, "Connection error."),
    (caused(APIConnectionError(), REFUSED), ConnectFailed, "vendor.example:443"),
    (caused(APIConnectionError(), handshake(401)), Unauthorized, "HTTP 401"),
    (caused(APIConnectionError("after 4"), APIStatusError("x", status_code=402)),
     PaymentRequired, "HTTP 402"),
    (caused(APIConnectionError(), ValueError(WORDS)), ConnectFailed, "Connection error."),
    (APIError("quota of this plan is used up"), ProviderFault, "quota of this plan"),
    (APIError(f"no audio frames were pushed for text: {WORDS}"), EmptyOutput, "without audio"),
    (APIError(f"returned error: {{'transcript': '{WORDS}'}}"), ProviderFault, "returned error: …"),
    (APIError(f"cannot speak '{WORDS}'", body={"text": WORDS}), ProviderFault, "cannot speak …"),
    (APIError(f"bad input text: {WORDS}"), ProviderFault, "bad"),
    # openai and anthropic
    (openai.AuthenticationError("no", response=answer(401), body=None), Unauthorized, "HTTP 401"),
    (openai.RateLimitError("no", response=answer(429), body=None), RateLimited, "HTTP 429"),
    (openai.InternalServerError("no", response=answer(503), body=None), ProviderFault, "HTTP 503"),
    (openai.APITimeoutError(REQUEST), ConnectFailed, "APITimeoutError"),
    (openai.APIConnectionError(request=REQUEST), ConnectFailed, "APIConnectionError"),
    (openai.APIError(WORDS, REQUEST, body=None), ProviderFault, "APIError"),
    (anthropic.BadRequestError("no", response=answer(400), body=None), RequestRejected, "400"),
    (anthropic.APITimeoutError(REQUEST), ConnectFailed, "APITimeoutError"),
    (anthropic.APIConnectionError(request=REQUEST), ConnectFailed, "APIConnectionError"),
    # google
    (genai.ClientError(403, {"error": {"message": "no"}}), Unauthorized, "HTTP 403"),
    (genai.ServerError(500, {"error": {"message": "no"}}), ProviderFault, "HTTP 500"),
    # aiohttp, httpx2, websockets, sockets
    (REFUSED, ConnectFailed, "Connection refused"),
    (RESOLVE, ConnectFailed, "vendor.example has no address"),
    (aiohttp.ServerDisconnectedError(), ConnectFailed, "closed it before it answered"),
    (aiohttp.ServerTimeoutError(), ConnectFailed, "timed out"),
    (aiohttp.ClientPayloadError(WORDS), ConnectFailed, "ClientPayloadError"),
    (handshake(429), RateLimited, "HTTP 429"),
    (handshake(200), ProtocolViolation, "WSServerHandshakeError"),
    (httpx2.ConnectTimeout(""), ConnectFailed, "ConnectTimeout"),
    (httpx2.ReadTimeout(WORDS), ConnectFailed, "ReadTimeout"),
    (httpx2.ConnectError(""), ConnectFailed, "ConnectError"),
    (httpx2.RemoteProtocolError(WORDS), ConnectFailed, "RemoteProtocolError"),
    (httpx2.RemoteProtocolError(f"illegal status line: {WORDS}"), ProtocolViolation, "HTTP answer"),
    (httpx2.RemoteProtocolError("peer closed connection without sending complete message body"),
     StreamCut, "cut"),
    (caused(APIConnectionError(), caused(openai.APIConnectionError(request=REQUEST),
     httpx2.RemoteProtocolError(f"illegal status line: {WORDS}"))), ProtocolViolation, "HTTP"),
    (caused(APIConnectionError(), json.JSONDecodeError(WORDS, "", 0)), StreamCut, "empty"),
    (caused(APIConnectionError(), json.JSONDecodeError(WORDS, f'{{"text": "{WORDS}', 9)),
     ProtocolViolation, "not JSON"),
    (httpx2.HTTPStatusError("", request=REQUEST, response=answer(502)), ProviderFault, "HTTP 502"),
    (ConnectionClosedError(1011), StreamCut, "closed (1011)"),
    (ConnectionClosedError(None), StreamCut, "ConnectionClosedError"),
    (TimeoutError(), ConnectFailed, "timed out"),
    (asyncio.IncompleteReadError(WORDS.encode(), None), StreamCut, "IncompleteReadError"),
    (ConnectionResetError(104, "reset"), ConnectFailed, "ConnectionResetError"),
    (BrokenPipeError(), ConnectFailed, "BrokenPipeError"),
    # anything
    (ValueError(f"cannot encode {WORDS}"), ProviderFault, "raised ValueError"),
    (KeyError(WORDS), ProviderFault, "raised KeyError"),
    (RuntimeError("no running stream"), ProviderFault, "raised RuntimeError"),
    (StreamCut("cut"), StreamCut, "cut"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("error", "kind", "told"),
    [pytest.param(*row, id=f"{n}-{type(row[0]).__name__}") for n, row in enumerate(TABLE)],
)
def test_an_error_is_translated(error: BaseException, kind: type[ProviderError], told: str) -> None:
    translated = from_livekit(error)
    assert type(translated) is kind
    assert told in str(translated)


@pytest.mark.parametrize("error", [row[0] for row in TABLE], ids=lambda e: type(e).__name__)
def test_no_words_and_no_key_are_passed_on(error: BaseException) -> None:
    translated = from_livekit(error)
    for text in (str(translated), repr(translated), str(to_livekit(translated))):
        assert "Lovelace" not in text
        assert "secret" not in text


@pytest.mark.parametrize(
    "error",
    [
        APIStatusError("closed unexpectedly", status_code=1006),
        APIConnectionError(),
        APITimeoutError(),
        handshake(503),
        ConnectionResetError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_weather_does_is_worth_another_try(error: Exception) -> None:
    """A plan with one candidate has nothing else, and the stock plugins would reconnect too."""
    assert from_livekit(error).remedy is Remedy.RETRY


def without_cause(error: BaseException, context: BaseException) -> BaseException:
    """As ``raise error from None`` leaves it."""
    error.__context__, error.__suppress_context__ = context, True
    return error


@pytest.mark.parametrize(
    ("cause", "sent"),
    [
        (httpx2.ConnectError(""), False),
        (httpx2.ConnectTimeout(""), False),
        (httpx2.ReadError(""), True),
        (httpx2.ReadTimeout(""), True),
        (httpx2.RemoteProtocolError(""), True),
        (REFUSED, False),
        (RESOLVE, False),
        (aiohttp.ServerDisconnectedError(), True),
        (aiohttp.ClientPayloadError(), True),
    ],
    ids=lambda one: type(one).__name__,
)
def test_only_a_connection_that_was_never_made_has_sent_nothing(
    cause: BaseException, sent: bool
) -> None:
    lost = caused(openai.APIConnectionError(request=REQUEST), cause)
    assert may_be_sent(cause) is sent
    assert may_be_sent(caused(APIConnectionError(), lost)) is sent
    assert may_be_sent(without_cause(APITimeoutError(), lost)) is sent


def test_the_request_id_is_kept() -> None:
    error = APIStatusError("no", status_code=500, request_id="req-1")
    assert from_livekit(error).request_id == "req-1"


def tree(root: type[BaseException]) -> Iterator[type[BaseException]]:
    for kind in root.__subclasses__():
        if kind.__module__.startswith(("livekit.agents", "trunkline")):
            yield kind
        yield from tree(kind)


def test_every_error_of_livekit_for_plugins_is_in_the_table() -> None:
    known = {type(error) for error, *_ in TABLE}
    assert {APIError, *tree(APIError)} <= known
    public = {
        kind
        for _, kind in inspect.getmembers(agents, inspect.isclass)
        if issubclass(kind, APIError)
    }
    assert public <= known


def test_a_cancellation_is_no_error() -> None:
    """It never gets here: it is no Exception, and plugins' streams let it through."""
    assert not issubclass(asyncio.CancelledError, Exception)


Way = tuple[Callable[[], TrunklineError], type[APIError], int | None]
BACK: dict[type[TrunklineError], Way] = {
    ConnectFailed: (lambda: ConnectFailed("no"), APIConnectionError, None),
    Unauthorized: (lambda: Unauthorized("no", status=401), APIStatusError, 401),
    PaymentRequired: (lambda: PaymentRequired("no", status=402), APIStatusError, 402),
    RateLimited: (lambda: RateLimited("no", retry_after=2), APIStatusError, 429),
    RequestRejected: (lambda: RequestRejected("no", status=422), APIStatusError, 422),
    ProviderFault: (lambda: ProviderFault("no", status=503), APIStatusError, 503),
    ProtocolViolation: (lambda: ProtocolViolation("no"), APIConnectionError, None),
    StreamCut: (lambda: StreamCut("no"), APIConnectionError, None),
    EmptyOutput: (lambda: EmptyOutput("no"), APIConnectionError, None),
    DeadlineExceeded: (lambda: DeadlineExceeded("idle", 2), APITimeoutError, None),
    Refused: (lambda: Refused("no", retry_after=1), APIStatusError, 429),
    AllCandidatesFailed: (lambda: AllCandidatesFailed([]), APIConnectionError, None),
}  # fmt: skip


@pytest.mark.parametrize("kind", BACK, ids=lambda kind: kind.__name__)
def test_ours_become_livekits_and_are_not_tried_again(kind: type[TrunklineError]) -> None:
    make, expected, status = BACK[kind]
    error = make()
    translated = to_livekit(error)
    assert type(translated) is expected
    assert getattr(translated, "status_code", None) == status
    assert translated.retryable is False
    assert translated.__cause__ is error
    assert str(error) in str(translated)


def test_every_error_of_an_attempt_has_its_way_back() -> None:
    ours = {ProviderError, *tree(ProviderError)} - {ProviderError}
    assert ours | {Refused, AllCandidatesFailed} == set(BACK)
    assert {kind.__name__ for kind in ours} <= set(errors.__all__)


@pytest.mark.parametrize("kind", [k for k in BACK if issubclass(k, ProviderError)])
def test_there_and_back_keeps_the_status(kind: type[ProviderError]) -> None:
    """What a gateway or another Trunkline raised means the same here."""
    error = BACK[kind][0]()
    assert isinstance(error, ProviderError)
    assert type(from_livekit(to_livekit(error))) in (kind, ConnectFailed)
