"""Audio arithmetic on 16-bit PCM frames: loudness and one rate for a whole stream."""

from __future__ import annotations

import wave
from collections.abc import Iterator

import numpy as np
from livekit import rtc

from ..errors import BadAudio

SILENCE_PEAK = 200
"""Peaks up to this of 32767 (about -44 dBFS) are silence: comfort noise and dither stay below."""


_PROBES = 8

_PCM = np.dtype(np.int16)
_DISTANCE = np.dtype(np.uint16)


def peak(frame: rtc.AudioFrame) -> int:
    """The largest distance of a sample of ``frame`` from zero, 0 to 32768."""
    samples = frame.data
    if not samples:
        return 0
    # unsigned, because the largest distance, 32768, is no signed sample
    distances = np.abs(np.frombuffer(samples, _PCM)).view(_DISTANCE)
    return int(distances[distances.argmax()])


def is_silent(frame: rtc.AudioFrame) -> bool:
    """Whether no sample of ``frame`` rises over the silence floor.

    Sound shows in a few samples, so that only silence is looked at whole.
    """
    samples = frame.data
    for sample in samples[:: len(samples) // _PROBES + 1]:
        if not -SILENCE_PEAK <= sample <= SILENCE_PEAK:
            return False
    return peak(frame) <= SILENCE_PEAK


def silence(rate: int) -> rtc.AudioFrame:
    """10 ms of silence at ``rate`` Hz, mono: the frame that ends a segment after its audio."""
    samples = rate // 100
    return rtc.AudioFrame(bytes(2 * samples), rate, 1, samples)


def read_clip(path: str, rate: int) -> list[rtc.AudioFrame]:
    """A recording as frames of 100 ms at ``rate`` Hz, mono. Raises BadAudio.

    ``path`` is a WAV file of 16-bit samples, of any rate and number of channels.
    """
    try:
        with wave.open(path, "rb") as file:
            if file.getsampwidth() != 2:
                raise BadAudio(f"{path}: {8 * file.getsampwidth()}-bit samples: give 16-bit ones")
            read_rate, channels = file.getframerate(), file.getnchannels()
            data = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise BadAudio(f"{path}: not a WAV file that can be read ({error})") from None
    step = read_rate // 10
    resampler = Resampler(rate)
    frames: list[rtc.AudioFrame] = []
    for at in range(0, len(data), 2 * channels * step):
        part = data[at : at + 2 * channels * step]
        samples = len(part) // (2 * channels)
        frames.extend(resampler.push(rtc.AudioFrame(part, read_rate, channels, samples)))
    frames.extend(resampler.flush())
    if not frames:
        raise BadAudio(f"{path}: the recording is empty")
    return frames


def loudness(rate: int) -> rtc.AudioFrame:
    """10 ms of a loud click at ``rate`` Hz, mono: audio that is not silence."""
    samples = rate // 100
    return rtc.AudioFrame(b"\x00\x20" * samples, rate, 1, samples)


class Resampler:
    """Brings frames of any rate and channel count to one rate, mono; frames already so pass."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._resampler: rtc.AudioResampler | None = None
        self._input_rate = 0

    def passes(self, frame: rtc.AudioFrame) -> bool:
        """Whether ``push`` would give ``frame`` as it is, and nothing before it."""
        return (
            self._resampler is None and frame.sample_rate == self._rate and frame.num_channels == 1
        )

    def push(self, frame: rtc.AudioFrame) -> Iterator[rtc.AudioFrame]:
        """Frames at the stream's rate for ``frame``; the first may come some milliseconds late."""
        if frame.num_channels > 1:
            frame = _mono(frame)
        if frame.sample_rate == self._rate:
            yield from self.flush()
            yield frame
            return
        if self._resampler is None or self._input_rate != frame.sample_rate:
            yield from self.flush()
            self._input_rate = frame.sample_rate
            self._resampler = rtc.AudioResampler(frame.sample_rate, self._rate)
        yield from self._resampler.push(frame)

    def flush(self) -> Iterator[rtc.AudioFrame]:
        """The rest held back; afterwards the next frame begins a new stream."""
        if self._resampler is not None:
            yield from self._resampler.flush()
            self._resampler = None


def _mono(frame: rtc.AudioFrame) -> rtc.AudioFrame:
    samples = np.frombuffer(frame.data, dtype=np.int16).reshape(-1, frame.num_channels)
    mixed = samples.mean(axis=1).astype(np.int16)
    return rtc.AudioFrame(mixed.tobytes(), frame.sample_rate, 1, len(mixed))
