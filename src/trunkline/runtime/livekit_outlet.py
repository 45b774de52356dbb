"""What a LiveKit stream gives, without the tee that wakes a task of metrics for each of it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from livekit.agents.stt import SpeechEvent
from livekit.agents.tts import SynthesizedAudio
from livekit.agents.utils import aio


class Outlet(aio.Chan[SynthesizedAudio]):
    """A stream's audio, and what LiveKit's metrics need of it: the first frame and the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.measured: aio.Chan[Any] = aio.Chan()
        self._rest: float | None = None

    def send_nowait(self, value: SynthesizedAudio) -> None:
        super().send_nowait(value)
        frame, rest = value.frame, self._rest
        if rest is None:
            self.measured.send_nowait(value)
            self._rest = None if value.is_final else 0.0
            return
        self._rest = rest = rest + frame.samples_per_channel / frame.sample_rate
        if value.is_final:
            whole: Any = SimpleNamespace(duration=rest)
            self.measured.send_nowait(replace(value, frame=whole))
            self._rest = None

    def close(self) -> None:
        super().close()
        self.measured.close()


class EventOutlet(aio.Chan[SpeechEvent]):
    """A recogniser's events, and what LiveKit's metrics need of them: those that tell of usage."""

    def __init__(self) -> None:
        super().__init__()
        self.measured: aio.Chan[SpeechEvent] = aio.Chan()

    def send_nowait(self, value: SpeechEvent) -> None:
        super().send_nowait(value)
        if value.recognition_usage is not None:
            self.measured.send_nowait(value)

    def close(self) -> None:
        super().close()
        self.measured.close()
