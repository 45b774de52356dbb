"""``livekit.agents.llm`` with a FallbackAdapter that keeps deadlines and remembers outages.

``from trunkline import llm`` in place of ``from livekit.agents import llm``: the adapter takes
LiveKit's arguments and ``timeout=`` in seconds; every other name is LiveKit's own.
"""

from __future__ import annotations

from typing import Any

from livekit.agents import llm as _livekit

from .compose import current
from .core.models import AfterOutput
from .inference._common import Caller
from .inference._live import closing, live_plan
from .runtime.llm import LLM


class FallbackAdapter(LLM):
    """Serves every chat by the first of ``llm`` that is well and answers in time.

    ``timeout`` (or LiveKit's ``attempt_timeout``) in seconds bounds the wait for a connection, the
    first content and each further content; left out, ours are 2, 3 and 2 s. ``max_retry_per_llm``
    counts for the last one, the others have somebody behind them. ``retry_on_chunk_sent`` begins
    the answer again on the next one after a failure midway. ``sticky`` stays with a backup for as
    long as it works. Closing the adapter closes ``llm``. Raises UsageError.
    """

    def __init__(
        self,
        llm: list[_livekit.LLM[Any]],
        *,
        attempt_timeout: float | None = None,
        max_retry_per_llm: int = 0,
        retry_interval: float = 0.5,
        retry_on_chunk_sent: bool = False,
        sticky: bool = False,
        timeout: float | None = None,
    ) -> None:
        plan = live_plan(
            llm,
            _livekit.LLM,
            timeout=attempt_timeout if timeout is None else timeout,
            retries=max_retry_per_llm,
            retry_pause=retry_interval,
            after_output=AfterOutput.RESTART if retry_on_chunk_sent else AfterOutput.STOP,
        )
        self.sticky = sticky
        super().__init__(current().engine, plan, Caller(), closing=closing(llm))


def __getattr__(name: str) -> Any:
    return getattr(_livekit, name)
