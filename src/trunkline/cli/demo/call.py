"""One call: a caller and an agent on a line, through an ordinary ``AgentSession``."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from livekit.agents import AgentSession, inference
from livekit.agents.utils import http_context
from livekit.agents.voice.transcription import TranscriptSynchronizer
from livekit.agents.voice.turn import EndpointingOptions

from .caller import Caller, Floor
from .line import Line
from .notes import Notes, Watcher
from .receptionist import Receptionist
from .wav import Samples

ENDPOINTING: EndpointingOptions = {"mode": "fixed", "min_delay": 0.3, "max_delay": 1.0}
"""Seconds between the end of speech and the end of the turn, whatever the turn detector says: it
was trained on people, and its verdict on a synthetic voice is chance."""


@dataclass(frozen=True, slots=True)
class Happened:
    """A call that is over; the samples are 16 kHz mono and begin when it was opened."""

    opened_ns: int
    """When it was opened, UTC."""
    caller: Samples
    agent: Samples
    notes: Notes


async def hold_call(parts: Mapping[str, Any], caller: Caller, watcher: Watcher) -> Happened:
    """Let ``caller`` talk with the receptionist in real time until the caller hangs up.

    ``parts`` are the ``stt``, ``llm`` and ``tts`` of an ``AgentSession``.
    """
    over = asyncio.Event()
    floor = Floor()
    session: AgentSession[None] = AgentSession(
        **parts,
        vad=inference.VAD(model="silero"),
        turn_handling={
            "turn_detection": inference.TurnDetector(version="v1-mini"),
            "endpointing": ENDPOINTING,
            "interruption": {"mode": "vad"},
        },
        aec_warmup_duration=None,  # nothing echoes: the two directions never meet
        user_away_timeout=None,
    )

    def carry(at: float) -> Samples:
        started = line.loudspeaker.last_started
        floor.update(
            at,
            started=None if started is None else line.since_open(started),
            working=line.loudspeaker.busy or session.agent_state in ("thinking", "speaking"),
        )
        if caller.hangs_up(at, floor):
            over.set()
        return caller.speak(at, floor)

    line = Line(carry)
    notes = Notes(session, line, watcher, over)
    async with http_context.open(), _talking(session, line, over):
        await over.wait()
    return Happened(line.opened_ns, *line.recording(), notes)


@contextlib.asynccontextmanager
async def _talking(
    session: AgentSession[None], line: Line, over: asyncio.Event
) -> AsyncIterator[None]:
    """Connect the session to the line, and close both whatever happens."""
    synchronizer = TranscriptSynchronizer(
        next_in_chain_audio=line.loudspeaker, next_in_chain_text=None
    )
    session.input.audio = line.microphone
    session.output.audio = synchronizer.audio_output
    session.output.transcription = synchronizer.text_output
    await session.start(Receptionist(), record=False)
    carrying = asyncio.create_task(line.run(), name="trunkline-demo-line")
    carrying.add_done_callback(lambda _: over.set())
    try:
        yield
    finally:
        # The line runs on while the session closes, because closing waits for playback.
        await session.aclose()
        carrying.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await carrying
        line.microphone.close()
        await synchronizer.aclose()
