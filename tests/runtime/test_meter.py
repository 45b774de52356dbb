"""What the meter counts against what the vendors' doubles invoice: random calls, cut and failing.

Clean calls count what the bill says, to the character, the sample and the token. Of a call that is
cut, the vendor does not say what it cost; then the meter's error is bounded here, on the side that
each bound names.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from livekit import rtc
from livekit.agents import APIError, llm
from msgspec.structs import astuple

import trunkline
from trunkline import inference
from trunkline.core.models import Attempt, Quality, Settlement, Usage
from trunkline.doubles import BillLine, Double, Pace, Provider, Rule, tones

TEXT = "the quick brown fox jumps over a lazy dog while seven wizards brew extraordinary potions"
WORDS = TEXT.split()
RATE = 16000
AT_ONCE = 8
PACE = Pace(first=0.003, between=0.001, rtf=0.005)
DEADLINE = 0.4
PATIENCE = 10.0
"""The deadline where nothing fails: a busy machine must not make it so."""
FAULTS = ("die", "stall", "end", "truncate", "garbage", "server_error", "rate_limited")
ROUGH = 0.07
"""The probability of each fault; together every other call meets one."""


def sentence(random: random.Random, longest: int) -> str:
    words = [random.choice(WORDS) for _ in range(random.randint(1, longest))]
    return " ".join(words).capitalize() + random.choice(".!?")


@dataclass
class Trade:
    """A Trunkline before a double: everything it settled, everything it was billed."""

    double: Double
    http: aiohttp.ClientSession
    random: random.Random
    settled: list[Settlement] = field(default_factory=list)

    @property
    def ours(self) -> Usage:
        return total(one.entry.usage for one in self.settled)

    @property
    def bill(self) -> Usage:
        return total(line.units for line in self.double.bill)

    def told(self, provider: str) -> tuple[Usage, Usage]:
        """What was settled, and what was billed, by one of the vendors."""
        settled = [one for one in self.settled if one.attempt.provider == provider]
        bill = [line for line in self.double.bill if line.provider == provider]
        return total(one.entry.usage for one in settled), total(line.units for line in bill)

    @property
    def cut(self) -> list[Settlement]:
        """What did not end well."""
        return [one for one in self.settled if one.attempt.outcome != "ok"]


_PATHS = {"openai": "/v1", "elevenlabs": "/v1"}


def total(parts: Any) -> Usage:
    columns = list(zip(*(astuple(part) for part in [Usage(), *parts]), strict=True))
    return Usage(*(sum(column) for column in columns))


@contextlib.asynccontextmanager
async def trading(
    place: Path, model: str, modality: str, seed: int, faults: bool, behind: str = ""
) -> AsyncIterator[Trade]:
    """One vendor behind its route "main" until the block ends; then all is settled and closed.

    The model ``behind`` it, if any, is another vendor's, where nothing fails.
    """
    source = random.Random(seed)
    models = [model, *([behind] if behind else [])]
    vendors = [one.split("/")[0] for one in models]
    providers = [
        Provider(vendor, pace=PACE, answer=lambda _: sentence(source, 30)) for vendor in vendors
    ]
    rules = [
        Rule(provider=vendors[0], kind=kind, after=source.randint(0, 5), probability=ROUGH)
        for kind in FAULTS
        if faults
    ]
    async with Double.serve(providers, faults=rules, seed=seed) as double:
        deadlines = dict.fromkeys(
            ("connect", "first_content", "idle"), DEADLINE if faults else PATIENCE
        )
        settings = {
            "version": 1,
            "providers": {
                vendor: {"api_key": "k", "base_url": double.url(vendor) + _PATHS.get(vendor, "")}
                for vendor in vendors
            },
            "routes": {
                "main": {"modality": modality, "candidates": models, "deadlines": deadlines}
            },
        }
        (place / "trunkline.yaml").write_text(json.dumps(settings))
        trunkline.configure(place / "trunkline.yaml", place / "state")
        async with aiohttp.ClientSession() as http:
            trade = Trade(double, http, source)
            stop = trunkline.on("settled", trade.settled.append)
            yield trade
            await trunkline.aclose()
            stop()


async def calls(trade: Trade, call: Callable[[Trade], Awaitable[None]], times: int) -> None:
    """So many calls, some at once; a call that fails is a call."""

    async def one(limit: asyncio.Semaphore) -> None:
        async with limit, asyncio.timeout(60):
            with contextlib.suppress(APIError, RuntimeError):  # RuntimeError: pushed after the end
                await call(trade)

    limit = asyncio.Semaphore(AT_ONCE)
    await asyncio.gather(*(one(limit) for _ in range(times)))
    async with asyncio.timeout(30):
        while any(one.outcome == "running" for one in trade.double.requests):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def chat(*, barge: bool) -> Callable[[Trade], Awaitable[None]]:
    async def call(trade: Trade) -> None:
        context = llm.ChatContext.empty()
        context.add_message(role="system", content=sentence(trade.random, 40))
        context.add_message(role="user", content=sentence(trade.random, 20))
        left = trade.random.randint(1, 60) if barge else None
        model = inference.LLM("main")
        try:
            async with model.chat(chat_ctx=context) as stream:
                async for _ in stream:
                    left = None if left is None else left - 1
                    if left == 0:
                        break
        finally:
            await model.aclose()

    return call


def speak(*, barge: bool) -> Callable[[Trade], Awaitable[None]]:
    """Text comes word by word; a barge-in may come before its end."""

    async def call(trade: Trade) -> None:
        words = sentence(trade.random, 40).split(" ")
        left = trade.random.uniform(0, 3) if barge else float("inf")
        voice = inference.TTS("main", http_session=trade.http)
        stream = voice.stream()

        async def push() -> None:
            for n, word in enumerate(words):
                stream.push_text(f" {word}" if n else word)
                await asyncio.sleep(0.001)
            stream.end_input()

        pushing = asyncio.create_task(push())
        try:
            async with stream:
                async for audio in stream:
                    left -= audio.frame.duration
                    if left <= 0:
                        break
        finally:
            pushing.cancel()
            await asyncio.gather(pushing, return_exceptions=True)
            await voice.aclose()

    return call


def hear(*, barge: bool) -> Callable[[Trade], Awaitable[None]]:
    """Audio faster than it is said; half of those who may leave in the middle do."""

    async def call(trade: Trade) -> None:
        pcm = tones.encode(sentence(trade.random, 6), RATE) + bytes(RATE)
        frames = [pcm[at : at + 640].ljust(640, b"\0") for at in range(0, len(pcm), 640)]
        leaves = barge and trade.random.random() < 0.5
        if leaves:
            frames = frames[: trade.random.randint(1, len(frames))]
        recogniser = inference.STT("main", http_session=trade.http)
        try:
            async with recogniser.stream() as stream:
                for frame in frames:
                    stream.push_frame(rtc.AudioFrame(frame, RATE, 1, 320))
                    await asyncio.sleep(0.001)
                if not leaves:
                    stream.end_input()
                    async for _ in stream:
                        pass
        finally:
            await recogniser.aclose()

    return call


TIMES = [
    pytest.param(12, 1, id="quick"),
    *(pytest.param(300, seed, id=f"soak-{seed}", marks=pytest.mark.soak) for seed in (2, 3)),
]
"""Calls of a run, and its seed."""


@pytest.mark.parametrize(("times", "seed"), TIMES)
async def test_tokens_are_those_of_the_bill(tmp_path: Path, times: int, seed: int) -> None:
    async with trading(tmp_path, "openai/gpt-4.1", "llm", seed, faults=False) as trade:
        await calls(trade, chat(barge=False), times)
    assert {one.entry.quality for one in trade.settled} == {Quality.EXACT}
    assert trade.ours == trade.bill
    # gpt-4.1: 2 USD a million tokens in, 8 out
    due = 2_000 * trade.bill.tokens_in + 8_000 * trade.bill.tokens_out
    assert sum(one.entry.charge.nanos for one in trade.settled if one.entry.charge) == due


@pytest.mark.parametrize(("times", "seed"), TIMES)
async def test_tokens_that_nobody_told_are_estimated(tmp_path: Path, times: int, seed: int) -> None:
    """The vendor tells no usage of an answer that was cut, so what is exact is exact by request."""
    async with trading(tmp_path, "openai/gpt-4.1", "llm", seed, faults=True) as trade:
        await calls(trade, chat(barge=True), times)
    lines = {line.request_id: line for line in trade.double.bill}
    attempts = [(one.attempt, one.entry, line_of(one.attempt, lines)) for one in trade.settled]
    exact = [(entry.usage, line) for _, entry, line in attempts if entry.quality is Quality.EXACT]
    assert [usage for usage, line in exact if line] == [line.units for _, line in exact if line]
    assert all(usage == Usage() for usage, line in exact if line is None)
    estimated = [one for one in attempts if one[1].quality is not Quality.EXACT]
    assert estimated
    for attempt, entry, line in estimated:
        if line is not None:
            # To this vendor a token is a word; to the estimate it is four characters, of which the
            # longest word has fourteen. What had not come when the answer was cut is not counted.
            assert line.units.tokens_in / 2 <= entry.usage.tokens_in <= 4 * line.units.tokens_in
            assert entry.usage.tokens_out <= 4 * line.units.tokens_out, attempt.outcome


def line_of(attempt: Attempt, lines: dict[str, BillLine]) -> BillLine | None:
    return lines.get(attempt.provider_request_id.removeprefix("chatcmpl-"))


VOICES = [
    # whose audio comes as it was made, or as MP3, whose frames are filled up
    ("cartesia/sonic-3", 0),
    ("deepgram/aura-2", 0),
    ("elevenlabs/eleven_flash_v2_5", 60_000_000),
]


@pytest.mark.parametrize(("model", "filled_ns"), VOICES, ids=[model for model, _ in VOICES])
@pytest.mark.parametrize(("times", "seed"), TIMES)
async def test_characters_and_speech_are_those_of_the_bill(
    tmp_path: Path, times: int, seed: int, model: str, filled_ns: int
) -> None:
    async with trading(tmp_path, model, "tts", seed, faults=False) as trade:
        await calls(trade, speak(barge=False), times)
    assert {one.entry.quality for one in trade.settled} == {Quality.EXACT}
    assert trade.ours.characters == trade.bill.characters
    assert 0 <= trade.ours.audio_out_ns - trade.bill.audio_out_ns <= filled_ns * times


@pytest.mark.parametrize("model", ["openai/tts-1", "openai/gpt-4o-mini-tts"])
async def test_a_voice_asked_by_sentences_is_billed_as_asked(tmp_path: Path, model: str) -> None:
    """By characters, or by the tokens that its plugin tells."""
    async with trading(tmp_path, model, "tts", 1, faults=False) as trade:
        await calls(trade, speak(barge=False), 3)
    whole = {one.attempt.outcome for one in trade.settled} == {"ok"}
    assert (trade.ours.characters == trade.bill.characters) or not whole
    for unit in ("tokens_in", "tokens_out", "tokens_audio_out"):
        assert getattr(trade.ours, unit) == getattr(trade.bill, unit) or not whole
    assert any(one.attempt.outcome == "ok" for one in trade.settled)


@pytest.mark.parametrize(("model", "filled_ns"), VOICES, ids=[model for model, _ in VOICES])
@pytest.mark.parametrize(("times", "seed"), TIMES)
async def test_of_cut_speech_no_character_is_forgotten(
    tmp_path: Path, times: int, seed: int, model: str, filled_ns: int
) -> None:
    """Text that was pushed and not read yet is counted: too much, never too little."""
    async with trading(tmp_path, model, "tts", seed, faults=True) as trade:
        await calls(trade, speak(barge=True), times)
    assert trade.cut
    cut = total(one.entry.usage for one in trade.cut)
    assert trade.bill.characters <= trade.ours.characters
    assert trade.ours.characters - trade.bill.characters <= cut.characters
    assert trade.ours.audio_out_ns <= trade.bill.audio_out_ns + filled_ns * len(trade.settled)


EARS = [
    # and what a plugin adds in silence, so that the vendor takes the end of a stream
    ("deepgram/nova-3", 0),
    ("deepgram/flux-general", 0),
    ("cartesia/ink-whisper", 0),
    ("elevenlabs/scribe_v2_realtime", 0),
]


@pytest.mark.parametrize(("model", "added_ns"), EARS, ids=[model for model, _ in EARS])
@pytest.mark.parametrize(("times", "seed"), TIMES)
async def test_audio_heard_is_that_of_the_bill(
    tmp_path: Path, times: int, seed: int, model: str, added_ns: int
) -> None:
    async with trading(tmp_path, model, "stt", seed, faults=False) as trade:
        await calls(trade, hear(barge=False), times)
    assert {one.entry.quality for one in trade.settled} == {Quality.EXACT}
    assert trade.bill.audio_in_ns - trade.ours.audio_in_ns == added_ns * times


LOST_NS = 500_000_000
"""What a cut recogniser may have been sent, or not been sent, besides what was counted."""


@pytest.mark.parametrize(("model", "added_ns"), EARS, ids=[model for model, _ in EARS])
@pytest.mark.parametrize(("times", "seed"), TIMES)
async def test_of_cut_audio_the_error_is_bounded(
    tmp_path: Path, times: int, seed: int, model: str, added_ns: int
) -> None:
    """A plugin sends whole chunks, so the last part of one stays with it; and what a connection had
    been sent before it turned out to be none is not counted."""
    async with trading(tmp_path, model, "stt", seed, faults=True) as trade:
        await calls(trade, hear(barge=True), times)
    assert trade.cut
    error_ns = trade.bill.audio_in_ns - trade.ours.audio_in_ns
    bound_ns = LOST_NS * len(trade.cut)
    assert -bound_ns <= error_ns <= bound_ns + added_ns * len(trade.settled)


FAILOVERS = [
    ("tts", "cartesia/sonic-3", "deepgram/aura-2"),
    ("stt", "cartesia/ink-whisper", "deepgram/nova-3"),
]


@pytest.mark.parametrize(("modality", "first", "second"), FAILOVERS)
@pytest.mark.parametrize(("times", "seed"), TIMES)
async def test_who_takes_over_is_billed_to_the_unit(
    tmp_path: Path, times: int, seed: int, modality: str, first: str, second: str
) -> None:
    """The vendor that fails is bounded as above; the one behind it gets what is said again."""
    call = speak(barge=False) if modality == "tts" else hear(barge=False)
    async with trading(tmp_path, first, modality, seed, faults=True, behind=second) as trade:
        await calls(trade, call, times)
    behind = second.split("/")[0]
    served = [one for one in trade.settled if one.attempt.provider == behind]
    assert served
    ours, bill = trade.told(behind)
    # a call that gave up in the middle is cut there too, and then an estimate
    if {one.entry.quality for one in served} == {Quality.EXACT}:
        assert (ours.characters, ours.audio_in_ns) == (bill.characters, bill.audio_in_ns)
    failed, invoice = trade.told(first.split("/")[0])
    assert failed.characters >= invoice.characters
    assert abs(failed.audio_in_ns - invoice.audio_in_ns) <= LOST_NS * len(trade.settled)


async def test_a_connection_that_is_lost_in_use_is_counted(tmp_path: Path) -> None:
    """Cartesia's plugin says of it what it says of a connection that never was."""
    async with trading(tmp_path, "cartesia/ink-2", "stt", 1, faults=False) as trade:
        trade.double.faults.add(Rule(kind="die", after=1))
        await calls(trade, hear(barge=False), 2)
    assert trade.bill.audio_in_ns
    assert trade.ours.audio_in_ns >= trade.bill.audio_in_ns // 2
    assert "stream_cut" in {one.attempt.outcome for one in trade.settled}


@llm.function_tool
async def book_a_table(day: str, guests: int, name: str) -> str:
    """Book a table in the restaurant. Ask for the day and for the number of guests before."""
    return "booked"


async def cut_chat(trade: Trade, text: str, *tools: llm.Tool) -> int:
    """The tokens in that are estimated for a chat that is left after its first word."""
    context = llm.ChatContext.empty()
    context.add_message(role="user", content=text)
    model = inference.LLM("main")
    async with model.chat(chat_ctx=context, tools=list(tools)) as stream:
        async for _ in stream:
            break
    await model.aclose()
    return trade.settled[-1].entry.usage.tokens_in


async def test_an_estimate_has_tools_and_other_scripts_in_it(tmp_path: Path) -> None:
    async with trading(tmp_path, "openai/gpt-4.1", "llm", 1, faults=False) as trade:
        plain = await cut_chat(trade, "a table for two on friday, please")
        tooled = await cut_chat(trade, "a table for two on friday, please", book_a_table)
        chinese = await cut_chat(trade, "\u661f\u671f\u4e94" * 11)
    assert {one.entry.quality for one in trade.settled} == {Quality.ESTIMATED}
    assert tooled - plain >= 40  # the words of its description and of its parameters
    assert chinese >= 33 * 1.5  # as many characters as the English has
