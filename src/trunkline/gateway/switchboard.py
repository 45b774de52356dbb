"""What every door of the gateway shares: settings, keys, plans, and the state of the house."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator, Set

from ..compose import Trunkline
from ..core.models import Modality
from ..errors import ConfigError, UsageError
from ..runtime.learnt import Learnt
from .auth import Keyring, check_secrets
from .decision_line import Habits
from .farewells import Farewells
from .plans import Ask, Plans
from .preload import Preload, Target, absent, doors_of, targets_in
from .voices import Voices

logger = logging.getLogger("trunkline")


class Switchboard:
    """One a process. ``draining`` is set when it is to end: a socket ends at its next boundary."""

    def __init__(self, trunkline: Trunkline, host: str) -> None:
        check_secrets(trunkline.settings.gateway, host)
        self.trunkline = trunkline
        self._host = host
        self.plans = Plans(trunkline)
        self.voices = Voices()
        self.habits = Learnt(Habits)
        has_rules = trunkline.gate.has_rules
        self.farewells = Farewells(trunkline.shared if has_rules else None)
        self.keyring = Keyring(trunkline.settings.gateway)
        self.draining = asyncio.Event()
        self._preload: Preload | None = None
        self._last_preload: Preload | None = None
        self._tried: set[Target] = set()
        self._reload_late = self._renew_late = False
        self._working = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """Count a request or a socket as something that a drain waits for."""
        self._working += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._working -= 1
            if not self._working:
                self._idle.set()

    def load(self) -> Preload:
        """Begin to import what the settings need; calls are served meanwhile."""
        return self._begin(Preload(self.trunkline.settings))

    def _begin(self, preload: Preload) -> Preload:
        self._preload = self._last_preload = preload
        preload.start(self._loaded)
        return preload

    @property
    def loading(self) -> list[str]:
        """The modalities whose calls still wait for imports."""
        return self._preload.missing if self._preload is not None else []

    async def stop_loading(self) -> None:
        """End what is being imported, before the process does."""
        if self._last_preload is not None:
            await self._last_preload.aclose()

    async def ready_for(self, ask: Ask | Modality) -> None:
        """Wait, bounded, for what ``ask`` needs to be imported: its doors, and who serves it.

        Raises Refusal (503), and UsageError when nothing here serves what is asked.
        """
        modality = ask if isinstance(ask, Modality) else ask.modality
        doors = doors_of(modality)
        if self._preload is not None and doors:
            await self._preload.wait()
        targets = set() if isinstance(ask, Modality) else self.plans.targets(ask)
        if not targets and not doors:
            return
        if self._preload is not None:
            await self._preload.wait()
        if self._lacks(targets | doors) and self._preload is not None:
            await self._preload.wait()

    def _lacks(self, targets: Set[Target]) -> bool:
        """Whether some of ``targets`` are not there; those that never were are being imported."""
        missing = absent(targets) - self._tried
        if missing:
            self._tried |= missing
            self._begin(Preload(self.trunkline.settings, missing))
        return bool(missing)

    def _loaded(self) -> None:
        self._preload = None
        if self._renew_late:
            self._renew_late = False
            self.plans.renew()
        if self._reload_late:
            self.reload()

    def reload(self) -> None:
        """Read the settings again; what runs ends as it began. With mistakes nothing changes.

        It waits for what is being imported, and plans are renewed when what they need is there:
        to import that here would stop the loop.
        """
        self._reload_late = self._preload is not None
        if self._reload_late:
            return
        before = self.trunkline.settings
        try:
            self.trunkline.reload()
            check_secrets(self.trunkline.settings.gateway, self._host)
        except UsageError as error:
            self.trunkline.settings = before
            for problem in error.problems if isinstance(error, ConfigError) else [str(error)]:
                logger.error("the settings were not reloaded: %s", problem)
            return
        after = self.trunkline.settings
        if after == before:
            return  # a changed file that was told by a signal as well, or nothing new in it
        self.keyring = Keyring(after.gateway)
        self._renew_late = self._lacks(set(targets_in(after)) | self.plans.targets_of_renewal())
        if not self._renew_late:
            self.plans.renew()
        fixed = {
            "gateway.host": (before.gateway.host, after.gateway.host),
            "gateway.port": (before.gateway.port, after.gateway.port),
            "state": (before.state_dir, after.state_dir),
            "budgets": (before.budgets, after.budgets),
            "limits": (before.limits, after.limits),
        }
        if late := [name for name, (was, is_now) in fixed.items() if was != is_now]:
            logger.warning("with the next start only: %s", ", ".join(late))
        logger.info("the settings were reloaded")

    async def drain(self, seconds: float) -> bool:
        """Have every door end at its next boundary; False when ``seconds`` were not enough."""
        self.draining.set()
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True
