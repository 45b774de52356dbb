"""Recordings from outside: every readable format is the same sound, the rest is one sentence."""

from __future__ import annotations

import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from trunkline.cli.demo.wav import SAMPLE_RATE, active_ms, decode, read_caller, write_stereo
from trunkline.errors import BadAudio

SECONDS = 0.5


def tone(rate: int, level: float = 0.5) -> np.ndarray:
    return level * np.sin(2 * np.pi * 440 * np.arange(int(rate * SECONDS)) / rate)


def riff(*chunks: tuple[bytes, bytes], form: bytes = b"WAVE") -> bytes:
    body = b"".join(
        tag + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for tag, data in chunks
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + form + body


def fmt(code: int, channels: int, rate: int, bits: int, extra: bytes = b"") -> tuple[bytes, bytes]:
    frame = channels * bits // 8
    head = struct.pack("<HHIIHH", code, channels, rate, rate * frame, frame, bits)
    return b"fmt ", head + extra


def pcm(values: np.ndarray, bits: int) -> bytes:
    if bits == 8:
        return (np.rint(values * 127) + 128).astype(np.uint8).tobytes()
    whole = np.rint(values * ((1 << (bits - 1)) - 1)).astype("<i4")
    if bits == 24:
        return whole.reshape(-1, 1).view(np.uint8)[:, :3].tobytes()
    return whole.astype(f"<i{bits // 8}").tobytes()


def recording(
    rate: int = 16_000, channels: int = 1, bits: int = 16, *, floating: bool = False
) -> bytes:
    values = np.repeat(tone(rate), channels)
    if floating:
        return riff(
            fmt(3, channels, rate, bits), (b"data", values.astype(f"<f{bits // 8}").tobytes())
        )
    return riff(fmt(1, channels, rate, bits), (b"data", pcm(values, bits)))


def extensible() -> bytes:
    guid = struct.pack("<H", 1) + bytes.fromhex("000000001000800000aa00389b71")
    extra = struct.pack("<HHI", 22, 16, 4) + guid
    return riff(fmt(0xFFFE, 1, 16_000, 16, extra), (b"data", pcm(tone(16_000), 16)))


def piped() -> bytes:
    """A writer that could not seek back: both sizes are the largest there is."""
    data = bytearray(recording())
    data[4:8] = b"\xff\xff\xff\xff"
    at = data.index(b"data") + 4
    data[at : at + 4] = b"\xff\xff\xff\xff"
    return bytes(data)


READABLE = {
    "8 bit": recording(bits=8),
    "16 bit": recording(),
    "24 bit": recording(bits=24),
    "32 bit": recording(bits=32),
    "32 bit float": recording(bits=32, floating=True),
    "64 bit float": recording(bits=64, floating=True),
    "8 kHz": recording(8_000),
    "44.1 kHz stereo": recording(44_100, 2),
    "96 kHz, six channels": recording(96_000, 6),
    "extensible": extensible(),
    "from a pipe": piped(),
    "other chunks first": riff(
        (b"LIST", b"INFOodd"), fmt(1, 1, 16_000, 16), (b"data", pcm(tone(16_000), 16))
    ),
}


@pytest.mark.parametrize("data", READABLE.values(), ids=READABLE)
def test_readable_recordings_become_the_same_sound(data: bytes) -> None:
    samples = decode(data, "a.wav")
    assert len(samples) == int(SAMPLE_RATE * SECONDS)
    middle = slice(800, -800)  # a resampler has no past at the edges
    difference = samples[middle] / 32767 - tone(SAMPLE_RATE)[middle]
    assert np.sqrt((difference**2).mean()) < 0.01


SILENCE = np.zeros(8_000)
UNREADABLE = {
    "empty file": (b"", "is an empty file"),
    "no audio": (riff(fmt(1, 1, 16_000, 16), (b"data", b"")), "holds no audio"),
    "header only": (riff(fmt(1, 1, 16_000, 16)), "truncated"),
    "cut in the header": (recording()[:30], "format chunk has 10 bytes"),
    "cut in the audio": (recording()[:-100], "truncated: its header promises 16000 bytes"),
    "silent": (riff(fmt(1, 1, 16_000, 16), (b"data", pcm(SILENCE, 16))), "is silent"),
    "silent with an offset": (
        riff(fmt(1, 1, 16_000, 16), (b"data", pcm(SILENCE + 0.2, 16))),
        "is silent",
    ),
    "an MP3 in disguise": (b"ID3\x04" + bytes(500), "it looks like MP3"),
    "an MP3 without a tag": (b"\xff\xfb\x90\x00" + bytes(500), "it looks like MP3"),
    "an MP3 inside a WAV": (riff(fmt(0x55, 1, 16_000, 16), (b"data", bytes(64))), "format 0x0055"),
    "an AVI": (riff((b"LIST", b"hdrl"), form=b"AVI "), "is not a WAV file"),
    "no channels": (riff(fmt(1, 0, 16_000, 16), (b"data", bytes(64))), "0 channels"),
    "no rate": (riff(fmt(1, 1, 0, 16), (b"data", bytes(64))), "0 Hz"),
    "12 bit": (riff(fmt(1, 1, 16_000, 12), (b"data", bytes(64))), "12 bits"),
    "audio first": (riff((b"data", bytes(64)), fmt(1, 1, 16_000, 16)), "before its format"),
    "not a number": (
        riff(fmt(3, 1, 16_000, 32), (b"data", np.full(640, np.nan, "<f4").tobytes())),
        "not numbers",
    ),
}


@pytest.mark.parametrize(("data", "told"), UNREADABLE.values(), ids=UNREADABLE)
def test_unreadable_recordings_are_one_sentence(tmp_path: Path, data: bytes, told: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    with pytest.raises(BadAudio) as caught:
        read_caller(path)
    sentence = str(caught.value)
    assert told in sentence
    assert sentence.startswith(str(path))
    assert "\n" not in sentence


def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadAudio, match="No such file"):
        read_caller(tmp_path / "none.wav")
    with pytest.raises(BadAudio, match="is not a file"):
        read_caller(tmp_path)


def test_silence_is_told_from_sound_in_20_ms_blocks() -> None:
    quiet, loud = np.zeros(1600, np.int16), (tone(SAMPLE_RATE)[:1600] * 32767).astype(np.int16)
    assert active_ms(np.concatenate([quiet, loud, quiet])) == 100
    assert active_ms(loud[:319]) == 0


def test_stereo_comes_back_as_written(tmp_path: Path) -> None:
    left, right = np.arange(-50, 50, dtype=np.int16), np.arange(100, dtype=np.int16)
    write_stereo(tmp_path / "call.wav", left, right)
    with wave.open(str(tmp_path / "call.wav")) as file:
        assert (file.getnchannels(), file.getframerate()) == (2, SAMPLE_RATE)
        samples = np.frombuffer(file.readframes(100), "<i2").reshape(-1, 2)
    assert np.array_equal(samples, np.column_stack((left, right)))
    assert [path.name for path in tmp_path.iterdir()] == ["call.wav"]
