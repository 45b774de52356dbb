"""Door 1: ``livekit.agents.inference``, served in this process.

Change ``from livekit.agents import inference`` to ``from trunkline import inference``: ``STT``,
``LLM`` and ``TTS`` keep their signatures, everything else is LiveKit's own.
"""

from typing import Any

from livekit.agents import inference as _livekit

from .llm import LLM
from .stack import Stack
from .stt import STT
from .tts import TTS


def llm_from_model_string(model: str) -> Any:
    """Create what a ``llm=`` string names: realtime and duplex models by LiveKit, others by us."""
    if _livekit.is_duplex_model(model) or _livekit.is_realtime_model(model):
        return _livekit.llm_from_model_string(model)
    return LLM.from_model_string(model)


def __getattr__(name: str) -> Any:
    return getattr(_livekit, name)


__all__ = ["LLM", "STT", "TTS", "Stack", "llm_from_model_string"]
__all__ += sorted(set(_livekit.__all__) - set(__all__))
