"""What the settings will need is imported before the first call, and nothing else ever."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator

from .. import catalog
from ..config import Settings, resolve
from ..core.models import Modality
from ..errors import UsageError

logger = logging.getLogger("trunkline")

_LOCAL, _DEFAULT = "local", "default"


def preload(settings: Settings) -> None:
    """Import the doors and plugins of what ``settings`` serve; belongs on the main thread.

    What is not in them by name, such as another model of a language model's provider, is imported
    when it is first asked for. A process that serves chats alone thus never loads livekit.
    """
    targets = set(_targets(settings))
    modalities = {modality for modality, _ in targets}
    modules = {module for _, module in targets}
    if Modality.STT in modalities:
        modules |= {f"{__package__}.stt", f"{__package__}.audio_transcriptions"}
    if Modality.TTS in modalities:
        modules |= {f"{__package__}.tts", f"{__package__}.audio_speech"}
    for module in sorted(modules):
        try:
            importlib.import_module(module)
        except ImportError as error:
            logger.warning("%s cannot be loaded, its models are refused: %s", module, error)
    if Modality.STT in modalities:
        from .endpointing import voice_activity  # with livekit, which chats do not need

        voice_activity()


def _targets(settings: Settings) -> Iterator[tuple[Modality, str]]:
    """The modality and module of every plugin that the settings name."""
    for modality, name in _named(settings):
        try:
            plan = resolve(settings, name, modality)
        except UsageError as error:
            logger.warning('"%s" is not served: %s', name, error)
            continue
        for candidate in plan.candidates:
            connection = settings.connections[candidate.connection]
            yield from _target(catalog.provider(connection.provider), modality)
    for connection in settings.connections.values():
        row = catalog.provider(connection.provider)
        if not row.local and Modality.LLM not in row.modalities:
            for modality in row.modalities:
                yield from _target(row, modality)


def _target(row: catalog.Provider, modality: Modality) -> Iterator[tuple[Modality, str]]:
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
    for stack in settings.stacks.values():
        chosen = stack.name != _LOCAL
        if stack.name == _DEFAULT and settings.routes:
            chosen = any(stack.member(modality) in settings.routes for modality in Modality)
        if chosen:
            yield from ((modality, stack.name) for modality in Modality)
