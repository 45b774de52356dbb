"""What the core and the engine need from outside, as Protocols; ``compose`` picks who answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .limits import Rate
from .models import Entry, Settlement


class Journal(Protocol):
    """Where settlements go first. ``append`` never blocks on a database and never raises."""

    def append(self, record: Settlement | Entry) -> None: ...


@dataclass(frozen=True, slots=True)
class SharedRecord:
    """What a shared state keeps under a key. Of two, the greater (version, value) is newer."""

    key: str
    value: bytes
    version: int

    def newer_than(self, other: SharedRecord | None) -> bool:
        return other is None or (self.version, self.value) > (other.version, other.value)


Follower = Callable[[Sequence[SharedRecord]], None]


class SharedState(Protocol):
    """A few small records that every process knows, and leases that one of them holds.

    Nothing here raises for what the store meets. Without contact a process goes on alone: it keeps
    what it put, gets every lease it asks for, and when contact is back all sides exchange what they
    have and the newer record wins, key by key.
    """

    def put(self, key: str, value: bytes, version: int) -> None:
        """Make a record known unless a newer one is. Returns at once; the rest happens apart."""

    def follow(self, follower: Follower) -> Callable[[], object]:
        """Have ``follower`` called with all that is known, and then with what others put.

        The first call happens before this returns, which may take half a second; later ones come
        from another thread, within 100 ms of the ``put``. A follower may hear of a record twice,
        and of its own; it does not block. Returns how to stop that.
        """

    def lease(self, name: str, owner: str, seconds: float) -> bool:
        """Whether ``owner`` holds ``name`` for that long from now; False while another does.

        True also means that followers have heard of everything put before. May take half a second.
        """

    def release(self, name: str, owner: str) -> None:
        """Give a lease back early, after what was put before. Returns at once."""

    def close(self) -> None:
        """Hand over what was put, bounded in time. Using it again opens it again."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A process's wish to hold ``need`` of a pool, or a slice of it where that leaves enough.

    Use is written down under ``slot_ns``, and what counts is everything from ``since_ns`` on. Of
    ``amount`` (or what an override of ``budget`` says instead) ``share`` millionths may be used;
    None: without end. With a ``rate`` the pool fills again by it instead. Where ``hinders`` is
    False the amount is given even when there is no room.
    """

    pool: str
    slot_ns: int
    since_ns: int
    need: int
    amount: int
    share: int | None = None
    rate: Rate | None = None
    budget: str = ""
    hinders: bool = True


@dataclass(frozen=True, slots=True)
class Level:
    """A pool as it is now: settled, held by processes, and of that free in others' slices.

    ``amount`` is the one in force; ``left`` is what can still be taken, None without end.
    """

    spent: int
    held: int
    others_free: int
    amount: int
    left: int | None
    wait_ns: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What came of asking: the grants, one an ask and all 0 when one did not fit; the levels."""

    granted: tuple[int, ...]
    levels: tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """What a process has to say of a pool: more settled, and what it holds from now on.

    ``free`` is the part of ``held`` that no attempt has reserved. ``back`` is given back to the
    ``rate``; negative, it was used beyond what had been taken.
    """

    pool: str
    slot_ns: int
    spent: int = 0
    attempts: int = 0
    unpriced: int = 0
    held: int = 0
    free: int = 0
    back: int = 0
    rate: Rate | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """All that a process has to say at once: its changes, and what it has open.

    ``notes`` replace every note up to ``number``.
    """

    changes: tuple[Change, ...] = ()
    notes: tuple[bytes, ...] = ()
    number: int = 0


@dataclass(frozen=True, slots=True)
class Orphan:
    """What a dead process left: its id, its process id, and the notes it had not crossed out."""

    holder: str
    pid: int
    notes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Used:
    """One period of a pool, for people."""

    pool: str
    slot_ns: int
    spent: int
    attempts: int
    unpriced: int
    held: int
    tat_ns: int


@dataclass(frozen=True, slots=True)
class Override:
    """An amount that stands in for a budget's own until ``until_ns``."""

    budget: str
    amount: int
    until_ns: int
    reason: str


class GateStore(Protocol):
    """What the processes have used together, and what each of them holds. One a process.

    ``note`` may be called by any thread, everything else by one at a time. All but ``note`` and
    ``close`` raise StoreError while the store is away; they can then be repeated.
    """

    def take(self, asks: Sequence[Ask], said: Said | None = None) -> Taken:
        """Apply what is ``said``, then hold what all of ``asks`` need, or nothing.

        When there is no room, those who hold slices of the pool are told so by ``wanted``.
        """

    def note(self, number: int, record: bytes) -> None:
        """Keep ``record`` for the case of this process's death: safe from the return on.

        Numbers grow. Never raises.
        """

    def flush(self, said: Said) -> None:
        """Apply all of what is said, once."""

    def wanted(self) -> Sequence[str]:
        """The pools for which some process has asked in vain just now."""

    def levels(self, asks: Sequence[Ask]) -> Sequence[Level]:
        """The pools as they are, without holding anything."""

    def changed(self) -> bool:
        """Whether another process may have written since this was last asked. Cheap."""

    def orphans(self) -> Sequence[Orphan]:
        """Dead processes that still hold something; this process alone may bury them now."""

    def bury(self, orphan: Orphan, changes: Sequence[Change]) -> None:
        """Apply ``changes`` and return all else that the dead process held."""

    def correct(self, entry: str, changes: Sequence[Change]) -> None:
        """Apply what ``entry`` changes of periods that are kept: once, however often it is said."""

    def history(self, pool: str) -> Sequence[Used]:
        """The periods of the pools whose name begins with ``pool``, newest first."""

    def override(self, override: Override) -> None:
        """Let another amount stand until its end; one that has ended takes it back."""

    def overrides(self) -> Sequence[Override]:
        """Those that stand now."""

    def close(self) -> None:
        """Leave the store. What is still held is returned as a dead process's is."""
