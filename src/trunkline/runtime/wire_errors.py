"""What goes wrong on the wire of a chat endpoint, translated into our errors, once.

Three things enter here: an HTTP status with its body, an error event inside a stream, and an
exception of aiohttp. A text that leaves holds at most 200 characters of the provider's own words,
without credentials and without the request that some providers quote.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from http.client import responses

import aiohttp
import msgspec

from ..clock import now_ns
from ..errors import (
    ConnectFailed,
    DeadlineExceeded,
    PaymentRequired,
    ProtocolViolation,
    ProviderError,
    ProviderFault,
    RateLimited,
    RequestRejected,
    StreamCut,
    Unauthorized,
)

EXCERPT = 200
"""Characters of a provider's message that are passed on."""


class ErrorBody(msgspec.Struct):
    """An error as OpenAI writes it; the others follow with small differences."""

    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class _ErrorAnswer(msgspec.Struct):
    error: ErrorBody | str | None = None
    message: str | None = None
    detail: str | None = None


_decode_answer = msgspec.json.Decoder(_ErrorAnswer).decode
_decode_answers = msgspec.json.Decoder(list[_ErrorAnswer]).decode

_STATUS: dict[int, type[ProviderError]] = {
    401: Unauthorized,
    402: PaymentRequired,
    403: Unauthorized,
    408: ProviderFault,
    409: ProviderFault,
    429: RateLimited,
}

# https://platform.openai.com/docs/guides/error-codes: an empty account answers 429 as well.
_NO_CREDIT = frozenset({"insufficient_quota", "billing_hard_limit_reached"})

_WORDS: dict[str, type[ProviderError]] = {
    **dict.fromkeys(_NO_CREDIT, PaymentRequired),
    "rate_limit_exceeded": RateLimited,
    "rate_limit_error": RateLimited,
    "invalid_api_key": Unauthorized,
    "authentication_error": Unauthorized,
    "invalid_request_error": RequestRejected,
    "context_length_exceeded": RequestRejected,
    "model_not_found": RequestRejected,
}


def from_status(
    status: int, body: bytes | str, headers: Mapping[str, str], *, secrets: Sequence[str] = ()
) -> ProviderError:
    """Translate an HTTP answer that is not a success; ``body`` may be cut short.

    ``secrets`` are texts that must not be passed on.
    """
    error = _read(body)
    text = f"HTTP {status} {responses.get(status, '')}".rstrip()
    if 300 <= status < 400:
        text += ", and redirects are not followed: check base_url"
    elif told := _tell(error.message, secrets):
        text += f": {told}"
    return _make(
        _by_status(status, error), text, status, headers.get("x-request-id"), _retry_after(headers)
    )


def from_event(
    error: ErrorBody | str, *, request_id: str = "", secrets: Sequence[str] = ()
) -> ProviderError:
    """Translate an error object that came inside a stream whose HTTP status was a success."""
    body = ErrorBody(message=error) if isinstance(error, str) else error
    code = str(body.code or "")
    status = int(code) if re.fullmatch(r"[45]\d\d", code) else None
    if status is not None:
        kind = _by_status(status, body)
    else:
        kind = _WORDS.get(code) or _WORDS.get(body.type or "") or ProviderFault
    told = _tell(body.message, secrets) or code or "no reason given"
    return _make(kind, f"error in the stream: {told}", status, request_id or None, None)


def from_transport(
    error: aiohttp.ClientError | OSError, *, answered: bool, connect_timeout: float
) -> ProviderError:
    """Translate a failure of the connection; ``answered`` says whether a response had begun."""
    if isinstance(error, TimeoutError) and not answered:
        return DeadlineExceeded("connect", connect_timeout)
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)):
        return RequestRejected("the address of the endpoint is not valid: check base_url")
    if isinstance(error, aiohttp.ClientResponseError) and not isinstance(
        error, aiohttp.ClientHttpProxyError
    ):
        return ProtocolViolation(f"not a valid HTTP answer ({type(error).__name__})")
    if answered:
        return StreamCut(f"the stream was cut ({type(error).__name__})")
    return ConnectFailed(f"no connection: {_reason(error)}")


def _make(
    kind: type[ProviderError],
    text: str,
    status: int | None,
    request_id: str | None,
    retry_after: float | None,
) -> ProviderError:
    if issubclass(kind, RateLimited):
        return kind(text, status=status, request_id=request_id, retry_after=retry_after)
    return kind(text, status=status, request_id=request_id)


def _by_status(status: int, error: ErrorBody) -> type[ProviderError]:
    if error.code in _NO_CREDIT or error.type in _NO_CREDIT:
        return PaymentRequired
    return _STATUS.get(status) or (ProviderFault if status >= 500 else RequestRejected)


def _read(body: bytes | str) -> ErrorBody:
    """Find the error in a body: JSON in one of its usual forms, or plain text, but not HTML."""
    text = (body if isinstance(body, str) else body.decode("utf-8", "replace")).strip()
    try:
        if text.startswith("["):  # Google's compatible endpoint wraps it in a list
            answers = _decode_answers(text)
            answer = answers[0] if answers else _ErrorAnswer()
        else:
            answer = _decode_answer(text)
    except (ValueError, RecursionError):
        return ErrorBody() if text.startswith(("<", "{", "[")) else ErrorBody(message=text)
    if isinstance(answer.error, ErrorBody):
        return answer.error
    return ErrorBody(message=answer.error or answer.message or answer.detail)


# A validation error of vLLM and other pydantic servers quotes the offending part of the request.
_QUOTED_REQUEST = re.compile(r"""[,{\s]*\\?['"]?\binput(_value)?\\?['"]?\s*[:=].*""", re.DOTALL)
_CREDENTIAL = re.compile(r"\b(?:Bearer\s+|[sp]k-|gsk_|xai-|csk-|AIza|eyJ)[\w.*~+/=-]{4,}", re.I)


def _tell(message: str | None, secrets: Sequence[str]) -> str:
    text = _QUOTED_REQUEST.sub("", message or "")
    for secret in filter(None, secrets):
        text = text.replace(secret, "[redacted]")
    text = " ".join(_CREDENTIAL.sub("[redacted]", text).split())
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from the headers of RFC 9110 section 10.2.3 or OpenAI's milliseconds."""
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * scale
        except (KeyError, ValueError):
            continue
        return seconds if seconds >= 0 and math.isfinite(seconds) else None
    try:
        until = parsedate_to_datetime(headers["retry-after"])
        return max(0.0, until.timestamp() - now_ns() / 1e9)
    except (KeyError, ValueError, OverflowError):
        return None


def _reason(error: aiohttp.ClientError | OSError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"{error.host} has no address"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"the certificate of {error.host} is not trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error.strerror or type(error.os_error).__name__
        return f"{error.host}:{error.port}, {cause}"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed it before it answered"
    return type(error).__name__
