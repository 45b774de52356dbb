"""Recognisers by their official plugins: billed as the ledger says, cut to the sample, on time.

What becomes of each fault is the fault matrix (``tests/matrix``).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from listening import (
    FLUX,
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

import trunkline
from trunkline.doubles import Pace, Rule, tones

SPEECH = speech()
SPOKEN = tones.hear(SPEECH, 16000)


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
    dies, stays_ill = Rule(kind="die", after=9, nth=(1,)), Rule(kind="server_error")
    primary = NOVA if vendor is not NOVA else FLUX
    async with House.open(tmp_path, primary, vendor, faults=[dies, stays_ill]) as house:
        heard = await house.hear(SPEECH, flushes=vendor is SCRIBE)
    whole(heard)
    assert len(house.attempts) == 2
    spoken = {word.text: word.start for word in SPOKEN}
    for word, start, end in heard.times:
        assert start == pytest.approx(spoken[word], abs=0.06), word
        assert end > start


@pytest.mark.parametrize("vendor", [NOVA, SCRIBE], ids=str)
async def test_a_loss_is_told_also_when_the_input_is_over(tmp_path: Path, vendor: Vendor) -> None:
    """No deadline has to pass for it: the plugins tell of it while their input is open."""
    rule, later = Rule(kind="die", after=3), Pace(first=0.5)
    async with House.open(tmp_path, vendor, FLUX, faults=[rule], pace=later) as house:
        whole(await house.hear(SPEECH, faster=1000.0))
        outcomes = [outcome for _, outcome in house.attempts]
    assert outcomes in (["stream_cut", "ok"], ["connect_failed", "ok"])


async def test_a_recogniser_that_never_ends_is_found_well_by_its_words(tmp_path: Path) -> None:
    """A click tells nothing of Scribe: it is asked what the caller says meanwhile."""
    back: list[object] = []
    async with House.open(tmp_path, SCRIBE, NOVA, faults=[Rule(kind="server_error")]) as house:
        whole(await house.hear(SPEECH, flushes=True))
        house.doubles["primary"].heal()
        stop = trunkline.on("recovered", back.append)
        for _ in range(10):
            whole(await house.hear(SPEECH, flushes=True))
            if back:
                break
        stop()
    assert back
    outcomes = [one.attempt.outcome for one in house.settled if one.attempt.purpose == "probe"]
    assert outcomes[-1] == "ok"
    assert "first_content_timeout" not in outcomes
