"""Every error Trunkline raises, and what can help against it.

    TrunklineError
    ├── UsageError                  the caller's mistake; the command line exits with status 2
    │   ├── ConfigError             trunkline.yaml, with every mistake in it
    │   ├── UnknownModel            a model reference that nothing serves
    │   ├── UnsupportedOption       a parameter that this provider cannot act on
    │   ├── MissingCredential       a provider that needs a key and has none
    │   ├── MissingExtra            a provider whose package is not installed
    │   ├── BrokenPlugin            an installed provider that cannot be used
    │   └── BadAudio                a recording that cannot be read
    ├── Refused                     the gate said no: a budget or a limit
    ├── StoreError                  the journal or the ledger could not be read or written
    ├── ProviderError               one attempt at one candidate failed
    │   ├── ConnectFailed           no connection, or it was lost before an answer
    │   ├── Unauthorized            401, 403: the key is wrong or may not do this
    │   ├── PaymentRequired         402: the account has no credit
    │   ├── RateLimited             429, with the time the provider asks for
    │   ├── RequestRejected         400, 404, 413, 422: this provider does not take this request
    │   ├── ProviderFault           5xx, or an error event of the provider's protocol
    │   ├── ProtocolViolation       an answer that is not what the protocol promises
    │   ├── StreamCut               the stream died or ended before the work was done
    │   ├── EmptyOutput             a clean end without the output that was owed
    │   └── DeadlineExceeded        one of our deadlines passed: connect, first_content, idle, total
    └── AllCandidatesFailed         every candidate of a plan failed; holds each cause

A ``ProviderError`` knows what can help: ``remedy`` is ``RETRY`` (the same candidate, within the
deadline) or ``FAILOVER`` (another candidate). What nothing can help is no ProviderError: a refusal
of the gate, or a policy that forbids going on once output has left. ``blames`` says whether the
failure counts against the candidate's health; ``served`` whether the provider may have begun to
work, and so to charge, before it failed. Errors of vendors and of LiveKit are translated into
this tree once, at the edge where they enter: ``trunkline.runtime.wire_errors`` for our own
client, ``trunkline.runtime.livekit_errors`` for plugins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import ClassVar

__all__ = [
    "AllCandidatesFailed",
    "BadAudio",
    "BrokenPlugin",
    "ConfigError",
    "ConnectFailed",
    "DeadlineExceeded",
    "EmptyOutput",
    "MissingCredential",
    "MissingExtra",
    "PaymentRequired",
    "ProtocolViolation",
    "ProviderError",
    "ProviderFault",
    "RateLimited",
    "Refused",
    "Remedy",
    "RequestRejected",
    "StoreError",
    "StreamCut",
    "TrunklineError",
    "Unauthorized",
    "UnknownModel",
    "UnsupportedOption",
    "UsageError",
]


class Remedy(StrEnum):
    """What can help after a failed attempt."""

    RETRY = "retry"
    FAILOVER = "failover"


class TrunklineError(Exception):
    """Base of every error raised by Trunkline. Its text is one sentence for a person."""


class UsageError(TrunklineError):
    """The caller's input cannot be used; the text names the field, the value and the remedy."""


class ConfigError(UsageError):
    """The configuration has mistakes; ``problems`` holds one sentence for each of them."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class UnknownModel(UsageError):
    """A model reference names no provider, route, stack or model that is known here."""


class UnsupportedOption(UsageError):
    """A parameter was given that the chosen provider cannot act on."""


class MissingCredential(UsageError):
    """A provider needs a credential and none is configured."""


class MissingExtra(UsageError):
    """A provider's package is not installed; the text is the command that installs it."""


class BrokenPlugin(UsageError):
    """An installed distribution offers a provider that cannot be used; the text names it."""


class BadAudio(UsageError):
    """A recording is empty, damaged or of a format that cannot be read."""


class Refused(TrunklineError):
    """The gate did not allow an attempt. ``retry_after`` is in seconds, None when unknown.

    ``rule`` is the budget or limit behind it, ``notice`` what its settings say to the caller.
    ``ends_call``: it is a budget's, which does not come back within a call as a limit does.
    ``quotas`` are the limit and what is used of it: ``rpm`` and ``tpm`` (requests and tokens a
    minute) and ``credits`` (USD), as far as the rule is about one of them.
    """

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        rule: str = "",
        notice: str = "",
        ends_call: bool = False,
        quotas: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.rule = rule
        self.notice = notice
        self.ends_call = ends_call
        self.quotas = quotas or {}


class StoreError(TrunklineError):
    """The journal or the ledger could not be read or written."""


class ProviderError(TrunklineError):
    """One attempt at one candidate failed.

    ``status`` is the HTTP status or WebSocket close code where there was one, ``request_id`` the
    provider's own id of the request. Neither the text nor the fields ever hold a credential or
    words said in the call.
    """

    remedy: ClassVar[Remedy] = Remedy.FAILOVER
    blames: bool = True
    served: bool = True
    outcome: str = "error"

    def __init__(
        self, message: str, *, status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class ConnectFailed(ProviderError):
    """No connection could be made, or it was lost before any answer came."""

    remedy = Remedy.RETRY
    served = False
    outcome = "connect_failed"


class Unauthorized(ProviderError):
    """The provider does not accept the credential (401, 403)."""

    served = False
    outcome = "unauthorized"


class PaymentRequired(ProviderError):
    """The provider's account has no credit left (402)."""

    served = False
    outcome = "payment_required"


class RateLimited(ProviderError):
    """The provider asks for fewer requests (429). ``retry_after`` is in seconds, None if unsaid."""

    served = False
    outcome = "rate_limited"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = 429,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, status=status, request_id=request_id)
        self.retry_after = retry_after


class RequestRejected(ProviderError):
    """The provider does not take this request (400, 404, 413, 422); others may."""

    blames = False
    served = False
    outcome = "rejected"


class ProviderFault(ProviderError):
    """The provider failed (5xx) or sent an error in its own protocol.

    With a status it never began: nobody charges for a 500.
    """

    remedy = Remedy.RETRY
    outcome = "provider_fault"

    def __init__(
        self, message: str, *, status: int | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message, status=status, request_id=request_id)
        self.served = status is None


class ProtocolViolation(ProviderError):
    """The provider answered with something its protocol does not allow."""

    outcome = "protocol_violation"


class StreamCut(ProviderError):
    """The stream died, or ended cleanly, before the work was done."""

    remedy = Remedy.RETRY
    outcome = "stream_cut"


class EmptyOutput(ProviderError):
    """The stream ended cleanly without the output that was owed.

    ``doubted`` is what may be right: it blames nobody until another candidate has the output.
    """

    outcome = "empty_output"

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        request_id: str | None = None,
        doubted: bool = False,
    ) -> None:
        super().__init__(message, status=status, request_id=request_id)
        self.doubted = doubted
        self.blames = not doubted


class DeadlineExceeded(ProviderError):
    """A deadline of ours passed. ``phase`` is connect, first_content, idle or total."""

    def __init__(self, phase: str, seconds: float) -> None:
        super().__init__(f"no {_AWAITED[phase]} within {seconds:g} s")
        self.phase = phase
        self.seconds = seconds
        self.outcome = f"{phase}_timeout"


_AWAITED = {
    "connect": "connection",
    "first_content": "first content",
    "idle": "further content",
    "total": "end of the answer",
}


class AllCandidatesFailed(TrunklineError):
    """Every candidate of a plan failed. ``causes`` holds (candidate, error) in the order tried."""

    def __init__(self, causes: Sequence[tuple[str, ProviderError]]) -> None:
        told = "; ".join(f"{name}: {error}" for name, error in causes) or "the plan was empty"
        super().__init__(f"all candidates failed: {told}")
        self.causes = tuple(causes)
