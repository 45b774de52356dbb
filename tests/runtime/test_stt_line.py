"""What a recogniser's silence means: stalls, noise, quiet callers, pauses, ends, changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import uvloop
from livekit import rtc
from livekit.agents import APIStatusError, stt
from livekit.agents.stt import SpeechEventType
from livekit.agents.types import TimedString
from livekit.agents.vad import VAD
from plugins import Ledger, candidate, frames

from trunkline.core.models import Candidate, Deadlines, Identity, Plan
from trunkline.runtime.attempt import Engine
from trunkline.runtime.gate import Gate
from trunkline.runtime.health import HealthBook
from trunkline.runtime.loud_vad import LoudVAD
from trunkline.runtime.stt import STT

RATE = 16000
FAST = Deadlines(connect=0.2, first_content=0.2, idle=0.2)
START, END = SpeechEventType.START_OF_SPEECH, SpeechEventType.END_OF_SPEECH
INTERIM, FINAL = SpeechEventType.INTERIM_TRANSCRIPT, SpeechEventType.FINAL_TRANSCRIPT

Turn = Callable[["Script"], Any]


class Script(stt.RecognizeStream):
    """A stream that does what a coroutine says."""

    seconds = 0.0

    async def _run(self) -> None:
        self.came = asyncio.Event()
        self.feeding = asyncio.create_task(self._feed())
        try:
            await self._stt.turn(self)  # type: ignore[attr-defined]
        finally:
            self.feeding.cancel()

    async def _feed(self) -> None:
        async for frame in self._input_ch:
            if isinstance(frame, rtc.AudioFrame):
                self.seconds += frame.duration
                self.came.set()

    async def heard(self, seconds: float) -> None:
        """Wait until so much audio has come."""
        while self.seconds < seconds - 1e-6:
            self.came.clear()
            await self.came.wait()

    async def ended(self) -> None:
        await self.feeding

    def send(self, event: stt.SpeechEvent) -> None:
        self._event_ch.send_nowait(event)

    def say(
        self, kind: SpeechEventType, text: str = "", end: float = 0.0, last_word: float = 0.0
    ) -> None:
        data = [stt.SpeechData(language="en", text=text, end_time=end)] if text or end else []
        if last_word:
            data[0].words = [TimedString(text, start_time=0.0, end_time=last_word)]
        self.send(stt.SpeechEvent(type=kind, alternatives=data))


class Scripted(stt.STT[Any]):
    """Each stream of it plays the next turn."""

    def __init__(self, *turns: Turn, interim: bool = True) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=interim))
        self.turns = list(turns)
        self.streams: list[Script] = []

    async def turn(self, stream: Script) -> None:
        await self.turns[min(len(self.streams), len(self.turns)) - 1](stream)

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        raise NotImplementedError

    def stream(self, *, language: Any = None, conn_options: Any) -> Script:
        self.streams.append(Script(stt=self, conn_options=conn_options))
        return self.streams[-1]


class Call:
    """One stream of ours and what came of it."""

    def __init__(self, *candidates: Candidate, vad: VAD | None = None) -> None:
        self.ledger = Ledger()
        self.errors: list[BaseException] = []
        gate = Gate(self.ledger, lambda _: None, lambda _: None)
        self.engine = Engine(gate, HealthBook(), lambda _: None)
        self.recogniser = STT(
            self.engine,
            Plan(candidates, FAST),
            lambda: Identity(call="call"),
            sample_rate=None,
            vad=vad or LoudVAD(),
            closing=self._nothing,
        )
        self.events: list[stt.SpeechEvent] = []

    async def _nothing(self) -> None: ...

    async def __aenter__(self) -> Call:
        self.stream = self.recogniser.stream()
        self.listening = asyncio.create_task(self._listen())
        return self

    async def _listen(self) -> None:
        try:
            async for event in self.stream:
                self.events.append(event)
        except Exception as error:  # noqa: BLE001 - kept for the test to look at
            self.errors.append(error)

    async def __aexit__(self, *_: object) -> None:
        await self.stream.aclose()
        await asyncio.wait([self.listening], timeout=10)
        await self.recogniser.aclose()

    async def say(self, audio: list[rtc.AudioFrame], pace: float = 0.25) -> None:
        for frame in audio:
            self.stream.push_frame(frame)
            await asyncio.sleep(frame.duration * pace)

    async def finish(self, bound: float = 30.0) -> None:
        self.stream.end_input()
        async with asyncio.timeout(bound):
            await self.listening

    @property
    def kinds(self) -> list[SpeechEventType]:
        return [event.type for event in self.events]

    @property
    def said(self) -> list[str]:
        return [e.alternatives[0].text for e in self.events if e.type is FINAL]


def silence(seconds: float) -> list[rtc.AudioFrame]:
    return [rtc.AudioFrame(bytes(1600), RATE, 1, 800)] * round(seconds * 20)


def noise(seconds: float, peak: int = 3000) -> list[rtc.AudioFrame]:
    random = np.random.default_rng(7)
    made = [random.integers(-peak, peak, 800).astype("<i2") for _ in range(round(seconds * 20))]
    return [rtc.AudioFrame(one.tobytes(), RATE, 1, 800) for one in made]


def whole(text: str) -> Turn:
    """Hears ``text`` all the time, and is sure of it at the end."""

    async def turn(stream: Script) -> None:
        stream.say(START)
        while not stream.feeding.done():
            stream.say(INTERIM, text)
            await asyncio.wait([stream.feeding], timeout=0.05)
        stream.say(FINAL, text, stream.start_time_offset + stream.seconds)
        stream.say(END)

    return turn


async def deaf(stream: Script) -> None:
    await stream.ended()
    await asyncio.sleep(60)


async def test_empty_interims_are_no_answer() -> None:
    async def babbles(stream: Script) -> None:
        while True:
            stream.say(INTERIM)
            await asyncio.sleep(0.02)

    primary, backup = Scripted(babbles), Scripted(whole("hello"))
    async with Call(candidate("a", primary), candidate("b", backup)) as call:
        await call.say(frames(3.0))
        await call.finish()
        assert call.said == ["hello"]
        assert call.ledger.outcomes == [("a", "first_content_timeout"), ("b", "ok")]


async def test_a_backup_hears_everything_when_the_input_ended_before_it_began() -> None:
    """Cartesia's plugin does not connect for input that is over."""

    async def lazy(stream: Script) -> None:
        if not stream._input_ch.closed:
            await whole("hello")(stream)

    primary, backup = Scripted(deaf), Scripted(lazy)
    async with Call(candidate("a", primary), candidate("b", backup)) as call:
        await call.say(frames(1.0), pace=0)
        await call.finish()
        assert call.said == ["hello"]
        assert call.errors == []


async def test_a_recording_longer_than_a_call_remembers_is_heard_whole() -> None:
    primary, backup = Scripted(deaf), Scripted(whole("all of it"))
    async with Call(candidate("a", primary), candidate("b", backup)) as call:
        event = await call.recogniser.recognize(frames(90.0))
        assert event.alternatives[0].text == "all of it"
        assert backup.streams[0].seconds == pytest.approx(90.0)


async def test_a_final_commits_up_to_its_last_word_wherever_it_says_it_ends() -> None:
    """Cartesia's ink-whisper adds up the durations of its interims, too."""

    async def dies_late(stream: Script) -> None:
        await stream.heard(3.0)
        stream.say(FINAL, "one", 2.9, last_word=1.0)
        raise APIStatusError("gone", status_code=500)

    primary, backup = Scripted(dies_late, interim=False), Scripted(whole("two"))
    async with Call(candidate("a", primary), candidate("b", backup)) as call:
        await call.say(frames(1.0) + silence(1.0) + frames(1.0) + silence(0.5), pace=0)
        await call.finish()
        assert call.said == ["one", "two"]
        assert backup.streams[0].seconds == pytest.approx(2.5, abs=0.15)


async def test_without_interims_nothing_is_owed_while_somebody_speaks() -> None:
    async def slow(stream: Script) -> None:
        await stream.heard(4.0)
        stream.say(FINAL, "a long story", 4.0)
        await stream.ended()

    async with Call(candidate("a", Scripted(slow, interim=False))) as call:
        await call.say(frames(4.0) + silence(0.4))
        await call.finish()
        assert call.said == ["a long story"]
        assert call.ledger.outcomes == [("a", "ok")]


async def test_without_interims_a_final_is_owed_once_it_is_quiet() -> None:
    primary, backup = Scripted(deaf, interim=False), Scripted(whole("hello"))
    async with Call(candidate("a", primary), candidate("b", backup)) as call:
        await call.say(frames(1.0) + silence(2.0))
        assert call.ledger.outcomes == [("a", "first_content_timeout")]
        await call.finish()
        assert call.said == ["hello"]


async def test_without_interims_a_final_is_owed_after_a_pause_though_somebody_speaks_on() -> None:
    primary, backup = Scripted(deaf, interim=False), Scripted(whole("hello"))
    async with Call(candidate("a", primary), candidate("b", backup)) as call:
        await call.say(frames(1.0) + silence(0.6))
        for _ in range(200):
            await call.say(frames(0.1))
            if call.ledger.outcomes:
                break
        assert call.ledger.outcomes == [("a", "first_content_timeout")]
        await call.finish()
        assert call.said == ["hello"]


async def test_a_pause_inside_a_turn_is_the_recognisers_to_judge() -> None:
    async def patient(stream: Script) -> None:
        stream.say(START)
        await stream.heard(0.5)
        stream.say(INTERIM, "my number is")
        await stream.ended()
        stream.say(FINAL, "my number is five")

    plugin = Candidate(candidate("a", None).ref, "a", live=Scripted(patient), turn_seconds=2.0)
    async with Call(plugin) as call:
        await call.say(frames(1.0) + silence(2.0) + frames(0.5))
        await call.finish()
        assert call.said == ["my number is five"]
        assert call.ledger.outcomes == [("a", "ok")]


async def test_noise_is_no_speech() -> None:
    """By the real VAD; the same noise that would be speech to an energy floor."""
    from livekit.agents import inference

    async def silent(stream: Script) -> None:
        await stream.ended()

    primary, backup = Scripted(silent), Scripted(whole("hello"))
    vad = inference.VAD(model="silero")
    async with Call(candidate("a", primary), candidate("b", backup), vad=vad) as call:
        await call.say(noise(6.0))
        await call.finish()
        assert call.said == []
        assert not backup.streams
        assert call.ledger.outcomes == [("a", "ok")]


async def test_a_cough_that_nobody_has_a_word_for_takes_nobody_down() -> None:
    async def silent(stream: Script) -> None:
        await stream.ended()

    async with Call(candidate("a", Scripted(silent)), candidate("b", Scripted(silent))) as call:
        await call.say(frames(0.4) + silence(4.0))
        await call.finish()
        assert call.errors == []
        assert call.ledger.outcomes[-1] == ("b", "ok")


async def test_a_silent_caller_is_no_fault_and_costs_no_replay() -> None:
    primary, backup = Scripted(deaf), Scripted(whole("hello"))
    async with Call(candidate("a", primary), candidate("b", backup)) as call:
        await call.say(silence(120.0), pace=0.0)
        await asyncio.sleep(0.5)
        assert call.ledger.outcomes == []
        await call.say(frames(2.0))
        await asyncio.sleep(0.1)
        await call.finish()
        assert call.said == ["hello"]
        (stream,) = backup.streams
        assert stream.seconds == pytest.approx(2.3, abs=0.06)
        assert stream.start_time_offset == pytest.approx(119.7, abs=0.01)


@pytest.mark.parametrize(
    "how", [None, APIStatusError("idle", status_code=1011)], ids=["end", "1011"]
)
async def test_hanging_up_on_silence_is_no_fault(
    monkeypatch: pytest.MonkeyPatch, how: Exception | None
) -> None:
    from trunkline.runtime import audio_line

    monkeypatch.setattr(audio_line, "_SETTLED_SECONDS", 0.05)

    async def hangs_up(stream: Script) -> None:
        await asyncio.sleep(0.1)
        if how is not None:
            raise how

    primary, backup = Scripted(hangs_up, whole("hello")), Scripted(whole("backup"))
    async with Call(candidate("a", primary), candidate("b", backup)) as call:
        await call.say(silence(2.0))
        assert call.ledger.outcomes == [("a", "ok")]
        assert len(primary.streams) == 1  # not opened again before there is something to hear
        await call.say(frames(0.5))
        await call.finish()
        assert call.said == ["hello"]
        assert not backup.streams
        assert primary.streams[1].start_time_offset == pytest.approx(1.7, abs=0.06)


async def test_hanging_up_on_speech_is_a_fault() -> None:
    async def hangs_up(stream: Script) -> None:
        await stream.heard(0.3)

    primary, backup = Scripted(hangs_up), Scripted(whole("hello"))
    async with Call(candidate("a", primary), candidate("b", backup)) as call:
        await call.say(frames(1.0))
        await call.finish()
        assert call.said == ["hello"]
        assert call.ledger.outcomes == [("a", "stream_cut"), ("b", "ok")]


async def test_one_start_and_one_end_across_the_seam() -> None:
    async def dies(stream: Script) -> None:
        stream.say(START)
        stream.say(INTERIM, "hel")
        await stream.heard(0.3)
        raise APIStatusError("down", status_code=500)

    async with Call(
        candidate("a", Scripted(dies)), candidate("b", Scripted(whole("hello")))
    ) as call:
        await call.say(frames(0.6))
        await call.finish()
        marks = [kind for kind in call.kinds if kind is not INTERIM]
        assert marks == [START, FINAL, END]


async def test_an_utterance_that_was_final_ends_though_its_recogniser_died() -> None:
    async def dies(stream: Script) -> None:
        stream.say(START)
        await stream.heard(0.5)
        stream.say(FINAL, "hello", 0.5)
        await stream.heard(0.7)
        raise APIStatusError("down", status_code=500)

    async def nothing(stream: Script) -> None:
        await stream.ended()

    async with Call(candidate("a", Scripted(dies)), candidate("b", Scripted(nothing))) as call:
        await call.say(frames(0.5) + silence(1.0))
        await call.finish()
        assert call.kinds == [START, FINAL, END]
        assert call.errors == []


async def test_an_untimed_final_commits_to_its_pause_not_into_the_next_utterance() -> None:
    async def dies(stream: Script) -> None:
        await stream.heard(1.9)  # the next utterance has begun when the final comes
        stream.say(FINAL, "one")
        await stream.heard(2.4)
        raise APIStatusError("down", status_code=500)

    backup = Scripted(whole("two"))
    async with Call(candidate("a", Scripted(dies)), candidate("b", backup)) as call:
        await call.say(frames(1.0) + silence(0.6) + frames(0.2) + silence(0.15) + frames(1.0), 0.05)
        await call.finish()
        assert call.said == ["one", "two"]
        (stream,) = backup.streams
        assert stream.start_time_offset == pytest.approx(1.3, abs=0.06)


async def test_a_plugin_that_cannot_even_be_opened_or_pushed_to() -> None:
    class Refusing(Scripted):
        def stream(self, **_: Any) -> Script:
            raise ValueError("no language")

    class Choking(Script):
        def push_frame(self, frame: rtc.AudioFrame) -> None:
            raise ZeroDivisionError("a bug")

    class Choked(Scripted):
        def stream(self, *, language: Any = None, conn_options: Any) -> Script:
            return Choking(stt=self, conn_options=conn_options)

    first, second = Refusing(), Choked(deaf)
    backup = Scripted(whole("hello"))
    plan = [candidate(n, p) for n, p in zip("abc", (first, second, backup), strict=True)]
    async with Call(*plan) as call:
        await call.say(frames(0.5))
        await call.finish()
        assert call.said == ["hello"]
        assert [o for _, o in call.ledger.outcomes] == ["rejected", "provider_fault", "ok"]


async def test_a_change_waits_for_the_end_of_the_utterance() -> None:
    async def speaks(stream: Script) -> None:
        stream.say(START)
        await stream.heard(1.0)
        stream.say(FINAL, "old", 1.0)
        stream.say(END)
        await stream.ended()

    old, new = Scripted(speaks), Scripted(whole("new"))
    closed: list[str] = []

    async def closing() -> None:
        closed.append("old")

    async with Call(candidate("old", old)) as call:
        call.recogniser._closing = closing
        await call.say(frames(0.5), 0.05)
        call.recogniser.swap(Plan((candidate("new", new),), FAST), call._nothing)
        await call.say(frames(0.3), 0.05)
        assert not new.streams
        await call.say(frames(0.2) + silence(0.3) + frames(0.5))
        await call.finish()
        assert call.said == ["old", "new"]
        assert new.streams[0].start_time_offset + new.streams[0].seconds == pytest.approx(
            1.8, abs=0.01
        )
        assert closed == ["old"]
        assert call.ledger.outcomes == [("old", "moved"), ("new", "ok")]


async def test_a_vendor_that_wants_it_slower_gets_it_slower() -> None:
    async def dies(stream: Script) -> None:
        await stream.heard(1.0)
        raise APIStatusError("down", status_code=500)

    arrived: list[float] = []

    async def watches(stream: Script) -> None:
        begun = asyncio.get_running_loop().time()
        stream.say(INTERIM, "hel")
        await stream.heard(1.5)
        arrived.append(asyncio.get_running_loop().time() - begun)
        await whole("hello")(stream)

    slow = Candidate(candidate("b", None).ref, "b", live=Scripted(watches), replay_speed=4.0)
    async with Call(candidate("a", Scripted(dies)), slow) as call:
        await call.say(frames(1.0), pace=0.0)
        await asyncio.sleep(0.02)
        await call.say(frames(0.5), pace=0.0)
        await call.finish()
        assert call.said == ["hello"]
    assert arrived[0] > 0.2


async def test_usage_is_told_once() -> None:
    async def tells(stream: Script) -> None:
        usage = stt.RecognitionUsage(audio_duration=0.5)
        kind = SpeechEventType.RECOGNITION_USAGE
        stream._event_ch.send_nowait(stt.SpeechEvent(kind, recognition_usage=usage))
        await whole("hello")(stream)

    metrics: list[Any] = []
    async with Call(candidate("a", Scripted(tells))) as call:
        call.recogniser.on("metrics_collected", metrics.append)
        await call.say(frames(0.5))
        await call.finish()
    assert [one.audio_duration for one in metrics] == [0.5]


async def test_input_that_ends_with_nothing_owed_ends_soon() -> None:
    """A recogniser that never ends by itself is let go; silence is no reason to blame it."""
    async with Call(candidate("a", Scripted(deaf)), candidate("b", Scripted(deaf))) as call:
        await call.say(silence(1.0))
        await call.finish(bound=1.0)
        assert call.errors == []
        assert call.ledger.outcomes == [("a", "ok")]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_deadline_that_has_passed_already_is_kept_by_every_event_loop(loop: Any) -> None:
    """uvloop's handle of what is due now has no time."""

    async def asked_again_and_again() -> None:
        primary, backup = Scripted(deaf), Scripted(whole("hello"))
        async with Call(candidate("a", primary), candidate("b", backup)) as call:
            await call.say(frames(1.0), pace=0)
            while len(call.ledger.outcomes) < 1 and not call.errors:
                call.stream.flush()
                call.stream.flush()
                await asyncio.sleep(0.001)
            await call.finish()
            assert call.errors == []
            assert call.said == ["hello"]

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asked_again_and_again())
