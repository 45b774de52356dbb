"""Vendors' errors and aiohttp's, each translated once."""

from __future__ import annotations

import inspect
import json
import ssl
from email.utils import formatdate
from time import time

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from yarl import URL

from trunkline.errors import (
    ConnectFailed,
    DeadlineExceeded,
    PaymentRequired,
    ProtocolViolation,
    ProviderFault,
    RateLimited,
    RequestRejected,
    StreamCut,
    Unauthorized,
)
from trunkline.runtime.wire_errors import ErrorBody, from_event, from_status, from_transport


def body(**error: object) -> bytes:
    return json.dumps({"error": error}).encode()


STATUSES = [
    *((status, RequestRejected) for status in (300, 302, 308, 400, 404, 405, 413, 415, 422, 498)),
    *((status, Unauthorized) for status in (401, 403)),
    (402, PaymentRequired),
    (429, RateLimited),
    *((status, ProviderFault) for status in (408, 409, 500, 502, 503, 504, 529, 599)),
]


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_every_status_has_its_error(status, kind):
    error = from_status(status, b"", {"x-request-id": "r"})
    assert (type(error), error.status, error.request_id) == (kind, status, "r")


def test_an_empty_account_is_not_a_rate_limit():
    assert isinstance(from_status(429, body(code="insufficient_quota"), {}), PaymentRequired)
    assert isinstance(from_status(429, body(type="insufficient_quota"), {}), PaymentRequired)


WAITS = [
    ({"retry-after": "7"}, 7.0),
    ({"retry-after": "0.5"}, 0.5),
    ({"retry-after": "7", "retry-after-ms": "250"}, 0.25),
    ({"retry-after": formatdate(time() - 60, usegmt=True)}, 0.0),
    ({"retry-after": "soon"}, None),
    ({"retry-after": "-1"}, None),
    ({"retry-after": "nan"}, None),
    ({"retry-after": "inf"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("headers", "seconds"), WAITS)
def test_the_wait_that_is_asked_for(headers, seconds):
    assert from_status(429, b"", headers).retry_after == seconds


def test_the_wait_may_be_a_date():
    waits = from_status(429, b"", {"retry-after": formatdate(time() + 60, usegmt=True)}).retry_after
    assert 50 < waits <= 60


BODIES = [
    (body(message="no such model"), "HTTP 400 Bad Request: no such model"),
    (b'{"error": "no such model"}', "HTTP 400 Bad Request: no such model"),
    (b'{"message": "no such model"}', "HTTP 400 Bad Request: no such model"),
    (b'{"detail": "no such model"}', "HTTP 400 Bad Request: no such model"),
    (
        b'[{"error": {"code": 400, "message": "no\\n such model"}}]',
        "HTTP 400 Bad Request: no such model",
    ),
    (b"no such model", "HTTP 400 Bad Request: no such model"),
    (b"<html>no such model</html>", "HTTP 400 Bad Request"),
    (b'{"detail": [{"loc": ["body"], "input": "my words"}]}', "HTTP 400 Bad Request"),
    (b'{"error": {"mess', "HTTP 400 Bad Request"),
    (b"[]", "HTTP 400 Bad Request"),
    (b"\xff\xfe", "HTTP 400 Bad Request: ��"),
    (b"", "HTTP 400 Bad Request"),
]


@pytest.mark.parametrize(("answer", "text"), BODIES)
def test_the_providers_own_words_are_found(answer, text):
    assert str(from_status(400, answer, {})) == text


def test_an_unknown_status_has_no_phrase():
    assert str(from_status(529, b"", {})) == "HTTP 529"


TELLTALES = [
    "Incorrect API key provided: hunter2!. Find it",
    "Incorrect API key provided: sk-proj-abcd****wxyz. Find it",
    "header was 'Authorization: Bearer abcd.wxyz-1'",
    "key AIzaSyabcd_wxyz is not enabled",
    "[{'type': 'missing', 'loc': ('body',), 'input': {'messages': 'abcd'}}]",
    "1 validation error: [type=missing, input_value={'content': 'abcd'}, input_type=dict]",
]


@pytest.mark.parametrize("message", TELLTALES)
def test_neither_credentials_nor_the_request_come_back(message):
    for error in (
        from_status(400, body(message=message), {}, secrets=("hunter2!",)),
        from_event(message, secrets=("hunter2!",)),
    ):
        assert "hunter2" not in str(error)
        assert "abcd" not in str(error)
        assert "wxyz" not in str(error)


def test_a_long_message_is_cut_to_200_characters():
    told = str(from_status(400, body(message="x" * 5000), {})).partition(": ")[2]
    assert len(told) == 200
    assert told.endswith("…")


EVENTS = [
    (ErrorBody("m", code=429), RateLimited),
    (ErrorBody("m", code="503"), ProviderFault),
    (ErrorBody("m", code="rate_limit_exceeded"), RateLimited),
    (ErrorBody("m", code="insufficient_quota"), PaymentRequired),
    (ErrorBody("m", code=429, type="insufficient_quota"), PaymentRequired),
    (ErrorBody("m", type="invalid_request_error", code="something_new"), RequestRejected),
    (ErrorBody("m", type="authentication_error"), Unauthorized),
    (ErrorBody("m", code=7, type="server_error"), ProviderFault),
    (ErrorBody(), ProviderFault),
    ("m", ProviderFault),
]


@pytest.mark.parametrize(("error", "kind"), EVENTS)
def test_an_error_in_the_stream_has_its_kind(error, kind):
    assert type(from_event(error, request_id="r")) is kind
    assert from_event(error, request_id="r").request_id == "r"


KEY = ConnectionKey("h.example", 443, True, True, None, None, None)
INFO = aiohttp.RequestInfo(URL("http://h"), "POST", {"Authorization": "Bearer k"}, URL("http://h"))
REFUSED = OSError(111, "Connection refused")
HTTP = (ProtocolViolation, ProtocolViolation)
LOST = (ConnectFailed, StreamCut)
ADDRESS = (RequestRejected, RequestRejected)
LATE = (DeadlineExceeded, StreamCut)

# Every exception class that aiohttp exports for its client: an instance, and what it means before
# and after an answer has begun.
AIOHTTP = {
    aiohttp.ClientConnectionError: ((), LOST),
    aiohttp.ClientConnectionResetError: ((), LOST),
    aiohttp.ClientConnectorCertificateError: ((KEY, ssl.CertificateError("x")), LOST),
    aiohttp.ClientConnectorDNSError: ((KEY, REFUSED), LOST),
    aiohttp.ClientConnectorError: ((KEY, REFUSED), LOST),
    aiohttp.ClientConnectorSSLError: ((KEY, ssl.SSLError(1, "x")), LOST),
    aiohttp.ClientError: ((), LOST),
    aiohttp.ClientHttpProxyError: ((INFO, ()), LOST),
    aiohttp.ClientOSError: ((104, "reset"), LOST),
    aiohttp.ClientPayloadError: (("x",), LOST),
    aiohttp.ClientProxyConnectionError: ((KEY, REFUSED), LOST),
    aiohttp.ClientResponseError: ((INFO, ()), HTTP),
    aiohttp.ClientSSLError: ((KEY, ssl.SSLError(1, "x")), LOST),
    aiohttp.ConnectionTimeoutError: ((), LATE),
    aiohttp.ContentTypeError: ((INFO, ()), HTTP),
    aiohttp.InvalidURL: (("x",), ADDRESS),
    aiohttp.InvalidUrlClientError: (("x",), ADDRESS),
    aiohttp.InvalidUrlRedirectClientError: (("x",), ADDRESS),
    aiohttp.NonHttpUrlClientError: (("x",), ADDRESS),
    aiohttp.NonHttpUrlRedirectClientError: (("x",), ADDRESS),
    aiohttp.RedirectClientError: ((), LOST),
    aiohttp.ServerConnectionError: ((), LOST),
    aiohttp.ServerDisconnectedError: ((), LOST),
    aiohttp.ServerFingerprintMismatch: ((b"a", b"b", "h.example", 443), LOST),
    aiohttp.ServerTimeoutError: ((), LATE),
    aiohttp.SocketTimeoutError: ((), LATE),
    aiohttp.TooManyRedirects: ((INFO, ()), HTTP),
    aiohttp.UploadAbortedError: ((), LOST),
    aiohttp.WSServerHandshakeError: ((INFO, ()), HTTP),
}


def test_no_exception_of_aiohttps_client_is_unmapped():
    exported = {
        kind
        for _, kind in inspect.getmembers(aiohttp, inspect.isclass)
        if issubclass(kind, aiohttp.ClientError)
    }
    assert exported == set(AIOHTTP)


@pytest.mark.parametrize("kind", AIOHTTP, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("answered", [False, True], ids=["before", "after"])
def test_an_exception_of_aiohttp_has_its_meaning(kind, answered):
    arguments, meanings = AIOHTTP[kind]
    error = from_transport(kind(*arguments), answered=answered, connect_timeout=2.0)
    assert type(error) is meanings[answered]
    assert "Bearer" not in str(error)


def test_a_failed_connection_says_where_and_why():
    error = aiohttp.ClientConnectorError(KEY, REFUSED)
    told = from_transport(error, answered=False, connect_timeout=2.0)
    assert str(told) == "no connection: h.example:443, Connection refused"
