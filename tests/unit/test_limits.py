"""Rates against a plain model of them: what fits, when, and that nothing is let through twice."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.limits import Rate

SECOND = 1_000_000_000
RATES = st.builds(
    lambda amount, seconds, burst: Rate(amount, seconds * SECOND, burst),
    st.integers(1, 10**9),
    st.integers(1, 86400),
    st.integers(1, 10**9),
)
ARRIVALS = st.lists(st.tuples(st.integers(0, 100 * SECOND), st.integers(1, 10**6)), max_size=50)


@given(RATES, ARRIVALS)
def test_no_time_lets_more_pass_than_the_burst_and_the_rate(
    rate: Rate, arrivals: list[tuple[int, int]]
) -> None:
    now = tat = 10**18
    passed: list[tuple[int, int]] = []
    for pause, units in arrivals:
        now += pause
        if rate.wait(tat, now, units) == 0:
            assert units <= rate.left(tat, now)
            tat = rate.taken(tat, now, units)
            passed.append((now, units))
    for first, (since, _) in enumerate(passed):
        for last in range(first, len(passed)):
            units = sum(n for _, n in passed[first : last + 1])
            elapsed = passed[last][0] - since
            assert units <= rate.burst + elapsed * rate.amount // rate.window_ns + 1


@given(RATES, st.integers(0, 10**18), st.integers(1, 10**6))
def test_after_the_wait_it_fits_and_not_before(rate: Rate, ahead: int, units: int) -> None:
    now = 10**18
    wait = rate.wait(now + ahead, now, units)
    if units <= rate.burst:
        assert rate.wait(now + ahead, now + wait, units) == 0
    if wait:
        assert rate.wait(now + ahead, now + wait - 1, units) > 0


@given(RATES, st.integers(0, 10**15), st.integers(1, 10**6))
def test_what_is_given_back_is_there_again_but_never_more(
    rate: Rate, ahead: int, units: int
) -> None:
    now = 10**18
    tat = now + ahead
    back = rate.taken(rate.taken(tat, now, units), now, -units)
    assert tat <= back <= tat + 1


@given(RATES, st.integers(1, 1000), st.integers(1, 10**9))
def test_a_slice_is_what_is_needed_or_a_small_part(rate: Rate, units: int, left: int) -> None:
    taken = rate.slice_of(units, left)
    assert taken == units or units < taken <= left // 16
