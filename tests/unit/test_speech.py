"""Where a voice is in its text: pace, timings, and what cannot have been spoken."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trunkline.core.speech import Alignment, Pace, Script, holds_sentence, resume_at

TEXT = "Your room is ready. Breakfast starts at seven, and the key is at the front desk."


def script(text: str) -> Script:
    made = Script()
    made.push(text)
    return made


@given(st.text(min_size=1), st.data())
def test_length_and_position_are_inverse(text: str, data: st.DataObject) -> None:
    made = script(text)
    at = data.draw(st.integers(0, len(text)))
    reached = made.reached(0, made.length(0, at))
    assert made.length(0, int(reached)) == made.length(0, at)
    assert 0 <= reached <= len(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("Good evening.", False),
        ("Good evening. Your table", False),
        ("Good evening to you all.", False),
        ("Good evening to you all. Your", False),
        ("Good evening to you all. Your table is", True),
        ("Yes. No. Well, I think so. Your table is", True),
        ("?!.. ?!.. ?!.. ?!.. ?!.. ?!.. ?!..", False),
    ],
)
def test_a_sentence_is_given_to_a_voice_once_the_next_has_begun(text: str, holds: bool) -> None:
    assert holds_sentence(text) is holds


@given(st.lists(st.text(max_size=9), max_size=5))
def test_pieces_are_as_long_as_the_whole(pieces: list[str]) -> None:
    made = Script()
    for piece in pieces:
        made.push(piece)
    whole = script("".join(pieces))
    assert made.text == whole.text
    assert made.length(0, len(made.text)) == whole.length(0, len(whole.text))


@pytest.mark.parametrize(
    ("shorter", "longer"),
    [
        ("call five five five", "call 555 555 555"),
        ("one two three four", "one. two. three. four"),
        ("hello", "你好吗"),
    ],
)
def test_what_takes_longer_to_say_is_longer(shorter: str, longer: str) -> None:
    first, second = script(shorter), script(longer)
    assert first.length(0, len(shorter)) < second.length(0, len(longer))


@given(st.floats(0, len(TEXT)))
def test_no_word_is_lost_and_only_the_cut_one_said_again(spoken: float) -> None:
    at = resume_at(TEXT, spoken)
    words = list(re.finditer(r"\S+", TEXT))
    # half a letter is no loss
    assert not [word for word in words if word.start() < at and word.end() > spoken + 0.5]
    assert sum(at <= word.start() < spoken for word in words) <= 1


def measured(text: str, seconds: float) -> Pace:
    pace = Pace()
    made = script(text)
    pace.learn(made.length(0, len(text)), seconds)
    return pace


@pytest.mark.parametrize(
    ("seconds", "short"), [(5.0, False), (4.0, False), (2.0, True), (0.5, True)]
)
def test_half_a_text_is_known_for_half(seconds: float, short: bool) -> None:
    made = script(TEXT)
    pace = measured(TEXT, 5.0)
    assert pace.falls_short(made.length(0, len(TEXT)), seconds) is short


def test_nothing_is_judged_before_a_voice_is_measured_nor_by_a_word() -> None:
    assert not Pace().falls_short(100, 0.1)
    assert not measured(TEXT, 5.0).falls_short(5, 0.01)
    assert not measured("Hello.", 3.0).measured


def test_a_slow_text_makes_no_later_one_look_cut() -> None:
    slow = measured("Your number is 1 800 555 0199, your code is 4711 0815.", 14.0)
    made = script(TEXT)
    assert not slow.falls_short(made.length(0, len(TEXT)), 5.0)


def aligned(text: str, until: int, seconds_a_word: float = 0.3) -> Alignment:
    timings = Alignment(script(text), 0)
    for number, word in enumerate(text.split()[:until]):
        start = number * seconds_a_word
        timings.add(word, start, start + seconds_a_word)
    return timings


def test_timings_say_which_word_was_cut() -> None:
    timings = aligned(TEXT, 16)
    assert resume_at(TEXT, timings.spoken(0.7, Pace())) == TEXT.index("is ready")


def test_timings_that_stop_early_and_timings_that_outlast_the_audio() -> None:
    pace = measured(TEXT, 16 * 0.3)
    assert aligned(TEXT, 8).stops_early(8 * 0.3, pace)
    assert not aligned(TEXT, 16).stops_early(16 * 0.3, pace)
    assert aligned(TEXT, 16).outlasts(16 * 0.3 / 2)
    assert not aligned(TEXT, 16).outlasts(16 * 0.3)
