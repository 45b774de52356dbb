"""``trunkline demo``: from the options to an exit status."""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trunkline

from ...core.models import CASCADE, Settlement
from ...errors import StoreError, UsageError
from ...store import LEDGER_NAME
from .. import loop
from .caller import Caller, RecordedCaller, ScriptedCaller
from .screen import Screen
from .wav import read_caller

if TYPE_CHECKING:
    from ...compose import Trunkline
    from ..bill import Item


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    caller: Path | None
    out: Path
    stack: str
    config: Path | None
    as_json: bool
    verbose: bool


def run(options: Options) -> int:
    """Hold the call and write it down; return 0 when every turn was answered, else 1.

    Raises UsageError when an option, the recording or the output directory cannot be used.
    """
    _prepare(options.out)
    caller: Caller = (
        RecordedCaller(read_caller(options.caller)) if options.caller else ScriptedCaller.shipped()
    )
    # Without a file of settings everything of the demo stays in its own directory.
    state = None if options.config else options.out
    exchange = trunkline.configure(options.config, state)
    names = _names(exchange, options.stack)
    try:
        return loop.run(_demo(options, caller, exchange, names))
    except asyncio.CancelledError:  # by SIGTERM
        raise KeyboardInterrupt from None


def _prepare(out: Path) -> None:
    """Make the output directory; raise UsageError when nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written to ({error.strerror}); choose another directory with --out"
        ) from error


async def _demo(
    options: Options, caller: Caller, exchange: Trunkline, names: Mapping[str, str]
) -> int:
    _end_on_sigterm()
    screen = Screen(sys.stderr if options.as_json else sys.stdout)
    screen.status("starting ...")
    # These take seconds to import; mistakes in the options have been told by now.
    from .call import hold_call
    from .report import build, save, to_json

    stack = trunkline.stack(options.stack)
    settled: list[Settlement] = []
    exchange.on("settled", settled.append)
    if options.verbose:
        exchange.on("settled", screen.settled)
    screen.opened(names, str(options.caller or "the shipped caller"))
    try:
        happened = await hold_call(stack, caller, screen)
    finally:
        screen.status("")
        await stack.aclose()
        await trunkline.aclose()
    screen.status("writing down ...")
    items = await asyncio.to_thread(_recorded, exchange.state / LEDGER_NAME, stack.call, settled)
    report = build(
        happened,
        caller.spoken,
        items,
        call=stack.call,
        caller=str(options.caller or ""),
        stack=names,
        recording=str(options.out / "call.wav"),
        ledger=str(exchange.state / LEDGER_NAME),
    )
    save(options.out, report, happened)
    screen.summary(report)
    if options.as_json:
        sys.stdout.write(to_json(report).decode())
        sys.stdout.flush()
    return 0 if report.answered else 1


def _end_on_sigterm() -> None:
    """End on SIGTERM as on Ctrl-C: the session is closed and what was used is settled."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)


def _names(exchange: Trunkline, stack: str) -> dict[str, str]:
    """Say who serves each modality, in the order they are tried; raise UsageError if nobody can."""
    from ...compose import Wanted

    plans = {modality: exchange.plan(modality, Wanted(stack)) for modality in CASCADE}
    served = {str(m): ", ".join(map(str, plan.candidates)) for m, plan in plans.items()}
    return {"name": stack, **served}


def _recorded(ledger: Path, call: str, settled: Sequence[Settlement]) -> list[Item]:
    """Return the call's entries from the ledger, or as they were settled while it cannot be read.

    A ledger that is locked or cannot be written gets them later, from the journal.
    """
    from ...store.ledger import Ledger

    reader = Ledger(ledger)
    try:
        found = [(r.attempt, entry) for r in reader.attempts(call=call) for entry in r.entries]
    except StoreError:
        found = []
    finally:
        reader.close()
    missing = {s.attempt.id for s in settled} - {attempt.id for attempt, _ in found}
    return found + [(s.attempt, s.entry) for s in settled if s.attempt.id in missing]
