"""What the gateway adds to a voice's first byte: ``/v1/tts`` and ``/v1/audio/speech`` against the
bare plugin.

    python -m bench gateway_audio

One double of Cartesia, asked in turns by its official plugin and by clients through ``trunkline
serve``, which asks it by the same plugin: LiveKit's protocol, then OpenAI's in three formats. The
double makes its audio at once: what is left is what the way costs. The connections of all are open
before the first measured text. Where there are two cores the double has one and the gateway the
other, and so has the plugin alone, whose loop would else wait until the double has made it all. The
gateway's CPU is that of an utterance from the text to the end of its audio, and the least.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import aiohttp
from livekit.plugins import cartesia

from bench.gateway_stage import KEY, cpu_ns, free_port, started, trunkline, wait_for
from trunkline.doubles import Double

ROUNDS = 200
WARM_UP = 20
TEXT = "Good morning, how can I help you?"
BARE, LIVEKIT = "bare plugin", "livekit"
FORMATS = ("pcm", "mp3", "opus")


async def bare(voice: cartesia.TTS) -> float:
    """Seconds from the text to the first frame."""
    begun = time.perf_counter()
    async with voice.stream() as stream:
        stream.push_text(TEXT)
        stream.end_input()
        await anext(stream)
        return time.perf_counter() - begun


async def spoken(socket: aiohttp.ClientWebSocketResponse) -> float:
    """Seconds from the text to the first audio, as LiveKit's clients ask for it."""
    begun = time.perf_counter()
    await socket.send_str(json.dumps({"type": "input_transcript", "transcript": TEXT + " "}))
    await socket.send_str('{"type": "session.flush"}')
    first = 0.0
    while (kind := (message := await socket.receive_json())["type"]) != "done":
        if kind == "error":
            raise RuntimeError(message["message"])
        if kind == "output_audio" and not first:
            first = time.perf_counter() - begun
    return first


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


async def double() -> None:
    """Serve until the standard input ends; prints where."""
    async with Double.serve(["cartesia"]) as one:
        print(one.url("cartesia"), flush=True)
        await asyncio.to_thread(sys.stdin.read)


async def measured(place: Path, core: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds to the first audio by who was asked, and the least CPU of the gateway."""
    here = [sys.executable, "-m", "bench.gateway_audio"]
    with started(here, place, None) as vendor:
        os.sched_setaffinity(vendor.pid, {min(os.sched_getaffinity(0))})
        assert vendor.stdout is not None
        told = await asyncio.to_thread(vendor.stdout.readline)
        return await asked(place, told.strip(), core)


async def asked(
    place: Path, vendor: str, core: int
) -> tuple[dict[str, list[float]], dict[str, float]]:
    async with aiohttp.ClientSession() as session:
        file = place / "trunkline.yaml"
        words = trunkline(place, "http://127.0.0.1:1")
        file.write_text(
            f"version: 1\nstate: {place}/state\ngateway: {{bearer: [{KEY}]}}\n"
            f"providers: {{cartesia: {{api_key: x, base_url: {vendor}}}}}\n"
            "routes: {mouth: {modality: tts, candidates: [cartesia/sonic-3]}}\n",
            "utf-8",
        )
        port = free_port()
        command = [word.format(port=port) for word in words]
        with started(command, place, core) as process:
            await asyncio.to_thread(wait_for, "trunkline serve", port, process)
            voice = cartesia.TTS(base_url=vendor, api_key="x", http_session=session)
            url = f"http://127.0.0.1:{port}/v1"
            headers = {"Authorization": f"Bearer {KEY}"}
            socket = await session.ws_connect(f"{url}/tts?model=mouth", headers=headers)
            await socket.send_str('{"type": "session.create", "sample_rate": "24000"}')
            await socket.receive_str()
            seconds: dict[str, list[float]] = {name: [] for name in (BARE, LIVEKIT, *FORMATS)}
            cpu = dict.fromkeys(seconds, float("inf"))
            for turn in range(WARM_UP + ROUNDS):
                for name, found in seconds.items():
                    if name == BARE:
                        asking = bare(voice)
                    elif name == LIVEKIT:
                        asking = spoken(socket)
                    else:
                        asking = served(session, f"{url}/audio/speech", name)
                    before = cpu_ns(process.pid)
                    took = await asking
                    if turn >= WARM_UP:
                        found.append(took)
                        cpu[name] = min(cpu[name], (cpu_ns(process.pid) - before) / 1e6)
            await socket.close()
            await voice.aclose()
            return seconds, cpu


def main() -> str:
    """The table: first audio and CPU by who was asked."""
    core = max(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as place:
        seconds, cpu = asyncio.run(measured(Path(place), core))
    base = median(seconds[BARE])
    lines = [f"{'':12}  p50 ms   p95 ms  added ms (p50)  CPU ms, of {ROUNDS} texts each"]
    for name, found in seconds.items():
        p95 = quantiles(found, n=20)[-1]
        added = "" if name == BARE else f"{(median(found) - base) * 1e3:8.2f} {cpu[name]:14.2f}"
        lines.append(f"{name:12}{median(found) * 1e3:8.2f} {p95 * 1e3:8.2f}  {added}")
    return "\n".join(lines)


if __name__ == "__main__":
    asyncio.run(double())
