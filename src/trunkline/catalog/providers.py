"""All rows, and which of them the default stack takes.

Names are those of ``livekit.agents.inference`` where it has the provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..core.models import Modality
from .chat import CHAT
from .embedded import EMBEDDED
from .model import Provider
from .voice import VOICE

PROVIDERS: Final[Mapping[str, Provider]] = {row.name: row for row in (*VOICE, *CHAT, *EMBEDDED)}

ALIASES: Final[Mapping[str, str]] = {
    alias: row.name for row in PROVIDERS.values() for alias in row.aliases
}

PREFERRED: Final[Mapping[Modality, tuple[str, ...]]] = {
    Modality.STT: ("deepgram", "assemblyai", "cartesia", "elevenlabs", "openai", "google"),
    Modality.LLM: ("openai", "anthropic", "google", "groq", "cerebras", "xai"),
    Modality.TTS: ("cartesia", "elevenlabs", "deepgram", "openai", "google"),
}
"""Which configured provider the default stack takes first; the rest follow in the rows' order."""

LOCAL: Final[Mapping[Modality, str]] = {
    Modality.STT: "pocketsphinx/en-us",
    Modality.LLM: "scripted/receptionist",
    Modality.TTS: "flite/slt",
}
"""The voice that needs no key."""
