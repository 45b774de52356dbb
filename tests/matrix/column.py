"""What a column of the matrix is: a client, how it is used, and what the caller gets from it."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import aiohttp

from trunkline import catalog
from trunkline.core.models import Modality
from trunkline.errors import AllCandidatesFailed
from trunkline.services.drill_verdicts import compare

from .faults import DEADLINE, Fault
from .lateness import delayed

NEVER = 6.0
"""Seconds after which what has not come will not come."""


@dataclass
class Heard:
    """What came of one call, in seconds from its start.

    ``gap`` is the longest wait between two outputs, or from the last one to the end. ``error`` is
    the exception's name, empty for a clean end, ``never`` when there was neither. ``problems`` are
    what is wrong with it at first sight. The machine kept the call waiting for at most
    ``delayed_first`` seconds until its first output and ``delayed`` seconds until its end.
    """

    words: list[str] = field(default_factory=list)
    first: float | None = None
    gap: float = 0.0
    took: float = 0.0
    error: str = ""
    causes: int = 0
    problems: list[str] = field(default_factory=list)
    delayed_first: float = 0.0
    delayed: float = 0.0

    def __post_init__(self) -> None:
        self._delayed = delayed()
        self.begin()

    def begin(self) -> None:
        """Count from now on."""
        self._begun = self._last = time.perf_counter()

    def output(self) -> None:
        """Note that output came."""
        now = time.perf_counter()
        if self.first is None:
            self.first = now - self._begun
            self.delayed_first = delayed() - self._delayed
        else:
            self.gap = max(self.gap, now - self._last)
        self._last = now

    def end(self, error: BaseException | None = None, *, gap: bool = True) -> None:
        """Note how it ended; with ``gap`` the wait for the end is one as for an output."""
        now = time.perf_counter()
        self.took = now - self._begun
        self.delayed = delayed() - self._delayed
        if self.first is not None and gap:
            self.gap = max(self.gap, now - self._last)
        if isinstance(error, TimeoutError):
            self.error = "never"
        elif error is not None:
            self.error = type(error).__name__
            cause = error.__cause__
            self.causes = len(cause.causes) if isinstance(cause, AllCandidatesFailed) else 1


class Column(ABC):
    """One client of one modality; ``vendor`` is the double that it talks to.

    ``kind`` is the provider's row in the catalogue. The same client is used for every candidate,
    with the same ``options`` of its plugin.
    """

    modality: ClassVar[Modality]
    expected: ClassVar[list[str]]

    by_sentence = False
    """Whether each sentence is a request of its own, so that the next one tells of a cut."""

    ends_as_output = True
    """Whether the end of a call is waited for as its outputs are."""

    def __init__(
        self,
        name: str,
        vendor: str,
        *,
        kind: str = "",
        model: str = "any",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.vendor = vendor
        self.kind = kind or vendor
        self.model = model
        self.options = dict(options or {})

    def __str__(self) -> str:
        return f"{self.modality} {self.name}"

    def connection(self, url: str, kind: str = "") -> dict[str, str]:
        """What trunkline.yaml says of a connection to the double at ``url``."""
        path = "/v1" if self.vendor in ("openai", "elevenlabs") else ""
        key = {} if kind else {"api_key": "key"}
        return {"kind": kind or self.kind, "base_url": f"{url}{path}", **key}

    @property
    def opens_after(self) -> float:
        """Seconds of a call after which a candidate owes something."""
        return 0.0

    def rule(self, fault: Fault, name: str) -> dict[str, Any]:
        """The double's rule for ``fault`` at the candidate ``name``; empty for a plugin's fault."""
        return dict(fault.rule)

    def owed(self, fault: Fault) -> float:
        """Seconds that have to pass before anybody can know of ``fault``."""
        return DEADLINE if fault.waits else 0.0

    @abstractmethod
    def open(self, route: str, http: aiohttp.ClientSession) -> Any:
        """Our class for ``route``."""

    def bare(self, url: str, http: aiohttp.ClientSession, kind: str = "") -> Any:
        """The official plugin itself, as LiveKit's own adapters take it."""
        row = catalog.provider(kind or self.official)
        return catalog.build(
            row,
            self.modality,
            self.model,
            credentials={} if kind else {"api_key": "key"},
            options={} if kind else self.options,
            base_url=self.connection(url)["base_url"],
            http_session=http,
        )

    @property
    def official(self) -> str:
        """The row of the official plugin."""
        return self.kind

    def outcomes(self, fault: Fault) -> frozenset[str]:
        """What the ledger may call the attempt that ``fault`` struck."""
        return fault.outcomes

    def is_agreed(self, fault: Fault) -> bool:
        """Whether several candidates with ``fault`` agree on an answer that may be right."""
        return False

    @abstractmethod
    async def use(self, client: Any, heard: Heard, **options: Any) -> None:
        """Use ``client`` once, to the end; ``options`` go to its ``chat`` or ``stream``."""

    async def occupy(self, client: Any) -> None:
        """Use ``client`` until it has no more to do, or this is cancelled."""
        await self.use(client, Heard())

    async def call(self, client: Any, *, within: float = NEVER, **options: Any) -> Heard:
        """Use ``client`` once, bounded; what came of it."""
        heard = Heard()
        try:
            async with asyncio.timeout(within):
                await self.use(client, heard, **options)
        except Exception as error:  # noqa: BLE001 - the boundary to clients that misbehave
            heard.end(error, gap=self.ends_as_output)
        else:
            heard.end(gap=self.ends_as_output)
        self.read(heard)
        return heard

    @abstractmethod
    def read(self, heard: Heard) -> None:
        """Make words of what came, once the clock has stopped."""

    def compare(self, heard: Sequence[str]) -> tuple[int, int]:
        """(words lost, words said again) of what was expected.

        A word that was cut short and is said again in full is a stutter, and not counted.
        """
        return compare(self.expected, [word for word in heard if "-" not in word])

    def seconds_lost(self, heard: Sequence[str]) -> float | None:
        """Seconds of the caller's audio that became no text; None where the caller says nothing."""
        return None
