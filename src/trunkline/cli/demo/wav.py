"""WAV files in and out: any readable recording becomes 16 kHz mono, a call becomes stereo.

The reader walks the RIFF chunks itself because the standard library's ``wave`` knows neither
WAVE_FORMAT_EXTENSIBLE (Python 3.11) nor floating point, and takes a truncated file for a short one.
Format codes: Microsoft "Multiple channel audio data and WAVE files", ksmedia.h.
"""

from __future__ import annotations

import math
import os
import struct
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ...errors import BadAudio

SAMPLE_RATE = 16_000
"""Hz of every sample array here: mono, 16 bit."""

NOISE_FLOOR_DBFS = -50.0
"""Audio whose 20 ms blocks stay below this level counts as silence."""

Samples = npt.NDArray[np.int16]

_PCM, _FLOAT, _EXTENSIBLE = 0x0001, 0x0003, 0xFFFE
_RATES = range(4_000, 384_001)
_MAX_CHANNELS = 32
_BLOCK = SAMPLE_RATE // 50
# A writer that cannot seek (a pipe) leaves the largest size it can write, or one close to it.
_UNKNOWN_SIZE = 0x7FFF_F000
_DISGUISES = {
    b"ID3": "MP3",
    b"\xff\xfb": "MP3",
    b"\xff\xf3": "MP3",
    b"\xff\xf2": "MP3",
    b"OggS": "Ogg",
    b"fLaC": "FLAC",
    b"FORM": "AIFF",
    b"RIFX": "big-endian RIFF",
    b"RF64": "RF64",
    b"caff": "CAF",
    b".snd": "AU",
}


def read_caller(path: Path) -> Samples:
    """Return a recording as 16 kHz mono; raise BadAudio when it cannot be played to the agent."""
    try:
        if path.exists() and not path.is_file():
            raise BadAudio(f"{path} is not a file; give a WAV recording")
        data = path.read_bytes()
    except OSError as error:
        raise BadAudio(f"{path} cannot be read: {error.strerror or error}") from error
    samples = decode(data, str(path))
    if active_ms(samples) == 0:
        raise BadAudio(f"{path} is silent: nothing in it is louder than {NOISE_FLOOR_DBFS:g} dBFS")
    return samples


def decode(data: bytes, name: str) -> Samples:
    """Return the audio of a WAV file's bytes as 16 kHz mono; ``name`` is for the error text."""
    form, body = _chunks(data, name)
    frames = len(body) // form.frame_bytes
    if frames == 0:
        raise BadAudio(f"{name} holds no audio: its data chunk is empty")
    values = _to_float(body[: frames * form.frame_bytes], form)
    mono = values.reshape(frames, form.channels).mean(axis=1)
    if not np.isfinite(mono).all():
        raise BadAudio(f"{name} holds samples that are not numbers; export it again")
    # A constant offset is no sound, and would hide silence from the noise floor.
    return _resample(_to_int16(mono - mono.mean()), form.rate)


def active_ms(samples: Samples) -> int:
    """Return how many milliseconds of 20 ms blocks are louder than the noise floor."""
    blocks = len(samples) // _BLOCK
    if blocks == 0:
        return 0
    shaped = samples[: blocks * _BLOCK].reshape(blocks, _BLOCK).astype(np.float64)
    level = np.sqrt((shaped**2).mean(axis=1))
    return int((level > 32768 * 10 ** (NOISE_FLOOR_DBFS / 20)).sum()) * 20


def write_stereo(path: Path, left: Samples, right: Samples) -> None:
    """Write two equally long channels as a 16 kHz stereo WAV, whole or not at all."""
    partial = path.with_suffix(".part")
    with wave.open(str(partial), "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(np.column_stack((left, right)).astype("<i2").tobytes())
    os.replace(partial, path)


@dataclass(frozen=True, slots=True)
class _Format:
    code: int
    channels: int
    rate: int
    frame_bytes: int
    bits: int

    @property
    def width(self) -> int:
        """Bytes of one sample of one channel, padding included."""
        return self.frame_bytes // self.channels


def _chunks(data: bytes, name: str) -> tuple[_Format, bytes]:
    """Return the format and the bytes of the audio; every size in the file is checked."""
    if not data:
        raise BadAudio(f"{name} is an empty file")
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        kind = next((what for magic, what in _DISGUISES.items() if data.startswith(magic)), "")
        seen = f"it looks like {kind}" if kind else "it has no RIFF/WAVE header"
        raise BadAudio(f"{name} is not a WAV file: {seen}; convert it first, e.g. with ffmpeg")
    form: _Format | None = None
    at = 12
    while at + 8 <= len(data):
        tag, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8
        if tag == b"fmt ":
            form = _format(data[at : at + size], name)
        elif tag == b"data":
            if form is None:
                raise BadAudio(f"{name} is damaged: its audio comes before its format")
            if size < _UNKNOWN_SIZE and at + size > len(data):
                raise BadAudio(
                    f"{name} is truncated: its header promises {size} bytes of audio, "
                    f"{len(data) - at} are there"
                )
            return form, data[at : at + size]
        at += size + size % 2
    raise BadAudio(f"{name} is truncated: it has no audio after its header")


def _format(chunk: bytes, name: str) -> _Format:
    if len(chunk) < 16:
        raise BadAudio(f"{name} is damaged: its format chunk has {len(chunk)} bytes, 16 are needed")
    code, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", chunk)
    if code == _EXTENSIBLE and len(chunk) >= 26:
        code = int.from_bytes(chunk[24:26], "little")
    if not 1 <= channels <= _MAX_CHANNELS or rate not in _RATES:
        raise BadAudio(f"{name} is damaged: it claims {channels} channels at {rate} Hz")
    form = _Format(code, channels, rate, frame_bytes, bits)
    whole = frame_bytes == channels * form.width and bits <= 8 * form.width
    if not whole or (code, form.width) not in _SAMPLE_TYPES:
        raise BadAudio(
            f"{name} has an encoding that is not read here (format {code:#06x}, {bits} bits); "
            "convert it to 16-bit PCM, e.g. with sox"
        )
    return form


_SAMPLE_TYPES: dict[tuple[int, int], str] = {
    (_PCM, 1): "u1",
    (_PCM, 2): "<i2",
    (_PCM, 3): "",  # no such type in numpy; widened to 32 bits below
    (_PCM, 4): "<i4",
    (_FLOAT, 4): "<f4",
    (_FLOAT, 8): "<f8",
}


def _to_float(body: bytes, form: _Format) -> npt.NDArray[np.float64]:
    """Return interleaved samples scaled to -1..1."""
    if form.width == 3:
        packed = np.frombuffer(body, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(packed), 4), np.uint8)
        wide[:, 1:] = packed
        return wide.view("<i4")[:, 0].astype(np.float64) / 2**31
    values = np.frombuffer(body, _SAMPLE_TYPES[form.code, form.width]).astype(np.float64)
    if form.code == _FLOAT:
        return values
    if form.width == 1:  # 8 bit is the one unsigned format
        return (values - 128) / 128
    return values / float(1 << (8 * form.width - 1))


def _to_int16(values: npt.NDArray[np.float64]) -> Samples:
    return np.clip(np.rint(values * 32767), -32768, 32767).astype(np.int16)


def _resample(samples: Samples, rate: int) -> Samples:
    if rate == SAMPLE_RATE:
        return samples
    from livekit import rtc

    resampler = rtc.AudioResampler(rate, SAMPLE_RATE, quality=rtc.AudioResamplerQuality.HIGH)
    frames = [*resampler.push(bytearray(samples.tobytes())), *resampler.flush()]
    out = np.frombuffer(b"".join(bytes(frame.data) for frame in frames), np.int16)
    wanted = math.ceil(len(samples) * SAMPLE_RATE / rate)
    return out[:wanted].copy()
