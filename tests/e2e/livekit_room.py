"""A LiveKit server of this machine, and a caller in one of its rooms."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from livekit import api, rtc
from serving import program, until

KEY, SECRET = "APIroom", "another-secret-of-thirty-two-characters"
RATE = 16_000
_AUDIBLE = 300
"""Loudness (root mean square of 16-bit samples) that is speech; Opus leaves less in a silence."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses right now, for UDP or TCP."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            one = stack.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            found.append(one.getsockname()[1])
        return found


@contextlib.asynccontextmanager
async def livekit_server(place: Path, binary: Path) -> AsyncIterator[str]:
    """LiveKit's own server on loopback, as a developer runs it; its address."""
    http, tcp, udp, nobody = free_ports(4)
    rtc_said = {
        "tcp_port": tcp,
        "udp_port": udp,
        "node_ip": "127.0.0.1",
        "enable_loopback_candidate": True,
        # Without one, clients are given public ones to ask.
        "stun_servers": [f"127.0.0.1:{nobody}"],
    }
    said = {
        "port": http,
        "bind_addresses": ["127.0.0.1"],
        "keys": {KEY: SECRET},
        "logging": {"level": "info"},
        "rtc": rtc_said,
    }
    (place / "livekit.yaml").write_text(yaml.safe_dump(said), "utf-8")
    log = place / "livekit.log"
    command = (binary, "--dev", "--config", place / "livekit.yaml")
    async with program(log, *command) as process:

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", http), 1):
                return True
            return False

        await until(listens, 60, process)
        yield f"ws://127.0.0.1:{http}"


@dataclass
class Caller:
    """A participant that speaks and listens. ``heard`` is (when, seconds, loudness) so far."""

    room: rtc.Room
    source: rtc.AudioSource
    heard: list[tuple[float, float, float]] = field(default_factory=list)

    async def speak(self, pcm: bytes) -> None:
        """Say 16 kHz speech at the pace of a call."""
        size = RATE // 50 * 2
        for at in range(0, len(pcm) - size + 1, size):
            await self.source.capture_frame(rtc.AudioFrame(pcm[at : at + size], RATE, 1, size // 2))

    async def ask(self, pcm: bytes) -> None:
        """Speak, and listen to the answer to its end."""
        begun = time.monotonic()
        await self.speak(pcm)
        await self.answered(begun)

    def audible(self, since: float = 0.0) -> float:
        """Seconds of sound that came after the moment ``since``."""
        return sum(length for at, length, loud in self.heard if at >= since and loud > _AUDIBLE)

    async def answered(self, since: float, seconds: float = 0.5) -> None:
        """Wait until so much was heard since then, and the other has stopped speaking."""
        await until(lambda: self.audible(since) >= seconds, 90)
        await until(lambda: self.audible(time.monotonic() - 1.5) == 0.0, 90)

    async def listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1)
        async for event in stream:
            samples = np.frombuffer(event.frame.data, np.int16).astype(np.float64)
            loud = float(np.sqrt(np.mean(samples**2))) if len(samples) else 0.0
            self.heard.append((time.monotonic(), event.frame.duration, loud))


@contextlib.asynccontextmanager
async def caller(url: str, room_name: str) -> AsyncIterator[Caller]:
    """Join the room, publish a microphone, and hear whoever speaks there."""
    grants = api.VideoGrants(room_join=True, room=room_name)
    token = api.AccessToken(KEY, SECRET).with_identity("caller").with_grants(grants).to_jwt()
    room = rtc.Room()
    source = rtc.AudioSource(RATE, 1, queue_size_ms=200)
    one = Caller(room, source)
    listening: set[asyncio.Task[None]] = set()

    def subscribed(track: rtc.Track, *_: object) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            listening.add(asyncio.create_task(one.listen(track)))

    room.on("track_subscribed", subscribed)
    await asyncio.wait_for(room.connect(url, token), 60)
    try:
        track = rtc.LocalAudioTrack.create_audio_track("microphone", source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)
        yield one
    finally:
        await room.disconnect()
        for task in listening:
            task.cancel()
        await source.aclose()
