"""A quick sample of the matrix; the whole of it is ``make matrix``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from trunkline.doubles import tones

from . import misbehaving
from .cells import BARGE_INS, Play
from .column import Column, compare
from .columns import COLUMNS
from .ears import Ears
from .faults import FAULTS, Fault
from .judge import Cell

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMING_SLACK = 0.15
"""Seconds: a test run has the machine not to itself."""
PLAYS = 2


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def matrix(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Play]:
    place: Path = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(place))
        misbehaving.install(place)
        async with Play.open() as play:
            yield play


def column(name: str) -> Column:
    return next(one for one in COLUMNS if str(one) == name)


def row(name: str, fault: str) -> tuple[Column, Fault]:
    chosen = column(name)
    return chosen, next(one for one in FAULTS[chosen.modality] if one.name == fault)


async def right(play: Callable[[], Awaitable[list[Cell]]]) -> None:
    """Play cells, twice if need be: a busy machine can make a backup miss its deadline, too."""
    for _ in range(PLAYS):
        short = {
            cell.situation: cell
            for cell in await play()
            if cell.problems or cell.late - cell.machine > TIMING_SLACK
        }
        if not short:
            return
    pytest.fail(str(short))


OUTAGES = [
    ("llm our client", "hang"),
    ("llm our client", "401"),
    ("llm our client", "empty"),
    ("llm our client", "die midway"),
    ("llm openai", "ignores its timeout"),
    ("llm openai", "end midway"),
    ("tts cartesia", "die midway"),
    ("tts deepgram", "truncate"),
    ("tts deepgram", "drip, below real time"),
    ("tts openai", "end midway"),
    ("stt deepgram flux", "hang after headers"),
    ("stt cartesia ink-whisper", "die midway"),
    ("stt deepgram flux", "end midway"),
    ("stt openai", "raises a bug"),
]


@pytest.mark.parametrize(("name", "fault"), OUTAGES, ids=[" ".join(one) for one in OUTAGES])
async def test_an_outage_is_paid_for_once_and_by_nobody_else(
    matrix: Play, name: str, fault: str
) -> None:
    await matrix.warm_up(column(name))
    await right(lambda: matrix.outage(*row(name, fault)))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("llm our client", "keep-alives only"),
        ("tts cartesia", "stall midway"),
        ("stt cartesia ink", "stall midway"),
    ],
)
async def test_a_second_fault_and_an_outage_of_all_are_survived(
    matrix: Play, name: str, fault: str
) -> None:
    chosen = row(name, fault)

    async def both() -> list[Cell]:
        return [await matrix.second_fault(*chosen), await matrix.both_down(*chosen)]

    await right(both)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("stt cartesia ink", "hang"),
        ("stt cartesia ink-whisper", "truncate"),
        ("stt deepgram nova", "500"),
    ],
)
async def test_a_recogniser_hears_all_again_when_the_input_has_ended(
    matrix: Play, name: str, fault: str
) -> None:
    ears, struck = row(name, fault)
    assert isinstance(ears, Ears)

    async def replayed() -> list[Cell]:
        return [await matrix.end_during_replay(ears, struck)]

    await right(replayed)


@pytest.mark.parametrize("name", ["llm our client", "tts deepgram", "stt deepgram flux"])
async def test_a_barge_in_blames_nobody_and_is_over_at_once(matrix: Play, name: str) -> None:
    async def moments() -> list[Cell]:
        return [await matrix.barge_in(column(name), one) for one in BARGE_INS]

    await right(moments)


@pytest.mark.parametrize(
    ("heard", "lost", "again"),
    [
        ("a b c d", 0, 0),
        ("a b d", 1, 0),
        ("a b b c d", 0, 1),
        ("a b c d a b c d", 0, 4),
        ("", 4, 0),
    ],
)
async def test_the_judge_counts_words(heard: str, lost: int, again: int) -> None:
    assert compare(["a", "b", "c", "d"], heard.split()) == (lost, again)


async def test_the_judge_counts_a_caller_s_words_and_seconds() -> None:
    ears = column("stt deepgram nova")
    heard = [*ears.expected[:1], *ears.expected[2:], ears.expected[2], "-ning"]
    assert ears.compare(heard) == (1, 2)
    assert ears.seconds_lost(heard) == pytest.approx(tones.duration(ears.expected[1]), abs=0.05)


async def test_the_judge_holds_no_lateness_of_the_machine_against_a_cell() -> None:
    assert Cell("first call", late=0.07).shortfall
    assert not Cell("first call", late=0.07, machine=0.03).shortfall
