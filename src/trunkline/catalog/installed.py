"""Providers that other distributions bring: entry points of the group ``trunkline.providers``.

    [project.entry-points."trunkline.providers"]
    acme = "acme_voices:PROVIDER"

The name is the provider's, the value a ``trunkline.catalog.Provider``. The installed names are
listed when something is named that is not built in, and only the row that is meant is imported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Final

from ..errors import BrokenPlugin
from .model import Provider
from .providers import ALIASES, PROVIDERS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

logger = logging.getLogger("trunkline")

GROUP: Final = "trunkline.providers"

in_use: Final[dict[str, Provider]] = {}
"""The rows that have been imported, by name."""


def row(name: str) -> Provider | None:
    """The row that a distribution offers under ``name``, None when none does.

    Raises BrokenPlugin, naming the distribution, for one that cannot be used.
    """
    if name not in in_use:
        points = offered().get(name)
        if points is None:
            return None
        in_use[name] = _loaded(name, points)
    return in_use[name]


@cache
def offered() -> Mapping[str, tuple[EntryPoint, ...]]:
    """What is installed, by name; nothing of it is imported. A built-in name stays built in."""
    from importlib.metadata import entry_points  # takes longer than all of this package

    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=GROUP):
        if point.name in PROVIDERS or point.name in ALIASES:
            logger.warning(
                '%s offers a provider "%s", which is built in: the built-in one is used',
                distribution(point),
                point.name,
            )
        else:
            found[point.name] = (*found.get(point.name, ()), point)
    return found


def distribution(point: EntryPoint) -> str:
    """Name and version of the distribution that offers ``point``."""
    return f"{point.dist.name} {point.dist.version}" if point.dist else "a distribution"


def _loaded(name: str, points: tuple[EntryPoint, ...]) -> Provider:
    if len(points) > 1:
        told = " and ".join(distribution(point) for point in points)
        raise BrokenPlugin(f'provider "{name}" is offered by {told}: uninstall all but one')
    (point,) = points
    told = f'provider "{name}" of {distribution(point)} cannot be used'
    try:
        found = point.load()
    except Exception as error:  # the boundary to a stranger's module: it may raise anything
        raise BrokenPlugin(
            f"{told}: {point.value} raises {type(error).__name__}: {error}"
        ) from error
    if not isinstance(found, Provider):
        kind = type(found).__name__
        raise BrokenPlugin(f"{told}: {point.value} is a {kind}, no trunkline.catalog.Provider")
    if found.name != name:
        raise BrokenPlugin(f'{told}: its row is called "{found.name}"')
    if found.aliases:
        raise BrokenPlugin(f"{told}: its row has aliases, which only built-in rows may have")
    return found
