"""Errors across LiveKit's border: plugins' into our tree, ours into what a session expects.

A plugin raises LiveKit's errors, its vendor's, its HTTP library's, or anything. Which of them is
which is told by their status and by the names of their classes, so that no vendor's package is
imported for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from json import JSONDecodeError
from typing import Final

import aiohttp
from livekit.agents import APIConnectionError, APIError, APIStatusError, APITimeoutError

from ..errors import (
    AllCandidatesFailed,
    ConnectFailed,
    DeadlineExceeded,
    EmptyOutput,
    ProtocolViolation,
    ProviderError,
    ProviderFault,
    Refused,
    StreamCut,
    TrunklineError,
)
from .wire_errors import EXCERPT, from_status, from_transport

_NO_AUDIO = "no audio frames were pushed"
"""How LiveKit's base class begins that error; the words to be spoken follow, and stay out."""

_BY_NAME: Final[Mapping[str, type[ProviderError]]] = {
    "APITimeoutError": ConnectFailed,  # openai, anthropic
    "TimeoutException": ConnectFailed,  # httpx, httpx2
    "APIConnectionError": ConnectFailed,  # openai, anthropic
    "TransportError": ConnectFailed,  # httpx, httpx2
    "ConnectionClosed": StreamCut,  # websockets
    "EOFError": StreamCut,
}
"""Errors without a status, by a class they are of."""

_UNSENT: Final = frozenset(
    {
        *("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"),  # httpx, httpx2
        *("LocalProtocolError", "UnsupportedProtocol"),
        *("ClientConnectorError", "ConnectionTimeoutError", "InvalidURL"),  # aiohttp
        *("ConnectionRefusedError", "gaierror"),
    }
)
"""Errors of connections over which nothing went yet, by a class they are of."""

_DEPTH = 10
"""How far a chain of causes is followed: one may run in a circle."""

_SPEECH = re.compile(r"\b(text|transcript|input|prompt|content|data|body)\b[\w\s'\"]*[:=].*", re.S)
_QUOTED = re.compile(r"""(['"`])(?=[^'"`]*\s[^'"`]*\s)[^'"`]*\1|[{\[].*[}\]]""", re.S)
"""What a plugin's message may quote of the conversation: named as such, long, or a structure."""


def from_livekit(error: BaseException) -> ProviderError:
    """Translate what a plugin raised. Plugins raise anything; nothing is left untranslated."""
    if isinstance(error, ProviderError):
        return error
    status = _status(error)
    if status is not None:
        return _by_status(error, status)
    if (unread := _unreadable(error)) is not None:
        return unread
    if isinstance(error, APIConnectionError):
        return _unconnected(error)
    if isinstance(error, APIError):
        if error.message.startswith(_NO_AUDIO):
            return EmptyOutput("the voice ended without audio")
        ended = StreamCut if isinstance(error, APIStatusError) else ProviderFault
        return ended(_told(error.message) or type(error).__name__)
    if isinstance(error, TimeoutError):
        return ConnectFailed("the provider's plugin timed out")
    if isinstance(error, aiohttp.ClientError | OSError):
        return from_transport(error, answered=False, connect_timeout=0.0)
    names = [kind.__name__ for kind in type(error).__mro__]
    kind = next((_BY_NAME[name] for name in names if name in _BY_NAME), ProviderFault)
    # Its text is nobody's API: it may hold anything. Whoever debugs has the exception itself.
    return kind(f"the provider's plugin raised {names[0]}")


def may_be_sent(error: BaseException) -> bool:
    """Whether a request that failed so over HTTP may have reached its provider.

    Plugins say of an answer that is lost what they say of a connection that never was. Only what
    they were told tells the two apart, and what is not known may have been sent.
    """
    told: BaseException | None = error
    for _ in range(_DEPTH):
        if told is None:
            break
        if any(kind.__name__ in _UNSENT for kind in type(told).__mro__):
            return False
        told = told.__cause__ or told.__context__  # "from None" leaves the context
    return True


def to_livekit(error: TrunklineError) -> APIError:
    """Translate for the SDK. Never retryable there: retries are the engine's, and not twice."""
    if isinstance(error, AllCandidatesFailed):
        translated: APIError = APIConnectionError(str(error), retryable=False)
    elif isinstance(error, DeadlineExceeded):
        translated = APITimeoutError(str(error), retryable=False)
    elif isinstance(error, Refused):
        translated = APIStatusError(str(error), status_code=429, retryable=False)
    elif isinstance(error, ProviderError) and error.status is not None:
        translated = APIStatusError(
            str(error), status_code=error.status, request_id=error.request_id, retryable=False
        )
    else:
        translated = APIConnectionError(str(error), retryable=False)
    translated.__cause__ = error
    return translated


def _by_status(error: BaseException, status: int) -> ProviderError:
    message = _told(str(getattr(error, "message", None) or ""))
    if status == 499 or status >= 1000:
        closed: ProviderError = StreamCut(
            f"the connection was closed ({status}): {message or 'no reason given'}", status=status
        )
    else:
        closed = from_status(status, message, {})
    closed.request_id = getattr(error, "request_id", None) or None
    return closed


def _status(error: BaseException) -> int | None:
    """The HTTP status or WebSocket close code of an error of LiveKit, a vendor or a library."""
    response = getattr(error, "response", None)
    received = getattr(error, "rcvd", None)
    for owner, name in (
        (error, "status_code"),  # livekit, openai, anthropic
        (error, "status"),  # aiohttp
        (error, "code"),  # google
        (response, "status_code"),  # httpx
        (received, "code"),  # websockets
    ):
        value = getattr(owner, name, None)
        if isinstance(value, int):
            return int(value) if 400 <= value < 5000 else None
    return None


def _unconnected(error: APIConnectionError) -> ProviderError:
    """LiveKit's error for a connection, which may be made from what says more."""
    if isinstance(error, APITimeoutError):
        return ConnectFailed("the provider's plugin timed out")
    cause = error.__cause__
    for _ in range(_DEPTH):
        if cause is None:
            break
        if not isinstance(cause, APIConnectionError):
            translated = from_livekit(cause)
            if translated.status or not isinstance(translated, ProviderFault):
                return translated
        cause = cause.__cause__
    return ConnectFailed(_told(error.message) or type(error).__name__)


def _unreadable(error: BaseException) -> ProviderError | None:
    """What of an answer that came, and could not be read, is at the bottom of ``error``.

    Plugins say of it what they say of a connection that never was. What it held stays out.
    """
    told: BaseException | None = error
    for _ in range(_DEPTH):
        if isinstance(told, JSONDecodeError):
            if not told.doc.strip():
                return StreamCut("the answer is empty")
            return ProtocolViolation("the answer is not JSON")
        if type(told).__name__ == "RemoteProtocolError":  # httpx, httpx2: what h11 says of it
            if str(told).startswith("illegal "):
                return ProtocolViolation("not a valid HTTP answer (RemoteProtocolError)")
            if str(told).startswith("peer closed connection"):
                return StreamCut("the answer was cut (RemoteProtocolError)")
        told = told.__cause__ if told is not None else None
    return None


def _told(message: str) -> str:
    """What of a plugin's message may be passed on: no words of the conversation."""
    return " ".join(_SPEECH.sub("", _QUOTED.sub("…", message)).split())[:EXCERPT]
