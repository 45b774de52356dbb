"""What a webhook says and how it is signed, as plain data.

The scheme is that of Standard Webhooks (www.standardwebhooks.com): the headers ``webhook-id``,
``webhook-timestamp`` (Unix seconds) and ``webhook-signature``; the signature is ``v1,`` and the
base64 of an HMAC-SHA256 of ``id.timestamp.body``; a secret is ``whsec_`` and the base64 of 24 to 64
bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

from .events import BudgetReached, Failover, HealthChanged

_PREFIX = "whsec_"
_SHORTEST, _LONGEST = 24, 64


class Notice(StrEnum):
    """What a webhook can be asked to tell; ``blocked`` is a refused key or an empty account."""

    FAILOVER = "failover"
    DEGRADED = "degraded"
    RECOVERED = "recovered"
    BLOCKED = "blocked"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Hook:
    """Where notices go. ``key`` is what they are signed with."""

    name: str
    url: str = field(repr=False)  # its path may be what lets somebody in
    key: bytes = field(repr=False)
    notices: frozenset[Notice] = frozenset(Notice)


@dataclass(frozen=True, slots=True)
class Message:
    """One notice, the same for every hook. ``once`` names it among the processes of a machine.

    Another process that has the same to tell within ``seconds`` has nothing to tell.
    """

    id: str
    notice: Notice
    body: bytes
    once: str = ""
    seconds: float = 0.0


def key_of(secret: str) -> bytes | None:
    """The key in a secret as it is written; None when it is none."""
    if not secret.startswith(_PREFIX):
        return None
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if _SHORTEST <= len(key) <= _LONGEST else None


def headers(key: bytes, message: Message, seconds: int) -> dict[str, str]:
    """The headers of ``message`` sent at ``seconds`` of Unix time."""
    signed = f"{message.id}.{seconds}.".encode() + message.body
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "content-type": "application/json",
        "webhook-id": message.id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": f"v1,{signature}",
    }


def message(event: object, id: str, now_ns: int) -> Message | None:
    """What ``event`` says to somebody who is not in the call; None when it is not for them.

    Names and figures only: no word of a call, no room, no tag, no key.
    """
    if isinstance(event, Failover):
        return _made(id, now_ns, Notice.FAILOVER, _failover(event))
    if isinstance(event, HealthChanged) and not event.remote:
        notice = Notice.RECOVERED if event.available else Notice.DEGRADED
        notice = Notice.BLOCKED if event.alert else notice
        data = {"candidate": event.key, "cause": event.cause}
        # a breaker stays open for a second at least: what comes sooner is the same outage
        return _made(id, now_ns, notice, data, once=event.key, seconds=1.0)
    if isinstance(event, BudgetReached):
        told = f"{event.pool}/{event.share}/{event.since_ns}"
        return _made(id, now_ns, Notice.BUDGET, _budget(event), once=told, seconds=86_400.0)
    return None


def _made(
    id: str,
    now_ns: int,
    notice: Notice,
    data: Mapping[str, Any],
    *,
    once: str = "",
    seconds: float = 0.0,
) -> Message:
    at = datetime.fromtimestamp(now_ns / 1e9, UTC).isoformat(timespec="milliseconds")
    body = {"type": notice, "timestamp": at.replace("+00:00", "Z"), "data": data}
    once = f"webhook/{notice}/{once}" if once else ""
    return Message(f"msg_{id}", notice, msgspec.json.encode(body), once, seconds)


def _failover(event: Failover) -> dict[str, Any]:
    whose = event.identity
    return {
        "modality": event.modality,
        "failed": event.failed,
        "outcome": event.outcome,
        "next": event.next,
        "attempt": event.attempt,
        "call": whose.call,
        "org": whose.org,
        "project": whose.project,
        "agent": whose.agent,
    }


def _budget(event: BudgetReached) -> dict[str, Any]:
    return {
        "budget": event.budget,
        "action": event.action,
        "share": event.share,
        "spent": event.spent,
        "amount": event.amount,
        "unit": event.unit,
        "route": event.route,
        "shadow": event.shadow,
    }
