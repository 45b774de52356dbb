"""The local voices: real speech, one segment a stream, cheap to cut off, unbroken by any text."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from livekit.agents import APIError, tts
from speech import needs_espeak, needs_flite, stalls

from trunkline.engines import espeak, flite
from trunkline.engines._voice import pieces
from trunkline.errors import MissingExtra, UnsupportedOption

VOICES = [
    pytest.param(flite.TTS, id="flite", marks=needs_flite),
    pytest.param(espeak.TTS, id="espeak", marks=needs_espeak),
]
LONG = "This sentence is one of very many that nobody will ever hear to the end. " * 60


async def spoken(stream: tts.SynthesizeStream) -> list[tts.SynthesizedAudio]:
    async with asyncio.timeout(30), stream:
        return [audio async for audio in stream]


def loudness(audio: list[tts.SynthesizedAudio]) -> int:
    return max((abs(sample) for event in audio for sample in event.frame.data), default=0)


@pytest.mark.parametrize("make", VOICES)
async def test_text_in_pieces_becomes_one_segment_of_speech(make: Callable[[], tts.TTS]) -> None:
    voice = make()
    stream = voice.stream()
    for word in re.findall(r"\S+", "Your table is booked. Is there anything else that I can do?"):
        stream.push_text(word + " ")
    stream.end_input()
    audio = await spoken(stream)

    assert len({event.segment_id for event in audio}) == 1
    assert [event.is_final for event in audio].index(True) == len(audio) - 1
    assert 2.5 < sum(event.frame.duration for event in audio) < 7
    assert loudness(audio) > 3000
    assert {event.frame.sample_rate for event in audio} == {voice.sample_rate}


@pytest.mark.parametrize("make", VOICES)
async def test_the_first_sentence_sounds_while_the_second_is_unwritten(
    make: Callable[[], tts.TTS],
) -> None:
    async with make().stream() as stream, asyncio.timeout(10):
        stream.push_text("This is the first of two sentences. And this")
        first = await anext(stream)
    assert first.frame.duration > 0


@needs_flite
@pytest.mark.parametrize("voice", sorted(flite.VOICES))
async def test_every_flite_voice_speaks_at_16_khz(voice: str) -> None:
    frame = await flite.TTS(voice=voice).synthesize("Good evening, how can I help you?").collect()
    assert (frame.sample_rate, frame.num_channels) == (16_000, 1)
    assert 1.0 < frame.duration < 4.0


@pytest.mark.parametrize("make", VOICES)
@pytest.mark.parametrize(
    "text",
    [
        "... !!! ???",
        "\N{GRINNING FACE}",
        "nul \0 and \x01 100S control characters",
        "Café “naïve” — déjà vu… 日本語",
        "x" * 200,
        "1234567890" * 8 + " $%^&*() 3.14 12/5/2020 1e99",
        "[[h@loU]] --stdout; $(reboot) `ls` -v zz %s %n %d",
        "<speak>not markup</speak> & a < b",
    ],
)
async def test_any_text_gives_some_audio(make: Callable[[], tts.TTS], text: str) -> None:
    async with asyncio.timeout(30):
        frame = await make().synthesize(text).collect()
    assert frame.duration > 0


@pytest.mark.parametrize("make", VOICES)
@pytest.mark.parametrize("text", ["", "  \n\t "])
async def test_no_text_gives_no_audio_and_no_error(make: Callable[[], tts.TTS], text: str) -> None:
    stream = make().stream()
    stream.push_text(text)
    stream.end_input()
    assert sum(event.frame.duration for event in await spoken(stream)) < 0.05


@pytest.mark.parametrize("make", VOICES)
async def test_a_barge_in_stops_the_synthesis_at_once(make: Callable[[], tts.TTS]) -> None:
    voice = make()
    stream = voice.stream()
    stream.push_text(LONG)
    stream.end_input()
    await anext(stream)
    began = time.perf_counter()
    await stream.aclose()
    frame = await voice.synthesize("Of course.").collect()
    assert frame.duration > 0.3
    assert time.perf_counter() - began < 10, "the rest would take minutes to hear"
    assert b"espeak-ng" not in _children()


@pytest.mark.parametrize("make", VOICES)
async def test_speaking_never_stalls_the_event_loop(make: Callable[[], tts.TTS]) -> None:
    voice = make()
    async with stalls() as found:
        await asyncio.gather(*(voice.synthesize(LONG[:600]).collect() for _ in range(3)))
    assert found.share > 0.25


def test_pieces_keep_every_word_and_stay_short() -> None:
    words = [f"word{number}" for number in range(500)]
    cut = list(pieces(" ".join(words)))
    assert " ".join(cut).split() == words
    assert max(map(len, cut)) <= 310


@needs_espeak
async def test_an_unknown_espeak_voice_is_one_final_error() -> None:
    with pytest.raises(APIError, match="zz-qq") as caught:
        await espeak.TTS(voice="zz-qq").synthesize("hello").collect()
    assert not caught.value.retryable


@pytest.mark.parametrize(
    ("make", "voice"),
    [(flite.TTS, "kal"), (espeak.TTS, "--path=/tmp"), (espeak.TTS, "en us"), (espeak.TTS, "")],
)
def test_what_cannot_be_a_voice_is_refused_by_name(
    make: Callable[..., tts.TTS], voice: str
) -> None:
    with pytest.raises(UnsupportedOption, match=repr(voice)):
        make(voice=voice)


def test_a_missing_program_names_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(MissingExtra, match="apt-get install espeak-ng"):
        espeak.TTS()


@needs_flite
def test_the_labels_are_those_of_the_catalogue() -> None:
    voice = flite.TTS(voice="rms")
    assert (voice.label, voice.provider, voice.model) == ("flite", "flite", "rms")


def _children() -> bytes:
    """The command lines of this process's children."""
    lines = b""
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            try:
                lines += Path(f"/proc/{pid}/cmdline").read_bytes()
            except FileNotFoundError:  # it has just ended
                continue
    return lines
