"""Windows across daylight saving, month ends and odd zones, against the zone's own wall clock."""

from __future__ import annotations

import struct
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
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
SINCE, UNTIL = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (1995, 2045))
INSTANTS = st.integers(SINCE, UNTIL)


@cache
def changes(zone: str) -> list[int]:
    """The first seconds at which the clocks of ``zone`` show another offset."""
    place, found, step = ZoneInfo(zone), [], 6 * 86400

    def offset(at: int) -> object:
        return datetime.fromtimestamp(at, UTC).astimezone(place).utcoffset()

    for before in range(SINCE, UNTIL, step):
        low, high = before, before + step
        while high - low > 1 and offset(low) != offset(high):
            middle = (low + high) // 2
            low, high = (middle, high) if offset(middle) == offset(low) else (low, middle)
        if high < before + step or offset(low) != offset(high):
            found.append(high)
    return found


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, int]:
    """A zone and an instant in it, every other time within a day and a half of a change."""
    zone = draw(st.sampled_from(ZONES))
    if draw(st.booleans()) and changes(zone):
        return zone, draw(st.sampled_from(changes(zone))) + draw(st.integers(-130_000, 130_000))
    return zone, draw(INSTANTS)


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


@given(moments(), st.sampled_from(CALENDAR))
def test_calendar_periods_are_those_of_the_wall_clock(moment: tuple[str, int], kind: Kind) -> None:
    zone, at = moment
    wall = Window(kind, zone)
    now = at * NANOS
    period = wall.at(now)
    assert period.end_ns is not None
    assert period.start_ns <= now < period.end_ns
    # the same period wherever in it one asks, and the next begins where it ends
    assert wall.at(period.start_ns) == wall.at(period.end_ns - 1) == period
    assert wall.at(period.end_ns).start_ns == period.end_ns
    assert wall.at(period.start_ns - 1).end_ns == period.start_ns
    # what the wall shows at its start is new, and what it shows throughout is of that, or, where
    # the clock was set back across midnight, once more of what was before
    first = named(kind, local(zone, period.start_ns))
    before = named(kind, local(zone, period.start_ns - NANOS))
    assert first != before
    assert named(kind, local(zone, now)) in ((first,) if kind is Kind.HOUR else (first, before))
    # it begins on the wall as its kind does, unless a change has put the clock past that
    wall_start = local(zone, period.start_ns)
    if period.start_ns // NANOS not in changes(zone):
        assert (wall_start.minute, wall_start.second) == (0, 0)
        assert kind is Kind.HOUR or wall_start.hour == 0
        assert kind is not Kind.WEEK or wall_start.weekday() == 0
        assert kind is not Kind.MONTH or wall_start.day == 1


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
        (Kind.HOUR, "Australia/Lord_Howe", "2026-04-04T15:10Z", "2026-04-04T15:00Z", 0.5),
        # a change within an hour: it ends there, and the next begins
        (Kind.HOUR, "America/St_Johns", "2010-03-14T03:30:59Z", "2010-03-14T03:30Z", 1 / 60),
        (Kind.HOUR, "America/St_Johns", "2010-03-14T03:31Z", "2010-03-14T03:31Z", 59 / 60),
        (Kind.DAY, "Africa/Cairo", "2026-04-24T12:00Z", "2026-04-23T22:00Z", 23),
        (Kind.DAY, "Africa/Cairo", "2026-10-29T20:30Z", "2026-10-28T21:00Z", 25),
        (Kind.DAY, "Asia/Beirut", "2026-03-29T12:00Z", "2026-03-28T22:00Z", 23),
        (Kind.MONTH, "Asia/Beirut", "2026-10-01T00:00Z", "2026-09-30T21:00Z", 31 * 24 + 1),
        (Kind.WEEK, "America/Sao_Paulo", "2018-11-04T12:00Z", "2018-10-29T03:00Z", 167),
        (Kind.MONTH, "UTC", "2100-02-28T23:59Z", "2100-02-01T00:00Z", 28 * 24),
        (Kind.WEEK, "UTC", "2026-12-31T12:00Z", "2026-12-28T00:00Z", 168),
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


@pytest.fixture
def zones(tmp_path: Path) -> Iterator[Path]:
    """A machine that knows only the zones in this directory."""
    zoneinfo.reset_tzpath(to=[str(tmp_path)])
    ZoneInfo.clear_cache()
    yield tmp_path
    zoneinfo.reset_tzpath()
    ZoneInfo.clear_cache()


def test_a_machine_without_time_zones_has_utc(zones: Path) -> None:
    assert Window(Kind.DAY).at(NANOS) == Period(0, 86400 * NANOS, 0)
    assert Window(Kind.HOUR).at(NANOS).end_ns == 3600 * NANOS


def test_a_day_begins_with_the_change_that_skips_its_midnight(zones: Path) -> None:
    """No zone has had such a change since 1970; governments are free to make one."""
    head = b"TZif2" + bytes(15) + struct.pack(">6I", 0, 0, 0, 0, 1, 1)
    data = struct.pack(">iBB", 0, 0, 0) + b"\0"
    # an hour on at 23:30 of the last Sunday of March, back in October
    (zones / "Skips").write_bytes((head + data) * 2 + b"\nA0B,M3.5.0/23:30,M10.5.0\n")
    change = int(datetime.fromisoformat("2026-03-29T23:30Z").timestamp()) * NANOS
    assert local("Skips", change).isoformat() == "2026-03-30T00:30:00+01:00"
    assert Window(Kind.DAY, "Skips").at(change - NANOS).end_ns == change
    assert Window(Kind.DAY, "Skips").at(change + NANOS).start_ns == change


def test_total_and_call_never_end() -> None:
    for text in ("total", "call"):
        assert window(text).resets_ns(10**18) is None
        assert window(text).at(10**18).slot_ns == 0
