"""What belongs to which turn, what counts as answered, and how the parts relate to the whole."""

from __future__ import annotations

from trunkline.core.turns import Heard, Said, Turn, anatomy


def turns(
    heard: list[Heard],
    said: list[Said],
    spoken: tuple[tuple[int, int], ...] = (),
    silent: tuple[int, ...] = (),
) -> list[Turn]:
    """``silent``: starts of answers that cannot be heard."""
    return anatomy(heard, said, audible=lambda start, _: start not in silent, spoken=spoken)


def test_an_answer_belongs_to_the_turn_before_it() -> None:
    heard = [Heard("one", 0, 1000), Heard("two", 5000, 6000)]
    said = [Said("first", 1500, 3000), Said("more", 3200, 4000), Said("second", 6500, 7000)]
    assert [(t.caller, t.agent, t.answered) for t in turns(heard, said)] == [
        ("one", "first more", True),
        ("two", "second", True),
    ]


def test_an_answer_without_sound_is_none() -> None:
    (turn,) = turns([Heard("one", 0, 1000)], [Said("first", 1500, 3000)], silent=(1500,))
    assert not turn.answered


def test_an_interrupted_turn_needs_an_answer_to_what_interrupted_it() -> None:
    heard = [Heard("one", 0, 1000), Heard("wait", 2000, 3000)]
    cut = Said("fir", 1500, 2500, interrupted=True)
    both = turns(heard, [cut, Said("yes", 3500, 4000)])
    assert [(t.answered, t.interrupted) for t in both] == [(True, True), (True, False)]
    assert [t.answered for t in turns(heard, [cut])] == [False, False]
    assert [t.answered for t in turns(heard[:1], [cut])] == [False]
    mute = turns(heard, [cut, Said("yes", 3500, 4000)], silent=(1500,))
    assert [t.answered for t in mute] == [False, True]


def test_a_caller_who_goes_on_before_the_agent_spoke_is_in_the_same_turn() -> None:
    heard = [Heard("one", 0, 1000, eou_ms=300), Heard("more", 2000, 3000, eou_ms=500)]
    (turn,) = turns(heard, [Said("both", 3600, 4000)])
    assert (turn.caller, turn.started_ms, turn.stopped_ms) == ("one more", 0, 3000)
    assert (turn.eou_ms, turn.answered) == (500, True)


def test_a_caller_left_without_an_answer_begins_a_new_turn() -> None:
    heard = [Heard("one", 0, 1000), Heard("two", 4000, 5000)]
    assert [t.answered for t in turns(heard, [Said("two!", 5500, 6000)])] == [False, True]


def test_words_that_nobody_heard_are_a_turn_that_was_not_answered() -> None:
    heard = [Heard("one", 0, 1000), Heard("three", 4000, 9000)]
    said = [Said("first", 1500, 3000), Said("third", 9500, 9900)]
    spoken = ((0, 1100), (4000, 5000), (8000, 8900))
    found = turns(heard, said, spoken)
    assert [(t.caller, t.answered) for t in found] == [
        ("one", True),
        ("three", True),
        ("", False),
    ]


def test_the_greeting_belongs_to_no_turn() -> None:
    (turn,) = turns([Heard("one", 2000, 3000)], [Said("hello", 0, 1500), Said("one!", 3500, 4000)])
    assert turn.agent == "one!"


def test_parts_side_by_side_overlap_and_the_rest_is_other() -> None:
    heard = [Heard("one", 0, 1000, eou_ms=600, stt_ms=400)]
    measured = {"ttft_ms": 300, "ttfb_ms": 100}
    (overlapping,) = turns(heard, [Said("a", 1800, 2000, e2e_ms=800, **measured)])
    assert (overlapping.overlap_ms, overlapping.other_ms) == (200, 0)
    (waiting,) = turns(heard, [Said("a", 2500, 2600, e2e_ms=1500, **measured)])
    assert (waiting.overlap_ms, waiting.other_ms) == (0, 500)
    (unknown,) = turns(heard, [])
    assert (unknown.e2e_ms, unknown.overlap_ms, unknown.other_ms) == (None, None, None)
    assert (unknown.eou_ms, unknown.stt_ms) == (600, 400)
