"""``livekit.agents.tts`` with a FallbackAdapter that keeps deadlines and finishes sentences.

``from trunkline import tts`` in place of ``from livekit.agents import tts``: the adapter takes
LiveKit's arguments and ``timeout=`` in seconds; every other name is LiveKit's own.
"""

from __future__ import annotations

from typing import Any

from livekit.agents import tts as _livekit

from .compose import current
from .core.models import AfterOutput
from .inference._common import Caller
from .inference._live import closing, live_plan
from .runtime.tts import TTS


class FallbackAdapter(TTS):
    """Speaks every utterance by the first of ``tts`` that is well, to its end.

    ``timeout`` in seconds bounds the wait for a connection, the first audio and each further audio
    that is owed; left out, ours are 2, 3 and 2 s. A voice that fails midway is followed by the next
    from the word it was at, and that one stays. ``max_retry_per_tts`` counts for the last one.
    ``sample_rate`` in Hz is the highest among them unless given. Closing the adapter closes
    ``tts``. Raises UsageError.
    """

    def __init__(
        self,
        tts: list[_livekit.TTS[Any]],
        *,
        max_retry_per_tts: int = 2,
        sample_rate: int | None = None,
        timeout: float | None = None,
    ) -> None:
        plan = live_plan(
            tts,
            _livekit.TTS,
            timeout=timeout,
            retries=max_retry_per_tts,
            retry_pause=0.1,
            after_output=AfterOutput.CONTINUE,
        )
        super().__init__(
            current().engine,
            plan,
            Caller(),
            sample_rate=sample_rate or max(voice.sample_rate for voice in tts),
            closing=closing(tts),
        )


def __getattr__(name: str) -> Any:
    return getattr(_livekit, name)
