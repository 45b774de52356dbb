"""A recording as recognisers take it: any container of audio, to 16 kHz mono."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import numpy as np
from livekit import rtc

from ..errors import BadAudio
from ..runtime.audio import SILENCE_PEAK
from ..runtime.meter import audio_ns

RATE = 16000
"""What recognisers listen at."""

LONGEST_SECONDS = 1800
"""A small file can hold hours. This much is 58 MB once it is decoded."""

Samples = np.ndarray[tuple[int], np.dtype[np.int16]]

_FRAME = RATE // 10
_WINDOW = RATE // 50
_WINDOW_NS = 20_000_000
_HEARING_NS = 60_000_000_000
_FORMATS = (
    "wav,w64,aiff,au,caf,mp3,aac,flac,ogg,matroska,webm,mov,mp4,m4a,3gp,amr,asf,avi,flv,mpeg,"
    "mpegts,ac3,eac3,wv,tta"
)
"""FFmpeg's names of files that hold audio. It also knows playlists, which open other files."""


class Recording:
    """16-bit samples at RATE, mono. Positions are nanoseconds from its beginning."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._loud: np.ndarray[tuple[int], np.dtype[np.bool_]] | None = None
        self.pushed_ns = audio_ns(len(samples), RATE)

    @property
    def seconds(self) -> float:
        return len(self._samples) / RATE

    def pieces(self, since_ns: int, until_ns: int | None = None) -> Iterator[rtc.AudioFrame]:
        """The audio between two positions in frames of 100 ms."""
        end = len(self._samples) if until_ns is None else _sample(until_ns)
        for at in range(_sample(since_ns), end, _FRAME):
            piece = self._samples[at : min(at + _FRAME, end)]
            yield rtc.AudioFrame(piece.tobytes(), RATE, 1, len(piece))

    def loud_ns(self, since_ns: int) -> int:
        """How much of what comes after ``since_ns`` is louder than silence."""
        return int(self._windows()[-(-since_ns // _WINDOW_NS) :].sum()) * _WINDOW_NS

    def frames(self, since_ns: int) -> list[rtc.AudioFrame]:
        """A minute from the first sound after ``since_ns`` on, to find out whether it is speech."""
        loud = np.flatnonzero(self._windows()[since_ns // _WINDOW_NS :])
        if not loud.size:
            return []
        start = since_ns + int(loud[0]) * _WINDOW_NS
        return list(self.pieces(start, min(start + _HEARING_NS, self.pushed_ns)))

    def _windows(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Whether each 20 ms are louder than silence."""
        if self._loud is None:
            whole = self._samples[: len(self._samples) // _WINDOW * _WINDOW].reshape(-1, _WINDOW)
            self._loud = np.asarray(
                (whole.max(axis=1) > SILENCE_PEAK) | (whole.min(axis=1) < -SILENCE_PEAK)
            )
        return self._loud


def decoded(file: bytes) -> Recording:
    """Read a file of any format that holds audio. Raises BadAudio. Takes time: for a thread."""
    parts: list[Samples] = []
    samples = 0
    for part in _decoded(file):
        parts.append(part)
        samples += len(part)
        if samples > LONGEST_SECONDS * RATE:
            raise BadAudio(f"the recording is longer than {LONGEST_SECONDS // 60} minutes")
    if samples < _WINDOW:
        raise BadAudio("the recording is empty")
    return Recording(np.concatenate(parts))


def _decoded(file: bytes) -> Iterator[Samples]:
    try:
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
        with av.open(io.BytesIO(file), "r", options=options) as container:
            if not container.streams.audio:
                raise BadAudio("the file holds no audio")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=RATE)
            for frame in container.decode(audio=0):
                yield from map(_samples, resampler.resample(frame))
            yield from map(_samples, resampler.resample(None))
    except (av.FFmpegError, ValueError, OSError):  # what broken bytes become in PyAV
        raise BadAudio("the file is no recording that can be read") from None


def _samples(frame: av.AudioFrame) -> Samples:
    return frame.to_ndarray().reshape(-1).astype(np.int16, copy=False)


def _sample(position_ns: int) -> int:
    return position_ns * RATE // 1_000_000_000
