"""The only failover loop: one candidate or many, for STT, LLM and TTS alike.

A ``Line`` is what the agent's side brings: the input log, what counts as content, how far the log
is committed. A ``ProviderStream`` is opened by the line on one candidate, at the commit. The engine
opens, relays, keeps the deadlines, settles, and goes to the next candidate from the commit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from ..clock import monotonic_ns, new_id, now_ns
from ..core.events import Failover
from ..core.models import (
    Attempt,
    Candidate,
    Deadlines,
    Identity,
    Modality,
    Plan,
    Purpose,
    Quality,
    Usage,
)
from ..core.window import adaptive
from ..errors import (
    AllCandidatesFailed,
    EmptyOutput,
    ProviderError,
    ProviderFault,
    RateLimited,
    Refused,
    Remedy,
    RequestRejected,
    TrunklineError,
    UsageError,
)
from ..store.process import own
from .closing import CLOSE_SECONDS, InUse, say_farewell
from .deadline import Watch
from .gate import Gate
from .gate_rules import Audience
from .health import HealthBook
from .hedge import ALONE, Allowance, Outrun, Race, Side
from .line import Line, Out, ProviderStream
from .meter import NOTHING, Metered

logger = logging.getLogger("trunkline")

T = TypeVar("T")

_ADAPTIVE_FACTOR = 2.0
_ADAPTIVE_LOW = 0.5
"""Seconds below which no adaptive deadline goes: a voice's first audio varies that much."""


class Engine:
    """Runs lines over plans. One per process; it keeps no state of a call."""

    def __init__(
        self,
        gate: Gate,
        health: HealthBook,
        failed_over: Callable[[Failover], None],
        routed: Callable[[Modality, Sequence[str]], Plan | None] = lambda *_: None,
    ) -> None:
        self.health = health
        self._gate = gate
        self._failed_over = failed_over
        self._routed = routed
        self._hedges = Allowance()
        self._begin()
        own(self)

    def _begin(self) -> None:
        self._closing: set[asyncio.Task[Any]] = set()
        self._standing: set[asyncio.Task[None]] = set()
        self._in_use = InUse()

    def after_fork(self) -> None:
        """The parent's streams and tasks stay with it and its event loop."""
        self._begin()

    async def run(
        self,
        line: Line[Out],
        plan: Plan,
        identity: Identity,
        *,
        turn: str = "",
        purpose: Purpose = Purpose.SERVE,
    ) -> bool:
        """Serve ``line`` from the first candidate of ``plan`` that manages to.

        Candidates that are known to be ill come last. Returns False when the line moved away
        before its end. Raises AllCandidatesFailed when no candidate manages, the ProviderError of
        the last attempt when output has left and the policy forbids going on, and Refused when the
        gate says no.
        """
        if purpose.takes_any and self._gate.has_rules:
            plan = await self._affordable(line.modality, plan, identity)
        races: list[Race[Out]] = []
        try:
            return await self._serve(
                line, plan, partial(_new_attempt, line, plan, identity, turn, purpose), races
            )
        finally:
            for race in races:
                race.stop()

    async def _serve(
        self,
        line: Line[Out],
        plan: Plan,
        made: Callable[[Candidate, int], Attempt],
        races: list[Race[Out]],
    ) -> bool:
        causes: list[tuple[str, ProviderError]] = []
        failed: tuple[Candidate, Attempt] | None = None
        ordered = self.health.ranked(plan.candidates)
        for index, candidate in enumerate(self._schedule(ordered, plan.retries, causes)):
            line.may_ask = partial(self.health.allows_any, ordered[index + 1 :])
            if failed is not None and candidate is not failed[0]:
                self._tell(failed[1], candidate)
            if index >= len(plan.candidates):
                await asyncio.sleep(plan.retry_pause)
            running = None
            if races:
                running = next((r for r in races if r.is_on and r.candidate is candidate), None)
            attempt = running.attempt if running is not None else made(candidate, index)
            try:
                if running is not None:
                    races.clear()
                    try:
                        return await running.result()
                    except Refused:
                        if attempt.duration_ns:
                            raise
                        # it was refused beside the first one; now there is a caller to be told
                        attempt = made(candidate, index)
                if index == 0 and plan.hedge is not None:
                    races += self._races(line, plan, attempt, made)
                side = races[0] if races and index == 0 else ALONE
                return await self._attempt(line, plan, candidate, attempt, side)
            except Outrun:
                continue  # by the next candidate, whose attempt is ahead
            except ProviderError as error:
                # without its frames, which hold it, the prompt would wait for a collection
                causes.append((str(candidate), error.with_traceback(None)))
                logger.warning(
                    "%s attempt failed: %s: %s",
                    line.modality,
                    candidate,
                    error,
                    extra={"attempt": attempt.id, "outcome": attempt.outcome},
                )
                if not line.may_continue(plan):
                    raise
                failed = candidate, attempt
        if line.stands():
            return False
        raise AllCandidatesFailed(causes)

    async def may_open(self, modality: Modality, identity: Identity) -> bool:
        """Whether the gate would let a call open something now, such as a connection to wait on."""
        return await self._gate.has_room(identity, modality)

    async def _affordable(self, modality: Modality, plan: Plan, identity: Identity) -> Plan:
        """``plan``, or the cheaper one that budgets send this call to, under the same policy."""
        routes = await self._gate.routes(identity, modality)
        cheaper = self._routed(modality, routes) if routes else None
        if cheaper is None or cheaper.route == plan.route:
            return plan
        return replace(plan, candidates=cheaper.candidates, route=cheaper.route)

    @staticmethod
    def _schedule(
        ordered: Sequence[Candidate], retries: int, causes: list[tuple[str, ProviderError]]
    ) -> Iterator[Candidate]:
        """All in their order, the healthy ones first; the last again, as long as that can help.

        With another candidate at hand, going there at once is what the caller hears least of.
        """
        yield from ordered
        for _ in range(retries):
            if causes and causes[-1][1].remedy is Remedy.RETRY:
                yield ordered[-1]

    def _tell(self, failed: Attempt, candidate: Candidate) -> None:
        self._failed_over(
            Failover(
                identity=failed.identity,
                modality=failed.modality,
                turn=failed.turn,
                attempt=failed.id,
                failed=f"{failed.provider}/{failed.model}",
                outcome=failed.outcome,
                next=str(candidate),
            )
        )

    async def _attempt(
        self,
        line: Line[Out],
        plan: Plan,
        candidate: Candidate,
        attempt: Attempt,
        side: Side = ALONE,
    ) -> bool:
        """Try one candidate to its end; False when the line moved. Raises its ProviderError."""
        if self._gate.has_rules:  # they are priced before
            attempt.terms = line.charged_on(candidate)
        audience = line.audience if attempt.purpose is Purpose.SERVE else Audience.NOBODY
        await self._gate.reserve(attempt, partial(line.estimate, candidate), audience)
        begun = monotonic_ns()
        task = asyncio.current_task()
        assert task is not None
        deadlines = self._deadlines(plan, candidate)
        watch = line.watch = Watch(task, deadlines, line.owed_since)
        stream: ProviderStream[Out] | None = None
        error: ProviderError | None = None
        try:
            stream = self._open(line, candidate)
            self._gate.follow(attempt, line.metered, watch.interrupt)
            watch.poke()
            side.opened()
            async for out in stream:
                if line.deliver(out):
                    watch.content()
                    if attempt.first_output_after_ns is None:
                        attempt.first_output_after_ns = monotonic_ns() - begun
                        side.ahead()
                        if line.is_read_here:
                            await asyncio.sleep(0)  # the caller waits for this: let it go out now
            watch.stop()
            line.finish()
            if attempt.first_output_after_ns is None:
                side.ahead()
        except asyncio.CancelledError:
            if watch.reason is None or task.uncancel() > 0:
                attempt.outcome = "cancelled"
                raise
            error = self._called_off(attempt, watch.reason)
            if error is None:
                return False
        except UsageError as unusable:
            error = RequestRejected(str(unusable))
        except ProviderError as failure:
            error = failure
        finally:
            watch.stop()
            side.ended()
            line.watch = None
            if error is not None and line.excuses(error):
                error = None
            attempt.outcome = error.outcome if error else attempt.outcome
            attempt.duration_ns = monotonic_ns() - begun
            self._settle(line, candidate, attempt, error, stream)
        if error is not None:
            raise error
        return True

    def _races(
        self,
        line: Line[Out],
        plan: Plan,
        attempt: Attempt,
        made: Callable[[Candidate, int], Attempt],
    ) -> Iterator[Race[Out]]:
        """The race of the first candidate with the next, where the plan wants one."""
        hedge = plan.hedge
        if hedge is None or attempt.purpose is not Purpose.SERVE:
            return
        self._hedges.ask(plan.route, hedge.share)
        first, *others = self.health.order(plan.candidates)
        seconds = hedge.after or self.health.latency_p95(first.key)
        if seconds is None or not others or not self.health.allows(others[0].key):
            return
        second = made(others[0], 1)
        second.purpose = Purpose.HEDGE

        def run(rival: Line[Out], side: Side) -> asyncio.Task[bool]:
            return self._spawn(self._attempt(rival, plan, others[0], second, side))

        may_start = partial(self._hedges.take, plan.route)
        yield Race(line, seconds, (attempt, second), others[0], run, may_start)

    def _called_off(self, attempt: Attempt, reason: TrunklineError) -> ProviderError | None:
        """The error that our interruption is, None when the line moved. Raises what is neither."""
        if isinstance(reason, ProviderError):
            return reason
        attempt.outcome = "moved"
        if isinstance(reason, Refused):
            attempt.outcome = "refused"
            self._gate.expect_notice(attempt.identity.call, reason.notice)
            raise reason from None
        if isinstance(reason, Outrun):
            attempt.outcome = "cancelled"
            raise reason from None
        return None

    def _open(self, line: Line[Out], candidate: Candidate) -> ProviderStream[Out]:
        try:
            stream = line.open(candidate)
        except TrunklineError:
            raise
        except Exception as error:  # a plugin's boundary: its methods raise what they like
            raise ProviderFault(f"the provider's plugin raised {type(error).__name__}") from error
        self._in_use.add(id(candidate.live))
        return stream

    def _deadlines(self, plan: Plan, candidate: Candidate) -> Deadlines:
        fixed = plan.deadlines
        if not fixed.adaptive or candidate is plan.candidates[-1]:
            return fixed  # with nobody behind it, giving up early helps nobody
        seconds = adaptive(
            self.health.latency_p95(candidate.key),
            fixed.first_content,
            factor=_ADAPTIVE_FACTOR,
            low=min(_ADAPTIVE_LOW, fixed.first_content),
            high=fixed.first_content,
        )
        return replace(fixed, first_content=seconds)

    def _settle(
        self,
        line: Line[Out],
        candidate: Candidate,
        attempt: Attempt,
        error: ProviderError | None,
        stream: ProviderStream[Out] | None,
    ) -> None:
        unserved = error is not None and not error.served and attempt.first_output_after_ns is None
        metered = NOTHING if unserved or stream is None else line.metered()
        if stream is not None:
            attempt.provider_request_id = stream.request_id
            self._close(stream, id(candidate.live), partial(self._told_late, attempt, metered))
        attempt.terms = line.charged_on(candidate)
        self._gate.settle(attempt, metered)
        record = partial(
            self.health.record,
            candidate.key,
            attempt.outcome,
            started_ns=attempt.started_ns,
            # a recogniser's first words wait for somebody to speak
            first_output_after_ns=None
            if attempt.modality is Modality.STT
            else attempt.first_output_after_ns,
            retry_after=error.retry_after if isinstance(error, RateLimited) else None,
            purpose=attempt.purpose,
        )
        record(blames=error is not None and error.blames)
        if isinstance(error, EmptyOutput) and error.doubted:
            line.doubted(partial(record, blames=True))

    def _told_late(self, attempt: Attempt, settled: Metered, usage: Usage) -> None:
        if settled.quality is not Quality.EXACT:
            self._gate.settle_late(attempt, settled, usage)

    def _close(self, stream: ProviderStream[Out], live: int, late: Callable[[Usage], None]) -> None:
        """Close bounded and, if it takes time, in the background: no farewell delays a caller.

        ``late`` hears of the usage that closing brings.
        """
        rest = stream.close()
        if rest is None:
            self._in_use.remove(live)
            return

        async def close() -> None:
            try:
                await say_farewell(stream, rest, late)
            finally:
                self._in_use.remove(live)

        self._spawn(close())

    def retire(self, plan: Plan, closing: Callable[[], Awaitable[None]]) -> None:
        """Close what ``plan`` was made of as soon as no attempt uses it any more.

        What it shares with other plans, and those may use at any time, is not waited for:
        ``closing`` waits with ``unused`` where nobody else is left.
        """
        lives = [candidate.live for candidate in plan.candidates if not candidate.shared]

        async def retired() -> None:
            await self.unused(*lives)
            await closing()

        self._spawn(retired())

    async def unused(self, *lives: Any) -> None:
        """Wait until no attempt uses any of ``lives``."""
        await self._in_use.none_of(set(map(id, lives)))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work``, which ends soon, in a task that ``settled`` waits for."""
        task = asyncio.get_running_loop().create_task(work)
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    def stand(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run ``work`` until it ends by itself, is cancelled, or the engine closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._standing.add(task)
        task.add_done_callback(self._standing.discard)
        return task

    async def settled(self) -> None:
        """Wait, bounded, until every stream is closed and every retired plan with it."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_SECONDS)

    async def aclose(self) -> None:
        """End what stands, then wait, bounded, for what closes."""
        for task in self._standing:
            task.cancel()
        await self.settled()


def _new_attempt(
    line: Line[Out],
    plan: Plan,
    identity: Identity,
    turn: str,
    purpose: Purpose,
    candidate: Candidate,
    index: int,
) -> Attempt:
    return Attempt(
        id=new_id(),
        identity=identity,
        modality=line.modality,
        provider=candidate.ref.provider,
        model=candidate.ref.model,
        connection=candidate.connection,
        started_ns=now_ns(),
        turn=turn,
        index=index,
        purpose=purpose,
        route=plan.route,
        stack=plan.stack,
        variant=plan.variant,
    )
