"""The attempt loop through the LiveKit classes on it: what the agent gets, what is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from livekit.agents import APIConnectionError, APIError, APIStatusError, llm
from livekit.agents.metrics import TTSMetrics
from plugins import END, HANG, FakeLLM, FakeSTT, FakeTTS, Ledger, candidate, frames

from trunkline.core.events import Failover
from trunkline.core.models import (
    AfterOutput,
    Candidate,
    Deadlines,
    Identity,
    ModelRef,
    Plan,
    Quality,
    Usage,
)
from trunkline.errors import AllCandidatesFailed
from trunkline.runtime.attempt import Engine
from trunkline.runtime.gate import Gate
from trunkline.runtime.health import HealthBook
from trunkline.runtime.llm import LLM
from trunkline.runtime.stt import STT
from trunkline.runtime.tts import TTS

FAST = Deadlines(connect=0.4, first_content=0.4, idle=0.4, total=10)
CALL = Identity(call="call")
WORDS = ["one", "two", "three", "four", "five"]


class Bench:
    """An engine over an in-memory journal, and one way to run each modality to its end."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        gate = Gate(self.ledger, lambda _: None, lambda _: None)
        self.failovers: list[Failover] = []
        self.engine = Engine(gate, HealthBook(), self.failovers.append)

    async def nothing(self) -> None:
        return None

    def llm(self, *candidates: Candidate, after: AfterOutput = AfterOutput.STOP) -> LLM:
        plan = Plan(candidates, FAST, after)
        return LLM(self.engine, plan, lambda: CALL, closing=self.nothing)

    async def chat(self, model: LLM) -> str:
        context = llm.ChatContext.empty()
        context.add_message(role="user", content="hello there")
        said = ""
        async with model.chat(chat_ctx=context) as stream:
            async for chunk in stream:
                said += (chunk.delta.content or "") if chunk.delta else ""
        return said.strip()

    async def speak(self, *candidates: Candidate, text: str = " ".join(WORDS)) -> float:
        voice = TTS(
            self.engine,
            Plan(candidates, FAST),
            lambda: CALL,
            sample_rate=24000,
            closing=self.nothing,
        )
        loud = 0.0
        async with voice.stream() as stream:
            stream.push_text(text)
            stream.end_input()
            async for audio in stream:
                assert audio.frame.sample_rate == 24000
                loud += audio.frame.duration if any(audio.frame.data) else 0.0
        return loud

    async def hear(self, *candidates: Candidate, seconds: float = 1.0) -> list[str]:
        recogniser = STT(
            self.engine,
            Plan(candidates, FAST),
            lambda: CALL,
            sample_rate=None,
            vad=None,
            closing=self.nothing,
        )
        async with recogniser.stream() as stream:
            for frame in frames(seconds):
                stream.push_frame(frame)
                await asyncio.sleep(0)
            stream.end_input()
            return [
                event.alternatives[0].text
                async for event in stream
                if event.type.value == "final_transcript"
            ]


@pytest.fixture
async def bench() -> Any:
    bench = Bench()
    before = asyncio.all_tasks()
    yield bench
    await bench.engine.aclose()
    await asyncio.sleep(0.01)
    leaked = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not leaked, leaked


FAULTS: list[tuple[str, list[Any], str]] = [
    ("hangs", [HANG], "first_content_timeout"),
    ("refuses the key", [APIStatusError("no", status_code=401)], "unauthorized"),
    ("is out of credit", [APIStatusError("no", status_code=402)], "payment_required"),
    ("wants less", [APIStatusError("no", status_code=429)], "rate_limited"),
    ("breaks", [APIStatusError("no", status_code=503)], "provider_fault"),
    ("is away", [APIConnectionError("no")], "connect_failed"),
    ("raises anything", [ZeroDivisionError("no")], "provider_fault"),
    ("says nothing", [END], "empty_output"),
]


@pytest.mark.parametrize(
    ("primary", "outcome"), [f[1:] for f in FAULTS], ids=[f[0] for f in FAULTS]
)
@pytest.mark.parametrize("modality", ["llm", "tts"])
async def test_the_backup_serves_when_the_primary(
    bench: Bench, modality: str, primary: list[Any], outcome: str
) -> None:
    if modality == "llm":
        first, second = candidate("a", FakeLLM(primary)), candidate("b", FakeLLM(WORDS))
        assert await bench.chat(bench.llm(first, second)) == " ".join(WORDS)
    else:
        first, second = candidate("a", FakeTTS(primary)), candidate("b", FakeTTS())
        assert await bench.speak(first, second) == pytest.approx(1.0, abs=0.03)
    assert bench.ledger.outcomes == [("a", outcome), ("b", "ok")]


@pytest.mark.parametrize(
    ("primary", "outcome"),
    [
        ([APIStatusError("no", status_code=503)], "provider_fault"),
        (["one", "two", APIConnectionError("cut")], "stream_cut"),
        (["one", ZeroDivisionError("no")], "provider_fault"),
        (["one", END], "stream_cut"),
    ],
    ids=["at once", "midway", "by a bug", "by a clean end"],
)
async def test_no_audio_is_lost_when_a_recogniser_fails(
    bench: Bench, primary: list[Any], outcome: str
) -> None:
    backup = FakeSTT(WORDS)
    heard = await bench.hear(candidate("a", FakeSTT(primary)), candidate("b", backup))
    assert heard == [" ".join(WORDS)]
    assert backup.heard == [pytest.approx(1.0)]
    assert bench.ledger.outcomes == [("a", outcome), ("b", "ok")]


@pytest.mark.parametrize(
    ("after", "said"),
    [(AfterOutput.RESTART, "one two x y z"), (AfterOutput.CONTINUE, "one two x y z")],
)
async def test_a_model_that_dies_midway_goes_on_by_policy(
    bench: Bench, after: AfterOutput, said: str
) -> None:
    first = candidate("a", FakeLLM(["one", "two", APIConnectionError("cut")]))
    second = candidate("b", FakeLLM(["x", "y", "z"]))
    assert await bench.chat(bench.llm(first, second, after=after)) == said


@pytest.mark.parametrize(
    "steps",
    [
        ["one", APIConnectionError("cut")],
        ["one", HANG],
        [llm.FunctionToolCall(name="book", arguments="{}", call_id="1"), HANG],
    ],
    ids=["cut", "stalled", "after a tool call"],
)
async def test_a_model_that_dies_midway_stops_with_an_error(bench: Bench, steps: list[Any]) -> None:
    backup = FakeLLM(WORDS)
    with pytest.raises(APIError):
        await bench.chat(bench.llm(candidate("a", FakeLLM(steps)), candidate("b", backup)))
    assert backup.chats == 0


async def test_when_all_fail_one_error_holds_every_cause(bench: Bench) -> None:
    steps = [APIStatusError("no", status_code=401)], [HANG], [APIConnectionError("no")]
    models = bench.llm(*(candidate(n, FakeLLM(s)) for n, s in zip("abc", steps, strict=True)))
    errors: list[Any] = []
    models.on("error", errors.append)
    with pytest.raises(APIConnectionError) as raised:
        await bench.chat(models)
    causes = raised.value.__cause__
    assert isinstance(causes, AllCandidatesFailed)
    assert [type(error).__name__ for _, error in causes.causes] == [
        "Unauthorized", "DeadlineExceeded", "ConnectFailed", "ConnectFailed",
    ]  # fmt: skip
    assert raised.value.retryable is False
    assert [error.recoverable for error in errors] == [True]


async def test_a_retry_can_help_the_last_candidate(bench: Bench) -> None:
    flaky = FakeLLM([APIConnectionError("no")])
    asyncio.get_running_loop().call_later(0.05, setattr, flaky, "steps", WORDS)
    assert await bench.chat(bench.llm(candidate("a", flaky))) == " ".join(WORDS)
    assert bench.ledger.outcomes == [("a", "connect_failed"), ("a", "ok")]
    assert bench.failovers == [], "nobody took over"


USAGE = llm.CompletionUsage(
    completion_tokens=7, prompt_tokens=11, prompt_cached_tokens=3, total_tokens=18
)


async def test_usage_is_the_vendors_where_it_tells(bench: Bench) -> None:
    await bench.chat(bench.llm(candidate("a", FakeLLM(WORDS, USAGE))))
    (record,) = bench.ledger.records
    assert record.entry.usage == Usage(tokens_in=11, tokens_out=7, tokens_cached=3)
    assert record.entry.quality is Quality.EXACT


async def test_what_one_connection_does_is_not_expected_of_another(bench: Bench) -> None:
    """Plugins of the same model, of which one has a server that tells no usage."""
    model = ModelRef("fake", "fake")
    telling = Candidate(model, "telling", live=FakeLLM(WORDS, USAGE))
    silent = Candidate(model, "silent", live=FakeLLM(WORDS))
    cut = Candidate(model, "telling", live=FakeLLM(WORDS[:2]))
    for one in (telling, silent):
        assert await bench.chat(bench.llm(one)) == " ".join(WORDS)
    with pytest.raises(APIConnectionError):  # a plugin built anew for the same connection is known
        await bench.chat(bench.llm(cut))
    assert [outcome for _, outcome in bench.ledger.outcomes] == ["ok", "ok", "stream_cut"]


async def test_the_pace_of_one_voice_is_not_expected_of_another(bench: Bench) -> None:
    """Instances that the user built: nobody sees which voice they speak with."""
    text = "A sentence of so many letters that its length in time says how fast a voice is."
    slow, quick = candidate("a", FakeTTS()), candidate("a", FakeTTS(["quickly"] * 4))
    for one in (slow, quick):
        await bench.speak(one, text=text)
    assert [outcome for _, outcome in bench.ledger.outcomes] == ["ok", "ok"]
    slow.live.steps = ["quickly"] * 4
    with pytest.raises(APIConnectionError):
        await bench.speak(slow, text=text)


async def _interrupt(start: Callable[[], Any], after: float) -> None:
    stream = start()
    async with stream:
        task = asyncio.ensure_future(stream.__anext__())
        await asyncio.sleep(after)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_barge_in_is_metered_and_blames_nobody(bench: Bench) -> None:
    model = bench.llm(candidate("a", FakeLLM([*WORDS, HANG])), candidate("b", FakeLLM(WORDS)))
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="hello there")
    await _interrupt(lambda: model.chat(chat_ctx=context), 0.1)
    (record,) = bench.ledger.records
    assert record.attempt.outcome == "cancelled"
    assert record.entry.quality is Quality.ESTIMATED
    assert record.entry.usage == Usage(tokens_in=4 + 3, tokens_out=8)


async def test_an_interrupted_voice_is_metered(bench: Bench) -> None:
    voice = TTS(
        bench.engine,
        Plan((candidate("a", FakeTTS(["one", HANG])),), Deadlines()),
        lambda: CALL,
        sample_rate=16000,
        closing=bench.nothing,
    )
    async with voice.stream() as stream:
        stream.push_text("one two")
        stream.end_input()
        await stream.__anext__()
    (record,) = bench.ledger.records
    assert record.attempt.outcome == "cancelled"
    assert record.entry.usage.characters == 7
    assert record.entry.usage.audio_out_ns > 0


async def test_metrics_tell_of_the_whole_utterance(bench: Bench) -> None:
    """The voice's own and ours, told once: from the first text to the last frame."""
    plugin = FakeTTS(WORDS)
    plan = Plan((candidate("a", plugin),), FAST)
    ours = TTS(bench.engine, plan, lambda: CALL, sample_rate=16000, closing=bench.nothing)
    told: dict[str, list[TTSMetrics]] = {"plugin": [], "ours": []}
    plugin.on("metrics_collected", told["plugin"].append)
    ours.on("metrics_collected", told["ours"].append)
    seconds = 0.0
    async with ours.stream() as stream:
        stream.push_text(" ".join(WORDS))
        stream.end_input()
        async for out in stream:
            seconds += out.frame.duration
    for (one,) in told.values():
        assert one.audio_duration == pytest.approx(seconds, abs=0.05)
        assert one.characters_count == len(" ".join(WORDS))
        assert 0 <= one.ttfb <= one.duration
