"""The stage of ``bench.gateway_ears``: callers, and a recogniser that costs next to nothing.

Both speak their WebSocket by hand, in one process and loop, so that they are not what is measured.
Each frame of audio carries the time at which it left, in three samples too quiet to be sound, and
each transcript does in its first word: any process of the machine can tell how old one is.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from typing import cast

import numpy as np

RATE = 16000
FRAME_SECONDS = 0.05
"""What LiveKit's clients send, and its plugins hand on: 20 frames a second."""
SAMPLES = int(RATE * FRAME_SECONDS)
TURN, SPEECH, FINAL = 80, 40, 46
"""Frames: a caller speaks for two seconds of four; his words are final 300 ms after the last."""
INTERIMS = (10, 20, 30, 40)

_DIGIT = 200
"""A stamp is a number of three digits to this base; a sample up to it is silence."""
_TICK_NS = 10_000
_AGE_LIMIT = _DIGIT**3


def now() -> int:
    """The time as a stamp, which begins anew every 80 s."""
    return time.monotonic_ns() // _TICK_NS % _AGE_LIMIT


def age(stamp: int) -> float:
    """Milliseconds since ``stamp``."""
    return (now() - stamp) % _AGE_LIMIT * _TICK_NS / 1e6


def stamped() -> bytes:
    """Three samples that say when."""
    rest, low = divmod(now(), _DIGIT)
    high, middle = divmod(rest, _DIGIT)
    return bytes((high, 0, middle, 0, low, 0))


def age_of(samples: bytes) -> float:
    return age((samples[0] * _DIGIT + samples[2]) * _DIGIT + samples[4])


def age_of_words(text: bytes) -> float:
    """How old the transcript in a message is; its first word is ``t`` and a stamp."""
    at = text.index(b'"transcript":"t') + 15
    return age(int(text[at : at + 7]))


def rest_of_frames() -> list[bytes]:
    """The samples behind the stamp, frame by frame of a turn: noise, then a quiet line."""
    draw = np.random.default_rng(1)
    peaks = [8000 if n < SPEECH else 100 for n in range(TURN)]
    noise = [draw.integers(-peak, peak + 1, SAMPLES - 3).astype("<i2") for peak in peaks]
    return [samples.tobytes() for samples in noise]


def frame(opcode: int, payload: bytes, mask: bytes = b"") -> bytes:
    """A WebSocket frame (RFC 6455, section 5.2); a client's has a ``mask``, here one of zeros."""
    masked = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        head = bytes((0x80 | opcode, masked | size))
    else:
        head = struct.pack(">BBH", 0x80 | opcode, masked | 126, size)
    return head + mask + payload


MASK = bytes(4)
SAID = ["some", "more", "words", "of", "a", "caller"]


class _Peer(asyncio.Protocol):
    """One end of a WebSocket: the head of the upgrade, then frames."""

    def __init__(self) -> None:
        self._data = b""
        self._upgraded = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's are of no class of asyncio

    def data_received(self, data: bytes) -> None:
        self._data = self._data + data if self._data else data
        if not self._upgraded:
            head, found, rest = self._data.partition(b"\r\n\r\n")
            if not found:
                return
            self._upgraded, self._data = True, rest
            self.upgraded(head)
        for opcode, mask, payload in self._frames():
            self.told(opcode, mask, payload)

    def _frames(self) -> Iterator[tuple[int, bytes, bytes]]:
        data, at = self._data, 0
        while len(data) - at >= 2:
            size, body = data[at + 1] & 0x7F, at + 2
            if size == 126:
                if len(data) < at + 4:
                    break
                size, body = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            masked = 4 if data[at + 1] & 0x80 else 0
            end = body + masked + size
            if len(data) < end:
                break
            yield data[at] & 0x0F, data[body : body + masked], data[body + masked : end]
            at = end
        self._data = data[at:]

    def upgraded(self, head: bytes) -> None:
        raise NotImplementedError

    def told(self, opcode: int, mask: bytes, payload: bytes) -> None:
        raise NotImplementedError


class Vendor(_Peer):
    """Deepgram's live protocol: a transcript for what it counts, not for what it hears."""

    def __init__(self, ages: list[float]) -> None:
        super().__init__()
        self._ages = ages
        self._heard = 0

    def upgraded(self, head: bytes) -> None:
        assert self.transport is not None
        key = head.lower().partition(b"sec-websocket-key: ")[2]
        key = head[len(head) - len(key) :].partition(b"\r\n")[0]
        digest = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\n\r\n" % base64.b64encode(digest)
        )

    def told(self, opcode: int, mask: bytes, payload: bytes) -> None:
        if opcode == 2:
            self._ages.append(age_of(bytes(payload[n] ^ mask[n & 3] for n in range(6))))
            self._heard += 1
            at = self._heard % TURN
            if at in INTERIMS or at == FINAL:
                self._say(at)
        elif opcode == 8 or (opcode == 1 and _unmasked(payload, mask).startswith(b'{"type": "Cl')):
            assert self.transport is not None
            self.transport.write(frame(8, b"\x03\xe8"))
            self.transport.close()

    def _say(self, at: int) -> None:
        assert self.transport is not None
        begins = (self._heard - at) * FRAME_SECONDS
        ends = begins + min(at, SPEECH) * FRAME_SECONDS
        texts = [f"t{now():07d}", *(SAID * 4)[: at // 2]]
        width = (ends - begins) / len(texts)
        words = [
            {
                "word": text,
                "start": begins + n * width,
                "end": begins + (n + 1) * width,
                "confidence": 0.99,
                "punctuated_word": text,
            }
            for n, text in enumerate(texts)
        ]
        said = {"transcript": " ".join(texts), "confidence": 0.99, "words": words}
        results = {
            "type": "Results",
            "channel_index": [0, 1],
            "start": begins,
            "duration": ends - begins,
            "is_final": at == FINAL,
            "speech_final": at == FINAL,
            "channel": {"alternatives": [said]},
            "metadata": {"request_id": "b"},
        }
        self.transport.write(frame(1, json.dumps(results).encode()))


def _unmasked(payload: bytes, mask: bytes) -> bytes:
    return bytes(byte ^ mask[n & 3] for n, byte in enumerate(payload))


class Caller(_Peer):
    """A LiveKit client of ``/v1/stt`` that speaks in turns, for as long as it is connected.

    ``rests`` are those of the frames, in base64.
    """

    def __init__(self, key: str, model: str, rests: list[bytes], ages: list[float]) -> None:
        super().__init__()
        self._rests = rests
        self._key, self._model = key, model
        self._ages = ages
        self.is_gone = False
        self._spoken = 0
        self._due = 0.0
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self.transport is not None
        self.transport.write(
            f"GET /v1/stt?model={self._model} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nAuthorization: Bearer {self._key}\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
            "\r\n".encode()
        )

    def upgraded(self, head: bytes) -> None:
        assert self.transport is not None
        if not head.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(head.decode())
        settings = {"sample_rate": str(RATE), "encoding": "pcm_s16le", "extra": {}}
        create = {"type": "session.create", "model": self._model, "settings": settings}
        self.transport.write(frame(1, json.dumps(create).encode(), MASK))
        self._due = self._loop.time()
        self._speak()

    def _speak(self) -> None:
        assert self.transport is not None
        audio = base64.b64encode(stamped()) + self._rests[self._spoken % TURN]
        self.transport.write(frame(1, b'{"type": "input_audio", "audio": "%b"}' % audio, MASK))
        self._spoken += 1
        self._due += FRAME_SECONDS
        self._timer = self._loop.call_at(self._due, self._speak)

    def told(self, opcode: int, mask: bytes, payload: bytes) -> None:
        assert self.transport is not None
        if opcode == 9:
            self.transport.write(frame(10, payload, MASK))
        elif opcode == 1 and b'_transcript"' in payload[:40]:
            self._ages.append(age_of_words(payload))
        elif opcode == 8 or b'"error"' in payload[:20]:
            print(f"a caller was told {payload[:300]!r}", flush=True)

    def hang_up(self) -> None:
        if self.transport is not None:
            self.transport.write(frame(8, b"\x03\xe8", MASK))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.is_gone = True


async def bare(url: str, streams: int, ramp: float) -> None:
    """The official plugin alone: the same audio handed to it in this process, the words read.

    SIGUSR1 begins the measurement, SIGUSR2 prints the ages of the words since and ends it.
    """
    import aiohttp
    from livekit import rtc
    from livekit.agents import stt
    from livekit.plugins import deepgram

    rests = rest_of_frames()
    loop = asyncio.get_running_loop()
    ages: list[float] = []

    def told() -> None:
        print(json.dumps(ages), flush=True)
        os._exit(0)  # its streams are of no more use, and take their time to close

    loop.add_signal_handler(signal.SIGUSR1, ages.clear)
    loop.add_signal_handler(signal.SIGUSR2, told)

    async def listen(stream: stt.RecognizeStream) -> None:
        async for event in stream:
            if event.alternatives:
                ages.append(age(int(event.alternatives[0].text[1:8])))

    def speak(stream: stt.RecognizeStream, spoken: int, due: float) -> None:
        data = stamped() + rests[spoken % TURN]
        stream.push_frame(rtc.AudioFrame(data, RATE, 1, SAMPLES))
        due += FRAME_SECONDS
        loop.call_at(due, speak, stream, spoken + 1, due)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        plugin = deepgram.STT(base_url=url, api_key="x", http_session=session)
        tasks = []
        for _ in range(streams):
            stream = plugin.stream()
            tasks.append(asyncio.create_task(listen(stream)))
            speak(stream, 0, loop.time())
            await asyncio.sleep(ramp / streams)
        await asyncio.gather(*tasks)


if __name__ == "__main__":
    import uvloop

    uvloop.run(bare(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
