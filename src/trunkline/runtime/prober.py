"""Finding out that a candidate is well again, without a caller paying for it.

One prober a machine and candidate: a lease in the shared state. How often is the breaker's affair:
its cool-down doubles with every failure up to half a minute, and that is the probes' budget.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable

from ..core.models import Candidate, Plan
from ..errors import TrunklineError
from .attempt import Engine
from .health import HealthBook

logger = logging.getLogger("trunkline")

_LOOK_SECONDS = 0.25


class Prober:
    """Probes the ill candidates of a plan for as long as there are any.

    One that is not ``ready`` is left for later, or to another process.
    """

    def __init__(
        self,
        engine: Engine,
        probe: Callable[[Candidate, Plan], Awaitable[None]],
        ready: Callable[[Candidate], bool] = lambda _: True,
    ) -> None:
        self._engine = engine
        self._probe = probe
        self._ready = ready
        self._plan: Plan | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether somebody is ill."""
        return self._task is not None and not self._task.done()

    def look(self, plan: Plan) -> None:
        """See to it that whoever of ``plan`` is ill gets probed when it is due."""
        self._plan = plan
        if not self.is_busy and not self._engine.health.all_allowed(plan.candidates):
            self._task = self._engine.stand(self._run())

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        health = self._engine.health
        while True:
            plan = self._plan
            assert plan is not None
            ill = [one for one in plan.candidates if not health.allows(one.key)]
            if not ill:
                return
            due = set(health.due_for_probe())
            for candidate in ill:
                if candidate.key in due and self._ready(candidate):
                    await self._try(candidate, plan)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _try(self, candidate: Candidate, plan: Plan) -> None:
        turn = _Turn(self._engine.health, candidate.key)
        try:
            if await asyncio.to_thread(turn.take):
                await self._probe(candidate, plan)
        except TrunklineError as error:
            logger.info("%s is not back yet: %s", candidate, error)
        except asyncio.CancelledError:
            turn.give_back()
            raise


class _Turn:
    """One probe's right to a key. Who waits for it may be cancelled while a thread still asks."""

    def __init__(self, health: HealthBook, key: str) -> None:
        self._health = health
        self._key = key
        self._lock = threading.Lock()
        self._taken = self._is_unwanted = False

    def take(self) -> bool:
        """Whether to probe. Blocks up to half a second."""
        taken = self._health.begin_probe(self._key)
        with self._lock:
            self._taken = taken
            is_unwanted = self._is_unwanted
        if taken and is_unwanted:
            self._health.abandon_probe(self._key)
        return taken

    def give_back(self) -> None:
        """Leave the key to the next prober, unless the probe has had an outcome."""
        with self._lock:
            self._is_unwanted = True
            taken = self._taken
        if taken:
            self._health.abandon_probe(self._key)
