"""Words in tones: what is spoken can be read back, also after what audio goes through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from livekit import rtc

from trunkline.doubles import tones

TEXT = "Hello there, it's a fine day to book 42 trips. Jazz quickly vexed bumblebees!"
WORDS = tones.words_of(TEXT)
RATES = (8000, 16000, 22050, 24000, 44100, 48000)
words = st.lists(st.text("abcdefghijklmnopqrstuvwxyz0123456789'", min_size=1, max_size=12))


@given(words, st.sampled_from(RATES))
@settings(max_examples=60)
def test_any_words_come_back(spoken: list[str], rate: int) -> None:
    assert tones.decode(tones.encode(spoken, rate), rate) == spoken


@pytest.mark.parametrize(("source", "target"), [(a, b) for a in RATES for b in RATES if a != b])
def test_resampling_changes_no_word(source: int, target: int) -> None:
    resampler = rtc.AudioResampler(source, target)
    pushed = resampler.push(bytearray(tones.encode(TEXT, source)))
    pcm = b"".join(bytes(frame.data) for frame in [*pushed, *resampler.flush()])
    assert tones.decode(pcm, target) == WORDS


@pytest.mark.parametrize("rate", RATES)
def test_clipping_changes_no_word(rate: int) -> None:
    loud = np.frombuffer(tones.encode(TEXT, rate), "<i2").astype(np.float64) * 4
    assert tones.decode(np.clip(loud, -32768, 32767).astype("<i2").tobytes(), rate) == WORDS


@given(st.integers(0, 19_000))
@settings(max_examples=80)
def test_a_seam_keeps_the_words_after_it_and_shows_the_one_it_cut(cut: int) -> None:
    said = ["hello", "world", "again"]
    pcm = tones.encode(said, 24000)
    heard = tones.decode(pcm[: 2 * cut] + pcm, 24000)
    assert heard[-3:] == said
    assert heard[:-3] in ([*said[:n]] for n in range(4)) or heard[-4].endswith("-")
    assert sum(word.endswith("-") for word in heard) <= 1


def test_times_are_exact() -> None:
    (first, second) = tones.hear(tones.encode("one three", 16000), 16000)
    assert (first.start, first.end) == pytest.approx((0.0, 0.24), abs=0.005)
    assert (second.start, second.end) == pytest.approx((0.25, 0.59), abs=0.005)


def test_a_lost_beginning_and_a_lost_end_are_told() -> None:
    pcm = tones.encode(["hello"], 16000)
    symbol = 2 * 16000 * 50 // 1000
    assert tones.decode(pcm[3 * symbol :], 16000) == ["-llo"]
    assert tones.decode(pcm[: 4 * symbol], 16000) == ["hel-"]
    assert tones.decode(bytes(16000), 16000) == []
