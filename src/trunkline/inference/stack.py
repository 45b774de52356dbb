"""A stack: one recogniser, one model and one voice under one name, for one session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from livekit.agents import NOT_GIVEN
from livekit.agents import llm as livekit_llm
from livekit.agents import stt as livekit_stt
from livekit.agents import tts as livekit_tts

from ..clock import new_id
from ..compose import Wanted
from ..core.models import CASCADE, AfterOutput, Modality, Plan
from ..errors import UsageError
from ._common import Caller, Closing, ready
from ._live import closing, live_plan
from .llm import LLM
from .stt import STT
from .tts import TTS

_KINDS: dict[Modality, type] = {
    Modality.STT: livekit_stt.STT,
    Modality.LLM: livekit_llm.LLM,
    Modality.TTS: livekit_tts.TTS,
}


class Stack(Mapping[str, Any]):
    """What ``AgentSession(**stack)`` unpacks: exactly ``stt``, ``llm`` and ``tts``.

    A stack belongs to one session: its three members share the call's id in the ledger, and each
    of them reports to the session it is given to. Who serves them can be changed in the middle of
    the call: ``stack.swap(llm="groq/llama-3.3-70b-versatile")`` or ``stack.llm = ...`` takes a name
    or a plugin instance, from the next utterance on; the members stay the same objects.
    """

    def __init__(self, name: str, *, tags: Sequence[str] = (), agent: str = "") -> None:
        self.name = name
        self.call = new_id()
        self._stt = STT(name)
        self._llm = LLM(name)
        self._tts = TTS(name)
        for member in self.values():
            member.identity = Caller(self.call, tags, agent)

    @property
    def stt(self) -> STT:
        """The recogniser."""
        return self._stt

    @stt.setter
    def stt(self, to: str | livekit_stt.STT[Any]) -> None:
        self.swap(stt=to)

    @property
    def llm(self) -> LLM:
        """The language model."""
        return self._llm

    @llm.setter
    def llm(self, to: str | livekit_llm.LLM[Any]) -> None:
        self.swap(llm=to)

    @property
    def tts(self) -> TTS:
        """The voice."""
        return self._tts

    @tts.setter
    def tts(self, to: str | livekit_tts.TTS[Any]) -> None:
        self.swap(tts=to)

    def swap(
        self,
        *,
        stt: str | livekit_stt.STT[Any] | None = None,
        llm: str | livekit_llm.LLM[Any] | None = None,
        tts: str | livekit_tts.TTS[Any] | None = None,
    ) -> None:
        """Have others serve from the next utterance on; the one in flight ends where it is.

        Each is a name or a plugin instance, which then belongs to the stack. What served before is
        closed when nothing uses it. Raises UsageError, and then nothing has changed.
        """
        wanted = {Modality.STT: stt, Modality.LLM: llm, Modality.TTS: tts}
        changes = [(modality, to) for modality, to in wanted.items() if to is not None]
        replacements = [self._replacement(modality, to) for modality, to in changes]
        for (modality, to), (plan, close) in zip(changes, replacements, strict=True):
            self[modality].swap(plan, close)
            if isinstance(to, str):
                self[modality].remember(to)

    def _replacement(self, modality: Modality, to: Any) -> tuple[Plan, Closing]:
        if isinstance(to, str):
            return ready(modality, Wanted(to), [], NOT_GIVEN)
        if to in self.values():
            raise UsageError(f"{modality} is this stack's own member: give a name or a plugin")
        plan = live_plan(
            [to],
            _KINDS[modality],
            timeout=None,
            retries=1,
            retry_pause=0.1,
            after_output=AfterOutput.STOP if modality is Modality.LLM else AfterOutput.CONTINUE,
        )
        return plan, closing([to])

    def __getitem__(self, key: str) -> Any:
        if key not in CASCADE:
            raise KeyError(key)
        return getattr(self, f"_{Modality(key)}")

    def __iter__(self) -> Iterator[str]:
        return iter([modality.value for modality in CASCADE])

    def __len__(self) -> int:
        return len(CASCADE)

    async def aclose(self) -> None:
        """Close the three members."""
        for member in self.values():
            await member.aclose()
