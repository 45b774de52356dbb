"""What every chat's line does, whoever asked: what was said, what was used, what may go on.

Free of livekit, so that the gateway's line stands on it as well as the in-process one.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Self

from ..core.models import AfterOutput, Candidate, Modality, Plan, Quality, Terms, Usage
from ..errors import EmptyOutput
from .chat import ChatDelta
from .line import Line, ProviderStream
from .meter import Metered, estimated_tokens, tokens_of_parts

_MOST_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_ANSWER = 1024
"""Tokens that an answer takes at most where nothing limits it: four minutes of speech."""


class TextLine(Line[ChatDelta]):
    """The input log of a chat is its context, complete at once; the commit is the text sent."""

    modality = Modality.LLM

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._opened = 0.0
        self._said = self._continued = ""
        self._called = False
        self._made = 0
        self._prompt: int | None = None
        self._usage: Usage | None = None
        self._tier = ""

    @property
    def has_begun(self) -> bool:
        """Whether any answer has left for whoever asked."""
        return bool(self._said) or self._called

    def open(self, candidate: Candidate) -> ProviderStream[ChatDelta]:
        self._opened = asyncio.get_running_loop().time()
        self._made, self._usage, self._tier = 0, None, ""
        self._prompt = None
        go_on = self._plan.after_output is AfterOutput.CONTINUE
        self._continued = self._said if go_on else ""
        return self.ask(candidate, self._continued)

    @abstractmethod
    def ask(self, candidate: Candidate, continued: str) -> ProviderStream[ChatDelta]:
        """Open ``candidate``, which is to go on after the words ``continued``."""

    @abstractmethod
    def send(self, delta: ChatDelta) -> None:
        """Hand ``delta`` on to whoever asked."""

    @abstractmethod
    def asked_text(self) -> Iterable[str]:
        """The text of each message and tool, for an estimate when the usage never comes."""

    @property
    def _tokens_in(self) -> int:
        """About how many tokens the current attempt was asked; what it continues is with it."""
        if self._prompt is None:
            self._prompt = tokens_of_parts(self.asked_text())
            self._prompt += tokens_of_parts(filter(None, [self._continued]))
        return self._prompt

    def deliver(self, out: ChatDelta) -> bool:
        if out.usage is not None:
            self._usage = out.usage
        self._tier = out.service_tier or self._tier
        self.send(out)
        if out.text:
            self._said += out.text
            self._made += estimated_tokens(out.text)
        if out.tool_calls:
            self._called = True
            self._made += tokens_of_parts(call.name + call.arguments for call in out.tool_calls)
        return out.content

    def owed_since(self) -> float:
        return self._opened

    def finish(self) -> None:
        made = self._usage.tokens_out if self._usage is not None else 0
        if not (self._made or self._called or made):
            raise EmptyOutput("the model ended its answer without saying anything")

    def may_continue(self, plan: Plan) -> bool:
        if self._called:
            return False  # a tool call is never repeated
        return not self._said or plan.after_output is not AfterOutput.STOP

    def parameters(self) -> Mapping[str, Any]:
        """What was asked beside the context, by OpenAI's names."""
        return {}

    def asked(self, candidate: Candidate) -> Mapping[str, Any]:
        """The parameters that ``candidate`` is asked with."""
        return {**self.parameters(), **candidate.options}

    def terms(self, candidate: Candidate) -> Terms:
        tier = self._tier or self.asked(candidate).get("service_tier")
        return Terms(tier=tier if isinstance(tier, str) else "")

    def adopt(self, rival: Self) -> None:
        self._said, self._called = rival._said, rival._called

    def estimate(self, candidate: Candidate) -> Usage:
        asked = self.asked(candidate)
        most = next((asked[n] for n in _MOST_TOKENS if isinstance(asked.get(n), int)), _ANSWER)
        # twice the estimate: some scripts and some tokenizers take more than it says
        return Usage(tokens_in=2 * self._tokens_in, tokens_out=most)

    def metered(self) -> Metered:
        if self._usage is not None:
            return Metered(self._usage, Quality.EXACT)
        usage = Usage(tokens_in=self._tokens_in, tokens_out=self._made)
        # before its first word a model may have thought for as long as it liked
        return Metered(usage, Quality.ESTIMATED if self._made else Quality.UNDERESTIMATE)
