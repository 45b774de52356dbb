"""Recognisers that fail, each through its official plugin: every word once, at its time."""

from __future__ import annotations

from pathlib import Path

import pytest
from listening import (
    BATCH,
    FLUX,
    INK,
    NOVA,
    SCRIBE,
    VENDORS,
    WHISPER,
    WORDS,
    Heard,
    House,
    Vendor,
    speech,
)
from livekit.agents import APIConnectionError

from trunkline.core.models import Quality
from trunkline.doubles import Rule, tones
from trunkline.errors import AllCandidatesFailed

SPEECH = speech()
SPOKEN = tones.hear(SPEECH, 16000)

FAULTS = {
    "refuse": Rule(kind="refuse"),
    "black hole": Rule(kind="black_hole"),
    "401": Rule(kind="unauthorized"),
    "402": Rule(kind="payment_required"),
    "429": Rule(kind="rate_limited"),
    "500": Rule(kind="server_error"),
    "hang": Rule(kind="hang"),
    "hang after the upgrade": Rule(kind="hang_after"),
    "keep-alives only": Rule(kind="keep_alive", every=0.1),
    "die": Rule(kind="die", after=0),
    "die midway": Rule(kind="die", after=3),
    "stall": Rule(kind="stall", after=0),
    "stall midway": Rule(kind="stall", after=3),
    "end": Rule(kind="end", after=0),
    "end midway": Rule(kind="end", after=3),
    "garbage": Rule(kind="garbage", after=0),
    "garbage midway": Rule(kind="garbage", after=3),
    "empty": Rule(kind="empty"),
    "truncate": Rule(kind="truncate", after=3),
}


def whole(heard: Heard) -> None:
    assert heard.error is None, heard.error
    assert heard.words == WORDS
    starts = [start for _, start, _ in heard.times]
    assert starts == sorted(starts)


@pytest.mark.parametrize("vendor", VENDORS, ids=str)
async def test_a_healthy_recogniser_is_billed_what_the_ledger_says(
    tmp_path: Path, vendor: Vendor
) -> None:
    async with House.open(tmp_path, vendor, NOVA) as house:
        heard = await house.hear(SPEECH, flushes=vendor is SCRIBE)
        whole(heard)
        assert house.attempts == [("primary", "ok")]
        assert heard.took_after_end < 5
    padding = 0.3 if vendor is SCRIBE else 0.0  # the plugin fills up what it commits
    billed = house.billed_seconds("primary")
    assert house.heard_seconds("primary") == pytest.approx(billed, abs=0.1 + padding)
    assert house.billed_seconds("backup") == 0


SAMPLE = ("hang after the upgrade", "die midway", "stall midway")
CELLS = [
    pytest.param(
        vendor, name, id=f"{vendor}-{name}", marks=[] if name in SAMPLE else pytest.mark.soak
    )
    for vendor in VENDORS
    for name in FAULTS
    # a batch answer is a single output: it has no middle, and three of them are all there are
    if not (vendor is BATCH and FAULTS[name].after)
]
"""All of them with ``-m soak``."""


@pytest.mark.parametrize(("vendor", "fault"), CELLS)
async def test_every_word_once_whatever_fails(tmp_path: Path, vendor: Vendor, fault: str) -> None:
    backup = NOVA if vendor is not NOVA else FLUX
    async with House.open(tmp_path, vendor, backup, faults=[FAULTS[fault]]) as house:
        heard = await house.hear(SPEECH, flushes=vendor is SCRIBE)
        whole(heard)
        assert heard.marks == "SESESE"
        # a fault that a probe does not meet lets the primary return, and fail again
        assert [name for name, _ in house.attempts][:2] == ["primary", "backup"]
        assert heard.took_after_end < 5
    for name in ("primary", "backup"):
        judge_bill(house, name)


def judge_bill(house: House, name: str) -> None:
    """The ledger against the bill: what was in flight when a connection broke may be missing."""
    mine = [one for one in house.settled if one.attempt.connection == name]
    if all(one.entry.quality is Quality.EXACT for one in mine) and house.attempts[0][1] != (
        "connect_failed"
    ):
        heard = sum(one.entry.usage.audio_in_ns for one in mine) / 1e9
        assert heard == pytest.approx(house.billed_seconds(name), abs=0.6)


@pytest.mark.parametrize("fault", ["refuse", "hang after the upgrade", "500", "garbage", "empty"])
@pytest.mark.parametrize("vendor", [NOVA, INK], ids=str)
async def test_when_both_are_down_one_error_holds_the_causes(
    tmp_path: Path, vendor: Vendor, fault: str
) -> None:
    rules = [FAULTS[fault]]
    async with House.open(tmp_path, vendor, FLUX, faults=rules, backup_faults=rules) as house:
        heard = await house.hear(SPEECH)
    assert isinstance(heard.error, APIConnectionError)
    causes = heard.error.__cause__
    assert isinstance(causes, AllCandidatesFailed)
    assert len(causes.causes) >= 2
    assert heard.words == []


@pytest.mark.parametrize("second", ["die midway", "stall midway", "end midway"])
@pytest.mark.parametrize("first", ["die midway", "stall midway"])
async def test_a_second_fault_while_the_first_is_mended(
    tmp_path: Path, first: str, second: str
) -> None:
    """The backup dies too, and once more; then it goes on by itself."""
    rules = [Rule(kind=FAULTS[second].kind, after=3, nth=(1,))]
    async with House.open(
        tmp_path, INK, NOVA, faults=[FAULTS[first]], backup_faults=rules, third=FLUX
    ) as house:
        heard = await house.hear(SPEECH)
    whole(heard)
    # a probe may find the first one well again before the end
    assert [name for name, _ in house.attempts][:3] == ["primary", "backup", "third"]


async def test_the_next_call_goes_to_the_backup_at_once(tmp_path: Path) -> None:
    async with House.open(tmp_path, NOVA, FLUX, faults=[FAULTS["401"]]) as house:
        await house.hear(SPEECH)
        before = len(house.attempts)
        whole(await house.hear(SPEECH))
        assert house.attempts[before:] == [("backup", "ok")]


@pytest.mark.parametrize("fault", ["die midway", "stall midway", "hang after the upgrade"])
@pytest.mark.parametrize("vendor", [NOVA, INK, WHISPER], ids=str)
async def test_the_end_of_the_input_during_the_replay(
    tmp_path: Path, vendor: Vendor, fault: str
) -> None:
    """All the audio is there at once, and the end with it, when the first one fails."""
    async with House.open(tmp_path, vendor, FLUX, faults=[FAULTS[fault]]) as house:
        house.faster = 1000.0
        heard = await house.hear(SPEECH)
    whole(heard)
    assert heard.took_after_end < 5


@pytest.mark.parametrize("milliseconds", [10, 20, 30, 50, 100])
async def test_the_boundary_of_a_commit_is_a_sample(tmp_path: Path, milliseconds: float) -> None:
    """The first final ends inside a frame; neither its last word nor the next is heard twice."""
    rule = Rule(kind="die", after=7)
    async with House.open(tmp_path, NOVA, FLUX, faults=[rule]) as house:
        heard = await house.hear(speech(pause=0.07), milliseconds=milliseconds)
    whole(heard)
    assert [name for name, _ in house.attempts][:2] == ["primary", "backup"]
    assert house.billed_seconds("backup") < len(SPEECH) / 32000 - 1.0


@pytest.mark.parametrize("vendor", [FLUX, NOVA, WHISPER, SCRIBE], ids=str)
async def test_times_count_from_the_start_of_the_call(tmp_path: Path, vendor: Vendor) -> None:
    """Also those of a candidate that heard only the rest of it."""
    rule = Rule(kind="die", after=9)
    primary = NOVA if vendor is not NOVA else FLUX
    async with House.open(tmp_path, primary, vendor, faults=[rule]) as house:
        heard = await house.hear(SPEECH, flushes=vendor is SCRIBE)
    whole(heard)
    assert len(house.attempts) == 2
    spoken = {word.text: word.start for word in SPOKEN}
    for word, start, end in heard.times:
        assert start == pytest.approx(spoken[word], abs=0.06), word
        assert end > start
