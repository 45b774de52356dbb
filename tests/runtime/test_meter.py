"""What the meter counts against what the vendors' doubles invoice: random calls, cut and failing.

Clean calls count what the bill says, to the character, the sample and the token. Of a call that is
cut, the vendor does not say what it cost; then the meter's error is bounded here, on the side that
each bound names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import llm
from livekit.plugins import openai
from trading import Trade, calls, chat, hear, speak, total, trading

import trunkline.llm
from trunkline import inference
from trunkline.core.models import Attempt, Purpose, Quality, Usage
from trunkline.doubles import BillLine, Rule
from trunkline.runtime.meter import TOKENS_PER_PART

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
            # longest word has fourteen, and four more for each message, which may be a single word
            # to go on after. What had not come when the answer was cut is not counted.
            asked = line.units.tokens_in
            assert asked / 2 <= entry.usage.tokens_in <= (4 + TOKENS_PER_PART) * asked
            assert entry.usage.tokens_out <= 4 * line.units.tokens_out, attempt.outcome


def line_of(attempt: Attempt, lines: dict[str, BillLine]) -> BillLine | None:
    return lines.get(attempt.provider_request_id.removeprefix("chatcmpl-"))


VOICES = [
    # whose audio comes as it was made, or as MP3, whose frames are filled up
    ("cartesia/sonic-3", 0),
    ("deepgram/aura-2", 0),
    ("elevenlabs/eleven_flash_v2_5", 60_000_000),
    # asked sentence by sentence, over HTTP
    ("openai/tts-1", 110_000_000),
    ("openai/gpt-4o-mini-tts", 110_000_000),
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
    for unit in ("tokens_in", "tokens_out", "tokens_audio_out"):
        assert getattr(trade.ours, unit) == getattr(trade.bill, unit)


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


RECORDINGS = ["openai/whisper-1", "openai/gpt-4o-transcribe"]


@pytest.mark.parametrize("model", RECORDINGS)
@pytest.mark.parametrize(("times", "seed"), TIMES)
async def test_recordings_are_those_of_the_bill(
    tmp_path: Path, times: int, seed: int, model: str
) -> None:
    async with trading(tmp_path, model, "stt", seed, faults=False) as trade:
        await calls(trade, hear(barge=False), times)
    assert {one.entry.quality for one in trade.settled} == {Quality.EXACT}
    assert trade.ours.audio_in_ns == trade.bill.audio_in_ns > 0


@pytest.mark.parametrize("model", RECORDINGS)
@pytest.mark.parametrize(("times", "seed"), TIMES)
async def test_of_cut_recordings_none_is_forgotten(
    tmp_path: Path, times: int, seed: int, model: str
) -> None:
    """A recording whose answer nobody waited for was sent: too much, never too little."""
    async with trading(tmp_path, model, "stt", seed, faults=True) as trade:
        await calls(trade, hear(barge=True), times)
    assert trade.cut
    cut = total(one.entry.usage for one in trade.cut)
    assert 0 <= trade.ours.audio_in_ns - trade.bill.audio_in_ns <= cut.audio_in_ns


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
    ours, bill = trade.told(second)
    # a call that gave up in the middle is cut there too, and then an estimate
    if {one.entry.quality for one in served} == {Quality.EXACT}:
        assert (ours.characters, ours.audio_in_ns) == (bill.characters, bill.audio_in_ns)
    failed, invoice = trade.told(first)
    assert failed.characters >= invoice.characters
    assert abs(failed.audio_in_ns - invoice.audio_in_ns) <= LOST_NS * len(trade.settled)


MODELS = ("openai/gpt-4.1", "spare/gpt-4.1-mini")
"""One vendor under two names."""


@pytest.mark.parametrize(
    ("faults", "hedge_after"),
    [pytest.param(True, None, id="failover"), pytest.param(False, 0.003, id="hedge")],
)
@pytest.mark.parametrize(("times", "seed"), TIMES)
async def test_an_answer_asked_for_twice_is_counted_twice(
    tmp_path: Path, times: int, seed: int, faults: bool, hedge_after: float | None
) -> None:
    """Callers leave in the middle, too. What each vendor told is exact, and no prompt is lost."""
    first, second = MODELS
    async with trading(
        tmp_path, first, "llm", seed, faults, behind=second, hedge_after=hedge_after
    ) as trade:
        await calls(trade, chat(barge=True), times)
    lines = {line.request_id: line for line in trade.double.bill}
    for one in trade.settled:
        line = line_of(one.attempt, lines)
        if one.entry.quality is Quality.EXACT:
            assert one.entry.usage == (line.units if line else Usage())
    for model in MODELS:
        ours, bill = trade.told(model)
        assert bill.tokens_in
        assert ours.tokens_in >= bill.tokens_in / 2
    purposes = {one.attempt.purpose for one in trade.settled}
    assert (Purpose.HEDGE in purposes) == (hedge_after is not None)


@pytest.mark.parametrize(("times", "seed"), TIMES)
async def test_a_voice_that_was_outrun_is_counted(tmp_path: Path, times: int, seed: int) -> None:
    models = ("cartesia/sonic-3", "deepgram/aura-2")
    async with trading(
        tmp_path, models[0], "tts", seed, faults=False, behind=models[1], hedge_after=0.003
    ) as trade:
        await calls(trade, speak(barge=True), times)
    assert Purpose.HEDGE in {one.attempt.purpose for one in trade.settled}
    for model in models:
        ours, bill = trade.told(model)
        assert ours.characters >= bill.characters


async def test_a_voice_is_charged_by_the_plan_of_its_account(tmp_path: Path) -> None:
    voice = "cartesia/sonic-3"
    async with trading(tmp_path, voice, "tts", 1, faults=False, tier="startup") as trade:
        await calls(trade, speak(barge=False), 2)
    assert {one.attempt.tier for one in trade.settled} == {"startup"}
    # 49 USD for 1,250,000 credits, one a character
    due = 39_200 * trade.bill.characters
    assert sum(one.entry.charge.nanos for one in trade.settled if one.entry.charge) == due


@pytest.mark.parametrize(
    ("language", "usd"), [("", "0.0048"), (":fr", "0.0048"), (":multi", "0.0058")]
)
async def test_a_recogniser_is_charged_for_the_language_it_hears(
    tmp_path: Path, language: str, usd: str
) -> None:
    async with trading(tmp_path, f"deepgram/nova-3{language}", "stt", 1, faults=False) as trade:
        await calls(trade, hear(barge=False), 1)
    told = {
        (one.attempt.language, one.entry.charge and one.entry.charge.rate) for one in trade.settled
    }
    assert told == {(language[1:], f"{usd} USD/audio_in_minute")}


async def test_what_a_vendor_asks_more_for_is_not_charged_as_if_it_did_not(tmp_path: Path) -> None:
    options = {"stt": {"keyterm": ["Trunkline"], "diarize": True}}
    async with trading(
        tmp_path, "deepgram/nova-3", "stt", 1, faults=False, options=options
    ) as trade:
        await calls(trade, hear(barge=False), 1)
    told = {(one.attempt.tier, one.entry.charge) for one in trade.settled}
    assert told == {("+diarization+keyterms", None)}


async def test_a_recording_whose_tokens_nobody_told_is_charged_by_the_minute(
    tmp_path: Path,
) -> None:
    async with trading(tmp_path, "openai/gpt-4o-transcribe", "stt", 1, faults=False) as trade:
        await calls(trade, hear(barge=False), 1)
    (charge,) = {one.entry.charge for one in trade.settled}
    assert charge is not None
    assert "estimate" in charge.rate
    # 0.006 USD a minute
    assert charge.nanos == (trade.bill.audio_in_ns * 100_000 + 500_000_000) // 1_000_000_000


async def test_a_connection_that_is_lost_in_use_is_counted(tmp_path: Path) -> None:
    """Cartesia's plugin says of it what it says of a connection that never was."""
    async with trading(tmp_path, "cartesia/ink-2", "stt", 1, faults=False) as trade:
        trade.double.faults.add(Rule(kind="die", after=1))
        await calls(trade, hear(barge=False), 2)
    assert trade.bill.audio_in_ns
    assert trade.ours.audio_in_ns >= trade.bill.audio_in_ns // 2
    assert "stream_cut" in {one.attempt.outcome for one in trade.settled}


def wired(_: Trade) -> llm.LLM[Any]:
    return inference.LLM("main")


def plugged(trade: Trade) -> llm.LLM[Any]:
    base = trade.double.url("openai") + "/v1"
    plugin = openai.LLM(model="gpt-4.1", base_url=base, api_key="k")
    return trunkline.llm.FallbackAdapter([plugin])


@pytest.mark.parametrize("model", [wired, plugged])
async def test_a_prompt_whose_answer_never_began_is_counted(
    tmp_path: Path, model: Callable[[Trade], llm.LLM[Any]]
) -> None:
    """It may have been read. Where nobody listens, nothing was sent."""
    kind = replace(chat(barge=False), client=model)
    async with trading(tmp_path, "openai/gpt-4.1", "llm", 1, faults=False) as trade:
        trade.double.inject(Rule(kind="refuse", nth=(1,)))
        await calls(trade, kind, 1)
        lost, *retried = (one.entry for one in trade.settled)
        trade.settled.clear()
        trade.double.inject(Rule(kind="refuse"))
        await calls(trade, kind, 1)
        refused = [one.entry for one in trade.settled]
    assert lost.quality is Quality.UNDERESTIMATE
    assert lost.usage.tokens_in
    assert not lost.usage.tokens_out
    assert {entry.quality for entry in retried} <= {Quality.EXACT}
    assert refused
    assert {(entry.quality, entry.usage) for entry in refused} == {(Quality.EXACT, Usage())}


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
