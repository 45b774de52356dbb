"""pocketsphinx on real speech: what it hears, and that nothing which dies takes a call with it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jiwer
import numpy as np
import pytest
from livekit import rtc
from livekit.agents import APIConnectionError, APIError, APITimeoutError, stt
from livekit.agents.types import APIConnectOptions
from speech import frames, needs_flite, paced, recordings, say, stalls

from trunkline.engines._sphinx_client import Pool
from trunkline.engines._sphinx_pool import LOCK, SOCKET
from trunkline.errors import UnsupportedOption, UsageError

pytest.importorskip("pocketsphinx", reason="needs pip install 'trunkline[pocketsphinx]'")
pytest.importorskip("livekit.plugins.silero", reason="needs pip install 'trunkline[pocketsphinx]'")

from trunkline.engines.pocketsphinx import STT

pytestmark = needs_flite

SENTENCES = [
    "what are your opening hours",
    "i would like to book a table for two people at seven o'clock",
    "please tell me about the menu",
    "what time do you open tomorrow",
    "that was all thank you very much",
]
ONCE = APIConnectOptions(max_retry=0, timeout=30.0)
Kind = stt.SpeechEventType


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A pool of these tests alone, ended with them."""
    directory = tmp_path_factory.mktemp("pool")
    directory.chmod(0o700)
    yield directory
    with contextlib.suppress(OSError, ValueError):
        os.kill(keeper(directory), signal.SIGTERM)


def keeper(directory: Path) -> int:
    return int((directory / LOCK).read_text())


def workers(directory: Path) -> list[int]:
    pid = keeper(directory)
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def understood(said: str, heard: str) -> bool:
    """Whether most of the words came back. Which ones differs from processor to processor."""
    return jiwer.wer(said, heard) <= 0.5


def transcript(events: list[stt.SpeechEvent]) -> str:
    finals = [event for event in events if event.type is Kind.FINAL_TRANSCRIPT]
    return " ".join(event.alternatives[0].text for event in finals)


async def heard(
    stream: stt.RecognizeStream,
    audio: AsyncIterator[rtc.AudioFrame],
    meanwhile: Callable[[stt.SpeechEvent], None] = lambda event: None,
) -> list[stt.SpeechEvent]:
    """Push audio into a stream; return its events, each shown to ``meanwhile`` as it comes."""

    async def push() -> None:
        async for frame in audio:
            stream.push_frame(frame)
        stream.end_input()

    events = []
    pushing = asyncio.create_task(push())
    async with asyncio.timeout(120), stream:
        async for event in stream:
            events.append(event)
            meanwhile(event)
    await pushing
    return events


async def test_what_a_flite_voice_says_comes_back(directory: Path) -> None:
    recogniser = STT(directory=directory)
    heard_texts = []
    for sentence in SENTENCES:
        pcm = await say(sentence)
        events = await heard(recogniser.stream(), paced(frames(pcm), speed=4))
        heard_texts.append(transcript(events))
    assert jiwer.wer(SENTENCES, heard_texts) < 0.4, heard_texts


async def test_what_people_read_aloud_is_mostly_understood(directory: Path) -> None:
    recogniser = STT(directory=directory)
    said, texts = [], []
    for words, pcm in recordings():
        event = await recogniser.recognize([*frames(bytes(16_000) + pcm + bytes(32_000))])
        said.append(words)
        texts.append(event.alternatives[0].text)
    assert jiwer.wer(said, texts) < 0.45, texts


async def test_the_events_of_two_utterances_come_in_order_with_true_times(directory: Path) -> None:
    recogniser = STT(directory=directory)
    metered: list[float] = []
    recogniser.on("metrics_collected", lambda metrics: metered.append(metrics.audio_duration))
    first, second = await say(SENTENCES[0]), await say(SENTENCES[3])
    events = await heard(recogniser.stream(), paced(frames(first + second), speed=2))

    # Usage is left out: how much of it is still to tell at the end depends on who was quicker.
    told = (Kind.START_OF_SPEECH, Kind.FINAL_TRANSCRIPT, Kind.END_OF_SPEECH)
    assert [event.type for event in events if event.type in told] == [*told, *told]
    interims = [event for event in events if event.type is Kind.INTERIM_TRANSCRIPT]
    assert interims
    finals = [event.alternatives[0] for event in events if event.type is Kind.FINAL_TRANSCRIPT]
    boundary = len(first) / 32_000
    assert 0.2 < finals[0].start_time < 1.0
    assert finals[0].end_time < boundary - 0.5 < boundary + 0.2 < finals[1].start_time
    for final in finals:
        assert 0 < final.confidence <= 1
        assert " ".join(final.words or ()) == final.text
    assert sum(metered) == pytest.approx(len(first + second) / 32_000, abs=0.05)


async def test_a_flush_ends_the_utterance_before_any_silence(directory: Path) -> None:
    pcm = (await say(SENTENCES[0]))[:-28_000]
    async with STT(directory=directory).stream() as stream, asyncio.timeout(60):
        for frame in frames(pcm):
            stream.push_frame(frame)
        stream.flush()
        async for event in stream:
            if event.type is Kind.FINAL_TRANSCRIPT:
                break
    assert understood(SENTENCES[0], event.alternatives[0].text)


@pytest.mark.parametrize(("rate", "channels"), [(22_050, 1), (24_000, 1), (44_100, 2), (48_000, 2)])
async def test_any_rate_and_channel_count(directory: Path, rate: int, channels: int) -> None:
    pcm = await say(SENTENCES[4])
    resampler = rtc.AudioResampler(16_000, rate)
    source = rtc.combine_audio_frames([*frames(pcm)])
    made = rtc.combine_audio_frames([*resampler.push(source), *resampler.flush()])
    samples = np.repeat(np.frombuffer(made.data, np.int16), channels)
    audio = [*frames(samples.tobytes(), rate, channels)]
    recogniser = STT(directory=directory)
    batch = await recogniser.recognize(audio)
    streamed = transcript(await heard(recogniser.stream(), paced(audio, speed=8)))
    assert understood(SENTENCES[4], batch.alternatives[0].text)
    assert understood(SENTENCES[4], streamed)


@pytest.mark.parametrize("pcm", [bytes(64_000), bytes(320)], ids=["silence", "ten milliseconds"])
async def test_no_speech_is_no_transcript_and_no_error(directory: Path, pcm: bytes) -> None:
    frame = rtc.AudioFrame(pcm, 16_000, 1, len(pcm) // 2)
    event = await STT(directory=directory).recognize([frame])
    assert event.alternatives[0].text == ""


async def test_decoding_never_stalls_the_event_loop(directory: Path) -> None:
    recogniser = STT(directory=directory)
    pcm = await say(SENTENCES[1])
    await heard(recogniser.stream(), paced(frames(pcm), speed=4))  # loads what is loaded once
    async with stalls() as found:
        await heard(recogniser.stream(), paced(frames(pcm)))
    assert found.worst < 0.05


async def test_killed_workers_are_replaced_and_the_utterance_is_decoded_again(
    directory: Path,
) -> None:
    recogniser = STT(directory=directory)
    errors: list[object] = []
    recogniser.on("error", errors.append)
    killed: list[int] = []

    def kill_once(event: stt.SpeechEvent) -> None:
        if event.type is Kind.INTERIM_TRANSCRIPT and not killed:
            killed.extend(workers(directory))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    pcm = await say(SENTENCES[1])
    events = await heard(recogniser.stream(), paced(frames(pcm)), kill_once)
    assert killed
    assert understood(SENTENCES[1], transcript(events))
    assert errors == []
    assert set(workers(directory)).isdisjoint(killed)


async def test_a_killed_keeper_loses_no_utterance_and_the_next_starts_a_new_pool(
    directory: Path,
) -> None:
    recogniser = STT(directory=directory)
    pcm = await say(SENTENCES[0])
    await recogniser.recognize([*frames(pcm)])
    old = keeper(directory)

    def kill(event: stt.SpeechEvent) -> None:
        if event.type is Kind.START_OF_SPEECH:
            with contextlib.suppress(ProcessLookupError):  # the second utterance finds it dead
                os.kill(old, signal.SIGKILL)

    both = transcript(await heard(recogniser.stream(), paced(frames(pcm + pcm)), kill))
    assert understood(f"{SENTENCES[0]} {SENTENCES[0]}", both)
    assert keeper(directory) != old


async def test_a_pool_that_drops_every_utterance_is_one_connection_error(tmp_path: Path) -> None:
    async with impostor(tmp_path, lambda writer: writer.close()):
        with pytest.raises(APIConnectionError, match="3 pocketsphinx workers were lost"):
            await recognise_once(tmp_path)


async def test_a_pool_that_never_answers_is_a_timeout(tmp_path: Path) -> None:
    async with impostor(tmp_path, lambda writer: None):
        with pytest.raises(APITimeoutError):
            await recognise_once(tmp_path, APIConnectOptions(max_retry=0, timeout=0.5))


async def test_a_pool_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir()
    with pytest.raises(APIConnectionError, match=r"did not start.*Is a directory"):
        await recognise_once(tmp_path)


async def recognise_once(directory: Path, options: APIConnectOptions = ONCE) -> None:
    os.chmod(directory, 0o700)
    pcm = await say(SENTENCES[0])
    async with asyncio.timeout(60):
        await STT(directory=directory).recognize([*frames(pcm)], conn_options=options)


@contextlib.asynccontextmanager
async def impostor(
    directory: Path, answer: Callable[[asyncio.StreamWriter], None]
) -> AsyncIterator[None]:
    """Something that holds the pool's lock and socket, and is no pool."""
    writers: list[asyncio.StreamWriter] = []

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        answer(writer)

    with (directory / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = await asyncio.start_unix_server(connected, directory / SOCKET)
        try:
            yield
        finally:
            server.close()
            for writer in writers:
                writer.close()


def test_launching_at_once_makes_one_pool_that_ends_when_idle(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with ThreadPoolExecutor(4) as threads:
        for launched in [threads.submit(Pool(tmp_path, 1.0).launch) for _ in range(4)]:
            launched.result()
    pids = [keeper(tmp_path), *workers(tmp_path)]
    assert len(pids) > 1
    give_up = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < give_up, "the pool outlived its idle time"
        time.sleep(0.1)
    assert not (tmp_path / SOCKET).exists()


def test_a_directory_that_others_can_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match=str(tmp_path)):
        Pool(tmp_path).launch()


@pytest.mark.parametrize("language", ["de", "", "en-gb"])
def test_another_language_is_refused_by_name(language: str) -> None:
    with pytest.raises(UnsupportedOption, match=repr(language)):
        STT(language=language)


async def test_cancelling_a_stream_in_mid_utterance_frees_its_worker(directory: Path) -> None:
    recogniser = STT(directory=directory)
    pcm = await say(SENTENCES[1])
    for _ in range(12):  # more than the pool can hold at once, were they not given back
        stream = recogniser.stream()
        for frame in frames(pcm[:64_000]):
            stream.push_frame(frame)
        with contextlib.suppress(APIError):
            async with asyncio.timeout(60):
                await anext(stream)
        await stream.aclose()
    async with asyncio.timeout(60):
        event = await recogniser.recognize([*frames(pcm)])
    assert understood(SENTENCES[1], event.alternatives[0].text)
