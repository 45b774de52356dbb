"""Plugin instances that the user built, as candidates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from .. import catalog
from ..core.models import AfterOutput, Candidate, Deadlines, ModelRef, Plan
from ..errors import UsageError


def live_plan(
    instances: Sequence[Any],
    kind: type,
    *,
    timeout: float | None,
    retries: int,
    retry_pause: float,
    after_output: AfterOutput,
) -> Plan:
    """A plan of ``instances`` in their order. ``timeout`` is in seconds, None for our defaults.

    Raises UsageError when there is none or one is not a ``kind``.
    """
    name = kind.__name__
    if not instances:
        raise UsageError(f"at least one {name} is needed")
    for index, instance in enumerate(instances):
        if not isinstance(instance, kind):
            told = type(instance).__name__
            raise UsageError(f"{name.lower()}[{index}] is a {told}: give instances of {name}")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"timeout is {timeout}: give seconds greater than 0")
    deadlines = Deadlines() if timeout is None else Deadlines(timeout, timeout, timeout)
    return Plan(
        tuple(_told_apart([live_candidate(instance) for instance in instances])),
        deadlines,
        after_output,
        retries=retries,
        retry_pause=retry_pause,
    )


def live_candidate(instance: Any) -> Candidate:
    """``instance`` as a candidate, named by the provider whose plugin it is.

    It is priced as that provider is, where the catalogue knows it; health is kept per model, and
    per place among the instances of one model in a plan.
    """
    module = type(instance).__module__.split(".")
    known = [part for part in module if catalog.canonical(part) in catalog.PROVIDERS]
    provider = catalog.canonical(known[-1]) if known else type(instance).__qualname__.lower()
    row = catalog.PROVIDERS.get(provider)
    served = (row.stt, row.llm, row.tts) if row is not None else ()
    return Candidate(
        ModelRef(provider, str(instance.model)),
        connection="live",
        live=instance,
        own=True,
        surcharges={name: sold for how in served if how for name, sold in how.surcharges.items()},
    )


def _told_apart(candidates: Sequence[Candidate]) -> Iterator[Candidate]:
    """Instances of one model in one plan have connections of their own: ``live``, ``live-2``, ...

    They are there because one may be well when the other is not.
    """
    seen: Counter[str] = Counter()
    for one in candidates:
        seen[one.key] += 1
        nth = seen[one.key]
        yield one if nth == 1 else replace(one, connection=f"{one.connection}-{nth}")


def closing(instances: Sequence[Any]) -> Callable[[], Awaitable[None]]:
    """How to close ``instances``; whoever made them gave them away."""

    async def close() -> None:
        for instance in instances:
            await instance.aclose()

    return close
