"""What the settings will need is imported beside the first calls, all else when it is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Set

from .. import catalog
from ..config import Settings, resolve
from ..core.models import CASCADE, Modality
from ..errors import UsageError
from .names import AUTO
from .refusal import Refusal

logger = logging.getLogger("trunkline")

_LOCAL, _DEFAULT = "local", "default"

_PATIENCE_SECONDS = 8.0
"""A call waits so long for what it needs: LiveKit's clients give a connection ten."""

_YOUNG_OBJECTS = 10_000
"""Objects made and still there, after which the young ones are searched for cycles."""

_DOORS = {
    Modality.STT: ("stt", "audio_transcriptions"),
    Modality.TTS: ("tts", "audio_speech"),
}


Target = tuple[Modality, str]
"""A module that a modality needs."""


class Preload:
    """Imports in a thread, so that others are served meanwhile.

    What the settings name, or what was ``asked`` for. Speech takes seconds of them. Whoever needs
    it waits for all of it instead of importing it on the event loop, where everybody would wait
    with him.
    """

    def __init__(self, settings: Settings, asked: Set[Target] = frozenset()) -> None:
        self._targets = set(asked or targets_in(settings))
        self._done = asyncio.Event()
        self._is_over = False
        self._thread: threading.Thread | None = None

    @property
    def missing(self) -> list[str]:
        """The modalities that are still being loaded, or parts of them."""
        return [] if self._done.is_set() else sorted({m.value for m, _ in self._targets})

    def start(self, then: Callable[[], None]) -> None:
        """Begin; ``then`` is called on this event loop when all is there."""
        if not self._targets:  # chats alone: they need nothing more
            _settle_memory()
            self._done.set()
            then()
            return
        loop = asyncio.get_running_loop()

        def end(register: Callable[[], None]) -> None:
            register()
            self._done.set()
            then()

        def work() -> None:
            register = self._load()
            _settle_memory()
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits
                loop.call_soon_threadsafe(end, register)

        self._thread = threading.Thread(target=work, name="trunkline-preload", daemon=True)
        self._thread.start()

    async def wait(self) -> None:
        """Until all is there. Raises Refusal (503), which a client tries again."""
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await self._done.wait()
        except TimeoutError:
            told = f"still loading: {', '.join(self.missing)}; try again"
            raise Refusal(503, told, code="loading", headers=((b"retry-after", b"1"),)) from None

    async def aclose(self) -> None:
        """End it after the module it is at: an interpreter does not end well in an import."""
        self._is_over = True
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _load(self) -> Callable[[], None]:
        """Import everything; returns what is to be done on the main thread."""
        modalities = {modality for modality, _ in self._targets}
        doors = {module for modality in modalities for _, module in doors_of(modality)}
        modules = doors | {module for _, module in self._targets}
        hears = Modality.STT in modalities and not doors <= sys.modules.keys()
        try:
            from ..runtime.livekit_compat import registering_later  # with livekit, as all of this
        except ImportError as error:
            logger.warning("speech cannot be loaded and is refused: %s", error)
            return lambda: None
        with registering_later() as register:
            for module in sorted(modules):
                if self._is_over:
                    break
                try:
                    importlib.import_module(module)
                except Exception as error:  # noqa: BLE001 - a plugin's boundary: its models are
                    # refused with the same reason when they are asked for
                    logger.warning("%s cannot be loaded, its models are refused: %s", module, error)
            if hears and not self._is_over:
                from .endpointing import voice_activity

                voice_activity()
        return register


def _settle_memory() -> None:
    """Spare collections what was imported for good, and have fewer of them.

    A request leaves a few hundred objects, nearly all of them without a cycle: they are gone before
    a collection looks. As often as Python makes them they take a tenth of its time.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS)


def doors_of(modality: Modality) -> set[Target]:
    """The modules of the doors for ``modality``; those for chats are there from the start."""
    return {(modality, f"{__package__}.{door}") for door in _DOORS.get(modality, ())}


def absent(targets: Set[Target]) -> set[Target]:
    """Those of ``targets`` that nobody has imported, as long as nothing is being imported."""
    return {target for target in targets if target[1] not in sys.modules}


def targets_in(settings: Settings) -> Iterator[Target]:
    """The modality and module of every plugin that the settings name."""
    for modality, name in _named(settings):
        try:
            plan = resolve(settings, name, modality)
        except UsageError as error:
            logger.warning('"%s" is not served: %s', name, error)
            continue
        for candidate in plan.candidates:
            connection = settings.connections[candidate.connection]
            yield from target_of(catalog.provider(connection.provider), modality)
    for connection in settings.connections.values():
        row = catalog.provider(connection.provider)
        if not row.local and Modality.LLM not in row.modalities:
            for modality in row.modalities:
                yield from target_of(row, modality)


def target_of(row: catalog.Provider, modality: Modality) -> Iterator[Target]:
    """The module of the plugin that serves ``modality``, if one does."""
    how = getattr(row, modality.value)
    if isinstance(how, catalog.Plugin):
        yield modality, how.target.partition(":")[0]


def _named(settings: Settings) -> Iterator[tuple[Modality, str]]:
    """Every route, and the members of the stacks that somebody chose.

    The stacks ``local`` and ``default`` are there in all settings. The second is meant where
    nothing else is, or where it is made of routes.
    """
    for route in settings.routes.values():
        yield route.modality, route.name
    if settings.gateway.decisions != AUTO:
        yield Modality.LLM, settings.gateway.decisions
    for stack in settings.stacks.values():
        chosen = stack.name != _LOCAL
        if stack.name == _DEFAULT and settings.routes:
            chosen = any(stack.member(modality) in settings.routes for modality in CASCADE)
        if chosen:
            yield from ((modality, stack.name) for modality in CASCADE)
