"""Audio takes a short way past a recogniser's plugin; its provider gets what the plugin sends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from gateway_house import BEARER, KEY, SECRET, running, until
from gateway_speech import HEARS_AT, Wire
from livekit import rtc
from livekit.plugins import assemblyai

from trunkline.runtime.inlet_socket import InletSocket
from trunkline.runtime.livekit_recogniser import PluginRecogniser

MODELS = {"deepgram": "nova-3", "assemblyai": "universal-streaming"}
FRAME = HEARS_AT // 20


class Recorder:
    """A recogniser that hears and says nothing; ``messages`` are those of each connection."""

    def __init__(self) -> None:
        self.url = ""
        self.messages: list[list[bytes | str]] = []

    async def connected(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.messages.append(messages := [])
        async for message in socket:
            messages.append(message.data)
        return socket

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Recorder]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self.connected)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()


def audio(draw: random.Random) -> list[bytes | None]:
    """Frames of all sizes, most of them the plugins' own; None is the end of an utterance."""
    found: list[bytes | None] = []
    for _ in range(60):
        samples = draw.choice([*[FRAME] * 8, FRAME // 5, 3 * FRAME, 7, None, None])
        found.append(draw.randbytes(2 * samples) if samples else None)
    return found


async def sent(
    place: Path, vendor: str, pieces: list[bytes | None], draw: random.Random
) -> list[bytes | str]:
    """What ``vendor`` gets of ``pieces``."""
    async with Recorder().serving() as recorder:
        base = recorder.url.replace("http", "ws", 1) if vendor == "assemblyai" else recorder.url
        providers = {vendor: {"api_key": "key", "base_url": base}}
        candidates = [f"{vendor}/{MODELS[vendor]}"]
        said: dict[str, Any] = {
            "version": 1,
            "providers": providers,
            "routes": {"ears": {"modality": "stt", "candidates": candidates}},
            "gateway": {"keys": {KEY: SECRET}, "bearer": [BEARER]},
        }
        async with running(place, said) as house:
            url = f"{house.url.replace('http', 'ws', 1)}/stt?model=ears"
            headers = {"Authorization": f"Bearer {BEARER}"}
            wire = Wire(await house.session.ws_connect(url, headers=headers))
            await wire.create(settings={"sample_rate": str(HEARS_AT)})
            await wire.send("input_audio", audio=base64.b64encode(bytes(2 * FRAME)).decode())
            await until(lambda: bool(recorder.messages and recorder.messages[0]))
            for piece in pieces:
                if piece is None:
                    await wire.send("session.finalize")
                else:
                    await wire.send("input_audio", audio=base64.b64encode(piece).decode())
                if draw.random() < 0.7:
                    await asyncio.sleep(0.002)
            want = sum(map(len, filter(None, pieces))) // (2 * FRAME) * 2 * FRAME
            await until(lambda: _size(recorder.messages[0]) >= want)
            await wire.close()
        (messages,) = recorder.messages
        return messages


def _size(messages: list[bytes | str]) -> int:
    return sum(len(one) for one in messages if isinstance(one, bytes))


@pytest.mark.parametrize("vendor", MODELS)
@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_provider_gets_what_the_plugin_would_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vendor: str, seed: int
) -> None:
    pieces = audio(random.Random(seed))
    taken: list[bool] = []
    send_now = InletSocket.send_now

    def counted(self: InletSocket, data: bytes) -> bool:
        taken.append(send_now(self, data))
        return taken[-1]

    monkeypatch.setattr(InletSocket, "send_now", counted)
    short = await sent(tmp_path, vendor, pieces, random.Random(seed))
    assert sum(taken) > 3, "no frame took the short way"
    monkeypatch.setattr(InletSocket, "send_now", lambda *_: False)
    assert short == await sent(tmp_path, vendor, pieces, random.Random(seed))


async def test_a_plugin_that_counts_time_from_its_first_frame_gets_it() -> None:
    """Its socket was open, and waited, before there was any audio."""
    session = aiohttp.ClientSession(ws_response_class=InletSocket)
    async with Recorder().serving() as recorder, session:
        base = recorder.url.replace("http", "ws", 1)
        plugin = assemblyai.STT(api_key="key", base_url=base, http_session=session)
        ears = PluginRecogniser(
            plugin, "en", 0.0, connect_timeout=5.0, replay_speed=0.0, failed=pytest.fail
        )
        await until(lambda: bool(recorder.messages))
        await asyncio.sleep(0.1)
        before = time.time()
        for _ in range(5):
            ears.push_frame(rtc.AudioFrame(bytes(2 * FRAME), HEARS_AT, 1, FRAME))
            await asyncio.sleep(0.02)
        await until(lambda: len(recorder.messages[0]) == 5)
        assert ears._stream.start_time >= before
        await ears.aclose()
