"""A chat's line whose answer is a set of decisions, read strictly. Imports no livekit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..clock import monotonic_ns
from ..core.models import Candidate, Plan
from ..errors import ProtocolViolation, RequestRejected
from ..runtime.chat import ChatDelta
from ..runtime.gate_rules import Audience
from ..runtime.learnt import Learnt
from ..runtime.line import ProviderStream
from ..runtime.wire_llm import WireLLM
from .chat_line import ChatLine, Unsent
from .decision_questions import read_answers, response_format
from .decision_request import Decisions
from .flushing import Passing

_OF_ITS_FORM = frozenset({None, 400, 422})
"""The statuses of a request that may be rejected for its parameters; an error in a stream has none.
"""


_WORDS_NS = 3_600_000_000_000
"""So long a candidate is asked in words alone: the request may have been rejected for something
else, such as its length."""


class Habits:
    """Until when, on the monotonic clock, a candidate is asked in words alone."""

    __slots__ = ("words_until_ns",)

    def __init__(self) -> None:
        self.words_until_ns = 0


class DecisionLine(ChatLine):
    """All questions in one chat. What answers with anything else makes room for the next candidate.

    The form of the answer is told in words, and in parameters of the request. Which endpoints take
    those, and for which models, is nowhere written down: one that rejects a request with them is
    asked without them for a while, and one that rejects both with them. ``rejected`` are those that
    did so here. What a plugin makes of a schema of OpenAI's is its own affair: it gets words alone.
    """

    audience = Audience.NOBODY

    def __init__(self, plan: Plan, asked: Decisions, habits: Learnt[Habits]) -> None:
        super().__init__(plan, asked.as_chat(), Unsent())
        self._questions = asked.questions
        self._form = {"response_format": response_format(asked.questions), "temperature": 0}
        self._habits = habits
        self.answers: Mapping[str, Mapping[str, Any]] = {}
        self.candidate: Candidate | None = None
        """Who was asked last."""
        self.rejected: list[Candidate] = []

    def ask(self, candidate: Candidate, continued: str) -> ProviderStream[ChatDelta]:
        self.candidate = candidate
        stream = super().ask(candidate, continued)
        if not isinstance(candidate.live, WireLLM):
            return stream
        in_words, habits = self._in_words(candidate), self._habits.about(candidate)

        def rejects() -> None:
            habits.words_until_ns = 0 if in_words else monotonic_ns() + _WORDS_NS
            self.rejected.append(candidate)

        return _Asking(stream, rejects)

    def asked(self, candidate: Candidate) -> Mapping[str, Any]:
        asked = super().asked(candidate)
        return asked if self._in_words(candidate) else {**self._form, **asked}

    def finish(self) -> None:
        super().finish()
        answers = read_answers("".join(self._texts), self._questions)
        if answers is None:
            error = ProtocolViolation("the model did not answer in the JSON that it was asked for")
            error.blames = False  # callers may find it well
            raise error
        self.answers = answers

    def _in_words(self, candidate: Candidate) -> bool:
        if not isinstance(candidate.live, WireLLM):
            return True
        return monotonic_ns() < self._habits.about(candidate).words_until_ns


class _Asking(Passing[ChatDelta]):
    """``stream``, with ``rejects`` called when the request is rejected for what may be its form."""

    __slots__ = ("_rejects",)

    def __init__(self, stream: ProviderStream[ChatDelta], rejects: Callable[[], None]) -> None:
        super().__init__(stream)
        self._rejects = rejects

    async def __anext__(self) -> ChatDelta:
        try:
            return await self._stream.__anext__()
        except RequestRejected as error:
            if error.status in _OF_ITS_FORM:
                self._rejects()
            raise
