"""The two sides of an attempt: the line that an agent brings, the stream that a provider opens.

For STT, LLM and TTS alike the agent's input is a log that only grows. A line owns it, knows what
counts as content and how far the log is committed; the engine knows nothing else of a modality.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from ..core.models import Candidate, Modality, Plan, Terms, Usage
from ..core.pricing import with_extras
from ..errors import ProviderError, TrunklineError
from .deadline import Watch
from .gate_rules import Audience
from .meter import Metered

Out = TypeVar("Out")
Out_co = TypeVar("Out_co", covariant=True)

_USUAL = (None, "none", "global", "standard", "5m")
"""What options are set to that then cost nothing extra."""


class ProviderStream(Protocol[Out_co]):
    """One provider's answer, opened on a candidate at a position of the input log.

    Iterating raises only ``ProviderError``; a clean end is StopAsyncIteration.
    """

    @property
    def request_id(self) -> str:
        """The provider's own id of the request, empty while unknown."""

    def __aiter__(self) -> ProviderStream[Out_co]: ...
    async def __anext__(self) -> Out_co: ...

    def close(self) -> Coroutine[Any, Any, Usage | None] | None:
        """Give up what has not come; returns what is left to wait for, None when nothing is.

        What is waited for may bring the usage that the provider tells at its end.
        """


def charged_on(candidate: Candidate, asked: Terms, options: Mapping[str, Any]) -> Terms:
    """``asked``, and the account's own where the request has no others, with what costs extra."""
    tier, region = asked.tier or candidate.tier, asked.region or candidate.region
    if candidate.surcharges:
        live = candidate.live
        extras = {
            sold
            for option, sold in candidate.surcharges.items()
            if option_of(live, option, options) not in _USUAL
        }
        tier = with_extras(tier, extras)
    return asked._replace(tier=tier, region=region)


def option_of(live: Any, name: str, options: Mapping[str, Any]) -> Any:
    """What ``name`` is set to: of what was asked, else inside the plugin; None for nothing.

    Plugins keep what they were built with, and what a session has told them since, in ``_opts``.
    """
    for value in (options.get("extra_body"), options):
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        if value:
            return value
    return getattr(getattr(live, "_opts", None), name, None) or None


def language_of(candidate: Candidate) -> str:
    """The language that a recogniser was asked to hear, also one that the user has built."""
    own = candidate.live if candidate.own else None
    language = candidate.ref.suffix or option_of(own, "language", candidate.options)
    return language if isinstance(language, str) else ""


class Moved(TrunklineError):
    """The line asked for its next candidate: a commanded failover, nobody's fault."""


class Line(ABC, Generic[Out]):
    """The agent's side of a conversation with providers: one request, utterance or audio stream."""

    modality: ClassVar[Modality]
    watch: Watch | None = None
    audience: Audience = Audience.ANYBODY
    is_read_here: ClassVar[bool] = True
    """Whether its output is read by another task of this loop, which gets its turn in a pause."""
    may_ask: Callable[[], bool] = staticmethod(lambda: False)
    """Whether somebody who is well is left to ask after the current candidate."""

    @abstractmethod
    def open(self, candidate: Candidate) -> ProviderStream[Out]:
        """Open ``candidate`` at the commit. Raises UsageError when it cannot be built."""

    @abstractmethod
    def deliver(self, out: Out) -> bool:
        """Hand one output on; True when it is content."""

    @abstractmethod
    def owed_since(self) -> float | None:
        """The loop time since which the provider has owed output; None while it owes none."""

    @abstractmethod
    def finish(self) -> None:
        """Accept a clean end, or raise the ProviderError that it really is."""

    def excuses(self, error: ProviderError) -> bool:
        """Whether ``error`` is no fault: nothing more was owed when it came."""
        return False

    def doubted(self, prove: Callable[[], object]) -> None:
        """Take note that the attempt's answer is doubted; ``prove`` tells that it was wrong."""

    def stands(self) -> bool:
        """Whether an answer that was doubted is the one, now that nobody else has another."""
        return False

    @abstractmethod
    def may_continue(self, plan: Plan) -> bool:
        """Whether the next candidate may go on from the commit after a failure."""

    @abstractmethod
    def metered(self) -> Metered:
        """What the current attempt has used so far; other threads ask too."""

    def terms(self, candidate: Candidate) -> Terms:
        """What the price of ``candidate`` depends on: as asked for, then as the provider told."""
        return Terms()

    def asked(self, candidate: Candidate) -> Mapping[str, Any]:
        """The options that ``candidate`` is asked with."""
        return candidate.options

    def charged_on(self, candidate: Candidate) -> Terms:
        """``terms``, with what the account and the options add to them."""
        return charged_on(candidate, self.terms(candidate), self.asked(candidate))

    def rival(self) -> Self | None:
        """A line for a second attempt at the same request; None where there can be none.

        It holds back what it delivers until ``wins``.
        """
        return None

    def feed(self, *sides: Self) -> None:
        """Hand the input that comes on to the attempts of these lines, itself or a rival."""

    def wins(self) -> None:
        """As a rival: let out what was held back, and hold back nothing more."""

    def adopt(self, rival: Self) -> None:
        """Go on from where ``rival`` is, whose attempt has ended."""

    def estimate(self, candidate: Candidate) -> Usage:
        """The most that an attempt at ``candidate`` may use, as far as that is known before it."""
        return Usage()
