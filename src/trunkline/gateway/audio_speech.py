"""``POST /v1/audio/speech``: OpenAI's voices, streamed from the first byte."""

from __future__ import annotations

import msgspec
import pybase64
from livekit import rtc

from ..core.models import Candidate, Plan
from ..core.speech import is_speakable
from ..errors import TrunklineError
from .audio_encoding import RATE, TYPES, encoder
from .audio_request import SPEECH_LIMIT, SpeechAsked, read_speech
from .chat_chunks import event
from .exchange import Exchange
from .identity import identity_of
from .refusal import Refusal, log_refusal, refusal_of
from .speaking import SpokenLine, speak
from .switchboard import Switchboard

_MUTE_SECONDS = 0.1
_PIECE_BYTES = 64 << 10


async def say(house: Switchboard, exchange: Exchange) -> None:
    """Answer with the speech of a text, by the plan that its model stands for."""
    headers = exchange.headers
    provider = headers.get("x-livekit-inference-provider", "")
    asked = read_speech(await exchange.body(SPEECH_LIMIT), provider)
    identity = identity_of(headers, house.trunkline.settings, exchange.id, exchange.principal)
    await house.ready_for(asked.ask)
    with house.plans.lease(asked.ask) as plan:
        _check_speed(asked, plan)
    answer = SpeechAnswer(exchange, asked)
    exchange.begin(answer.keep_alive if asked.events else None)
    try:
        if is_speakable(asked.text):
            line = SpokenLine(answer)
            line.audience = exchange.principal.audience
            line.push(asked.text)
            line.end()
            await speak(house, asked.ask, identity, line)
        else:
            answer.say_nothing()
    except TrunklineError as error:
        if not (asked.events and exchange.started):
            raise
        log_refusal(exchange.id, refusal := refusal_of(error))
        await answer.fail(refusal)
    else:
        await answer.end()


def _check_speed(asked: SpeechAsked, plan: Plan) -> None:
    """Refuse a speed that nobody of ``plan`` can speak at: what was asked would not be heard."""
    if "speed" in asked.ask.wishes and not any("speed" in c.options for c in plan.candidates):
        raise Refusal(400, "speed: no voice of this model takes one", param="speed")


class SpeechAnswer:
    """A file that grows, or events with its pieces. The status leaves with the first audio."""

    sample_rate = RATE

    def __init__(self, exchange: Exchange, asked: SpeechAsked) -> None:
        self.id = exchange.id
        self.serving: Candidate | None = None
        self._exchange = exchange
        self._events = asked.events
        self._type = b"text/event-stream; charset=utf-8" if asked.events else TYPES[asked.form]
        self._encoder = encoder(asked.form)
        self._ready = bytearray()

    def serves(self, candidate: Candidate) -> None:
        self.serving = candidate

    def mark_started(self, at: float) -> None:
        """Nothing: who measures the time to the first audio is at the other end."""

    def send(self, frame: rtc.AudioFrame, segment: str, *, final: bool = False) -> None:
        if not final:  # an end in LiveKit's own form; here it is the end of the body
            self._ready += self._encoder.feed(bytes(memoryview(frame.data).cast("B")))

    def say_nothing(self) -> None:
        """A moment of silence, for a text without a letter: an empty file is none."""
        self._ready += self._encoder.feed(bytes(2 * round(RATE * _MUTE_SECONDS)))

    @property
    def has_ready(self) -> bool:
        return bool(self._ready)

    async def flush(self) -> None:
        """Send what is encoded; waits while the client takes none."""
        if self._ready:
            data = bytes(self._ready)
            self._ready.clear()
            await self._write(b"".join(map(_delta, _pieces(data))) if self._events else data)

    async def keep_alive(self) -> None:
        """Send a comment: clients measure the time between two reads."""
        await self._write(b": keep-alive\n\n")

    async def end(self) -> None:
        """Send the rest of the file, and that this was all."""
        self._ready += self._encoder.finish()
        await self.flush()
        if self._events:
            await self._write(event(b'{"type":"speech.audio.done"}'))
        await self._exchange.end()

    async def fail(self, refusal: Refusal) -> None:
        """Tell an error as the last event."""
        await self._exchange.write(event(refusal.json(self.id)))
        await self._exchange.end()

    async def _write(self, data: bytes) -> None:
        if not self._exchange.started:
            served = str(self.serving or "").encode("ascii", "replace")
            headers = ((b"cache-control", b"no-cache"), (b"x-trunkline-model", served))
            await self._exchange.start(200, self._type, headers)
        await self._exchange.write(data)


def _pieces(data: bytes) -> list[bytes]:
    return [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)]


def _delta(data: bytes) -> bytes:
    audio = pybase64.b64encode_as_string(data)
    return event(msgspec.json.encode({"type": "speech.audio.delta", "audio": audio}))
