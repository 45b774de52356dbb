"""Whose call a request belongs to, from the headers that LiveKit's clients send."""

from __future__ import annotations

from collections.abc import Mapping

from ..config import Settings
from ..core.models import Identity
from .auth import Principal
from .refusal import Refusal

_HEADERS = {
    "agent": "x-livekit-agent-id",
    "room": "x-livekit-room-id",
    "job": "x-livekit-job-id",
    "session": "x-livekit-session-id",
}
_LONGEST = 128


def identity_of(
    headers: Mapping[str, str], settings: Settings, request_id: str, principal: Principal
) -> Identity:
    """The identity of every attempt that a request of ``principal`` makes.

    A job is one agent in one room, hence one call; outside of jobs each request is its own. What
    carries no session id goes by the request's. Raises Refusal (400) for an id that is none.
    """
    found = {name: _id(header, headers.get(header, "")) for name, header in _HEADERS.items()}
    return Identity(
        call=found["job"] or found["room"] or request_id,
        org=settings.org,
        project=settings.project,
        agent=found["agent"],
        room=found["room"],
        job=found["job"],
        session=found["session"] or request_id,
        key=principal.name,
    )


def _id(header: str, value: str) -> str:
    if len(value) > _LONGEST or not value.isascii() or not value.isprintable():
        raise Refusal(400, f"{header} is no id: up to {_LONGEST} printable ASCII characters")
    return value
