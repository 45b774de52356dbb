"""The audio since the last commit: what has to be said again when a recogniser fails."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import log

from livekit import rtc

from .audio import SILENCE_PEAK
from .meter import audio_ns

_PAUSE_NS = 120_000_000
"""Quiet of this length is taken for a pause between phrases, not for the closure of a plosive."""
_RECENT_NS = 3_000_000_000
"""How far back a final can have been decided: endpointing plus a provider's latency."""
_QUIET_PART = 8
"""A pause on a noisy line is this many times (18 dB) under the loudest of the speech."""

Held = tuple[rtc.AudioFrame | None, int, int]
"""A frame, its length in nanoseconds and its peak; without a frame, a flush between frames.

The peak of a frame that counts as silence though it is loud is negative.
"""


class AudioBuffer:
    """At most ``limit_ns`` of audio; positions count from the first sample of the whole stream.

    While there is nothing loud in it, only the last ``lead_ns`` are kept: silence needs no
    recogniser, and the onset of a word may be below the floor.
    """

    def __init__(self, limit_ns: int, lead_ns: int) -> None:
        self.limit_ns = limit_ns
        self._lead_ns = lead_ns
        self._held: deque[Held] = deque()
        self.held_ns = 0
        self.pushed_ns = 0
        self.loud_ns = 0
        self._covered_ns = 0

    @property
    def begins_ns(self) -> int:
        """Where in the whole stream the held audio begins."""
        return self.pushed_ns - self.held_ns

    def push(self, frame: rtc.AudioFrame, length_ns: int, peak: int) -> None:
        self._held.append((frame, length_ns, peak))
        self.held_ns += length_ns
        self.pushed_ns += length_ns
        if peak > SILENCE_PEAK:
            self.loud_ns += length_ns
        limit = self.limit_ns if self.loud_ns else self._lead_ns
        while self.held_ns > limit:
            self._drop()

    def flush(self) -> None:
        """Remember that a flush came here."""
        self._held.append((None, 0, 0))

    def entries(self) -> list[rtc.AudioFrame | None]:
        """The frames, and None where a flush came between them."""
        return [frame for frame, _, _ in self._held]

    def frames(self, since_ns: int = 0) -> list[rtc.AudioFrame]:
        """The frames that end after ``since_ns`` of the stream."""
        return [frame for frame, end, _ in self._ends() if frame is not None and end > since_ns]

    def beginning(self, limit_ns: int) -> list[rtc.AudioFrame]:
        """The first frames, ``limit_ns`` long at most."""
        until = self.begins_ns + limit_ns
        return [frame for frame, end, _ in self._ends() if frame is not None and end <= until]

    def hush(self, since_ns: int, until_ns: int) -> None:
        """Count what lies between two positions as silence: it was loud, and no speech."""
        ends = list(self._ends())
        for index, (frame, end, peak) in enumerate(ends):
            if since_ns < end <= until_ns and peak > SILENCE_PEAK:
                length = self._held[index][1]
                self._held[index] = frame, length, -peak
                self.loud_ns -= length

    def hush_tail(self, limit_ns: int) -> None:
        """Count loud audio at the very beginning as silence when quiet follows within the limit."""
        at = 0
        for frame, length, peak in self._held:
            if frame is not None and peak <= SILENCE_PEAK:
                self.hush(self.begins_ns, self.begins_ns + at)
                return
            at += length
            if at > limit_ns:
                return

    def forget(self, until_ns: int) -> None:
        """Drop what is before ``until_ns`` of the stream, to the sample."""
        while self._held and self.begins_ns + self._held[0][1] <= until_ns:
            self._drop()
        if self._held and (into := until_ns - self.begins_ns) > 0:
            frame, _, peak = self._held[0]
            if frame is not None and (rest := _after(frame, into)) is not None:
                self._drop()
                length = audio_ns(rest.samples_per_channel, rest.sample_rate)
                self._held.appendleft((rest, length, peak))
                self.held_ns += length
                self.loud_ns += length if peak > SILENCE_PEAK else 0

    def forget_to_pause(self) -> None:
        """Drop everything up to the pause that made a final final; without one, everything.

        When it is quiet now, that is the last pause. When somebody speaks, the next utterance has
        begun before the final came, and the longest pause of late lies before it.
        """
        self.forget(self._last_pause())

    def cover_to_pause(self, seconds: float) -> None:
        """Take the same for final, but keep what a final of ``seconds`` may not cover.

        For audio that came all at once: there may be several utterances before that pause. Kept is
        what follows the pause that has about so much speech before it; the last utterance always.
        Should more words come, ``uncover`` it; else ``settle``.
        """
        until = self._last_pause()
        pauses = {start: end for start, end in self._pauses()[0] if end - start >= _PAUSE_NS}
        at, loud, keep, nearest = self.begins_ns, 0, self.begins_ns, float("inf")
        for _, length, height in self._held:
            end = pauses.get(at, self.pushed_ns)
            after = max(at, end - self._lead_ns)
            if loud and end < self.pushed_ns and after <= until:
                off = abs(log(loud / 1e9 / max(seconds, 0.01)))
                nearest, keep = min((nearest, keep), (off, after))
            loud += length if height > SILENCE_PEAK else 0
            at += length
        self.forget(keep)
        self.hush(self.begins_ns, until)
        self._covered_ns = until

    def uncover(self) -> None:
        """Count again as loud what ``cover_to_pause`` has kept."""
        for index, (frame, end, peak) in enumerate(list(self._ends())):
            if peak < -SILENCE_PEAK and end <= self._covered_ns:
                length = self._held[index][1]
                self._held[index] = frame, length, -peak
                self.loud_ns += length
        self._covered_ns = 0

    def settle(self) -> None:
        """Drop what ``cover_to_pause`` has kept: it was final."""
        self.forget(self._covered_ns)
        self._covered_ns = 0

    def _last_pause(self) -> int:
        pauses, quiet_now = self._pauses()
        recent = [one for one in pauses if self.pushed_ns - one[1] < _RECENT_NS]
        if quiet_now or not recent:
            start, end = pauses[-1] if pauses else (self.pushed_ns, self.pushed_ns)
        else:
            start, end = max(recent, key=lambda one: one[1] - one[0])
        return max(start, end - self._lead_ns)

    def _pauses(self) -> tuple[list[tuple[int, int]], bool]:
        """Runs of quiet as (start, end), the long ones if there are any; whether it is quiet now.

        What is quiet depends on how loud the speech is, so that noise does not hide a pause.
        """
        loudest = max((peak for _, _, peak in self._held), default=0)
        floor = max(SILENCE_PEAK, loudest // _QUIET_PART)
        runs: list[tuple[int, int]] = []
        start: int | None = None
        at = self.begins_ns
        for _, length, peak in self._held:
            if peak <= floor:
                start = at if start is None else start
            elif start is not None:
                runs.append((start, at))
                start = None
            at += length
        if start is not None:
            runs.append((start, at))
        long = [run for run in runs if run[1] - run[0] >= _PAUSE_NS]
        return long or runs, start is not None

    def _ends(self) -> Iterator[tuple[rtc.AudioFrame | None, int, int]]:
        """Each entry with the position of its end, and its peak."""
        at = self.begins_ns
        for frame, length, peak in self._held:
            at += length
            yield frame, at, peak

    def _drop(self) -> None:
        _, length_ns, peak = self._held.popleft()
        self.held_ns -= length_ns
        if peak > SILENCE_PEAK:
            self.loud_ns -= length_ns


def _after(frame: rtc.AudioFrame, ns: int) -> rtc.AudioFrame | None:
    """What is left of ``frame`` from ``ns`` nanoseconds into it on; None when that is nothing."""
    skip = round(ns * frame.sample_rate / 1e9)
    samples = frame.samples_per_channel - skip
    if samples <= 0 or skip <= 0:
        return None
    data = frame.data[skip * frame.num_channels :].tobytes()
    return rtc.AudioFrame(data, frame.sample_rate, frame.num_channels, samples)
