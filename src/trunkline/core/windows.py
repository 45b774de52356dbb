"""The spans of time that an amount is for: calendar periods in a zone, rolling, total, per call.

Instants are UTC nanoseconds, spans half-open. A calendar period begins with the first instant of
its local hour, day, week (Monday) or month, also where a clock change skips or repeats midnight: a
day may have 23, 23.5 or 25 hours, and a change of the clock within an hour begins another hour.

A rolling window is kept in slots, 60 to a window: a slot counts until all of it has left, so that
for at most a sixtieth of the window more counts than should, never less.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from functools import lru_cache
from zoneinfo import ZoneInfo

NANOS = 1_000_000_000
SLOTS = 60

_HOUR = 3600
_DURATION = re.compile(r"(?P<count>[1-9][0-9]{0,5})\s*(?P<unit>s|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "h": _HOUR, "d": 24 * _HOUR}
_LONGEST = 366 * 24 * _HOUR


class Kind(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    ROLLING = "rolling"
    TOTAL = "total"
    CALL = "call"


@dataclass(frozen=True, slots=True)
class Period:
    """From ``start_ns`` to ``end_ns``, exclusive; ``end_ns`` is None where there is no end.

    What is used now is written down under ``slot_ns``; everything from ``start_ns`` on counts.
    """

    start_ns: int
    end_ns: int | None
    slot_ns: int


@dataclass(frozen=True, slots=True)
class Window:
    """What an amount is for. ``zone`` concerns calendar windows, ``seconds`` rolling ones."""

    kind: Kind
    zone: str = "UTC"
    seconds: int = 0

    def at(self, now_ns: int) -> Period:
        """The period that ``now_ns`` lies in; its slot is current until the slot's own end."""
        if self.kind in (Kind.TOTAL, Kind.CALL):
            return Period(0, None, 0)
        if self.kind is Kind.ROLLING:
            length = self.seconds * NANOS
            slot = now_ns - now_ns % (length // SLOTS)
            return Period(slot - length, slot + length // SLOTS, slot)
        start, end = _calendar(self.kind, self.zone, now_ns // NANOS)
        return Period(start * NANOS, end * NANOS, start * NANOS)

    def resets_ns(self, now_ns: int) -> int | None:
        """When what is used now no longer counts; None: never."""
        period = self.at(now_ns)
        if self.kind is Kind.ROLLING and period.end_ns is not None:
            return period.end_ns + self.seconds * NANOS
        return period.end_ns

    @property
    def told(self) -> str:
        """The window behind an amount: 25 USD ``a month``, ``in 1d``, ``in total``."""
        return f"{'in' if self.kind in (Kind.ROLLING, Kind.TOTAL) else 'a'} {self}"

    def __str__(self) -> str:
        if self.kind is not Kind.ROLLING:
            return self.kind.value
        unit = [u for u, s in _SECONDS.items() if self.seconds % s == 0][-1]
        return f"{self.seconds // _SECONDS[unit]}{unit}"


def window(text: str, zone: str = "UTC") -> Window:
    """Read ``hour``, ``day``, ``week``, ``month``, ``total``, ``call`` or a length such as ``24h``.

    Raises ValueError, whose text says what is possible.
    """
    if text in set(Kind) - {Kind.ROLLING}:
        return Window(Kind(text), zone)
    seconds = duration(text)
    if seconds is None or not SLOTS <= seconds <= _LONGEST:
        raise ValueError(
            "must be hour, day, week, month, total, call, or a rolling length from 60s to 366d "
            "such as 24h"
        )
    return Window(Kind.ROLLING, zone, seconds)


def duration(text: str) -> int | None:
    """The seconds of ``90s``, ``15m``, ``24h`` or ``7d``; None for anything else."""
    read = _DURATION.fullmatch(text)
    return int(read["count"]) * _SECONDS[read["unit"]] if read else None


def _calendar(kind: Kind, zone: str, now: int) -> tuple[int, int]:
    place = UTC if zone == "UTC" else ZoneInfo(zone)  # which a machine may lack
    if kind is Kind.HOUR:
        return _hour(place, now)
    day = _local(place, now).date()
    start, end = _midnight(place, _first(kind, day)), _midnight(place, _next(kind, day))
    if now < end:
        return start, end
    # the clock was set back across midnight: this is still the day after
    return end, _midnight(place, _next(kind, _next(kind, day)))


def _first(kind: Kind, day: date) -> date:
    if kind is Kind.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if kind is Kind.MONTH else day


def _next(kind: Kind, day: date) -> date:
    first = _first(kind, day)
    if kind is Kind.MONTH:
        return (first + timedelta(days=31)).replace(day=1)
    return first + timedelta(days=7 if kind is Kind.WEEK else 1)


@lru_cache(maxsize=4096)
def _midnight(place: tzinfo, day: date) -> int:
    """The first second of a local day. Where a change skips midnight, that of the change."""
    earlier, later = (
        int(datetime.combine(day, time(fold=fold), place).timestamp()) for fold in (0, 1)
    )
    if earlier <= later:  # midnight is once, or twice and the first counts
        return earlier
    return _change(place, later - 1, earlier)  # within a gap PEP 495 turns the two around


def _hour(place: tzinfo, now: int) -> tuple[int, int]:
    local = _local(place, now)
    since = local.minute * 60 + local.second
    start, end = now - since, now - since + _HOUR
    if _offset(place, start) != _offset(place, now):
        start = _change(place, start, now)
    if _offset(place, end - 1) != _offset(place, now):
        end = _change(place, now, end - 1)
    return start, end


def _change(place: tzinfo, before: int, after: int) -> int:
    """The first second in (before, after] at the offset of ``after``; one change lies between."""
    return _bisected(before, after, lambda at: _offset(place, at) == _offset(place, after))


def _bisected(low: int, high: int, holds: Callable[[int], bool]) -> int:
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _local(place: tzinfo, at: int) -> datetime:
    return datetime.fromtimestamp(at, UTC).astimezone(place)


def _offset(place: tzinfo, at: int) -> timedelta | None:
    return _local(place, at).utcoffset()
