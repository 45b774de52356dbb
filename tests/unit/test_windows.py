"""Windows across daylight saving, month ends and odd zones, against the zone's own wall clock."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.windows import NANOS, Kind, Period, Window, window

ZONES = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",  # changed at midnight until 2019
    "America/Havana",  # changes at midnight and at 1:00
    "America/St_Johns",  # half an hour off; changed at 00:01 until 2011
    "Asia/Kolkata",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Asia/Gaza",
    "Africa/Cairo",
    "Australia/Lord_Howe",  # changes by half an hour
    "Pacific/Chatham",
    "Pacific/Apia",  # left out a whole day in 2011
    "Atlantic/Azores",
]
CALENDAR = [Kind.HOUR, Kind.DAY, Kind.WEEK, Kind.MONTH]
INSTANTS = st.integers(int(datetime(1995, 1, 1).timestamp()), int(datetime(2045, 1, 1).timestamp()))


def local(zone: str, at_ns: int) -> datetime:
    return datetime.fromtimestamp(at_ns // NANOS, UTC).astimezone(ZoneInfo(zone))


def named(kind: Kind, at: datetime) -> tuple[object, ...]:
    """What the wall shows of a period."""
    shown = {
        Kind.HOUR: (at.date(), at.hour, at.utcoffset()),
        Kind.DAY: (at.date(),),
        Kind.WEEK: at.isocalendar()[:2],
        Kind.MONTH: (at.year, at.month),
    }
    return shown[kind]


@given(st.sampled_from(ZONES), st.sampled_from(CALENDAR), INSTANTS)
def test_calendar_periods_are_those_of_the_wall_clock(zone: str, kind: Kind, at: int) -> None:
    wall = Window(kind, zone)
    now = at * NANOS
    period = wall.at(now)
    assert period.end_ns is not None
    assert period.start_ns <= now < period.end_ns
    # the same period wherever in it one asks, and the next begins where it ends
    assert wall.at(period.start_ns) == wall.at(period.end_ns - 1) == period
    assert wall.at(period.end_ns).start_ns == period.end_ns
    assert wall.at(period.start_ns - 1).end_ns == period.start_ns
    # what the wall shows at its start is new, and at its end gone
    first = named(kind, local(zone, period.start_ns))
    assert first != named(kind, local(zone, period.start_ns - NANOS))
    assert first == named(kind, local(zone, now)) or kind is not Kind.HOUR


@pytest.mark.parametrize(
    ("kind", "zone", "at", "start", "hours"),
    [
        (Kind.DAY, "Europe/Berlin", "2026-03-29T12:00Z", "2026-03-28T23:00Z", 23),
        (Kind.DAY, "Europe/Berlin", "2026-10-25T12:00Z", "2026-10-24T22:00Z", 25),
        (Kind.DAY, "Australia/Lord_Howe", "2026-10-03T20:00Z", "2026-10-03T13:30Z", 23.5),
        (Kind.DAY, "Asia/Kolkata", "2026-02-28T19:00Z", "2026-02-28T18:30Z", 24),
        (Kind.DAY, "America/Sao_Paulo", "2018-11-04T12:00Z", "2018-11-04T03:00Z", 23),
        (Kind.DAY, "Pacific/Apia", "2011-12-30T10:00Z", "2011-12-30T10:00Z", 24),
        (Kind.DAY, "America/St_Johns", "2010-11-07T02:40Z", "2010-11-07T02:30Z", 25),
        (Kind.HOUR, "Asia/Kathmandu", "2026-06-01T00:00Z", "2026-05-31T23:15Z", 1),
        (Kind.HOUR, "Europe/Berlin", "2026-10-25T01:30Z", "2026-10-25T01:00Z", 1),
        (Kind.HOUR, "Australia/Lord_Howe", "2026-10-03T15:40Z", "2026-10-03T15:30Z", 0.5),
        (Kind.WEEK, "Europe/Berlin", "2026-03-29T12:00Z", "2026-03-22T23:00Z", 167),
        (Kind.MONTH, "UTC", "2028-02-29T23:59Z", "2028-02-01T00:00Z", 29 * 24),
        (Kind.MONTH, "America/New_York", "2026-11-30T12:00Z", "2026-11-01T04:00Z", 30 * 24 + 1),
    ],
)
def test_known_periods(kind: Kind, zone: str, at: str, start: str, hours: float) -> None:
    now, begins = (int(datetime.fromisoformat(t).timestamp()) * NANOS for t in (at, start))
    period = Window(kind, zone).at(now)
    assert (period.start_ns, period.end_ns) == (begins, begins + int(hours * 3600) * NANOS)
    assert Window(kind, zone).resets_ns(now) == period.end_ns


@given(st.integers(60, 366 * 86400), INSTANTS, st.integers(0, NANOS - 1))
def test_a_rolling_window_forgets_nothing_too_soon(seconds: int, at: int, part: int) -> None:
    rolling = Window(Kind.ROLLING, seconds=seconds)
    now, length = at * NANOS + part, seconds * NANOS
    period = rolling.at(now)
    assert period.end_ns is not None
    assert period.slot_ns <= now < period.end_ns
    resets = rolling.resets_ns(now)
    assert resets is not None
    assert now + length < resets <= now + length + length // 60 + NANOS
    counted = [rolling.at(later).start_ns <= period.slot_ns for later in (now + length, resets)]
    assert counted == [True, False] or (counted == [True, True] and length % 60)


@pytest.mark.parametrize(
    ("text", "kind", "seconds"),
    [
        ("day", Kind.DAY, 0),
        ("call", Kind.CALL, 0),
        ("90s", Kind.ROLLING, 90),
        ("7d", Kind.ROLLING, 604_800),
    ],
)
def test_windows_are_read(text: str, kind: Kind, seconds: int) -> None:
    read = window(text, "Europe/Berlin")
    assert read == Window(kind, "Europe/Berlin", seconds)
    assert str(read) == text


@pytest.mark.parametrize("text", ["", "fortnight", "0h", "-1h", "59s", "367d", "1.5h", "rolling"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a rolling length from 60s to 366d"):
        window(text)


def test_a_machine_without_time_zones_has_utc() -> None:
    zoneinfo.reset_tzpath(to=[])
    ZoneInfo.clear_cache()
    try:
        assert Window(Kind.DAY).at(NANOS) == Period(0, 86400 * NANOS, 0)
        assert Window(Kind.HOUR).at(NANOS).end_ns == 3600 * NANOS
    finally:
        zoneinfo.reset_tzpath()


def test_total_and_call_never_end() -> None:
    for text in ("total", "call"):
        assert window(text).resets_ns(10**18) is None
        assert window(text).at(10**18).slot_ns == 0
