"""``POST /v1/audio/transcriptions``: OpenAI's recognisers of recordings, whole or as events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import msgspec
from livekit.agents.stt import SpeechData

from ..core.models import Candidate
from ..errors import BadAudio, TrunklineError
from .audio_line import RecordingLine, patient
from .audio_recording import decoded
from .audio_request import UPLOAD_LIMIT, TranscriptionAsked, read_transcription
from .audio_transcripts import TYPES, Transcript
from .chat_chunks import event
from .endpointing import voice_activity
from .exchange import Exchange
from .identity import identity_of
from .refusal import Headers, Refusal, log_refusal, refusal_of
from .switchboard import Switchboard


async def transcribe(house: Switchboard, exchange: Exchange) -> None:
    """Answer with the words of a recording, by the plan that its model stands for."""
    headers = exchange.headers
    body = await exchange.body(UPLOAD_LIMIT)
    provider = headers.get("x-livekit-inference-provider", "")
    asked = read_transcription(body, headers.get("content-type", ""), provider)
    identity = identity_of(headers, house.trunkline.settings, exchange.id, exchange.principal)
    await house.ready_for(asked.ask)
    plans = house.plans
    # hints may be words that were said before: nobody else has a use for those options
    with (plans.own if asked.ask.wishes else plans.lease)(asked.ask) as leased:
        try:
            recording = await asyncio.to_thread(decoded, asked.file)
        except BadAudio as error:
            raise Refusal(400, f"file: {error}", param="file") from None
        plan = replace(leased, deadlines=patient(leased.deadlines, recording))
        answer = TranscriptAnswer(exchange, asked, Transcript(recording.seconds))
        line = RecordingLine(recording, answer, plan, voice_activity())
        exchange.begin(answer.keep_alive if asked.stream else None)
        try:
            await house.trunkline.engine.run(line, plan, identity)
        except TrunklineError as error:
            if not exchange.started:
                raise
            log_refusal(exchange.id, refusal := refusal_of(error))
            await exchange.write(event(refusal.json(exchange.id)))
            await exchange.end()
        else:
            await answer.end()
        finally:
            line.close()


class TranscriptAnswer:
    """One document at the end, or an event for each final as it comes."""

    def __init__(
        self, exchange: Exchange, asked: TranscriptionAsked, transcript: Transcript
    ) -> None:
        self.whole = not asked.stream
        self._exchange = exchange
        self._asked = asked
        self._transcript = transcript
        self._ready = bytearray()
        self._served = b""

    def serves(self, candidate: Candidate) -> None:
        self._served = str(candidate).encode("ascii", "replace")

    def put(self, said: SpeechData) -> None:
        delta = self._transcript.add(said)
        if not self.whole:
            self._ready += _event({"type": "transcript.text.delta", "delta": delta})

    def forget(self) -> None:
        self._transcript.forget()

    async def flush(self) -> None:
        if self._ready:
            data = bytes(self._ready)
            self._ready.clear()
            await self._write(data)

    async def keep_alive(self) -> None:
        """Send a comment: clients measure the time between two reads."""
        await self._write(b": keep-alive\n\n")

    async def end(self) -> None:
        """Send everything, or that this was all."""
        said = self._transcript
        if self.whole:
            form = self._asked.form
            body = said.rendered(form, self._asked.granularities)
            await self._exchange.answer(200, body, TYPES[form], self._headers)
            return
        done = {"type": "transcript.text.done", "text": said.text, "usage": said.usage}
        self._ready += _event(done)
        await self.flush()
        await self._exchange.end()

    @property
    def _headers(self) -> Headers:
        return ((b"x-trunkline-model", self._served),)

    async def _write(self, data: bytes) -> None:
        if not self._exchange.started:
            headers = ((b"cache-control", b"no-cache"), *self._headers)
            await self._exchange.start(200, b"text/event-stream; charset=utf-8", headers)
        await self._exchange.write(data)


def _event(message: Mapping[str, object]) -> bytes:
    return event(msgspec.json.encode(message))
