"""Two attempts at one request: who has content first is heard, and who was not is written down."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from gating import TOKENS, Process, an_attempt
from livekit.agents import APIConnectionError, llm
from plugins import HANG, FakeLLM, FakeTTS, Ledger, candidate
from switchboard import ask as board_ask
from switchboard import settings, settled

import trunkline
from trunkline import inference
from trunkline.core.events import Failover
from trunkline.core.models import (
    AfterOutput,
    Deadlines,
    Hedge,
    Identity,
    Modality,
    Plan,
    Purpose,
    Quality,
    Usage,
)
from trunkline.core.scopes import Unit
from trunkline.doubles import Double, Pace, Provider
from trunkline.errors import Refused
from trunkline.runtime.attempt import Engine
from trunkline.runtime.gate import Gate
from trunkline.runtime.health import HealthBook
from trunkline.runtime.llm import LLM
from trunkline.runtime.tts import TTS

PATIENT = Deadlines(connect=20, first_content=20, idle=20, total=60)
SOON = Hedge(after=0.05, share=1.0)
DOWN = APIConnectionError("down")
BOTH = (Modality.LLM, Modality.TTS)
TEXT = "one two three"


@dataclass
class House:
    """An engine, and requests of either modality to candidates that behave as their steps say."""

    ledger: Ledger = field(default_factory=Ledger)
    gate: Gate | None = None
    failovers: list[Failover] = field(default_factory=list)
    made: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        gate = self.gate or Gate(self.ledger, lambda _: None, lambda _: None)
        self.engine = Engine(gate, HealthBook(), self.failovers.append)

    def client(self, modality: Modality, *steps: Any, **policy: Any) -> Any:
        kind: Any = FakeLLM if modality is Modality.LLM else FakeTTS
        candidates = [candidate(name, kind(one)) for name, one in zip("abc", steps, strict=False)]
        given = {"hedge": SOON, "after_output": AfterOutput.CONTINUE, "retries": 0, **policy}
        plan = Plan(tuple(candidates), PATIENT, **given)
        more = {} if modality is Modality.LLM else {"sample_rate": 16000}
        wrapper: Any = LLM if modality is Modality.LLM else TTS

        async def close() -> None: ...

        self.made.append(wrapper(self.engine, plan, lambda: Identity("c"), closing=close, **more))
        return self.made[-1]

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        return sorted(
            (r.attempt.provider, r.attempt.outcome, r.attempt.purpose.value)
            for r in self.ledger.records
        )


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    for made in house.made:
        await made.aclose()
    await house.engine.aclose()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the conditions have no event of their own
            await asyncio.sleep(0.01)


async def ask(client: Any) -> tuple[str, int]:
    """What a model said, or how many words' worth of audio a voice made; and who serves then."""
    async with asyncio.timeout(50):
        if isinstance(client, LLM):
            context = llm.ChatContext.empty()
            context.add_message(role="user", content="hello")
            async with client.chat(chat_ctx=context) as chat:
                said = [c.delta.content or "" async for c in chat if c.delta]
            return client.provider, len("".join(said).split())
        loud = 0.0
        async with client.stream() as stream:
            stream.push_text(TEXT)
            stream.end_input()
            async for audio in stream:
                loud += audio.frame.duration if any(audio.frame.data) else 0.0
        return client.provider, round(loud / 0.2)


WORDS = TEXT.split()
NOTICE = ["We", "have", "to", "end", "here."]
SLOW: list[Any] = [0.4, *WORDS]

STORIES: dict[str, tuple[list[Any], list[tuple[str, str, str]], str]] = {
    "the first one is quick": (
        [WORDS, WORDS],
        [("a", "ok", "serve")],
        "a",
    ),
    "the first one hangs": (
        [[HANG], WORDS],
        [("a", "cancelled", "hedge"), ("b", "ok", "serve")],
        "b",
    ),
    "the first one is slow, the next one slower": (
        [SLOW, [HANG]],
        [("a", "ok", "serve"), ("b", "cancelled", "hedge")],
        "a",
    ),
    "the next one fails": (
        [SLOW, [DOWN]],
        [("a", "ok", "serve"), ("b", "connect_failed", "hedge")],
        "a",
    ),
    "the first one fails meanwhile": (
        [[0.2, DOWN], SLOW],
        [("a", "connect_failed", "serve"), ("b", "ok", "serve")],
        "b",
    ),
    "the first one fails before": (
        [[DOWN], SLOW],
        [("a", "connect_failed", "serve"), ("b", "ok", "serve")],
        "b",
    ),
    "the next one is ahead and dies": (
        [[HANG], ["one", "two", 0.3, DOWN], ["three"]],
        [("a", "cancelled", "hedge"), ("b", "connect_failed", "serve"), ("c", "ok", "serve")],
        "c",
    ),
}


@pytest.mark.parametrize("modality", BOTH)
@pytest.mark.parametrize("story", STORIES)
async def test_first_content_serves(story: str, modality: Modality, house: House) -> None:
    steps, rows, serving = STORIES[story]
    hedge = Hedge(after=10.0) if "quick" in story else SOON
    client = house.client(modality, *steps, hedge=hedge)
    name, words = await ask(client)
    # LiveKit holds the last frame of a voice back until the next comes, and loses it when none does
    assert (name, words) == (serving, 3) or ("dies" in story and (name, words) == (serving, 2))
    await house.engine.settled()
    assert house.rows == rows
    blamed = [name for name, outcome, _ in rows if outcome not in ("ok", "cancelled")]
    ill = [one.ref.provider for one in client.plan.candidates if not allowed(house, one)]
    assert ill == blamed, "to be slow is no failure"
    told = [f.next for f in house.failovers]
    assert told == [f"{serving}/fake" for _, outcome, purpose in rows if (outcome, purpose) == LOST]


LOST = ("connect_failed", "serve")


def allowed(house: House, one: Any) -> bool:
    return house.engine.health.allows(one.key)


@pytest.mark.parametrize("modality", BOTH)
async def test_when_both_fail_both_are_causes(modality: Modality, house: House) -> None:
    client = house.client(modality, [0.3, DOWN], [DOWN])
    with pytest.raises(APIConnectionError) as raised:
        await ask(client)
    assert "a/fake" in str(raised.value.__cause__)
    assert "b/fake" in str(raised.value.__cause__)
    assert house.rows == [("a", "connect_failed", "serve"), ("b", "connect_failed", "hedge")]


@pytest.mark.parametrize(("first", "words"), [([1.0, *WORDS], WORDS), ([1.0, DOWN], NOTICE)])
async def test_a_duplicate_that_is_refused_is_no_refused_caller(
    tmp_path: Path, first: list[Any], words: Sequence[str]
) -> None:
    """Unless the first one fails: who comes next is asked for as ever, and refused as ever."""
    notice = " ".join(NOTICE)
    once = replace(TOKENS, unit=Unit.REQUESTS, amount=1, notice=notice)
    one = Process(tmp_path / "state", once)
    house = House(gate=one.gate)
    client = house.client(Modality.LLM, first, WORDS)
    assert await ask(client) == ("a", len(words))
    assert [event.notice for event in one.refused] == ([""] if words is WORDS else ["", notice])
    voice = an_attempt(modality=Modality.TTS, call="c")
    if words is WORDS:
        with pytest.raises(Refused):
            await one.gate.reserve(voice, lambda: Usage(characters=1))
    await client.aclose()
    await house.engine.aclose()
    one.gate.close()


@pytest.mark.parametrize("modality", BOTH)
async def test_duplicates_are_a_share_of_the_requests(modality: Modality, house: House) -> None:
    hedge = Hedge(after=0.001, share=0.25)
    client = house.client(modality, [0.05, *WORDS], [HANG], hedge=hedge, route="r")
    for _ in range(12):
        assert await ask(client) == ("a", 3)
    await house.engine.settled()
    hedges = [row for row in house.rows if row[2] == "hedge"]
    assert 1 <= len(hedges) <= 1 + 12 * 0.25


@pytest.mark.parametrize("modality", BOTH)
async def test_an_interruption_ends_both_and_blames_neither(
    modality: Modality, house: House
) -> None:
    before = asyncio.all_tasks()
    client = house.client(modality, [HANG], [HANG])
    asking = asyncio.ensure_future(ask(client))
    await until(lambda: client.plan.candidates[1].live.asked)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await house.engine.settled()
    await until(lambda: asyncio.all_tasks() == before)
    assert house.rows == [("a", "cancelled", "serve"), ("b", "cancelled", "hedge")]


async def test_text_that_comes_during_a_race_is_spoken_by_whoever_wins(house: House) -> None:
    client = house.client(Modality.TTS, [HANG], ())
    loud = 0.0
    async with asyncio.timeout(50), client.stream() as stream:
        stream.push_text("one two. ")
        await asyncio.sleep(0.3)
        stream.push_text("three ")
        stream.push_text("four.")
        stream.end_input()
        async for audio in stream:
            loud += audio.frame.duration if any(audio.frame.data) else 0.0
    assert round(loud / 0.2) == 4
    assert client.plan.candidates[0].ref.provider == "b", "and stays for the call"


async def test_without_a_known_p95_nobody_is_hedged(house: House) -> None:
    client = house.client(Modality.LLM, [0.1, *WORDS], WORDS, hedge=Hedge(share=1.0))
    for _ in range(10):
        assert (await ask(client))[0] == "a"
    assert {row[2] for row in house.rows} == {"serve"}
    client.plan.candidates[0].live.steps = [2.0, *WORDS]
    assert (await ask(client))[0] == "b", "which takes ten answers"


async def test_a_hedged_chat_is_in_the_ledger_as_it_is_on_the_bills(tmp_path: Path) -> None:
    """Two servers of OpenAI's protocol, of which the first takes its time."""
    slow, quick = Provider("openai", pace=Pace(first=30.0)), Provider("openai", replies=["quick"])
    async with Double.serve([slow]) as first, Double.serve([quick]) as second:
        servers = {
            name: {"kind": "openai", "base_url": f"{double.url('openai')}/v1", "api_key": "k"}
            for name, double in (("one", first), ("two", second))
        }
        brain = {
            "modality": "llm",
            "candidates": ["one/gpt-4.1", "two/gpt-4.1"],
            "deadlines": {"first_content": 60},
            "hedge": {"after": 0.05, "share": 0.5},
        }
        settings(tmp_path, providers=servers, routes={"brain": brain})
        records = settled()
        model = inference.LLM("brain")
        assert await board_ask(model) == "quick"
        await until(lambda: len(records) == 2)
        await model.aclose()
        await trunkline.aclose()
    rows = {r.attempt.provider: r for r in records}
    assert {name: (r.attempt.outcome, r.attempt.purpose) for name, r in rows.items()} == {
        "one": ("cancelled", Purpose.HEDGE),
        "two": ("ok", Purpose.SERVE),
    }
    (bill,) = second.bill
    assert rows["two"].entry.usage.tokens_out == bill.units.tokens_out
    assert rows["two"].entry.quality is Quality.EXACT
    assert rows["one"].entry.quality is not Quality.EXACT, "it was cut before it could tell"
    assert [log.outcome for log in first.requests] == ["cancelled"]
