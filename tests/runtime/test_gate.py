"""The gate: what budgets and limits let through, what they say, and what is counted."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from gating import MONEY, TOKENS, Process, an_attempt, per_token, spent, until
from plugins import Ledger

from trunkline.clock import now_ns
from trunkline.core.budgets import Action, Budget, Step
from trunkline.core.limits import Limit, Rate
from trunkline.core.models import Identity, Modality, Quality, Usage
from trunkline.core.ports import Override
from trunkline.core.scopes import MOST, Dimension, Scope, Unit
from trunkline.core.windows import Kind, Window
from trunkline.errors import Refused
from trunkline.runtime.gate import Gate
from trunkline.runtime.meter import Metered
from trunkline.store.gates import GATE_NAME, SQLiteGateStore

SECOND = 1_000_000_000
STREAMS = Limit("streams", Scope(), Unit.STREAMS, 2)


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Makes processes that share what they use."""
    made: list[Process] = []

    def make(*rules: Budget | Limit) -> Process:
        made.append(Process(tmp_path / "state", *rules))
        return made[-1]

    yield make
    for one in made:
        one.gate.close()


async def refusal(one: Process, estimate: int, told: str) -> Refused:
    """The refusal that says ``told``; others come before what was used is known everywhere."""
    for _ in range(1000):
        try:
            attempt = await one.open(estimate)
        except Refused as refused:
            if re.search(told, str(refused)):
                return refused
        else:
            one.settle(attempt, 0)
        await asyncio.sleep(0.02)
    raise AssertionError(f"nothing was refused for: {told}")


async def test_a_budget_is_spent_to_its_last_token_and_not_beyond(
    process: Callable[..., Process], tmp_path: Path
) -> None:
    one, two = process(TOKENS), process(TOKENS)
    for number in range(100):
        await (one if number % 2 else two).use(10, 10)
    with pytest.raises(Refused) as refused:
        await one.open(1)
    assert re.fullmatch(
        r"budget tokens \(every call\) does not allow this llm attempt, which may take 1 token: "
        r"of 1000 tokens in total 1000 tokens are spent",
        str(refused.value),
    )
    one.gate.close()
    two.gate.close()
    assert spent(tmp_path) == {"budget:tokens": 1000}
    assert [(e.rule, e.shadow) for e in one.refused] == [("budget tokens", False)]


async def test_what_is_reserved_and_not_used_is_there_again(
    process: Callable[..., Process],
) -> None:
    one, two = process(TOKENS), process(TOKENS)
    first = await one.open(600)
    with pytest.raises(Refused, match="600 tokens reserved by attempts in flight"):
        await two.open(500)
    one.settle(first, 10)
    second = await two.open(900)
    with pytest.raises(Refused):
        await one.open(100)
    two.settle(second, 990)
    await refusal(one, 1, "1000 tokens are spent")


async def test_slices_that_others_do_not_use_are_called_back(
    process: Callable[..., Process],
) -> None:
    holders = [process(replace(TOKENS, amount=100_000)) for _ in range(4)]
    for holder in holders:
        await holder.use(100, 1)
    held = [h.purse._holdings["budget:tokens"].free for h in holders]
    assert min(held) > 1000, "each holds a slice"
    await holders[0].open(99_990)


async def test_money_is_counted_in_nanos_and_the_unpriced_by_number(
    process: Callable[..., Process], tmp_path: Path
) -> None:
    one = process(MONEY)
    await one.use(1000, 700)
    await one.use(300, 0, model="unpriced")
    await one.use(300, 300)
    with pytest.raises(Refused, match=r"0\.000001 USD are spent"):
        await one.open(10, model="unpriced")
    await one.use(0, 0)  # what costs nothing is not refused
    one.gate.close()
    (used,) = one.purse.store.history("budget:money")
    assert (used.spent, used.attempts, used.unpriced) == (1000, 4, 1)


async def test_more_may_be_used_than_was_reserved_and_counts(
    process: Callable[..., Process], tmp_path: Path
) -> None:
    one = process(TOKENS)
    await one.use(10, 3000)
    with pytest.raises(Refused, match="3000 tokens are spent"):
        await one.open(1)
    one.gate.close()
    assert spent(tmp_path) == {"budget:tokens": 3000}


async def test_an_attempt_fits_into_all_budgets_or_takes_of_none(
    process: Callable[..., Process],
) -> None:
    small = replace(TOKENS, name="small", amount=10)
    one = process(TOKENS, small)
    with pytest.raises(Refused, match="budget small"):
        await one.open(500)
    await process(TOKENS).open(1000)


async def test_calls_are_counted_apart(process: Callable[..., Process], tmp_path: Path) -> None:
    each = replace(TOKENS, scope=Scope(((Dimension.AGENT, "*"), (Dimension.ROOM, "sales-*"))))
    one = process(each, replace(TOKENS, name="call", window=Window(Kind.CALL), amount=10))
    await one.open(10, agent="ann", room="sales-1", call="1")
    await one.open(10, agent="bob", room="sales-2", call="2")
    with pytest.raises(Refused, match="of 10 tokens a call 0 tokens are spent"):
        await one.open(1, agent="ann", room="support", call="1")
    one.gate.close()
    found = {used.pool: used.held for used in one.purse.store.history("budget:tokens")}
    assert set(spent(tmp_path)) <= {"budget:tokens;agent=ann", "budget:tokens;agent=bob"} | set(
        found
    )


async def test_thresholds_warn_once_throttle_and_downgrade(
    process: Callable[..., Process],
) -> None:
    steps = (
        Step(500_000, Action.WARN),
        Step(600_000, Action.THROTTLE, seconds=0.1),
        Step(700_000, Action.DOWNGRADE, route="cheap"),
        Step(800_000, Action.DOWNGRADE, route="cheaper"),
    )
    one, two = process(replace(TOKENS, steps=steps)), process(replace(TOKENS, steps=steps))
    identity = Identity(call="call")
    assert await two.gate.routes(identity, Modality.LLM) == ()
    await one.use(10, 650)
    await until(lambda: len(one.reached) == 2)
    began = time.monotonic()
    await one.use(10, 100)
    assert time.monotonic() - began >= 0.1
    await until(lambda: len(one.reached) == 3)
    assert [e.action for e in one.reached] == [Action.WARN, Action.THROTTLE, Action.DOWNGRADE]
    assert one.reached[0].spent == 650
    assert await one.gate.routes(identity, Modality.LLM) == ("cheap",)
    await one.use(10, 2000)  # nothing blocks
    late = process(replace(TOKENS, steps=steps))
    await until(lambda: one.purse.is_empty or not one.purse._holdings["budget:tokens"].dirty)
    assert await late.gate.routes(identity, Modality.LLM) == ("cheap", "cheaper")


async def test_a_shadow_tells_and_hinders_nobody(process: Callable[..., Process]) -> None:
    one = process(replace(TOKENS, shadow=True), replace(STREAMS, shadow=True))
    for _ in range(3):
        await one.open(900)
    assert {(e.rule, e.shadow) for e in one.refused} == {
        ("budget tokens", True),
        ("limit streams", True),
    }


async def test_streams_are_limited_across_processes(process: Callable[..., Process]) -> None:
    one, two = process(STREAMS), process(STREAMS)
    first, _ = await one.open(), await two.open()
    with pytest.raises(Refused, match=r"limit streams .*: 2 streams of 2 streams are open"):
        await two.open()
    one.settle(first, 0)
    await two.open()


async def test_a_limit_that_waits_lets_the_next_in_as_soon_as_there_is_room(
    process: Callable[..., Process],
) -> None:
    one, two = process(STREAMS), process(replace(STREAMS, wait=30.0))
    first, _ = await one.open(), await one.open()
    waiting = asyncio.create_task(two.open())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    one.settle(first, 0)
    await asyncio.wait_for(waiting, 20)


async def test_hundreds_of_streams_are_open_at_once_and_not_one_more(
    process: Callable[..., Process],
) -> None:
    """Slices are for 64 needs: many of them, of several processes, add up to the amount."""
    many = replace(STREAMS, amount=300)
    processes = [process(many) for _ in range(3)]
    opened = await asyncio.gather(*(processes[n % 3].open() for n in range(300)))
    for one in processes:
        with pytest.raises(Refused, match="300 streams of 300 streams are open"):
            await one.open()
    for number, attempt in enumerate(opened[:70]):
        processes[number % 3].settle(attempt, 0)
    patient = process(replace(many, wait=10.0))
    await asyncio.gather(*(patient.open() for _ in range(70)))
    with pytest.raises(Refused):
        await processes[0].open()


@pytest.mark.parametrize("amount", [4, 500])
async def test_a_rate_of_a_second_holds_for_every_second(
    process: Callable[..., Process], amount: int
) -> None:
    """Those who wait are let in as fast as the rate allows and no faster, whoever asks."""
    rate = Limit("rps", Scope(), Unit.REQUESTS, amount, Rate(amount, SECOND, amount), wait=30.0)
    processes = [process(rate) for _ in range(3)]
    passed: list[float] = []
    began = time.monotonic()

    async def caller(one: Process) -> None:
        while time.monotonic() < began + 2.5:
            await one.open()
            passed.append(time.monotonic())

    await asyncio.gather(*(caller(one) for one in processes for _ in range(2)))
    for first, since in enumerate(passed):
        # what a process holds of a slice of a tenth of a second it may use later
        held = amount * 0.1 * len(processes) + len(processes)
        told_late = 6  # one a caller: let in before, and told after
        most = amount + amount * (passed[-1] - since) + held + told_late
        assert len(passed) - first <= most
    assert len(passed) > amount, "the second brought more"


async def test_a_rate_refuses_with_the_time_to_retry_after(
    process: Callable[..., Process],
) -> None:
    rate = Limit("rate", Scope(), Unit.REQUESTS, 60, Rate(60, 60 * SECOND, 2))
    one, two = process(rate), process(rate)
    began = time.monotonic()
    await one.open()
    await two.open()
    with pytest.raises(Refused, match="of 60 requests every 60 s 0 requests are left") as refused:
        await two.open()
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after < 1.2
    patient = process(replace(rate, wait=2.0))
    await patient.open()
    assert time.monotonic() - began > 0.9, "one request a second"


@pytest.mark.parametrize(
    ("unit", "used"),
    [
        (Unit.TOKENS, lambda n: Usage(tokens_in=n - n // 3, tokens_out=n // 3)),
        (Unit.CHARACTERS, lambda n: Usage(characters=n)),
        (Unit.AUDIO_SECONDS, lambda n: Usage(audio_in_ns=n * SECOND)),
    ],
)
async def test_what_is_used_beyond_the_estimate_makes_later_ones_wait(
    process: Callable[..., Process], unit: Unit, used: Callable[[int], Usage]
) -> None:
    amount = 1000 * unit.base
    rate = Limit("rate", Scope(), unit, amount, Rate(amount, 60 * SECOND, amount))
    one, two = process(rate), process(rate)
    attempt = an_attempt()
    await one.gate.reserve(attempt, lambda: used(10))
    one.gate.settle(attempt, Metered(used(1500), Quality.EXACT))

    async def refused(estimate: int) -> Refused:
        for _ in range(100):
            attempt = an_attempt()
            try:
                await two.gate.reserve(attempt, lambda: used(estimate))
            except Refused as refusal:
                return refusal
            two.gate.settle(attempt, Metered(used(estimate), Quality.EXACT))
            await asyncio.sleep(0.1)
        raise AssertionError("the other process was never told")

    assert (await refused(10)).retry_after == pytest.approx(31, abs=10)
    assert f"never leave room for more than {unit.text(amount)} at once" in str(await refused(1001))


async def test_what_a_provider_tells_in_error_does_not_stop_the_books(
    process: Callable[..., Process], tmp_path: Path
) -> None:
    rate = Limit("rate", Scope(), Unit.TOKENS, 1, Rate(1, 7 * 86400 * SECOND, 1))
    one = process(rate, replace(TOKENS, amount=MOST))
    await one.use(1, 2**63 - 1)
    await until(lambda: spent(tmp_path).get("budget:tokens") == MOST)
    with pytest.raises(Refused) as refused:
        await one.open(1)
    assert refused.value.retry_after is not None


async def test_whatever_is_asked_for_can_be_reserved(process: Callable[..., Process]) -> None:
    one = process(replace(TOKENS, shadow=True), replace(TOKENS, name="mine"))
    with pytest.raises(Refused, match=r"budget mine .* more than all of its 1000 tokens"):
        await one.open(10**30)
    one = process(replace(TOKENS, shadow=True))
    await one.use(10**30, 5)
    await one.use(-(10**30), 5)


async def test_an_override_stands_in_processes_that_run_and_ends_by_itself(
    process: Callable[..., Process], tmp_path: Path
) -> None:
    one = process(TOKENS)
    await one.use(1000, 1000)
    await refusal(one, 10, "1000 tokens are spent")
    store = SQLiteGateStore(tmp_path / "state")
    store.override(Override("tokens", 2000, now_ns() + 8 * SECOND, "fair"))
    store.close()
    await one.use(500, 100)
    # after it the budget is spent, and more than that
    await refusal(one, 10, "of 1000 tokens in total 1100 tokens are spent")


async def test_a_stream_that_outlives_its_estimate_has_more_reserved(
    process: Callable[..., Process],
) -> None:
    one, two = process(TOKENS), process(TOKENS)
    attempt = await one.open(100)
    used = 0
    one.gate.follow(attempt, lambda: Metered(Usage(tokens_out=used), Quality.EXACT), lambda _: None)
    used = 800
    await refusal(two, 150, "900 tokens reserved")


async def test_what_is_billed_by_the_time_it_is_open_is_reserved_and_extended(
    process: Callable[..., Process],
) -> None:
    one, two = process(MONEY), process(MONEY)
    heard = 300 * 1_000_000_000
    attempt = an_attempt("connected", Modality.STT)
    await one.gate.reserve(attempt, lambda: Usage(audio_in_ns=heard))
    await refusal(two, 800, "0.0000003 USD reserved")
    # whoever listens to silence is open all the same
    attempt.started_ns -= 2 * heard
    one.gate.follow(attempt, lambda: Metered(Usage(), Quality.EXACT), lambda _: None)
    await refusal(two, 150, r"0\.0000009\d* USD reserved")


async def test_a_stream_that_finds_no_more_is_interrupted_after_a_grace(
    process: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.runtime.gate_keeper.GRACE", 0.3)
    one = process(replace(TOKENS, notice="We have to end here."))
    attempt = await one.open(900)
    interrupted: list[Refused] = []
    one.gate.follow(
        attempt, lambda: Metered(Usage(tokens_out=950), Quality.EXACT), interrupted.append
    )
    await until(lambda: interrupted)
    assert interrupted[0].notice == "We have to end here."
    one.settle(attempt, 950)


async def test_a_refused_caller_is_told_so_by_a_voice_that_passes(
    process: Callable[..., Process],
) -> None:
    spoken = replace(TOKENS, unit=Unit.CHARACTERS, amount=10, name="voice")
    notice = "We have to end here. Goodbye."
    one = process(replace(TOKENS, notice=notice), spoken)
    await one.use(10, 1000)

    async def speak(text: str) -> None:
        voice = an_attempt(modality=Modality.TTS)
        await one.gate.reserve(voice, lambda: Usage(characters=len(text), tokens_out=1))

    with pytest.raises(Refused):
        await speak(notice)
    with pytest.raises(Refused) as refused:
        await one.open(10)
    assert refused.value.notice == notice
    await speak(notice)
    with pytest.raises(Refused):
        await speak(notice * 10)


async def test_a_call_that_is_refused_is_heard_until_its_notice_is_said(
    process: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.runtime.gate.GRACE", 0.2)
    one = process(replace(TOKENS, notice="Goodbye."))
    await one.use(10, 1000)
    ear = an_attempt(modality=Modality.STT)
    await one.gate.reserve(ear, lambda: Usage(tokens_in=1))
    interrupted: list[Refused] = []
    one.gate.follow(ear, lambda: Metered(Usage(), Quality.EXACT), interrupted.append)
    assert [event.rule for event in one.refused] == ["budget tokens"]
    await until(lambda: interrupted)
    with pytest.raises(Refused):
        await one.gate.reserve(an_attempt(modality=Modality.STT), lambda: Usage(tokens_in=1))


@pytest.mark.parametrize("fail_open", [True, False])
async def test_without_the_store_the_rule_says_who_passes(
    process: Callable[..., Process], tmp_path: Path, fail_open: bool
) -> None:
    (tmp_path / "state" / GATE_NAME).mkdir(parents=True)
    one = process(replace(TOKENS, fail_open=fail_open))
    if fail_open:
        await one.use(500, 400)
        (tmp_path / "state" / GATE_NAME).rmdir()
        await until(lambda: spent(tmp_path) == {"budget:tokens": 400} if _exists(tmp_path) else 0)
    else:
        with pytest.raises(Refused, match="budget tokens cannot be looked up") as refused:
            await one.open(10)
        assert refused.value.ends_call, "as its words say"


def _exists(tmp_path: Path) -> bool:
    try:
        spent(tmp_path)
    except sqlite3.Error:
        return False
    return True


async def test_who_gives_up_waiting_holds_nothing(process: Callable[..., Process]) -> None:
    one, two = process(STREAMS), process(replace(STREAMS, wait=30.0))
    held = [await one.open(), await one.open()]
    waiting = [asyncio.create_task(two.open()) for _ in range(20)]
    await asyncio.sleep(0.1)
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)
    for attempt in held:
        one.settle(attempt, 0)
    await two.open()
    await two.open()


async def test_without_rules_nothing_is_opened(tmp_path: Path) -> None:
    gate = Gate(Ledger(), per_token, lambda _: None)
    await gate.reserve(an_attempt(), lambda: Usage(tokens_out=1))
    assert await gate.routes(Identity(call="call"), Modality.LLM) == ()
    gate.close()
    assert not (tmp_path / "state").exists()
