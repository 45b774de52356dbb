"""Where an utterance ends, for recognisers that do not say: Silero's model, one for all calls.

LiveKit's own voice activity detector has the same job in an agent. Its model may be used with
LiveKit's agents only, so a server that anything may talk to brings another.
"""

from __future__ import annotations

import functools
import logging

from livekit.agents.vad import VAD

from ..runtime.loud_vad import LoudVAD

logger = logging.getLogger("trunkline")

_SILENCE_SECONDS = 0.55
"""Quiet that ends an utterance: what an agent's own detector waits for."""


@functools.cache
def voice_activity() -> VAD:
    """The detector of this process. Without the plugin everything loud is taken for speech."""
    try:
        from livekit.plugins import silero
    except ImportError:
        logger.warning(
            "utterances end by loudness alone, which noise defeats; "
            "pip install 'trunkline[gateway]' brings a detector"
        )
        return LoudVAD(_SILENCE_SECONDS)
    vad: VAD = silero.VAD.load(min_silence_duration=_SILENCE_SECONDS)
    return vad
