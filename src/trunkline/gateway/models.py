"""``GET /v1/models``: what can be asked for here, by every name that the settings give it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from .. import catalog
from ..clock import now_ns
from ..config import Settings
from ..core.models import Modality
from .exchange import Exchange
from .refusal import Refusal
from .switchboard import Switchboard

_PREFIX = "/v1/models/"


async def listed(house: Switchboard, exchange: Exchange) -> None:
    """Answer the list, or one of it. LiveKit's clients ask to warm the connection up."""
    known = [_model(name, owner) for name, owner in _names(house.trunkline.settings)]
    document: Any = {"object": "list", "data": known}
    if exchange.path.startswith(_PREFIX):
        name = exchange.path.removeprefix(_PREFIX)
        document = next((model for model in known if model["id"] == name), None)
        if document is None:
            told = "no such model is listed here: see GET /v1/models"
            raise Refusal(404, told, code="model_not_found", param="model")
    await exchange.answer(200, msgspec.json.encode(document))


def _names(settings: Settings) -> Iterator[tuple[str, str]]:
    """Every route, every stack, and the default models of what is configured, each once."""
    yield "auto", "stack"
    yield from ((name, "route") for name in settings.routes)
    yield from ((name, "stack") for name in settings.stacks)
    told = set()
    for connection in settings.connections.values():
        row = catalog.provider(connection.provider)
        for modality in Modality:
            how = getattr(row, modality.value)
            name = f"{connection.name}/{how.default_model}" if how and how.default_model else None
            if name and name not in told:
                told.add(name)
                yield name, connection.name


def _model(name: str, owner: str) -> dict[str, Any]:
    created = now_ns() // 1_000_000_000
    return {"id": name, "object": "model", "created": created, "owned_by": owner}
