"""One rate for a whole stream, whoever speaks in it."""

from __future__ import annotations

import numpy as np
import pytest
from livekit import rtc

from trunkline.runtime.audio import Resampler

OLD, NEW = 8000, 20000
"""Levels that tell two voices apart."""


def _frames(level: int, rate: int) -> list[rtc.AudioFrame]:
    samples = rate // 10
    return [rtc.AudioFrame(np.full(samples, level, np.int16).tobytes(), rate, 1, samples)] * 3


@pytest.mark.parametrize("rates", [(16000, 24000), (16000, 48000), (24000, 16000), (8000, 8000)])
def test_what_a_voice_left_is_heard_before_the_next_voice(rates: tuple[int, int]) -> None:
    resampler = Resampler(24000)
    pushed = [*_frames(OLD, rates[0]), *_frames(NEW, rates[1])]
    out = [sent for frame in pushed for sent in resampler.push(frame)] + list(resampler.flush())
    audio = np.concatenate([np.frombuffer(frame.data, np.int16) for frame in out])
    assert len(audio) == pytest.approx(0.6 * 24000, abs=240)
    body = audio[:-480]  # the end of the last one is faded by the filter
    changes = np.flatnonzero(np.diff((body > (OLD + NEW) // 2).astype(int)))
    assert len(changes) == 1
    assert changes[0] == pytest.approx(0.3 * 24000, abs=240)
