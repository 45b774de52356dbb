"""What every chat's line does, whoever asked: what was said, what was used, what may go on.

Free of livekit, so that the gateway's line stands on it as well as the in-process one.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Self

from msgspec.structs import replace

from ..core.models import AfterOutput, Candidate, Modality, Plan, Quality, Terms, Usage
from ..errors import EmptyOutput
from .chat import ChatDelta, ToolCall
from .line import Line, ProviderStream, option_of
from .meter import Metered, estimated_tokens, tokens_of_parts

_MOST_TOKENS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
_ANSWER = 1024
"""Tokens that an answer takes at most where nothing limits it: four minutes of speech."""


class TextLine(Line[ChatDelta]):
    """The input log of a chat is its context, complete at once; the commit is the text sent."""

    modality = Modality.LLM
    may_only_think = False
    """Whether thoughts are answer enough, as to a probe, whose limit has no room for more."""
    may_be_cut_short = False
    """Whether what a limit leaves without a word is an answer: to a program, not to a caller."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._opened = 0.0
        self._texts: list[str] = []
        self._calls: list[ToolCall] = []
        self._continued = ""
        self._attempt = 0, 0
        self._prompt: int | None = None
        self._usage: Usage | None = None
        self._is_whole = self._is_counted = self._is_at_limit = False
        self._said_more = False
        """Whether an answer has begun in what is neither text nor a call."""
        self._tier = ""

    @property
    def has_begun(self) -> bool:
        """Whether any answer has left for whoever asked."""
        return bool(self._texts or self._calls or self._said_more)

    def open(self, candidate: Candidate) -> ProviderStream[ChatDelta]:
        self._opened = asyncio.get_running_loop().time()
        self._usage, self._tier = None, ""
        self._is_whole = self._is_counted = self._is_at_limit = False
        self._prompt = None
        self._attempt = len(self._texts), len(self._calls)
        go_on = self._plan.after_output is AfterOutput.CONTINUE
        self._continued = "".join(self._texts) if go_on else ""
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

    @property
    def _made(self) -> int:
        """About how many tokens the current attempt has answered: at least one for each delta."""
        texts, calls = self._attempt
        made = sum(map(estimated_tokens, self._texts[texts:]))
        return made + tokens_of_parts(c.name + c.arguments for c in self._calls[calls:])

    def forget(self) -> None:
        """Take it that nothing has been said: no answer has left yet."""
        self._texts, self._calls, self._said_more = [], [], False
        self._attempt = 0, 0
        self._continued = ""

    def deliver(self, out: ChatDelta) -> bool:
        # once a token: what is only asked at the end is counted at the end
        if out.finish_reason:
            self._is_whole = True
            self._is_at_limit = out.finish_reason == "length"
        if out.usage is not None:
            self._usage, self._is_counted = out.usage, self._is_whole
        if out.service_tier:
            self._tier = out.service_tier
        self.send(out)
        if out.tool_calls:
            self._calls += out.tool_calls
        elif not out.text:
            self._said_more = self._said_more or out.says_more
            return out.says_more
        if out.pieces:
            self._texts += out.pieces
        elif out.text:
            self._texts.append(out.text)
        return True

    def owed_since(self) -> float:
        return self._opened

    def finish(self) -> None:
        self._is_counted = True
        used = self._usage or Usage()
        made = used.tokens_out - used.tokens_reasoning  # who has only thought has said nothing
        has_said = self._said_more or self._attempt != (len(self._texts), len(self._calls))
        if has_said or made:
            return
        if self._is_at_limit and (self.may_only_think or self.may_be_cut_short):
            return
        if self.may_only_think and used.tokens_reasoning:
            return
        error = EmptyOutput("the model ended its answer without saying anything")
        error.blames = not self._is_at_limit  # the limit is the request's
        raise error

    def may_continue(self, plan: Plan) -> bool:
        if self._calls or self._said_more:
            return False  # a tool call is never repeated, and nobody goes on with a refusal
        return not self._texts or plan.after_output is not AfterOutput.STOP

    def parameters(self) -> Mapping[str, Any]:
        """What was asked beside the context, by OpenAI's names."""
        return {}

    def asked(self, candidate: Candidate) -> Mapping[str, Any]:
        """The parameters that ``candidate`` is asked with."""
        return {**self.parameters(), **candidate.options}

    def terms(self, candidate: Candidate) -> Terms:
        asked = self.asked(candidate)
        tier = self._tier or option_of(candidate.live, "service_tier", asked)
        return Terms(tier=tier if isinstance(tier, str) else "")

    def adopt(self, rival: Self) -> None:
        self._texts, self._calls = rival._texts, rival._calls
        self._said_more = rival._said_more

    def estimate(self, candidate: Candidate) -> Usage:
        asked = self.asked(candidate)
        most = next((asked[n] for n in _MOST_TOKENS if isinstance(asked.get(n), int)), _ANSWER)
        # twice the estimate: some scripts and some tokenizers take more than it says
        return Usage(tokens_in=2 * self._tokens_in, tokens_out=most)

    def metered(self) -> Metered:
        used = self._usage
        if used is not None and self._is_counted:
            return Metered(used, Quality.EXACT)
        made = self._made
        if used is not None:  # what it had come to by then
            most = max(made, used.tokens_out)
            return Metered(replace(used, tokens_out=most), Quality.ESTIMATED)
        usage = Usage(tokens_in=self._tokens_in, tokens_out=made)
        # before its first word a model may have thought for as long as it liked
        return Metered(usage, Quality.ESTIMATED if made else Quality.UNDERESTIMATE)
