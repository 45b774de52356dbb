"""A telephone line without a telephone: one clock carries the caller in and the agent out.

Time is cut into slots of 20 ms on the wall clock. In each slot the caller's next frame goes to the
agent and the agent's next frame is played; both land in the recording at that slot. A late event
loop catches up slot by slot, so the recording's timeline is exact to the sample and its two
channels never drift, while audio that came too late leaves the gap that a caller would hear.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from livekit import rtc
from livekit.agents import utils
from livekit.agents.voice import io

from ...clock import monotonic_ns, now_ns
from .caller import SLOT_SAMPLES
from .wav import SAMPLE_RATE, Samples

SLOT_S = SLOT_SAMPLES / SAMPLE_RATE
SLOT_NS = 1_000_000_000 * SLOT_SAMPLES // SAMPLE_RATE
_SILENCE: Samples = np.zeros(SLOT_SAMPLES, np.int16)


class Line:
    """A call in progress. ``caller`` gives the caller's 20 ms for the slot at the given second."""

    def __init__(self, caller: Callable[[float], Samples]) -> None:
        self.microphone = Microphone()
        self.loudspeaker = Loudspeaker()
        self._caller = caller
        self._left: list[Samples] = []
        # A frame is heard when its 20 ms are over but played from when they begin: the agent's
        # channel is one slot ahead, or its audio would be recorded before it was made.
        self._right: list[Samples] = [_SILENCE]
        self.opened_ns = 0

    def since_open(self, wall_s: float) -> float:
        """Seconds into the recording of a moment on the wall clock (``time.time()``)."""
        return wall_s - self.opened_ns / 1e9

    async def run(self) -> None:
        """Carry audio until cancelled."""
        self.opened_ns = now_ns()
        started = monotonic_ns()
        while True:
            due = (monotonic_ns() - started) // SLOT_NS
            while len(self._left) < due:
                self._carry_slot()
            await asyncio.sleep(((due + 1) * SLOT_NS - (monotonic_ns() - started)) / 1e9)

    def recording(self) -> tuple[Samples, Samples]:
        """Both directions from the first slot on: what the caller said, what the agent said."""
        left = np.concatenate([_SILENCE[:0], *self._left])
        return left, np.concatenate(self._right)[: len(left)]

    def _carry_slot(self) -> None:
        at = len(self._left) * SLOT_S
        spoken = self._caller(at)
        self._left.append(spoken)
        self._right.append(self.loudspeaker.play_slot(self.opened_ns / 1e9 + at + SLOT_S))
        self.microphone.deliver(spoken)


class Microphone(io.AudioInput):
    """The caller's side as LiveKit reads it."""

    def __init__(self) -> None:
        super().__init__(label="trunkline-demo-caller")
        self._frames = utils.aio.Chan[rtc.AudioFrame]()

    async def __anext__(self) -> rtc.AudioFrame:
        try:
            return await self._frames.recv()
        except utils.aio.ChanClosed:
            raise StopAsyncIteration from None

    def deliver(self, samples: Samples) -> None:
        self._frames.send_nowait(
            rtc.AudioFrame(samples.tobytes(), SAMPLE_RATE, 1, samples_per_channel=len(samples))
        )

    def close(self) -> None:
        self._frames.close()


@dataclass(slots=True)
class _Segment:
    """The audio between two flushes: one utterance of the agent."""

    waiting: deque[Samples] = field(default_factory=deque)
    played: int = 0
    complete: bool = False
    cleared: bool = False

    def take(self, count: int) -> Samples:
        """Remove up to ``count`` samples from the front, filled up with silence."""
        taken = 0
        out = _SILENCE.copy()
        while self.waiting and taken < count:
            piece = self.waiting.popleft()
            used = piece[: count - taken]
            out[taken : taken + len(used)] = used
            taken += len(used)
            if len(used) < len(piece):
                self.waiting.appendleft(piece[len(used) :])
        self.played += taken
        return out


class Loudspeaker(io.AudioOutput):
    """The agent's side: plays what LiveKit pushes, at the pace of the line.

    What was pushed but not yet played is dropped by ``clear_buffer``, and the position reported
    to LiveKit is what the caller has really heard; barge-in truncates the agent's words there.
    """

    def __init__(self) -> None:
        super().__init__(
            label="trunkline-demo-agent",
            capabilities=io.AudioOutputCapabilities(pause=True),
            sample_rate=SAMPLE_RATE,
        )
        self._segments: deque[_Segment] = deque()
        self._paused = False
        self.last_started: float | None = None
        """Wall clock second at which the latest segment began to play."""

    @property
    def busy(self) -> bool:
        """Whether some of what LiveKit pushed has still to be played."""
        return bool(self._segments)

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._segments or self._segments[-1].complete:
            self._segments.append(_Segment())
        segment = self._segments[-1]
        if not segment.cleared:
            samples = np.frombuffer(frame.data, np.int16)
            segment.waiting.append(
                samples.reshape(-1, frame.num_channels).mean(axis=1).astype(np.int16)
                if frame.num_channels > 1
                else samples.copy()
            )

    def flush(self) -> None:
        super().flush()
        if self._segments:
            self._segments[-1].complete = True

    def clear_buffer(self) -> None:
        for segment in self._segments:
            segment.waiting.clear()
            segment.cleared = True

    def pause(self) -> None:
        super().pause()
        self._paused = True

    def resume(self) -> None:
        super().resume()
        self._paused = False

    def play_slot(self, now: float) -> Samples:
        """Return what is heard in the slot that begins at wall clock second ``now``."""
        self._finish_played()
        if self._paused or not self._segments or not self._segments[0].waiting:
            return _SILENCE
        segment = self._segments[0]
        if segment.played == 0:
            self.last_started = now
            self.on_playback_started(created_at=now)
        return segment.take(SLOT_SAMPLES)

    def _finish_played(self) -> None:
        """Report each segment that is complete and has nothing left to play.

        Only from the clock: LiveKit's wrappers are not ready for the event inside ``flush``.
        """
        while self._segments and self._segments[0].complete and not self._segments[0].waiting:
            segment = self._segments.popleft()
            self.on_playback_finished(
                playback_position=segment.played / SAMPLE_RATE, interrupted=segment.cleared
            )
