"""One request as the vendor counts it: its fault, the pace of its outputs, its line of the bill."""

from __future__ import annotations

import asyncio
import random
from enum import Enum, auto
from typing import Protocol

from .bill import BillLine, RequestLog
from .faults import SILENT, STATUS, UNBILLED, FaultScript, Kind, Rule
from .latency import Pace


class Books(Protocol):
    """What an exchange needs from the server that it belongs to."""

    faults: FaultScript
    bill: list[BillLine]
    requests: list[RequestLog]
    random: random.Random


class Verdict(Enum):
    """What becomes of the next message."""

    SEND = auto()
    DROP = auto()
    GARBAGE = auto()
    SILENCE = auto()
    RESET = auto()
    CLOSE = auto()


_AFTER = {
    Kind.DIE: Verdict.RESET,
    Kind.STALL: Verdict.SILENCE,
    Kind.END: Verdict.CLOSE,
    Kind.TRUNCATE: Verdict.DROP,
    Kind.EMPTY: Verdict.DROP,
    Kind.GARBAGE: Verdict.GARBAGE,
}


class Turn:
    """One request on the vendor's books, with the fault it got and the pace of its outputs."""

    def __init__(self, books: Books, pace: Pace, log: RequestLog, fault: Rule | None) -> None:
        self._books = books
        self._pace = pace
        self.log = log
        self.id = log.id
        self.fault = fault
        log.fault = fault.kind if fault else ""
        self._line: BillLine | None = None
        self._heard = self._spoken = 0

    @property
    def bill(self) -> BillLine:
        """The line of the bill; one that is not on the bill when the request is free."""
        if self._line is None:
            log = self.log
            self._line = BillLine(
                provider=log.provider, endpoint=log.endpoint, model=log.model, request_id=log.id
            )
            if self.fault is None or self.fault.kind not in UNBILLED:
                self._books.bill.append(self._line)
        return self._line

    def heard(self, pcm: bytes, rate: int) -> None:
        """Bill 16-bit mono audio that came in."""
        before, self._heard = self._heard, self._heard + len(pcm)
        self.bill.charge(audio_in_ns=_ns(self._heard, rate) - _ns(before, rate))

    def spoke(self, pcm: bytes, rate: int) -> None:
        """Bill 16-bit mono audio that went out."""
        before, self._spoken = self._spoken, self._spoken + len(pcm)
        self.bill.charge(audio_out_ns=_ns(self._spoken, rate) - _ns(before, rate))

    @property
    def cut(self) -> bool:
        """Whether outputs are being left out, so that their tail must not be sent either."""
        outs = (Kind.TRUNCATE, Kind.EMPTY, Kind.GARBAGE)
        fault = self.fault
        return fault is not None and fault.kind in outs and self.log.outputs >= fault.limit

    @property
    def status(self) -> int | None:
        """The HTTP status that the fault answers with, if that is what it does."""
        return STATUS.get(self.fault.kind) if self.fault else None

    def rate(self, asked: int) -> int:
        """The rate in Hz that the audio really has."""
        if self.fault is None or self.fault.kind is not Kind.WRONG_RATE:
            return asked
        return self.fault.rate or asked // 2

    async def output(self) -> Verdict:
        """Wait until the next output is due, and say what becomes of it."""
        verdict = self.mark()
        if verdict is not Verdict.SEND:
            return verdict
        after = _AFTER.get(self.fault.kind) if self.fault else None
        if self.fault and after and self.log.outputs >= self.fault.limit:
            return self._struck(after)
        if self.fault and self.fault.kind is Kind.DRIP:
            await asyncio.sleep(self.fault.every)
        which = "between" if self.log.outputs else "first"
        await self.wait(self._pace.draw(which, self._books.random))
        self.log.outputs += 1
        return Verdict.SEND

    def mark(self) -> Verdict:
        """What becomes of a message that is no content; such a message waits for nothing."""
        fault = self.fault
        if fault is None:
            return Verdict.SEND
        if fault.kind in SILENT:
            return self._struck(Verdict.SILENCE)
        if fault.kind is Kind.REFUSE:
            return self._struck(Verdict.RESET)
        if fault.kind in STATUS:
            return self._struck(Verdict.CLOSE)
        if fault.kind in (Kind.DIE, Kind.STALL, Kind.END) and self.log.outputs >= fault.after:
            return self._struck(_AFTER[fault.kind])
        return Verdict.SEND

    async def make_audio(self, seconds: float) -> None:
        """Take the time that the voice needs for so much audio."""
        await self.wait(self._pace.rtf * seconds)

    @staticmethod
    async def wait(seconds: float) -> None:
        """Sleep, unless there is nothing to sleep for."""
        if seconds > 0:
            await asyncio.sleep(seconds)

    def done(self) -> None:
        """The request came to the end of its protocol."""
        if self.log.outcome == "running":
            self.log.outcome = "ok"

    def stop(self) -> None:
        """The client does not want the rest."""
        if self.log.outcome == "running":
            self.log.outcome = "cancelled"

    def _struck(self, verdict: Verdict) -> Verdict:
        assert self.fault is not None
        self.log.outcome = self.fault.kind.value
        return verdict


def _ns(pcm_bytes: int, rate: int) -> int:
    return pcm_bytes * 1_000_000_000 // (2 * rate)
