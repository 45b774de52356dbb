"""``livekit.agents.stt`` with a FallbackAdapter that notices stalls and loses no audio.

``from trunkline import stt`` in place of ``from livekit.agents import stt``: the adapter takes
LiveKit's arguments and ``timeout=`` in seconds; every other name is LiveKit's own.
"""

from __future__ import annotations

from typing import Any

from livekit.agents import stt as _livekit
from livekit.agents.vad import VAD

from .compose import current
from .core.models import AfterOutput
from .inference._common import Caller
from .inference._live import closing, live_plan
from .runtime.stt import STT


class FallbackAdapter(STT):
    """Hears by the first of ``stt`` that is well; what a failure leaves unsaid is said again.

    ``timeout`` (or LiveKit's ``attempt_timeout``) in seconds is how long speech may go unanswered;
    left out, ours is 2 s. ``vad`` ends the utterances of those that cannot stream.
    ``max_retry_per_stt`` and ``retry_interval`` count for the last one. Closing the adapter closes
    ``stt``. Raises UsageError.
    """

    def __init__(
        self,
        stt: list[_livekit.STT[Any]],
        *,
        vad: VAD | None = None,
        attempt_timeout: float | None = None,
        max_retry_per_stt: int = 1,
        retry_interval: float = 5,
        timeout: float | None = None,
    ) -> None:
        plan = live_plan(
            stt,
            _livekit.STT,
            timeout=attempt_timeout if timeout is None else timeout,
            retries=max_retry_per_stt,
            retry_pause=retry_interval,
            after_output=AfterOutput.CONTINUE,
        )
        super().__init__(
            current().engine, plan, Caller(), sample_rate=None, vad=vad, closing=closing(stt)
        )


def __getattr__(name: str) -> Any:
    return getattr(_livekit, name)
