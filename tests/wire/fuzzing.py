"""Random frames and requests for a gateway, and what must hold whatever it is sent.

As a program (``python fuzzing.py FRAMES REQUESTS CONNECTIONS SEED``) it plays so many of each and
prints what it saw as one JSON object.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import logging
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from gateway_house import BEARER, until
from gateway_speech import GPT, NOVA, SONIC, Speech, speech

from trunkline.gateway import plans, stt
from trunkline.runtime.loud_vad import LoudVAD

DOORS = {"stt": "ears", "tts": "mouth"}
AUDIO = base64.b64encode(bytes(1600)).decode()
AT_ONCE = 16
"""Conversations that go on side by side."""

Frame = str | bytes


def message(kind: str, **fields: Any) -> str:
    return json.dumps({"type": kind, **fields})


CREATE = {
    "stt": message("session.create", settings={"sample_rate": "16000", "extra": {}}),
    "tts": message("session.create", sample_rate="24000", encoding="pcm_s16le", extra={}),
}
LETTERS = [(b"authorization", f"Bearer {BEARER}".encode())]


class Called:
    """One socket: ``frames`` go in, ``sent`` is what came out. The client hangs up at the end,
    or when it has waited for ``wants``, the type of a message."""

    def __init__(self, house: Speech, door: str, frames: Iterable[Frame], wants: str = "") -> None:
        self.sent: list[dict[str, Any]] = []
        self.taken = 0
        self._house = house
        self._frames = list(frames)
        self._wants = wants
        self._scope = {
            "type": "websocket",
            "path": f"/v1/{door}",
            "query_string": f"model={DOORS[door]}".encode(),
            "headers": LETTERS,
        }
        self._connected = False
        self._over = asyncio.Event()

    async def run(self) -> Called:
        async with asyncio.timeout(120):
            await self._house.gateway(self._scope, self._receive, self._send)
        return self

    async def _receive(self) -> dict[str, Any]:
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        await asyncio.sleep(0)
        if self.taken < len(self._frames):
            frame = self._frames[self.taken]
            self.taken += 1
            key = "text" if isinstance(frame, str) else "bytes"
            return {"type": "websocket.receive", key: frame}
        if self._wants:
            async with asyncio.timeout(60):
                await self._over.wait()
        return {"type": "websocket.disconnect", "code": 1005}

    async def _send(self, event: Any) -> None:
        await asyncio.sleep(0)
        self.sent.append(event)
        if self._wants in self.types or event["type"] == "websocket.close":
            self._over.set()

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(e["text"]) for e in self.sent if e["type"] == "websocket.send"]

    @property
    def types(self) -> list[str]:
        return [m["type"] for m in self.messages]

    def check(self) -> None:
        """At most one error, the last message, with an id; after the close nothing."""
        errors = [m for m in self.messages if m["type"] == "error"]
        assert len(errors) <= 1
        if errors:
            assert self.types[-1] == "error"
            assert errors[0]["request_id"] in errors[0]["message"]
            assert isinstance(errors[0]["code"], int)
            assert errors[0]["code"] != 500, errors[0]
        ends = [i for i, event in enumerate(self.sent) if event["type"] == "websocket.close"]
        assert not ends or ends == [len(self.sent) - 1]
        assert self.sent[0]["type"] == "websocket.accept"


class Posted:
    """One HTTP request: ``body`` goes in by ``pieces``; the client hangs up instead of the last
    one when it is ``cut``."""

    def __init__(
        self,
        house: Speech,
        method: str,
        path: str,
        headers: Sequence[tuple[bytes, bytes]],
        pieces: Sequence[bytes],
        *,
        cut: bool,
    ) -> None:
        self.sent: list[dict[str, Any]] = []
        self._house = house
        self._pieces = list(pieces)
        self._cut = cut
        self._scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": list(headers),
        }
        self._at = 0

    @property
    def told(self) -> Any:
        return self._scope, self._pieces, self._cut

    async def run(self) -> Posted:
        async with asyncio.timeout(120):
            await self._house.gateway(self._scope, self._receive, self._send)
        return self

    async def _receive(self) -> dict[str, Any]:
        await asyncio.sleep(0)
        at, self._at = self._at, self._at + 1
        last = len(self._pieces) - 1
        if at > last or (self._cut and at == last):
            if not self._cut:
                await asyncio.Event().wait()  # the client waits for its answer
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": self._pieces[at], "more_body": at < last}

    async def _send(self, event: Any) -> None:
        await asyncio.sleep(0)
        self.sent.append(event)

    def check(self) -> None:
        """One status, one end, and an error that has the id of the answer's head."""
        starts = [event for event in self.sent if event["type"] == "http.response.start"]
        if self._cut and not starts:
            return
        assert len(starts) == 1
        assert self.sent[0] is starts[0]
        ends = [e for e in self.sent[1:] if not e.get("more_body")]
        assert len(ends) == (ends[-1:] == self.sent[-1:]) or self._cut
        status = starts[0]["status"]
        headers = dict(starts[0]["headers"])
        assert b"x-request-id" in headers or self._scope["path"] == "/healthz"
        if status >= 400 and self._scope["method"] != "HEAD":
            body = b"".join(event["body"] for event in self.sent[1:])
            told = json.loads(body)
            if b"x-livekit-request-id" in headers:  # a decision's
                assert status != 500, told
                assert told.keys() == {"type", "error", "hint"}
                return
            error = told["error"]
            assert error["request_id"].encode() == headers[b"x-request-id"]
            assert len(error["message"]) < 2000
            assert status != 500, error  # 502 and 504 are a provider's


# What is sent.

VALID: dict[str, list[str]] = {
    "stt": [
        CREATE["stt"],
        message("input_audio", audio=AUDIO),
        message("input_audio", audio=""),
        message("session.update", settings={"language": "en", "extra": {"keyterm": ["x"]}}),
        message("session.finalize"),
        message("session.close"),
    ],
    "tts": [
        CREATE["tts"],
        message("input_transcript", transcript="Hi. ", generation_config={}, extra={}),
        message("input_transcript", transcript="- "),
        message("session.flush"),
        message("session.close"),
    ],
}
JUNK = ["null", '"', "\x00", '{"type":', "1e999", '{"type":"input_audio","audio":"="}', "[" * 99]
_CHAT = {"model": "brain", "messages": [{"role": "user", "content": "Hi"}]}
_FORM = (
    b'--x\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n%b\r\n--x--\r\n'
)
_WAV = b"RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80>\x00\x00\x00}\x00\x00"
_FORM_TYPE = (b"content-type", b"multipart/form-data; boundary=x")
BODIES: list[tuple[str, bytes, tuple[bytes, bytes]]] = [
    ("/v1/chat/completions", json.dumps(one).encode(), (b"content-type", b"application/json"))
    for one in (
        _CHAT,
        {**_CHAT, "stream": True, "stream_options": {"include_usage": True}},
        {**_CHAT, "tools": [], "tool_choice": "auto", "temperature": 0.5},
        {**_CHAT, "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {**_CHAT, "messages": [], "max_tokens": -1},
    )
]
BODIES += [
    (
        "/v1/audio/speech",
        json.dumps({"model": "mouth", "input": "Hi.", "voice": "alloy", **more}).encode(),
        (b"content-type", b"application/json"),
    )
    for more in ({"response_format": "pcm"}, {"speed": 9}, {"response_format": "wav"})
]
BODIES += [
    ("/v1/audio/transcriptions", _FORM % one, _FORM_TYPE)
    for one in (
        (b"model", b"ears", _WAV + bytes(50)),
        (b"response_format", b"srt", b"no audio"),
        (b"language", b"../x", _WAV),
    )
]
BODIES += [
    (
        "/v1/decisions",
        json.dumps({"model": "brain", "state": "user: Hi", "questions": {"q": one}}).encode(),
        (b"content-type", b"application/json"),
    )
    for one in (
        {"type": "noul", "instructions": "x"},
        {"type": "choice", "instructions": "x", "criteria": {"a": "", "b": "c"}},
        {"type": "score", "instructions": "x", "criteria": ["a", "b"]},
    )
]
PATHS = ["/v1/models", "/v1/models/brain", "/v1/models/../x", "/healthz", "/v1/eot", "//v1//stt/"]


def scrambled(chance: random.Random, text: str) -> str:
    at = chance.randrange(len(text))
    return text[:at] + chr(chance.randrange(1, 0x250)) + text[at + 1 :]


def mutated(chance: random.Random, frame: str) -> Frame:
    """``frame``, mostly as it is, else cut, swollen, scrambled or something else altogether."""
    match chance.randrange(40):
        case 0 | 1:
            return frame[: chance.randrange(len(frame))]
        case 2 | 3 | 4:
            return scrambled(chance, frame)
        case 5:
            return chance.randbytes(chance.randrange(64))
        case 6:
            return frame.replace('"', chance.choice(["'", "", '"x']), 1)
        case 7:
            return chance.choice(JUNK)
        case 8:
            return frame[:-1] + f', "more": "{"z" * chance.randrange(100_000)}"' + "}"
        case 9:
            return message(chance.choice(["later", "session.x", "output_audio"]), data=[1, {}])
    return frame


def conversation(chance: random.Random, door: str) -> list[Frame]:
    """Up to thirty frames, most often in an order that makes sense at first."""
    frames = [chance.choice(VALID[door]) for _ in range(chance.randrange(30))]
    if chance.random() < 0.9:
        # A second beginning ends a conversation: most have none.
        frames = [one for one in frames if one != CREATE[door] or chance.random() < 0.1]
        frames.insert(0, CREATE[door])
    if chance.random() < 0.8:
        frames = [one for one in frames if "session.close" not in one]
    return [mutated(chance, frame) for frame in frames]


def request(chance: random.Random, house: Speech) -> Posted:
    """A request that is mostly wrong in one place: its way, its head or its body."""
    path, body, kind = chance.choice(BODIES)
    method, headers = "POST", [*LETTERS, kind]
    match chance.randrange(12):
        case 0:
            body = body[: chance.randrange(len(body))]
        case 1 | 2 | 3:
            at = chance.randrange(len(body))
            body = body[:at] + chance.randbytes(1) + body[at + 1 :]
        case 4:
            body = chance.randbytes(chance.randrange(200))
        case 5:
            body = chance.choice(JUNK).encode()
        case 6:
            body = body[:-1] + b', "more": "%b"}' % (b"z" * chance.randrange(100_000))
        case 7:
            path, method = chance.choice(PATHS), chance.choice(["GET", "HEAD", "POST", "PUT"])
        case 8:
            name = chance.choice([b"authorization", b"content-type", b"x-livekit-room-id"])
            headers = [one for one in headers if one[0] != name]
            headers.append((name, chance.randbytes(chance.randrange(300))))
        case 9:
            headers.append((b"content-length", chance.choice([b"-1", b"x", b"9" * 30, b"12"])))
        case 10:
            path = "".join(scrambled(chance, path))
    size = chance.choice([1 << 20, 97])
    pieces = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    return Posted(house, method, path, headers, pieces, cut=chance.random() < 0.1)


UPGRADE = (
    b"GET /v1/%b?model=%b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_FIRST = bytes([0x01, 0x80, 0x82, 0x83, 0x88, 0x89, 0x8A, 0xC1, 0xF1])
"""Parts, binary frames, closes, pings, pongs, and what is reserved."""

_HTTP = b"POST %b HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: %d\r\n\r\n%b"


def frame_of(chance: random.Random, text: bytes, wrong: float = 0.05) -> bytes:
    """A client's WebSocket frame, now and then one that RFC 6455 does not know."""
    first = chance.choice(_FIRST) if chance.random() < 5 * wrong else 0x81
    mask = 0 if chance.random() < wrong else 0x80
    size = chance.choice([0, 1 << 40, (1 << 63) + 1]) if chance.random() < wrong else len(text)
    if size < 126:
        length = bytes([mask | size])
    elif size < 1 << 16:
        length = bytes([mask | 126]) + size.to_bytes(2, "big")
    else:
        length = bytes([mask | 127]) + size.to_bytes(8, "big")
    return bytes([first]) + length + (bytes(4) if mask else b"") + text


def stream_of_bytes(chance: random.Random) -> bytes:
    """What one connection carries."""
    if chance.random() < 0.4:
        path, body, _ = chance.choice(BODIES)
        data = _HTTP % (path.encode(), BEARER.encode(), len(body), body)
    else:
        door = chance.choice(list(DOORS))
        data = UPGRADE % (door.encode(), DOORS[door].encode(), BEARER.encode())
        for frame in conversation(chance, door):
            text = frame.encode("utf-8", "replace") if isinstance(frame, str) else frame
            data += frame_of(chance, text)
    if chance.random() < 0.3:
        at = chance.randrange(len(data))
        data = data[:at] + chance.randbytes(chance.randrange(1, 9)) + data[at + 1 :]
    return data[: chance.randrange(len(data))] if chance.random() < 0.2 else data


# How it is sent.


async def connection(house: Speech, chance: random.Random) -> None:
    """Send random bytes, and hang up in one of the ways there are."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    data = stream_of_bytes(chance)
    manner = chance.randrange(3)
    with contextlib.suppress(OSError):  # the gateway may hang up first
        writer.write(data)
        if manner == 0:
            writer.transport.abort()
            return
        writer.write_eof()
        if manner == 1:
            async with asyncio.timeout(120):
                while await reader.read(1 << 16):
                    pass
    writer.close()


async def in_turns(count: int, one: Callable[[], Awaitable[int]], at_once: int = AT_ONCE) -> int:
    """Await ``one()`` again and again, side by side, until what it counted is ``count``."""
    done = 0

    async def lane() -> None:
        nonlocal done
        while done < count:
            more = await one()
            done += more

    async with asyncio.TaskGroup() as lanes:
        for _ in range(min(at_once, count)):
            lanes.create_task(lane())
    return done


async def frames(house: Speech, count: int, seed: int, seen: Counter[str]) -> int:
    """Have the gateway take ``count`` random frames."""
    chance = random.Random(seed)

    async def one() -> int:
        door = chance.choice(list(DOORS))
        said = conversation(chance, door)
        called = Called(house, door, said)
        try:
            (await called.run()).check()
        except Exception as error:
            raise AssertionError(f"{door} {said!r}") from error
        seen["errors"] += "error" in called.types[-1:]
        seen["sockets"] += 1
        return called.taken + 1

    return await in_turns(count, one)


async def requests(house: Speech, count: int, seed: int, seen: Counter[str]) -> int:
    """Send ``count`` random requests."""
    chance = random.Random(seed)

    async def one() -> int:
        posted = request(chance, house)
        try:
            (await posted.run()).check()
        except Exception as error:
            raise AssertionError(f"{posted.told!r}"[:5000]) from error
        seen[str(posted.sent[0]["status"] if posted.sent else "gone")] += 1
        return 1

    return await in_turns(count, one)


async def connections(house: Speech, count: int, seed: int) -> int:
    """Open ``count`` connections and send random bytes on them."""
    chance = random.Random(seed)

    async def one() -> int:
        await connection(house, chance)
        return 1

    return await in_turns(count, one)


async def well(house: Speech) -> None:
    """Whoever asks in the right way is served, and nothing of the others is left."""
    await until(lambda: not house.gateway.house.plans.in_use, 120)
    await house.trunkline.engine.settled()
    said = [CREATE["tts"], message("session.flush")]
    called = await Called(house, "tts", said, wants="done").run()
    assert called.types == ["session.created", "done"]


class Failures(logging.Handler):
    """What the last boundary caught: there is to be nothing."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))


def resident() -> int:
    """Kilobytes of memory that this process has."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text("utf-8"))
    assert found
    return int(found[1])


async def played(counts: Sequence[int], seed: int, rounds: int = 8) -> dict[str, Any]:
    """Play so many frames, requests and connections; how tasks and memory grew on the way."""
    stt.voice_activity = LoudVAD  # type: ignore[assignment]
    stt._END_SECONDS = 0.1
    plans._KEPT = 16  # each may hold a connection, which is no leak
    failures = Failures()
    logging.getLogger("trunkline").addHandler(failures)
    logging.getLogger("trunkline").setLevel(logging.ERROR)
    seen: Counter[str] = Counter()
    sent, tasks, memory = [0, 0, 0], [], []
    begun, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as place:
        async with speech(Path(place), tts=[SONIC], stt=[NOVA], llm=[GPT]) as house:
            for turn in range(rounds):
                part = [-(-count // rounds) for count in counts]
                sent[0] += await frames(house, part[0], seed + turn, seen)
                sent[1] += await requests(house, part[1], seed + turn, seen)
                sent[2] += await connections(house, part[2], seed + turn)
                await well(house)
                house.attempts.clear()
                for double in house.doubles.values():
                    double.reset()
                tasks.append(len(asyncio.all_tasks()))
                gc.collect()  # what waits for it comes and goes by megabytes
                memory.append(resident())
    return {
        "sent": sent,
        "seen": dict(seen),
        "tasks": tasks,
        "kilobytes": memory,
        "failures": failures.found[:5],
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
    }


if __name__ == "__main__":
    *amounts, start = map(int, sys.argv[1:])
    print(json.dumps(asyncio.run(played(amounts, start))))
