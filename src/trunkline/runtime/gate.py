"""The one gate: every attempt passes ``reserve`` before it opens and ``settle`` when it ends.

Reserving takes an upper estimate out of every budget and limit that the attempt is under, in all of
them or in none. Settling prices the usage, writes one record to this process's journal, counts what
was used in place of what was reserved, and tells the listeners. Without rules reserving is nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable

from msgspec.structs import replace

from ..clock import new_id, now_ns
from ..core.events import AttemptRefused
from ..core.limits import Limit
from ..core.models import Attempt, Entry, Identity, Modality, Quality, Settlement, Usage
from ..core.newest import Newest
from ..core.ports import Journal
from ..core.pricing import LATE
from ..errors import Refused, StoreError
from .gate_holding import Opening, Shortage
from .gate_keeper import GRACE, Keeper
from .gate_purse import Price
from .gate_rules import Audience
from .meter import Metered, held, plus, told_late

_RETRY = 0.03
_STALE_SECONDS = 0.15
"""How long what other processes hold is waited for: three of their ticks."""
_RECLAIM_SECONDS = 0.5
"""How long slices are waited for that others hold and do not use."""

_NOTICE_SECONDS = 20.0
_NOTICES = 3
_NOTICE_ROOM = 40
_NOTICES_KEPT = 1000
"""A refused caller's notice is spoken although the budget has no more: soon, a few times, and no
longer than the notice with these characters more."""


class Gate:
    """Reserves and settles attempts. Refusals are raised by ``reserve`` as ``Refused``.

    ``keeper`` holds what this process has of the budgets and limits there are, if there are any;
    ``settled`` and ``refused`` hear of every attempt that ended or was not allowed, ``late`` of
    what was told of one after that.
    """

    def __init__(
        self,
        journal: Journal,
        price: Price,
        settled: Callable[[Settlement], None],
        keeper: Keeper | None = None,
        refused: Callable[[AttemptRefused], None] = lambda _: None,
        late: Callable[[Settlement], None] = lambda _: None,
    ) -> None:
        self._journal = journal
        self._price = price
        self._settled = settled
        self._keeper = keeper
        self._purse = keeper.purse if keeper is not None else None
        self._refused = refused
        self._late = late
        self._notices: Newest[str, tuple[float, int, int]] = Newest(_NOTICES_KEPT)
        self._listening: Newest[str, None] = Newest(_NOTICES_KEPT)

    @property
    def has_rules(self) -> bool:
        """Whether there are budgets or limits at all."""
        return self._keeper is not None

    async def reserve(
        self,
        attempt: Attempt,
        estimate: Callable[[], Usage] = Usage,
        audience: Audience = Audience.ANYBODY,
    ) -> None:
        """Allow ``attempt`` to open, or raise Refused. ``estimate`` tells the most it may use.

        ``audience`` decides on the notice that a refusal has.

        An attempt that fits into this process's slices passes without I/O. Otherwise it waits for
        the store, for slices that other processes do not use, and as long as its limits say.
        """
        if self._keeper is None:
            return
        purse = self._keeper.purse
        opening = purse.opening(attempt, estimate)
        if opening is None:
            return
        opening.audience = audience
        if not purse.apply(opening):
            await self._wait(self._keeper, opening)
        self._keeper.wake()
        delay = max(holding.delay for holding, _ in opening.takes)
        if delay:
            try:
                await asyncio.sleep(delay)
            except asyncio.CancelledError:
                purse.abandon(opening)
                raise

    async def has_room(self, identity: Identity, modality: Modality) -> bool:
        """Whether such a call could be let through now; nothing is reserved, nobody is told."""
        if self._keeper is None:
            return True
        holdings = [h for h in self._keeper.purse.holdings(identity, modality) if h.rule.hinders]
        try:
            levels = await asyncio.wrap_future(self._keeper.levels(holdings))
        except StoreError:
            return all(holding.rule.of.fail_open for holding in holdings)
        return all(
            level.left is None or level.left > 0 or holding.free or level.others_free
            for holding, level in zip(holdings, levels, strict=True)
        )

    async def routes(self, identity: Identity, modality: Modality) -> tuple[str, ...]:
        """The routes that budgets now send such a call to, the last one first choice."""
        if self._keeper is None:
            return ()
        holdings = [h for h in self._keeper.purse.holdings(identity, modality) if h.rule.steps]
        unknown = [holding for holding in holdings if holding.level is None]
        if unknown:
            with contextlib.suppress(StoreError):
                await asyncio.wrap_future(self._keeper.look(unknown))
        return tuple([route for holding in holdings for route in holding.routes])

    def follow(
        self,
        attempt: Attempt,
        metered: Callable[[], Metered],
        interrupt: Callable[[Refused], object],
    ) -> None:
        """Have more reserved as ``attempt`` outlives its estimate.

        ``metered`` is asked every half second, from another thread. When there is no more, the
        stream goes on for half a minute, and is then interrupted with the refusal.
        """
        opening = self._purse.opened(attempt.id) if self._purse is not None else None
        if opening is not None:
            opening.interrupt = interrupt
            opening.loop = asyncio.get_running_loop()
            opening.metered = metered

    def settle(self, attempt: Attempt, metered: Metered) -> None:
        """Write down how ``attempt`` ended and what it used. Never raises, never waits."""
        metered = held(metered)
        attempt.usage = metered.usage
        entry = Entry(
            id=new_id(),
            attempt=attempt.id,
            recorded_ns=now_ns(),
            usage=metered.usage,
            quality=metered.quality,
            charge=self._price(attempt),
        )
        settlement = Settlement(attempt, entry)
        self._journal.append(settlement)
        if self._purse is not None:
            self._purse.settle(attempt, entry.charge)
        self._settled(settlement)

    def settle_late(self, attempt: Attempt, settled: Metered, usage: Usage) -> None:
        """Write down the provider's own count of ``attempt``, which was ``settled`` before it came.

        A further entry has the difference. Never raises, never waits.
        """
        settled, usage = held(settled), held(Metered(usage, Quality.EXACT)).usage
        more = told_late(settled, usage)
        whole = replace(attempt, usage=plus(settled.usage, more))
        before, after = self._price(attempt), self._price(whole)
        charge = None
        if before is not None and after is not None:
            nanos = after.nanos - before.nanos
            if settled.quality is Quality.UNDERESTIMATE:
                nanos = max(0, nanos)
            charge = replace(after, nanos=nanos)
        entry = Entry(new_id(), attempt.id, now_ns(), more, Quality.EXACT, charge, kind=LATE)
        self._journal.append(entry)
        if self._purse is not None:
            self._purse.settle_late(attempt, entry)
        self._late(Settlement(whole, entry))

    def recover(self) -> None:
        """Settle what dead processes left open, and return what they held. Blocks.

        Running processes do this every second. Raises StoreError.
        """
        if self._keeper is not None:
            self._keeper.recover().result()

    def close(self) -> None:
        """Give back what this process holds. Blocks, bounded in time; a later use begins anew."""
        if self._keeper is not None:
            self._keeper.close()

    async def _wait(self, keeper: Keeper, opening: Opening) -> None:
        began = time.monotonic()
        try:
            while True:
                shortage = await asyncio.wrap_future(keeper.take(opening))
                if shortage is None:
                    break
                pause = _pause(shortage, time.monotonic() - began)
                if pause is None:
                    break
                await asyncio.sleep(pause)
        except BaseException:
            keeper.purse.abandon(opening)
            raise
        for one in opening.shadowed:
            self._tell(opening.attempt, one.refusal(opening), shadow=True)
        if shortage is None:
            return
        refused = shortage.refusal(opening)
        if self._is_notice(opening):
            keeper.purse.apply(opening, force=True)
            return
        self._tell(opening.attempt, refused)
        if self._still_listens(opening.attempt, refused):
            keeper.purse.apply(opening, force=True)
            opening.doom(refused, GRACE)
            return
        self.expect_notice(opening.attempt.identity.call, refused.notice)
        raise refused

    def expect_notice(self, call: str, notice: str) -> None:
        """Let the voice through that tells ``call`` the ``notice`` of a refusal."""
        if notice:
            _, _, said = self._notices.get(call, (0.0, 0, 0))
            until = time.monotonic() + _NOTICE_SECONDS
            self._notices[call] = (until, len(notice) + _NOTICE_ROOM, said)

    def _still_listens(self, attempt: Attempt, refused: Refused) -> bool:
        """Whether a recogniser is let through for a moment, once a call.

        A session without ears ends at once; with them its first answer is the notice.
        """
        call = attempt.identity.call
        if attempt.modality is not Modality.STT or not refused.notice or call in self._listening:
            return False
        self._listening[call] = None
        return True

    def _tell(self, attempt: Attempt, refused: Refused, *, shadow: bool = False) -> None:
        self._refused(
            AttemptRefused(
                identity=attempt.identity,
                modality=attempt.modality,
                turn=attempt.turn,
                rule=refused.rule,
                reason=str(refused),
                retry_after=refused.retry_after,
                notice=refused.notice,
                shadow=shadow,
            )
        )

    def _is_notice(self, opening: Opening) -> bool:
        """Whether this is the voice that tells a refused caller so."""
        call = opening.attempt.identity.call
        until, room, said = self._notices.get(call, (0.0, 0, 0))
        fits = (
            opening.attempt.modality is Modality.TTS
            and time.monotonic() < until
            and opening.estimate.characters <= room
            and said < _NOTICES
        )
        if fits:
            self._notices[call] = (until, room, said + 1)
        return fits


def _pause(shortage: Shortage, waited: float) -> float | None:
    """Seconds after which to ask again; None: there will be no room in time."""
    holding, level = shortage.holding, shortage.level
    if level is None:
        return None
    rule = holding.rule
    if isinstance(rule.of, Limit) and rule.of.rate is not None:
        seconds = level.wait_ns / 1e9
        fits = shortage.need <= rule.of.rate.burst and waited + seconds <= rule.of.wait
        return max(seconds, 0.001) if fits else None
    patience = rule.patience
    if level.others_free:
        patience = max(patience, _RECLAIM_SECONDS)
    elif level.held > holding.held:
        patience = max(patience, _STALE_SECONDS)
    return _RETRY if waited < patience else None
