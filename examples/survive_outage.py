"""A call that goes on while its providers fail: no key, no network.

    python examples/survive_outage.py

An ordinary AgentSession speaks with a model and a voice, each with a backup. Doubles stand in the
vendors' places (docs/doubles.md), so the outages are real: in the second turn the model hangs, in
the third the voice is cut off in the middle of a sentence.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.utils import http_context
from livekit.agents.voice import io

import trunkline
from trunkline import inference
from trunkline.doubles import Double, Pace, Provider, Rule, tones

REPLY = "Good evening. Your table is ready at eight, and the kitchen is open until eleven."
FAULTS = {
    "The model hangs": Rule(kind="hang", provider="openai"),
    "The voice is cut off after a second": Rule(kind="die", provider="cartesia", after=10),
}


class Ear(io.AudioOutput):
    """Hears what the caller hears: when it began, and which words it was."""

    def __init__(self) -> None:
        super().__init__(label="ear", capabilities=io.AudioOutputCapabilities(pause=False))
        self.pcm, self.rate = bytearray(), 0
        self.began: float | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        self.pcm += bytes(frame.data)
        self.rate = frame.sample_rate
        self.began = self.began or time.perf_counter()

    def flush(self) -> None:
        super().flush()
        if self.pcm:
            seconds = len(self.pcm) / 2 / self.rate
            asyncio.get_running_loop().call_soon(
                lambda: self.on_playback_finished(playback_position=seconds, interrupted=False)
            )

    def clear_buffer(self) -> None: ...

    def take(self) -> tuple[float | None, str]:
        """When the speech began, and its words; ``wor-`` was cut off."""
        words = " ".join(tones.decode(bytes(self.pcm), self.rate)) if self.rate else ""
        began, self.began = self.began, None
        self.pcm.clear()
        return began, words


def configuration(primary: Double, backup: Double) -> str:
    """Two connections for the model, two for the voice, and a route for each."""
    soon = {"first_content": 1.0, "idle": 1.0}
    return json.dumps(
        {
            "version": 1,
            "providers": {
                f"{name}-{side}": {
                    "kind": name,
                    "api_key": "any",
                    "base_url": double.url(name) + ("/v1" if name == "openai" else ""),
                }
                for side, double in (("a", primary), ("b", backup))
                for name in ("openai", "cartesia")
            },
            "routes": {
                "brain": {
                    "modality": "llm",
                    "candidates": ["openai-a/gpt-4.1", "openai-b/gpt-4.1"],
                    "deadlines": soon,
                },
                "voice": {
                    "modality": "tts",
                    "candidates": ["cartesia-a/sonic-3", "cartesia-b/sonic-3"],
                    "deadlines": soon,
                },
            },
        }
    )


async def turn(session: AgentSession[None], ear: Ear, title: str) -> bool:
    """One turn of the call; whether it was answered to its end."""
    print(f"\n{title}")
    began = time.perf_counter()
    await asyncio.wait_for(session.run(user_input="Is my table ready?"), 30)
    first, words = ear.take()
    if first is None:
        print("  the caller hears nothing")
        return False
    print(f"  the caller hears after {(first - began) * 1e3:.0f} ms: {words}")
    return words.split()[-1] == tones.words_of(REPLY)[-1]


async def call(primary: Double) -> bool:
    """The call: a healthy turn, one for each fault, and one when the news is known."""
    trunkline.on("failover", lambda e: print(f"  {e.failed}: {e.outcome}, over to {e.next}"))
    trunkline.on("recovered", lambda e: print(f"  {e.key} is back"))
    ear, answered = Ear(), []
    model, voice = inference.LLM("brain"), inference.TTS("voice")
    async with AgentSession[None](llm=model, tts=voice) as session:
        session.output.audio = ear
        await session.start(Agent(instructions="You answer the phone of a restaurant."))
        answered.append(await turn(session, ear, "All is well"))
        for title, rule in FAULTS.items():
            primary.inject(rule)
            answered.append(await turn(session, ear, title))
        answered.append(await turn(session, ear, "Both are still down, and known to be"))
    for one in (model, voice, trunkline):
        await one.aclose()
    return all(answered)


async def main() -> int:
    """Run the call; 0 when every turn was answered to its end."""
    logging.disable(logging.WARNING)
    providers = [
        Provider(name, replies=(REPLY,), pace=Pace(first=0.1, between=0.01))
        for name in ("openai", "cartesia")
    ]
    async with Double.serve(providers) as primary, Double.serve(providers) as backup:
        with tempfile.TemporaryDirectory() as place:
            config = Path(place) / "trunkline.yaml"
            config.write_text(configuration(primary, backup), encoding="utf-8")
            trunkline.configure(config, Path(place) / "state")
            async with http_context.open():
                survived = await call(primary)
    print("\nevery turn was answered" if survived else "\na turn was lost")
    return 0 if survived else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
