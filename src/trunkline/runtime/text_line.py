"""What every chat's line does, whoever asked: what was said, what was used, what may go on.

Free of livekit, so that the gateway's line stands on it as well as the in-process one.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from ..core.models import AfterOutput, Candidate, Modality, Plan, Quality, Usage
from ..errors import EmptyOutput
from .chat import ChatDelta
from .line import Line, ProviderStream
from .meter import Metered, estimated_tokens

_MOST_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_ANSWER = 1024
"""Tokens that an answer takes at most where nothing limits it: four minutes of speech."""


class TextLine(Line[ChatDelta]):
    """The input log of a chat is its context, complete at once; the commit is the text sent."""

    modality = Modality.LLM

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._opened = 0.0
        self._said = ""
        self._called = False
        self._attempt_characters = 0
        self._usage: Usage | None = None

    @property
    def has_begun(self) -> bool:
        """Whether any answer has left for whoever asked."""
        return bool(self._said) or self._called

    def open(self, candidate: Candidate) -> ProviderStream[ChatDelta]:
        self._opened = asyncio.get_running_loop().time()
        self._attempt_characters, self._usage = 0, None
        continued = self._said if self._plan.after_output is AfterOutput.CONTINUE else ""
        return self.ask(candidate, continued)

    @abstractmethod
    def ask(self, candidate: Candidate, continued: str) -> ProviderStream[ChatDelta]:
        """Open ``candidate``, which is to go on after the words ``continued``."""

    @abstractmethod
    def send(self, delta: ChatDelta) -> None:
        """Hand ``delta`` on to whoever asked."""

    @abstractmethod
    def prompt_characters(self) -> int:
        """How much text was asked, for an estimate when the usage never comes."""

    def deliver(self, out: ChatDelta) -> bool:
        if out.usage is not None:
            self._usage = out.usage
        self.send(out)
        if out.text:
            self._said += out.text
            self._attempt_characters += len(out.text)
        if out.tool_calls:
            self._called = True
        return out.content

    def owed_since(self) -> float:
        return self._opened

    def finish(self) -> None:
        made = self._usage.tokens_out if self._usage is not None else 0
        if not (self._attempt_characters or self._called or made):
            raise EmptyOutput("the model ended its answer without saying anything")

    def may_continue(self, plan: Plan) -> bool:
        if self._called:
            return False  # a tool call is never repeated
        return not self._said or plan.after_output is not AfterOutput.STOP

    def parameters(self) -> Mapping[str, Any]:
        """What was asked beside the context, by OpenAI's names."""
        return {}

    def estimate(self, candidate: Candidate) -> Usage:
        asked = {**self.parameters(), **candidate.options}
        most = next((asked[n] for n in _MOST_TOKENS if isinstance(asked.get(n), int)), _ANSWER)
        # half of a token's usual length: other languages and the tools take more than English
        return Usage(tokens_in=self.prompt_characters() // 2 + 1, tokens_out=most)

    def metered(self) -> Metered:
        if self._usage is not None:
            return Metered(self._usage, Quality.EXACT)
        usage = Usage(
            tokens_in=estimated_tokens(self.prompt_characters()),
            tokens_out=estimated_tokens(self._attempt_characters),
        )
        return Metered(usage, Quality.ESTIMATED)
