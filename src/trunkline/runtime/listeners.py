"""Who is told of what happens in this process."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..core.events import Event, EventName
from ..errors import UsageError

logger = logging.getLogger("trunkline")

Callback = Callable[[Any], None]


class Listeners:
    """Callbacks by the name of their event. An event goes to them where it happens.

    ``degraded`` and ``recovered`` may come from another thread, when another process found out.
    """

    def __init__(self) -> None:
        self._callbacks: dict[EventName, list[Callback]] = {name: [] for name in EventName}

    def on(self, event: str, callback: Callback) -> Callable[[], None]:
        """Call ``callback`` with each ``event``; returns how to stop that. Raises UsageError."""
        if event not in set(EventName):
            known = ", ".join(EventName)
            raise UsageError(f'there is no event "{event}"; the events are: {known}')
        if not callable(callback):
            raise UsageError(f'the callback for "{event}" cannot be called: give a function')
        callbacks = self._callbacks[EventName(event)]
        callbacks.append(callback)

        def stop() -> None:
            if callback in callbacks:
                callbacks.remove(callback)

        return stop

    def tell(self, name: EventName, event: Event) -> None:
        """Hand ``event`` to everybody who asked for it."""
        for callback in list(self._callbacks[name]):
            try:
                callback(event)
            except Exception:  # the boundary to the user's callback: a call must not die of it
                logger.exception('a listener of "%s" failed', name)
