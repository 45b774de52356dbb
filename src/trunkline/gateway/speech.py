"""What the two speech doors share: the upgrade, the first message, and two sides at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Mapping
from typing import Any, Protocol, TypeVar

from livekit.agents import APIConnectOptions

from ..compose import Wanted
from ..core.models import Identity, Modality
from ..errors import UnsupportedOption
from .identity import identity_of
from .names import model_of
from .plans import Ask
from .refusal import Refusal
from .speech_messages import Close, Connection, Fallbacks, Reader
from .switchboard import Switchboard
from .websocket import Socket


class _Create(Protocol):
    """What both protocols' first messages have."""

    @property
    def model(self) -> str | None: ...
    @property
    def fallback(self) -> Fallbacks | None: ...


C = TypeVar("C", bound=_Create)
M = TypeVar("M")

CREATE_SECONDS = 10.0
"""The first message has this long to come."""


async def opened(
    house: Switchboard, socket: Socket, modality: Modality, reader: Reader[Any], create: type[C]
) -> tuple[str, Identity, C] | None:
    """The model of the upgrade's query, whose call it is, and the first message, a ``create``.

    None when the client has gone before. Raises Refusal and UsageError.
    """
    name, identity = await _admit(house, socket, modality)
    try:
        async with asyncio.timeout(CREATE_SECONDS):
            created = await following(socket, reader)
    except TimeoutError:
        raise Refusal(408, f"no session.create within {CREATE_SECONDS:g} s") from None
    if created is None or isinstance(created, Close):
        return None
    if not isinstance(created, create):
        raise Refusal(400, "the first message is session.create")
    wanted = Wanted(model_of(created.model, name))
    await house.ready_for(Ask(modality, wanted, fallback_of(created.fallback)))
    return name, identity, created


async def _admit(house: Switchboard, socket: Socket, modality: Modality) -> tuple[str, Identity]:
    """Answer the upgrade.

    Only here a refusal is a status, hence final for a client: an unknown model, one whose provider
    has no credential or whose plugin is not installed. Options come later, so one that is missing
    is no reason yet. A call that has been told that it ends is over: its session closes once its
    recogniser is refused for good.
    """
    identity = identity_of(socket.headers, house.trunkline.settings, socket.id, socket.principal)
    farewell = house.farewells.of(identity) if modality is Modality.STT else None
    if farewell is not None and farewell.is_over:
        raise Refusal(403, "a budget or limit has ended this call, and it was told", code="refused")
    name = socket.model
    with contextlib.suppress(UnsupportedOption), house.plans.lease(Ask(modality, Wanted(name))):
        pass
    await socket.accept()
    return name, identity


async def following(socket: Socket, reader: Reader[M]) -> M | None:
    """The next message that is known here; None once the client has gone. Raises Refusal."""
    while (frame := await socket.receive()) is not None:
        message = reader.read(frame)
        if message is not None:
            return message
    return None


def fallback_of(given: Fallbacks | None) -> tuple[Wanted, ...]:
    """The models that serve when the first cannot, in order."""
    listed = given.models if given is not None else ()
    return tuple(Wanted(one.model, one.voice or "", said_in(one.extra)) for one in listed)


def said_in(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """``options`` without those that say nothing.

    LiveKit's clients send the list of key terms of a model in any case, also to models that have
    none; an empty one, and a null, leave an option at what it is by itself.
    """
    return {name: value for name, value in (options or {}).items() if value not in (None, [])}


def options_of(given: Connection | None) -> APIConnectOptions:
    """A client's wishes as LiveKit's options, whose defaults wish for nothing."""
    wishes = given or Connection()
    return APIConnectOptions(max_retry=wishes.retries, timeout=wishes.timeout)


async def together(*sides: Coroutine[Any, Any, None]) -> None:
    """Run ``sides`` until one of them ends, then end the others; raises what ended it."""
    tasks = [asyncio.create_task(side) for side in sides]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()
