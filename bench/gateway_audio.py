"""What the gateway adds to a voice's first byte: ``/v1/audio/speech`` against the bare plugin.

    python -m bench gateway_audio

One double of Cartesia, asked in turns by its official plugin and by an HTTP client through
``trunkline serve``, which asks it by the same plugin. The double makes its audio at once: what is
left is what the way costs. The connections of both are open before the first measured text.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import aiohttp
from livekit.plugins import cartesia

from bench.gateway_stage import KEY, free_port, started, trunkline, wait_for
from trunkline.doubles import Double

ROUNDS = 200
WARM_UP = 20
TEXT = "Good morning, how can I help you?"
FORMATS = ("pcm", "mp3", "opus")


async def bare(voice: cartesia.TTS) -> float:
    """Seconds from the text to the first frame."""
    begun = time.perf_counter()
    async with voice.stream() as stream:
        stream.push_text(TEXT)
        stream.end_input()
        await anext(stream)
        return time.perf_counter() - begun


async def served(session: aiohttp.ClientSession, url: str, form: str) -> float:
    """Seconds from the request to the first byte of the file."""
    begun = time.perf_counter()
    body = {"model": "mouth", "voice": "default", "input": TEXT, "response_format": form}
    headers = {"Authorization": f"Bearer {KEY}"}
    async with session.post(url, json=body, headers=headers) as response:
        response.raise_for_status()
        await response.content.readany()
        first = time.perf_counter() - begun
        await response.read()
    return first


async def measured(place: Path) -> dict[str, list[float]]:
    async with Double.serve(["cartesia"]) as double, aiohttp.ClientSession() as session:
        file = place / "trunkline.yaml"
        words = trunkline(place, "http://127.0.0.1:1")
        file.write_text(
            f"version: 1\nstate: {place}/state\ngateway: {{bearer: [{KEY}]}}\n"
            f"providers: {{cartesia: {{api_key: x, base_url: {double.url('cartesia')}}}}}\n"
            "routes: {mouth: {modality: tts, candidates: [cartesia/sonic-3]}}\n",
            "utf-8",
        )
        port = free_port()
        command = [word.format(port=port) for word in words]
        with started(command, place, max(os.sched_getaffinity(0))) as process:
            await asyncio.to_thread(wait_for, "trunkline serve", port, process)
            voice = cartesia.TTS(base_url=double.url("cartesia"), api_key="x", http_session=session)
            url = f"http://127.0.0.1:{port}/v1/audio/speech"
            seconds: dict[str, list[float]] = {name: [] for name in ("bare plugin", *FORMATS)}
            for turn in range(WARM_UP + ROUNDS):
                for name, found in seconds.items():
                    asking = bare(voice) if name == "bare plugin" else served(session, url, name)
                    took = await asking
                    if turn >= WARM_UP:
                        found.append(took)
            await voice.aclose()
            return seconds


def main() -> str:
    with tempfile.TemporaryDirectory() as place:
        seconds = asyncio.run(measured(Path(place)))
    base = median(seconds["bare plugin"])
    lines = [f"{'':12}  p50 ms   p95 ms  added ms (p50), of {ROUNDS} texts each"]
    for name, found in seconds.items():
        p95 = quantiles(found, n=20)[-1]
        added = f"{(median(found) - base) * 1e3:8.2f}" if name != "bare plugin" else ""
        lines.append(f"{name:12}{median(found) * 1e3:8.2f} {p95 * 1e3:8.2f}  {added}")
    return "\n".join(lines)
