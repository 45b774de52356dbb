"""``/v1/tts``: LiveKit Inference's voices. A socket stays open and speaks many utterances."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

from ..compose import Wanted
from ..core.models import Identity, Modality
from .names import model_of
from .plans import Ask
from .refusal import Refusal
from .speaking import SpokenLine
from .speaking import speak as speak_line
from .speech import fallback_of, following, opened, options_of, said_in, together
from .speech_messages import check_encoding, rate_of, text_of
from .switchboard import Switchboard
from .tts_line import Speaker
from .tts_messages import (
    Close,
    Create,
    Created,
    Done,
    Flush,
    Generation,
    InputTranscript,
    reader,
)
from .websocket import Socket

logger = logging.getLogger("trunkline")

_IDLE_SECONDS = 600.0
"""Between utterances. Clients keep a socket in their pool for 300 s after each use."""

_TEXT_SECONDS = 120.0
"""Between the sentences of an utterance: one that was interrupted is never flushed."""

_UTTERANCE_LIMIT = 100_000
"""Characters."""

_WAITING = 8
"""Utterances that may wait for the one that is spoken; clients have one at a time."""


async def speak(house: Switchboard, socket: Socket) -> None:
    """Serve a socket: utterance after utterance, until the client closes it or the house drains."""
    asked = await opened(house, socket, Modality.TTS, reader, Create)
    if asked is not None:
        await Conversation(house, socket, *asked).run()


class Conversation:
    """A socket after its ``session.create``."""

    def __init__(
        self, house: Switchboard, socket: Socket, name: str, identity: Identity, created: Create
    ) -> None:
        check_encoding(created.encoding)
        self.house = house
        self.socket = socket
        self.identity = identity
        self.sample_rate = rate_of(created.sample_rate)
        self.options = options_of(created.connection)
        self.model = model_of(created.model, name)
        self._created = created
        self._fallback = fallback_of(created.fallback)
        self._provider = socket.headers.get("x-livekit-inference-provider", "")
        self._utterances: asyncio.Queue[Utterance | None] = asyncio.Queue()
        self._speaking: Utterance | None = None
        self._speakers: deque[Speaker] = deque(maxlen=2)

    async def run(self) -> None:
        """Serve until the client goes. Raises Refusal and the errors of the engine."""
        await self._prewarm()
        await self.socket.send(text_of(Created(self.socket.id)))
        with self.house.farewells.voice(self.identity, self._playing):
            await together(self._read(), self._speak(), self._drain())

    def speaker(self, *, whole_words: bool) -> Speaker:
        """Where the audio of the next utterance goes."""
        speaker = Speaker(self.socket, self.sample_rate, whole_words=whole_words)
        self._speakers.append(speaker)
        return speaker

    def _playing(self) -> float:
        """Seconds for which the last two utterances are still to be heard, one after the other."""
        return sum(speaker.playing for speaker in self._speakers)

    async def _prewarm(self) -> None:
        """Have the way to the first voice open by the time it is needed, if the gate allows it."""
        with self.house.plans.lease(self.ask(Generation(), None)) as plan:
            if not await self.house.trunkline.engine.may_open(Modality.TTS, self.identity):
                return
            try:
                plan.candidates[0].live.prewarm()
            except Exception:  # a plugin's boundary: without it the first utterance connects
                logger.debug("a voice was not prewarmed", exc_info=True)

    def ask(self, generation: Generation, extra: Mapping[str, Any] | None) -> Ask:
        """What a sentence asks for: its own wishes, else those of ``session.create``."""
        created = self._created
        model = model_of(generation.model, self.model)
        # another model has other voices: the one before does not go with it
        kept = created.voice if model == self.model else ""
        wanted = Wanted(
            model,
            generation.voice or kept or "",
            said_in(created.extra if extra is None else extra),
        )
        language = generation.language or created.language or ""
        return Ask(Modality.TTS, wanted, self._fallback, self._provider, language=language)

    async def _read(self) -> None:
        """Take messages until the client ends; each sentence goes to its utterance at once."""
        while True:
            utterance = self._speaking
            seconds = _TEXT_SECONDS if utterance is not None else _IDLE_SECONDS
            try:
                async with asyncio.timeout(seconds):
                    message = await following(self.socket, reader)
            except TimeoutError:
                if utterance is None:
                    return
                raise Refusal(408, f"no more text and no end within {seconds:g} s") from None
            match message:
                case None | Close():
                    await self.socket.close()
                    return
                case Create():
                    raise Refusal(400, "session.create came twice")
                case InputTranscript():
                    self._begun().push(message)
                case Flush():
                    self._begun().end()
                    self._speaking = None

    def _begun(self) -> Utterance:
        if self._speaking is None:
            if self._utterances.qsize() >= _WAITING:
                raise Refusal(400, f"more than {_WAITING} utterances at once on one socket")
            self._speaking = Utterance(self)
            self._utterances.put_nowait(self._speaking)
        return self._speaking

    async def _speak(self) -> None:
        while (utterance := await self._utterances.get()) is not None:
            await utterance.speak()
            await self.socket.send(text_of(Done(self.socket.id)))

    async def _drain(self) -> None:
        """End after what has begun: the client opens its next socket elsewhere."""
        await self.house.draining.wait()
        self._utterances.put_nowait(None)
        await asyncio.Event().wait()


class Utterance:
    """From the first sentence to the flush: in parts, when the voice changes in between."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        whole_words = conversation.model.startswith("cartesia/")
        self._speaker = conversation.speaker(whole_words=whole_words)
        self._parts: list[tuple[Ask, SpokenLine]] = []
        self._grown = asyncio.Event()
        self._ended = self._is_replaced = False
        self._characters = 0
        self._has_text = False

    def push(self, sentence: InputTranscript) -> None:
        """Add a sentence, for the voice that it asks for. Raises Refusal."""
        self._characters += len(sentence.transcript)
        if self._characters > _UTTERANCE_LIMIT:
            raise Refusal(400, f"an utterance has at most {_UTTERANCE_LIMIT:,} characters")
        self._has_text = self._has_text or not sentence.transcript.isspace()
        ask = self._conversation.ask(sentence.generation_config or Generation(), sentence.extra)
        if not self._parts or self._parts[-1][0] != ask:
            if self._parts:
                self._parts[-1][1].end()
            line = SpokenLine(self._speaker)
            line.audience = self._conversation.socket.principal.audience
            self._parts.append((ask, line))
            self._grown.set()
        line = self._parts[-1][1]
        line.push(sentence.transcript)
        line.release()

    def end(self) -> None:
        """There is no more text."""
        self._ended = True
        self._grown.set()
        if self._parts:
            self._parts[-1][1].end()

    async def speak(self) -> None:
        """Speak it all. Raises the errors of the engine and ClientGone."""
        at = 0
        while True:
            if at < len(self._parts):
                await self._part(*self._parts[at])
                at += 1
            elif self._ended:
                break
            else:
                self._grown.clear()
                await self._grown.wait()
        if self._has_text and self._speaker.is_mute:
            self._speaker.say_nothing()
        await self._speaker.flush()

    async def _part(self, ask: Ask, line: SpokenLine) -> None:
        if not await line.has_text() or self._is_replaced:
            return
        one = self._conversation
        self._speaker.begin()
        was_text = await speak_line(one.house, ask, one.identity, line, one.options)
        self._is_replaced = not was_text
