"""What the gate costs: microseconds a call with and without rules, reservations a second."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from statistics import median

from livekit import rtc

from trunkline.catalog.pricelist import shipped
from trunkline.clock import monotonic_ns, new_id, now_ns
from trunkline.core.budgets import MILLION, Action, Budget, Step
from trunkline.core.limits import Limit, Rate
from trunkline.core.models import Attempt, Charge, Identity, Modality, Quality, Usage
from trunkline.core.ports import Ask
from trunkline.core.scopes import Dimension, Scope, Unit
from trunkline.core.windows import Kind, Window
from trunkline.runtime.gate import Gate
from trunkline.runtime.gate_keeper import Keeper
from trunkline.runtime.gate_purse import Price, Purse
from trunkline.runtime.gate_rules import Rule
from trunkline.runtime.meter import Metered, audio_ns
from trunkline.store.gates import SQLiteGateStore
from trunkline.store.journal import Journal

TIMES = 10_000
ROUNDS = 20
PROCESSES = 4
SECONDS = 3.0
MUCH = 10**15
STEPS = (Step(800_000, Action.WARN), Step(MILLION, Action.BLOCK))
RULES: list[Budget | Limit] = [
    Budget("org", Scope(), Window(Kind.MONTH, "Europe/Berlin"), Unit.USD, MUCH, STEPS),
    Budget("each", Scope(((Dimension.AGENT, "*"),)), Window(Kind.DAY), Unit.TOKENS, MUCH, STEPS),
    Limit("at-once", Scope(), Unit.STREAMS, 1000),
    Limit("often", Scope(), Unit.REQUESTS, 10**9, Rate(10**9, 1_000_000_000, 10**9)),
]
USAGE = Usage(tokens_in=1000, tokens_out=200)


def main() -> None:
    """Measure in a fresh directory and print a small table."""
    print("| gate | measured | wanted |")
    print("|---|---:|---:|")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        bare = Gate(Journal(directory / "bare"), price, lambda _: None)
        ruled = gate(directory / "ruled")
        nothing, added = asyncio.run(reserving(bare)), asyncio.run(reserving(ruled))
        priced = gate(directory / "priced", listed)
        without, with_rules, with_prices = asyncio.run(calls(bare, ruled, priced))
        counting = min(frame_counted() for _ in range(ROUNDS))
        following = min(asyncio.run(frame_followed(ruled)) for _ in range(ROUNDS))
        ruled.close()
        priced.close()
        row("`reserve` without rules", f"{nothing:.2f} us", "< 2 us")
        row("`reserve` under two budgets and two limits", f"{added:.1f} us", "")
        row("a call's gate and meter, without rules", f"{without:.1f} us", "")
        row("what they add to a call", f"{with_rules - without:.1f} us", "< 30 us")
        row(
            "the same with shipped prices: at reserve and at settle",
            f"{with_prices - without:.1f} us",
            "",
        )
        row("what they add to a frame of 20 ms", f"{counting + following:.2f} us", "< 1 us")
        row("`take` of the store, one process", f"{taking(directory / 'store'):.0f} us", "")
        row(
            f"reservations of {PROCESSES} processes",
            f"{together(directory / 'together'):,.0f} /s",
            "> 5,000 /s",
        )


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def price(attempt: Attempt) -> Charge | None:
    return Charge(attempt.usage.tokens_in, "1", "bench")


def listed(attempt: Attempt) -> Charge | None:
    quoted = shipped().quote(attempt)
    return quoted if isinstance(quoted, Charge) else None


def gate(directory: Path, price: Price = price) -> Gate:
    purse = Purse([Rule.made(rule) for rule in RULES], SQLiteGateStore(directory), price, print)
    return Gate(Journal(directory), price, lambda _: None, Keeper(purse, lambda: 0))


def an_attempt() -> Attempt:
    who = Identity(call="call", agent="ann", room="room")
    return Attempt(new_id(), who, Modality.LLM, "openai", "gpt-4.1", "c", now_ns())


async def timed(one: Callable[[Attempt], Awaitable[None]]) -> float:
    """Microseconds of this thread's CPU time for ``one``, in one round."""
    attempts = [an_attempt() for _ in range(TIMES // 50)]
    started = time.thread_time_ns()
    for attempt in attempts:
        await one(attempt)
    took = (time.thread_time_ns() - started) / len(attempts) / 1000
    await asyncio.sleep(0.01)
    return took


async def reserving(gate: Gate) -> float:
    """``reserve`` alone; what it reserves is settled between the rounds."""
    rounds = []
    for _ in range(200):
        attempts = [an_attempt() for _ in range(10)]
        started = time.thread_time_ns()
        for attempt in attempts:
            await gate.reserve(attempt, lambda: USAGE)
        rounds.append((time.thread_time_ns() - started) / len(attempts) / 1000)
        for attempt in attempts:
            gate.settle(attempt, Metered(USAGE, Quality.EXACT))
    return median(rounds)


async def calls(*gates: Gate) -> list[float]:
    """``reserve`` and ``settle`` of a call, with the journal's write, at each gate in turns.

    The best round of each, the least disturbed.
    """

    async def one(gate: Gate, attempt: Attempt) -> None:
        await gate.reserve(attempt, lambda: USAGE)
        gate.settle(attempt, Metered(USAGE, Quality.EXACT))

    rounds = [[await timed(partial(one, gate)) for gate in gates] for _ in range(100)]
    return [min(column) for column in zip(*rounds, strict=True)]


def frame_counted() -> float:
    """What the meter does with each frame that is pushed or played: its length is added."""
    frame, count = rtc.AudioFrame(bytes(640), 16000, 1, 320), 20_000
    started, heard = time.thread_time_ns(), 0
    for _ in range(count):
        heard += audio_ns(frame.samples_per_channel, frame.sample_rate)
    return (time.thread_time_ns() - started) / count / 1000


async def frame_followed(gate: Gate) -> float:
    """What following an open stream costs, which is asked twice a second: a 25th of it a frame."""
    attempt, count = an_attempt(), 500
    await gate.reserve(attempt, lambda: USAGE)
    metered = Metered(Usage(tokens_in=10, audio_in_ns=10**9), Quality.EXACT)
    gate.follow(attempt, lambda: metered, print)
    (opening,) = gate._purse.followed()  # type: ignore[union-attr]
    started = time.thread_time_ns()
    for _ in range(count):
        gate._purse.grow(opening, metered.usage)  # type: ignore[union-attr]
    took = (time.thread_time_ns() - started) / count / 1000
    gate.settle(attempt, metered)
    return took / (0.5 / 0.02)


def taking(directory: Path) -> float:
    """One transaction of the store, which is what is asked when a slice is used up."""
    store = SQLiteGateStore(directory)
    took = []
    for _ in range(1000):
        started = monotonic_ns()
        store.take([Ask("pool", 0, 0, 1, MUCH, share=MILLION)])
        took.append((monotonic_ns() - started) / 1000)
    store.close()
    return median(took)


OTHER = """
    import asyncio, sys, time
    from pathlib import Path
    from bench.gate import USAGE, an_attempt, gate
    from trunkline.core.models import Quality
    from trunkline.runtime.meter import Metered

    async def main() -> None:
        one, until, count = gate(Path(sys.argv[1])), time.monotonic() + float(sys.argv[2]), 0
        while time.monotonic() < until:
            attempt = an_attempt()
            await one.reserve(attempt, lambda: USAGE)
            one.settle(attempt, Metered(USAGE, Quality.EXACT))
            count += 1
            if count % 100 == 0:
                await asyncio.sleep(0)
        one.close()
        print(count)

    asyncio.run(main())
"""


def together(directory: Path) -> float:
    """Reserve and settle in some processes at once, on the same budgets and limits."""
    command = [sys.executable, "-c", textwrap.dedent(OTHER), str(directory), str(SECONDS)]
    started = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    return sum(int(one.communicate(timeout=60)[0]) for one in started) / SECONDS


if __name__ == "__main__":
    main()
