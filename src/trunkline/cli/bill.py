"""What attempts used and cost, added up for people: by modality, and in one line of text."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..core.models import Attempt, Entry, Modality, Quality, Usage, money
from ..core.pricing import count_unpriced


class Cost(msgspec.Struct, frozen=True):
    """Money of some attempts: ``usd`` is exact and leaves out the ``unpriced`` entries.

    ``sources`` says where the rates come from; ``local`` is a machine of the user's own.
    """

    usd: str
    unpriced: int
    sources: tuple[str, ...]

    def __str__(self) -> str:
        if self.unpriced and not self.sources:
            return "unpriced"
        text = f"{self.usd} USD" if self.usd != "0" else "0"
        told = [*self.sources, *([f"{self.unpriced} unpriced"] if self.unpriced else [])]
        return f"{text} ({', '.join(told)})" if told else text


class Used(msgspec.Struct, frozen=True):
    """What one modality served and used, in native units; ``quality`` is the least exact of all."""

    models: tuple[str, ...]
    attempts: int
    quality: Quality
    units: Usage


Item = tuple[Attempt, Entry]

_TRUST = [Quality.EXACT, Quality.ESTIMATED, Quality.UNDERESTIMATE]


def cost(items: Iterable[Item]) -> Cost:
    """Return what these entries cost together."""
    entries: dict[str, list[Entry]] = {}
    for attempt, entry in items:
        entries.setdefault(attempt.id, []).append(entry)
    priced = [entry.charge for own in entries.values() for entry in own if entry.charge]
    return Cost(
        usd=money(sum(charge.nanos for charge in priced)),
        unpriced=sum(map(count_unpriced, entries.values())),
        sources=tuple(sorted({charge.source for charge in priced})),
    )


def usage(items: Iterable[Item]) -> Used:
    """Return what these entries used together."""
    items = list(items)
    names = {f"{attempt.provider}/{attempt.model}".rstrip("/") for attempt, _ in items}
    return Used(
        models=tuple(sorted(names)),
        attempts=len({attempt.id for attempt, _ in items}),
        quality=max((entry.quality for _, entry in items), key=_TRUST.index, default=Quality.EXACT),
        units=total([entry.usage for _, entry in items]),
    )


def total(parts: Iterable[Usage]) -> Usage:
    """Add usage up, unit by unit."""
    parts = list(parts)
    names = Usage.__struct_fields__
    return Usage(**{name: sum(getattr(part, name) for part in parts) for name in names})


def by_modality(items: Iterable[Item]) -> dict[Modality, list[Item]]:
    """Sort entries by modality, in the order of a call: ear, mind, mouth."""
    items = list(items)
    return {wanted: [i for i in items if i[0].modality is wanted] for wanted in Modality}


def units_text(modality: Modality, used: Usage) -> str:
    """Say what was used in the modality's own unit."""
    counts_tokens = modality is Modality.STT and used.tokens_in and not used.audio_in_ns
    if modality is Modality.STT and not counts_tokens:
        return f"{used.audio_in_ns / 1e9:.1f} s heard"
    if modality in (Modality.LLM, Modality.REALTIME) or counts_tokens:
        return f"{used.tokens_in} tokens in, {used.tokens_out} out"
    return f"{used.characters} characters, {used.audio_out_ns / 1e9:.1f} s spoken"
