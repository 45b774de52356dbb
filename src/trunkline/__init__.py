"""Trunkline: the self-hosted exchange between voice agents and their providers.

``from trunkline import inference`` replaces ``from livekit.agents import inference``;
``AgentSession(**trunkline.stack("default"))`` takes a configured stack.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from . import inference
    from .compose import Trunkline
    from .inference import Stack

__all__ = ["__version__", "aclose", "configure", "errors", "inference", "on", "stack"]


def stack(name: str = "default", *, tags: Sequence[str] = (), agent: str = "") -> Stack:
    """The stack ``name`` of the configuration, built for one session.

    ``tags`` and ``agent`` are written to each of its attempts. Raises UsageError.
    """
    from .inference import Stack

    return Stack(name, tags=tags, agent=agent)


def configure(config: Path | str | None = None, state: Path | str | None = None) -> Trunkline:
    """Use this file of settings and this directory for the journal and the ledger.

    Without it, ``TRUNKLINE_CONFIG``, ``trunkline.yaml`` here, or defaults. Raises ConfigError.
    """
    from .compose import configure

    return configure(config, state)


def on(event: str, callback: Callable[[Any], None]) -> Callable[[], None]:
    """Call ``callback`` on each ``event`` of this process; returns how to stop that.

    ``settled`` brings the Settlement of an attempt that ended, ``failover`` the Failover from one
    candidate to the next, ``degraded`` and ``recovered`` the HealthChanged of a candidate, also
    when another process found out (then from another thread). Callbacks must not block. Raises
    UsageError.
    """
    from .compose import current

    return current().on(event, callback)


async def aclose() -> None:
    """Close open provider streams and bring this process's journal into the ledger, bounded."""
    from .compose import current

    await current().aclose()


def __getattr__(name: str) -> Any:
    # imported when first used: livekit-agents takes seconds
    if name in ("inference", "errors"):
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
