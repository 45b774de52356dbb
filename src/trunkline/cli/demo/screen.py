"""The call as a person reads it: a live transcript, each turn's latency, a summary.

On a terminal the last line shows what is being heard at the moment; in a pipe there are plain
lines only, each flushed when it happens.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from ...core.models import CASCADE, Settlement
from ...core.turns import Heard, Said
from .. import bill

if TYPE_CHECKING:
    from .report import Report, TurnReport


class Screen:
    """Writes to ``out``; a ``Watcher`` of the call."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._live = out.isatty()
        self._asked: Heard | None = None

    def line(self, text: str = "") -> None:
        """Write one line."""
        self.status("")
        self._write(text + "\n")

    def status(self, text: str) -> None:
        """Replace the line that shows the moment; nothing in a pipe."""
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._write("\r\x1b[K" + text[:width])

    def _write(self, text: str) -> None:
        try:
            self._out.write(text)
            self._out.flush()
        except BrokenPipeError:
            # The reader has gone, but the call goes on and is written down.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._out.fileno())

    def opened(self, stack: Mapping[str, str], caller: str) -> None:
        """Say who will talk."""
        told = ", ".join(f"{modality} {stack[modality]}" for modality in CASCADE)
        self.line(f"stack {stack['name']}: {told}; calling: {caller}")

    def settled(self, settlement: Settlement) -> None:
        attempt = settlement.attempt
        self.line(f"settled  {attempt.id}  {attempt.modality}  {attempt.outcome}")

    def heard(self, words: Heard) -> None:
        self.line(f"{_clock(words.started_ms)}  caller  {words.text}")
        self._asked = words

    def hearing(self, text: str) -> None:
        self.status(f"        caller  {text} ...")

    def said(self, words: Said) -> None:
        cut = " --" if words.interrupted else ""
        self.line(f"{_clock(words.started_ms)}  agent   {words.text}{cut}")
        if self._asked is not None:
            self.line(f"                {_latency(self._asked, words)}")
            self._asked = None

    def used_tool(self, at_ms: int, name: str) -> None:
        self.line(f"{_clock(at_ms)}  tool    {name}")

    def summary(self, report: Report) -> None:
        """Write the table of turns, the usage and the money."""
        self.line()
        self.line("turn  answered   eou   stt  ttft  ttfb   e2e ms  cost")
        for number, turn in enumerate(report.turns, 1):
            self.line(_row(number, turn))
        self.line()
        for modality in CASCADE:
            used = report.usage[modality]
            name = ", ".join(used.models) or report.stack.get(modality, "")
            text = f"{modality}  {name:24} {bill.units_text(modality, used.units):34}"
            self.line(f"{text} {report.charges[modality]}")
        self.line(f"total {'':58} {report.charges['total']}")
        self.line()
        self.line(f"{report.recording}, call.json beside it; ledger {report.ledger}")
        if report.failure:
            self.line(f"the session ended early: {report.failure}")
        elif not report.turns:
            self.line("no turn was heard in the call")
        elif not report.answered:
            unanswered = sum(not turn.answered for turn in report.turns)
            self.line(f"not answered: {unanswered} of {len(report.turns)} turns")


def _row(number: int, turn: TurnReport) -> str:
    answered = "cut off" if turn.answered and turn.interrupted else "yes" if turn.answered else "NO"
    parts = (turn.eou_ms, turn.stt_ms, turn.ttft_ms, turn.ttfb_ms)
    cells = "".join(f"{_ms(part):>6}" for part in parts)
    return f"{number:>4}  {answered:8}{cells}{_ms(turn.e2e_ms):>9}  {turn.cost}"


def _latency(heard: Heard, said: Said) -> str:
    parts = {
        "eou": heard.eou_ms,
        "stt": heard.stt_ms,
        "ttft": said.ttft_ms,
        "ttfb": said.ttfb_ms,
        "end to end": said.e2e_ms,
    }
    return ", ".join(f"{name} {_ms(part)}" for name, part in parts.items()) + " ms"


def _ms(value: int | None) -> str:
    return "-" if value is None else str(value)


def _clock(ms: int) -> str:
    return f"{ms // 60_000:02}:{ms // 1000 % 60:02}.{ms // 100 % 10}"
