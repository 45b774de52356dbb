"""What the engine's three LiveKit classes share: a plan, who serves, who is ill, what to close."""

from __future__ import annotations

import asyncio
import logging
import weakref
from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

from msgspec import structs

from ..core.health import State, Transition
from ..core.models import Candidate, Identity, Modality, Plan
from .attempt import Engine
from .livekit_compat import session_id, session_of
from .prober import Prober

logger = logging.getLogger("trunkline")

Closing = Callable[[], Awaitable[None]]


class Served:
    """A LiveKit class that is served by a plan. ``begin`` comes before everything else.

    ``sticky`` stays with the candidate it has failed over to, also when the first is well again.
    """

    sticky = False

    engine: Engine
    plan: Plan
    identity: Callable[[], Identity]
    serving: Candidate

    def begin(
        self, engine: Engine, plan: Plan, identity: Callable[[], Identity], closing: Closing | None
    ) -> None:
        """Be served by ``plan``; ``closing`` closes what its candidates are made of.

        None: they are shared, and whoever shares them closes them.
        """
        self.engine = engine
        self.plan = plan
        self.identity = identity
        self.serving = plan.candidates[0]
        self._closing = closing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._prober = Prober(engine, self.probe, self.may_probe)
        self._unfollow = engine.health.on_transition(_Follower(self))

    def caller(self) -> Identity:
        """Whose request it is that begins now, and the session that makes it, where one does."""
        identity = self.identity()
        session = session_of(cast(Any, self))
        if session is None or identity.session:
            return identity
        return structs.replace(identity, session=session_id(session))

    @property
    def model(self) -> str:
        """The model that serves, without its provider."""
        return self.serving.ref.model or self.serving.ref.provider

    @property
    def provider(self) -> str:
        """The provider that serves, as the catalogue names it."""
        return self.serving.ref.provider

    def serves(self, candidate: Candidate) -> None:
        """Note who serves; a sticky one keeps its place as long as it works."""
        self.serving = candidate
        order = self.plan.candidates
        if self.sticky and candidate is not order[0] and candidate in order:
            others = (one for one in order if one is not candidate)
            self.plan = replace(self.plan, candidates=(candidate, *others))

    def swap(self, plan: Plan, closing: Closing | None) -> None:
        """Be served by ``plan`` from the next request on; the one in flight ends where it is.

        What served before is closed when nothing uses it any more.
        """
        self._retire()
        self.plan = plan
        self.serving = plan.candidates[0]
        self._closing = closing

    def prepare(self) -> Plan:
        """The plan for a request that begins now, on the running loop."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._prober.look(self.plan)
        return self.plan

    def warm_up_soon(self, modality: Modality) -> None:
        """Have the first candidate open what it will need, as far as the gate lets it."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # without a loop nothing connects: engines of this machine load
            self.plan.candidates[0].live.prewarm()
        else:
            self.engine.stand(self.warm_up(modality))

    async def warm_up(self, modality: Modality) -> None:
        """Have the first candidate open what it will need, unless the gate would refuse it."""
        first = self.plan.candidates[0]
        if not await self.engine.may_open(modality, self.identity()):
            return
        try:
            warming = first.live.prewarm()
            if warming is not None:  # the lean client's; a plugin's prewarm returns at once
                await warming
        except Exception:  # a plugin's boundary: without it the first request connects
            logger.debug("%s was not warmed up", first, exc_info=True)

    @abstractmethod
    async def probe(self, candidate: Candidate, plan: Plan) -> None:
        """Try ``candidate`` with something small; raises the error of the attempt."""

    def may_probe(self, candidate: Candidate) -> bool:
        """Whether there is something to try ``candidate`` with."""
        return True

    @property
    def is_probing(self) -> bool:
        """Whether a candidate of the plan is ill."""
        return self._prober.is_busy

    @abstractmethod
    def available(self, candidate: Candidate, available: bool) -> None:
        """Tell the session that a candidate of the plan is lost or back."""

    def health_changed(self, key: str, transition: Transition) -> None:
        """Take note, on this object's own loop, of a transition that may come from any thread."""
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._health_changed, key, transition)

    def _health_changed(self, key: str, transition: Transition) -> None:
        was, is_now = transition.before is State.CLOSED, transition.after is State.CLOSED
        if was is is_now:
            return
        for candidate in self.plan.candidates:
            if candidate.key == key:
                self.available(candidate, is_now)
        self._prober.look(self.plan)

    async def release(self) -> None:
        """Serve no more; what did is closed as soon as nothing uses it."""
        self._unfollow()
        await self._prober.aclose()
        self._retire()

    def _retire(self) -> None:
        if self._closing is not None:
            self.engine.retire(self.plan, self._closing)

    async def close(self) -> None:
        """Close everything that serves, bounded in time by the engine."""
        await self.release()
        await self.engine.settled()


class _Follower:
    """Hands transitions to an object that may be gone: listening does not keep it alive."""

    def __init__(self, served: Served) -> None:
        self._served = weakref.ref(served)

    def __call__(self, key: str, transition: Transition, *, remote: bool) -> None:
        served = self._served()
        if served is not None:
            served.health_changed(key, transition)
