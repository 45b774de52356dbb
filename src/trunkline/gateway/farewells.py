"""The polite end of a call whose agent was never changed: it is told why, and then it ends.

From here nothing can be said by a recogniser, and a session is closed by nothing else: LiveKit
closes one whose recogniser is refused for good. So the doors act together. From the moment a call
is to end, whatever its model or its voice is asked for is the notice; the recogniser's door waits
until that has been heard. The doors of a call may be open in several processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import msgspec

from ..clock import now_ns
from ..core.models import Identity
from ..core.newest import Newest
from ..core.ports import SharedRecord, SharedState

T = TypeVar("T")

logger = logging.getLogger("trunkline")

_ENDS_NS = 120_000_000_000
"""How long a call ends. Whatever comes later asks the budgets and limits anew."""

_SAID_SECONDS = 15.0
"""How long an agent may take until it says the notice: the caller's turn ends, a model is asked."""

_QUIET_SECONDS = 20.0
_LOOK_SECONDS = 0.1

_LATE_SECONDS = 1.0
"""How much later than it was sent audio may be heard in a room."""

_KEPT = 1000

_TURN_SECONDS = 2.0
_CHARACTERS_A_SECOND = 12.0
"""How long a notice takes that a voice says which is not asked here: to begin, and to be heard."""

_PREFIX = "farewells:"

Call = tuple[str, str]
"""Who came in, and the call: what another key says of its calls is nothing to this one."""


class Farewell(msgspec.Struct, frozen=True, array_like=True):
    """A call that ends. ``heard_ns`` is when it will have heard the notice, 0 before it is said.

    ``is_over``: its recogniser is not opened again. All of it is forgotten at ``until_ns``.
    """

    call: Call
    notice: str
    until_ns: int
    heard_ns: int = 0
    is_over: bool = False

    def and_then(self, later: Farewell) -> Farewell:
        """What two processes know together; in any order it is the same."""
        return Farewell(
            self.call,
            max(self.notice, later.notice),
            max(self.until_ns, later.until_ns),
            max(self.heard_ns, later.heard_ns),
            self.is_over or later.is_over,
        )


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Farewell]).decode


class Farewells:
    """One a process; ``shared`` is how it hears of those that other processes began."""

    def __init__(self, shared: SharedState | None) -> None:
        self._shared = shared
        self._is_following = shared is None
        self._learning = threading.Lock()
        self._known: Newest[Call, Farewell] = Newest(_KEPT)
        self._ours: Newest[Call, Farewell] = Newest(_KEPT)
        self._hearing: dict[Call, list[Callable[[], object]]] = {}
        self._voices: dict[Call, list[Callable[[], float]]] = {}

    def of(self, identity: Identity) -> Farewell | None:
        """The farewell of a call that ends."""
        call = _call(identity)
        if call is None:
            return None
        self._follow()
        farewell = self._known.get(call)
        return farewell if farewell is not None and now_ns() < farewell.until_ns else None

    def begin(self, identity: Identity, notice: str) -> None:
        """From now on the call hears ``notice``, whatever is to be said to it."""
        self._note(identity, notice)

    def said(self, identity: Identity) -> None:
        """Take note that a voice here says the notice, as far as its audio is on its way."""
        self._heard_in(identity, self.playing(identity))

    def answered(self, identity: Identity, notice: str) -> None:
        """Take note that the model's answer is ``notice``; a voice here will tell when it is said.

        A voice that is asked elsewhere is taken to say it at the pace of speech.
        """
        self._note(identity, notice)
        if _call(identity) not in self._voices:
            self._heard_in(identity, _TURN_SECONDS + len(notice) / _CHARACTERS_A_SECOND)

    def end(self, identity: Identity) -> None:
        """The call is over: its recogniser stays closed."""
        farewell = self.of(identity)
        if farewell is not None:
            self._keep(msgspec.structs.replace(farewell, is_over=True))

    @contextlib.contextmanager
    def hearing(self, identity: Identity, ends: Callable[[], object]) -> Iterator[None]:
        """Have ``ends`` called on this loop once the call is to end, while its recogniser hears."""
        call = _call(identity)
        if call is None:
            yield
            return
        self._follow()
        loop = asyncio.get_running_loop()

        def told() -> None:
            with contextlib.suppress(RuntimeError):  # a loop that is closed hears nobody
                loop.call_soon_threadsafe(ends)

        with _listed(self._hearing, call, told):
            if self.of(identity) is not None:
                ends()
            yield

    @contextlib.contextmanager
    def voice(self, identity: Identity, playing: Callable[[], float]) -> Iterator[None]:
        """Know of a voice of the call: ``playing`` are the seconds that it is still to be heard."""
        call = _call(identity)
        if call is None:
            yield
            return
        with _listed(self._voices, call, playing):
            yield

    def playing(self, identity: Identity) -> float:
        """Seconds for which the voices of the call here are still to be heard."""
        call = _call(identity)
        return sum(playing() for playing in self._voices.get(call, ())) if call else 0.0

    def is_said(self, identity: Identity) -> bool:
        """Whether the call hears the notice, or has heard it."""
        farewell = self.of(identity)
        return farewell is not None and farewell.heard_ns > 0

    async def until_quiet(self, identity: Identity) -> None:
        """Wait, bounded, until no voice is heard here any more."""
        await asyncio.sleep(min(self.playing(identity), _QUIET_SECONDS))

    async def until_said(self, identity: Identity) -> None:
        """Wait, bounded, until the notice is on its way to the caller."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SAID_SECONDS):
                while not self.is_said(identity):  # noqa: ASYNC110 - other processes tell it, too
                    await asyncio.sleep(_LOOK_SECONDS)

    async def until_heard(self, identity: Identity) -> None:
        """Wait until the notice has been heard, also where it is said again: a caller cut in."""
        while farewell := self.of(identity):
            left = (farewell.heard_ns - now_ns()) / 1e9 + _LATE_SECONDS
            if not farewell.heard_ns or left <= 0:
                return
            await asyncio.sleep(min(left, 1.0))

    def _heard_in(self, identity: Identity, seconds: float) -> None:
        farewell = self.of(identity)
        if farewell is not None:
            heard_ns = max(farewell.heard_ns, now_ns() + round(seconds * 1e9))
            self._keep(msgspec.structs.replace(farewell, heard_ns=heard_ns))

    def _note(self, identity: Identity, notice: str) -> None:
        call = _call(identity)
        if call is not None and self.of(identity) is None:
            logger.info("call %s ends: %s", identity.call, notice)
            self._keep(Farewell(call, notice, now_ns() + _ENDS_NS))

    def _keep(self, farewell: Farewell) -> None:
        now = now_ns()
        self._ours[farewell.call] = farewell
        for call in [call for call, one in self._ours.items() if now >= one.until_ns]:
            del self._ours[call]
        if self._shared is not None:
            self._shared.put(f"{_PREFIX}{os.getpid()}", _encode(list(self._ours.values())), now)
        self._learn_one(farewell)

    def _follow(self) -> None:
        if not self._is_following and self._shared is not None:
            self._is_following = True
            self._shared.follow(self._learn)

    def _learn(self, records: Sequence[SharedRecord]) -> None:
        """Merge what other processes put; from a thread of the shared state."""
        for record in records:
            if not record.key.startswith(_PREFIX):
                continue
            try:
                farewells = _decode(record.value)
            except msgspec.DecodeError:  # of another version, perhaps
                continue
            for farewell in farewells:
                self._learn_one(farewell)

    def _learn_one(self, farewell: Farewell) -> None:
        now, call = now_ns(), farewell.call
        if now >= farewell.until_ns:
            return
        with self._learning:
            before = self._known.get(call)
            is_news = before is None or now >= before.until_ns
            known = farewell if before is None or is_news else before.and_then(farewell)
            self._known[call] = known
        if is_news:
            for told in list(self._hearing.get(call, ())):
                told()


@contextlib.contextmanager
def _listed(lists: dict[Call, list[T]], call: Call, entry: T) -> Iterator[None]:
    lists.setdefault(call, []).append(entry)
    try:
        yield
    finally:
        lists[call].remove(entry)
        if not lists[call]:
            del lists[call]


def _call(identity: Identity) -> Call | None:
    """None for a request that does not say whose it is: its next could not be told from others."""
    return (identity.key, identity.call) if identity.job or identity.room else None
