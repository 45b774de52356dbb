"""How a request is refused: one status, one sentence, one JSON body, whatever went wrong."""

from __future__ import annotations

import logging
import math
from typing import Any

import msgspec

from ..errors import (
    AllCandidatesFailed,
    DeadlineExceeded,
    MissingCredential,
    ProviderError,
    RateLimited,
    Refused,
    RequestRejected,
    TrunklineError,
    UnknownModel,
    UsageError,
)

logger = logging.getLogger("trunkline")

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_PASSED_ON = frozenset({400, 404, 413, 422})
"""What a provider says of a request that would be as wrong anywhere else."""

Headers = tuple[tuple[bytes, bytes], ...]


class Refusal(Exception):
    """Ends a request. ``code`` is a word for programs, ``param`` the field that is wrong."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        param: str | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or None
        self.param = param
        self.headers = headers

    @property
    def kind(self) -> str:
        """OpenAI's word for errors of this status."""
        other = "server_error" if self.status >= 500 else "invalid_request_error"
        return _TYPES.get(self.status, other)

    def body(self, request_id: str) -> dict[str, Any]:
        """The error as OpenAI writes it, and the id under which the log knows the request."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": {**error, "request_id": request_id}}

    def json(self, request_id: str) -> bytes:
        return msgspec.json.encode(self.body(request_id))


def refusal_of(error: TrunklineError) -> Refusal:
    """The status of an error of ours.

    4xx other than 429 tells a LiveKit client not to try again, so it stands only for what the
    client asked; what is wrong between this gateway and its providers is 502, 504 or 429.
    """
    if isinstance(error, UnknownModel):
        return Refusal(404, str(error), code="model_not_found", param="model")
    if isinstance(error, MissingCredential):
        return Refusal(404, str(error), code="model_not_configured", param="model")
    if isinstance(error, UsageError):
        return Refusal(400, str(error))
    if isinstance(error, Refused):
        headers = (*_retry_after(error.retry_after), *_quotas(error))
        return Refusal(429, str(error), code="refused", headers=headers)
    if isinstance(error, AllCandidatesFailed):
        return _all_failed(error)
    if isinstance(error, ProviderError):
        return _provider_failed(error, str(error))
    return Refusal(500, str(error))


def log_refusal(request_id: str, refusal: Refusal) -> None:
    """Write down why: of a refused upgrade the client shows its user the status alone."""
    logger.warning("request %s refused with %d: %s", request_id, refusal.status, refusal)


def _all_failed(error: AllCandidatesFailed) -> Refusal:
    """The status that all causes agree on; when they differ it is nobody's fault in particular."""
    found = [_provider_failed(cause, str(error)) for _, cause in error.causes]
    if len({one.status for one in found}) == 1:
        return found[-1]
    return Refusal(502, str(error), code="all_candidates_failed")


def _provider_failed(error: ProviderError, told: str) -> Refusal:
    if isinstance(error, RateLimited):
        return Refusal(429, told, code=error.outcome, headers=_retry_after(error.retry_after))
    if isinstance(error, RequestRejected):
        status = error.status if error.status in _PASSED_ON else None
        return Refusal(status or 400, told, code=error.outcome)
    return Refusal(504 if isinstance(error, DeadlineExceeded) else 502, told, code=error.outcome)


def _retry_after(seconds: float | None) -> Headers:
    if seconds is None:
        return ()
    return ((b"retry-after", str(math.ceil(seconds)).encode()),)


def _quotas(error: Refused) -> Headers:
    """What LiveKit's clients log of a 429: the limit and what is used, of each that is known."""
    return tuple(
        (f"x-livekit-inference-{name}-{what}".encode(), value.encode())
        for name, values in error.quotas.items()
        for what, value in zip(("limit", "used"), values, strict=True)
    )
