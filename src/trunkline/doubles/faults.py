"""What goes wrong, and when: rules that choose a fault for a request.

A fault is one of these kinds. An *output* is a unit of content: a token, a message with audio, a
transcript. Markers of the protocol (a role chunk, metadata, the end of a stream) are none.

====================  ==========================================================================
``refuse``            nobody listens on the port; a connection that is open already is reset
``black_hole``        the connection is accepted, and nothing is ever answered or billed
``unauthorized``      401 in the vendor's words
``payment_required``  402
``rate_limited``      429, with ``Retry-After`` of ``retry_after`` seconds
``server_error``      500
``hang``              the request is read, and no headers come
``hang_after``        the headers (or the WebSocket upgrade) come, and nothing after them
``keep_alive``        after the headers only SSE comments or WebSocket pings, each ``every`` s
``drip``              one output each ``every`` seconds
``die``               after ``after`` outputs the connection is reset
``stall``             after ``after`` outputs nothing more comes
``end``               after ``after`` outputs the connection ends cleanly, the end marker missing
``truncate``          outputs after ``after`` are left out, the end marker comes
``empty``             the end marker comes, and no output before it
``garbage``           outputs after ``after`` are bytes that are not the protocol
``wrong_rate``        audio made for ``rate`` Hz (half of what was asked, when 0), labelled as asked
====================  ==========================================================================
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from enum import StrEnum

import msgspec

from ..errors import UsageError

__all__ = ["Fault", "FaultScript", "Kind", "Rule"]


class Kind(StrEnum):
    REFUSE = "refuse"
    BLACK_HOLE = "black_hole"
    UNAUTHORIZED = "unauthorized"
    PAYMENT_REQUIRED = "payment_required"
    RATE_LIMITED = "rate_limited"
    SERVER_ERROR = "server_error"
    HANG = "hang"
    HANG_AFTER = "hang_after"
    KEEP_ALIVE = "keep_alive"
    DRIP = "drip"
    DIE = "die"
    STALL = "stall"
    END = "end"
    TRUNCATE = "truncate"
    EMPTY = "empty"
    GARBAGE = "garbage"
    WRONG_RATE = "wrong_rate"


STATUS = {
    Kind.UNAUTHORIZED: 401,
    Kind.PAYMENT_REQUIRED: 402,
    Kind.RATE_LIMITED: 429,
    Kind.SERVER_ERROR: 500,
}
"""The HTTP status of the kinds that are an answer of their own."""

UNBILLED = frozenset({Kind.REFUSE, Kind.BLACK_HOLE, Kind.HANG, *STATUS})
"""The vendor's model never saw the request, so there is nothing to invoice."""

SILENT = frozenset({Kind.BLACK_HOLE, Kind.HANG, Kind.HANG_AFTER, Kind.KEEP_ALIVE})
"""Nothing comes, not even a marker."""


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that goes wrong; the parameters a kind does not name have no meaning for it.

    ``after`` is a number of outputs, ``every`` and ``retry_after`` are seconds, ``rate`` is Hz.
    """

    kind: Kind
    after: int = 0
    every: float = 1.0
    retry_after: int = 1
    rate: int = 0

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "kind", Kind(self.kind))  # a plain string is as good
        if min(self.after, self.rate, self.retry_after) < 0 or self.every <= 0:
            raise ValueError(
                f"fault {self.kind}: after, rate and retry_after are 0 or more, every is over 0"
            )

    @property
    def limit(self) -> int:
        """How many outputs leave before the fault strikes."""
        return 0 if self.kind is Kind.EMPTY else self.after


class Rule(Fault, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault and the requests it is for; every condition that is given has to hold.

    ``nth`` counts, from 1, the requests that meet ``provider``, ``endpoint`` and ``model``;
    ``probability`` is drawn for each of them from the double's seed. A connection that serves
    several utterances counts as a request for its first one, then each further one counts.
    """

    provider: str = ""
    endpoint: str = ""
    model: str = ""
    nth: tuple[int, ...] = ()
    probability: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability {self.probability:g} is not between 0 and 1")
        if any(n < 1 for n in self.nth):
            raise ValueError("nth counts requests from 1")

    def shuts(self, provider: str) -> bool:
        """Whether this rule refuses every request of ``provider``, so that its port can close."""
        always = not (self.endpoint or self.model or self.nth) and self.probability == 1
        return self.kind is Kind.REFUSE and always and self.provider in ("", provider)


class FaultScript:
    """The rules in force. The first rule that fits a request gives its fault."""

    def __init__(self, rules: Iterable[Rule] = (), *, seed: int = 0) -> None:
        self._seed = seed
        self.replace(rules)

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(self._rules)

    def replace(self, rules: Iterable[Rule]) -> None:
        """Put ``rules`` in force instead of the present ones, with fresh counts and draws."""
        self._rules = list(rules)
        self._seen = [0] * len(self._rules)
        self._random = random.Random(self._seed)

    def add(self, rule: Rule) -> None:
        """Put one more rule in force, after those that are."""
        self._rules.append(rule)
        self._seen.append(0)

    def shut(self, provider: str) -> bool:
        """Whether every request of ``provider`` is refused."""
        return any(rule.shuts(provider) for rule in self._rules)

    def choose(
        self, provider: str, endpoint: str, model: str | None, *, late: bool = False
    ) -> Rule | None:
        """The fault of a request. ``model`` is None while a connection has not named it yet.

        Call again with ``late`` once it has: then only the rules that ask for a model count.
        """
        chosen: Rule | None = None
        for index, rule in enumerate(self._rules):
            if rule.model and (model is None or rule.model != model):
                continue
            if late and not rule.model:
                continue
            if rule.provider not in ("", provider) or rule.endpoint not in ("", endpoint):
                continue
            self._seen[index] += 1
            if rule.nth and self._seen[index] not in rule.nth:
                continue
            if rule.probability < 1 and self._random.random() >= rule.probability:
                continue
            chosen = chosen or rule
        return chosen


def read_rules(data: object) -> list[Rule]:
    """Rules from JSON or YAML data, one or a list. Raises UsageError naming the key."""
    try:
        return msgspec.convert(data if isinstance(data, list) else [data], list[Rule])
    except msgspec.ValidationError as error:
        raise UsageError(f"faults: {error}") from None
