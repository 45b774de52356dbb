"""``/v1/stt``: LiveKit Inference's recognisers. A socket is one audio stream, a call long."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from math import inf
from typing import Any

from livekit import rtc
from livekit.agents import APIError
from livekit.agents.stt import SpeechEventType
from msgspec import structs

from ..compose import Wanted
from ..core.models import Identity, Modality, Plan
from ..errors import Refused, TrunklineError, UsageError
from ..runtime.gate_rules import Audience
from ..runtime.livekit_errors import from_livekit
from ..runtime.stt import STT
from .endpointing import voice_activity
from .interims import Interims
from .interjections import Interjections
from .names import model_of
from .plans import Ask
from .refusal import Refusal
from .speech import fallback_of, following, opened, options_of, said_in, together
from .speech_messages import check_encoding, pcm_of, rate_of, text_of
from .stt_messages import (
    Close,
    Closed,
    Create,
    Created,
    Finalize,
    Finalized,
    InputAudio,
    Update,
    reader,
)
from .stt_transcripts import Transcripts
from .switchboard import Switchboard
from .websocket import Socket

logger = logging.getLogger("trunkline")

_NOBODY = Audience.NOBODY

_IDLE_SECONDS = 600.0
"""A stream without audio: a caller may mute for a while."""

_END_SECONDS = 2.0
"""After ``session.finalize`` without more audio, the input has ended. The message is sent at each
pause of the caller, too, by clients with a detector of their own; their audio goes on."""

_LINGER_SECONDS = 0.1
"""How long a client may take to hang up after ``session.finalize`` before it is answered."""

_WORDS_SECONDS = 1.0
"""How long the words of an utterance may come after its end."""

_ANSWER_SECONDS = 3.0
"""How long after an utterance the answer to it may begin to be said."""

_CUT_IN = 2
"""How often a caller whom nobody hears any more may have the notice said again."""

_HEARD_SECONDS = 60.0
"""How long a caller may go on who does not let the notice be said."""

_PROMPTS = 2
"""How often an agent is given cause to speak, so that the caller hears the notice."""

_WHY_SECONDS = 1.0
"""How long after its end a stream may say why."""

_AHEAD_SECONDS = 30.0
"""How far audio may be ahead of real time before the socket is read no faster than that."""


async def hear(house: Switchboard, socket: Socket) -> None:
    """Serve a socket: audio in, transcripts out, until either side ends it."""
    asked = await opened(house, socket, Modality.STT, reader, Create)
    if asked is not None:
        await Hearing(house, socket, *asked).run()


class Hearing:
    """A socket after its ``session.create``."""

    def __init__(
        self, house: Switchboard, socket: Socket, name: str, identity: Identity, created: Create
    ) -> None:
        given = created.settings
        check_encoding(given.encoding)
        self._house = house
        self._socket = socket
        self._rate = rate_of(given.sample_rate)
        self._identity = identity
        self._ask = Ask(
            Modality.STT,
            Wanted(model_of(created.model, name), given.language or "", said_in(given.extra)),
            fallback_of(created.fallback),
            socket.headers.get("x-livekit-inference-provider", ""),
        )
        self._is_own = False
        """Whether the options are this call's alone: an update may bring words that were said."""
        self._lease = contextlib.ExitStack()
        vad = voice_activity()
        self._stt = STT(
            house.trunkline.engine,
            self._leased(self._ask),
            lambda: identity,
            sample_rate=None,
            vad=vad,
            closing=None,
            # who listens on for a notice does so once a call, so it must be known which it is
            audience=socket.principal.audience if identity.job or identity.room else _NOBODY,
        )
        self._stream = self._stt.stream(conn_options=options_of(created.connection))
        self._transcripts = Transcripts(socket.id, lambda: str(self._stt.serving))
        self._interims = Interims(socket.send)
        self._clock = asyncio.get_running_loop().time
        self._until = self._clock()
        self._waits_since = inf
        """Since when nothing has come; inf while what came is dealt with."""
        self._finalizes = asyncio.Event()
        self._owes_finalized = False
        self._asked_to_end = False
        self._has_ended = False
        self._refused: Refused | None = None
        self._interjections = Interjections()
        self._cut_in = 0
        self._told_at = 0.0
        self._ends = asyncio.Event()

    def _leased(self, ask: Ask) -> Plan:
        """The plan for ``ask`` instead of the one before. Raises UsageError.

        What still hears by the one before goes on: the engine knows it.
        """
        lease = contextlib.ExitStack()
        plans = self._house.plans
        plan = lease.enter_context(plans.own(ask) if self._is_own else plans.lease(ask))
        self._lease.close()
        self._lease = lease
        return plan

    async def run(self) -> None:
        """Serve until the client goes. Raises Refusal and the errors of the engine."""
        self._house.plans.renewed.add(self._renew)
        try:
            await self._socket.send(text_of(Created(self._socket.id)))
            with self._house.farewells.hearing(self._identity, self._ends.set):
                giving = _telling_why(self._read()), _telling_why(self._mind_silence())
                hearing = self._tell(), self._interims.run(), self._answer()
                await together(*giving, *hearing, self._drain(), self._part())
        finally:
            self._house.plans.renewed.discard(self._renew)
            await self._stream.aclose()
            await self._stt.release()
            self._lease.close()

    def _renew(self) -> None:
        """Follow a reload: the stream moves between two utterances."""
        try:
            self._stt.swap(self._leased(self._ask), None)
        except UsageError as error:
            logger.warning("stream %s stays as it is: %s", self._socket.id, error)

    # What the client says.

    async def _read(self) -> None:
        self._socket.offer_to(self._take)
        while True:
            await self._keep_pace()
            self._waits_since = self._clock()
            message = await following(self._socket, reader)
            self._waits_since = inf
            if message is None or isinstance(message, Close):
                await self._socket.close()
                return
            await self._tell_finalized()
            match message:
                case InputAudio():
                    await self._push(message.audio)
                case Create():
                    raise Refusal(400, "session.create came twice")
                case Update():
                    self._update(message)
                case Finalize():
                    self._finalize()

    def _take(self, text: bytes) -> bool:
        """Hear audio as it arrives, which is most of what does; the rest waits for its turn."""
        now = self._clock()
        is_busy = self._waits_since > now or self._owes_finalized or self._refused is not None
        if is_busy or self._ahead > 0:
            return False
        try:
            message = reader.decode(text)
            if type(message) is not InputAudio:
                return False
            frame = self._frame_of(message.audio)
            if frame is not None:
                self._hear(frame)
        except (ValueError, Refusal, RuntimeError):  # on the other way it is told
            return False
        self._waits_since = now
        return True

    async def _mind_silence(self) -> None:
        """Do what the silence of a client means, once it has lasted."""
        while True:
            patience = self._patience()
            left = patience - max(0.0, self._clock() - self._waits_since)
            if left > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._finalizes.wait()
                self._finalizes.clear()
            elif self._owes_finalized:
                await self._tell_finalized()
            elif self._asked_to_end and self._refused is None:
                self._end()
            else:
                return

    def _patience(self) -> float:
        """Seconds until silence means something."""
        if self._owes_finalized:
            return _LINGER_SECONDS
        return _END_SECONDS if self._asked_to_end else _IDLE_SECONDS

    async def _push(self, audio: str) -> None:
        frame = self._frame_of(audio)
        if frame is None:
            return
        if self._refused is None:
            self._hear(frame)
            return
        self._count(frame)
        if self._interjections.ends_with(frame) and self._cut_in < _CUT_IN:
            self._cut_in += 1
            await self._tell_at_once(self._transcripts.prompt())

    def _frame_of(self, audio: str) -> rtc.AudioFrame | None:
        pcm = pcm_of(audio)
        if self._has_ended:
            raise Refusal(400, "input_audio after the end of the input")
        samples = len(pcm) // 2
        return rtc.AudioFrame(pcm, self._rate, 1, samples) if samples else None

    def _hear(self, frame: rtc.AudioFrame) -> None:
        self._stream.push_frame(frame)
        self._count(frame)

    def _count(self, frame: rtc.AudioFrame) -> None:
        self._asked_to_end = False
        self._until = max(self._until, self._clock()) + frame.samples_per_channel / self._rate

    @property
    def _ahead(self) -> float:
        """Seconds for which nothing is read."""
        return self._until - self._clock() - _AHEAD_SECONDS

    async def _keep_pace(self) -> None:
        if self._ahead > 0:
            await asyncio.sleep(self._ahead)

    def _finalize(self) -> None:
        if not self._has_ended:
            if self._refused is None:
                self._stream.flush()
            self._asked_to_end = self._owes_finalized = True
            self._finalizes.set()

    async def _tell_finalized(self) -> None:
        if self._owes_finalized:
            self._owes_finalized = False
            await self._socket.send(text_of(Finalized()))

    def _end(self) -> None:
        self._asked_to_end, self._has_ended = False, True
        self._stream.end_input()

    def _update(self, update: Update) -> None:
        """Be served as the client now wishes; what cannot be is left as it was. A null unsets."""
        changes, before = update.settings, self._ask.wanted
        name = model_of(changes.model, before.name)
        merged = {**before.options, **(changes.extra or {})}
        wanted = Wanted(
            name,
            before.suffix if changes.language is None else changes.language,
            said_in(merged),
        )
        ask = structs.replace(self._ask, wanted=wanted)
        if ask == self._ask:
            return
        self._is_own = self._is_own or changes.extra is not None
        try:
            self._stt.swap(self._leased(ask), None)
        except UsageError as error:
            logger.warning("stream %s ignores a session.update: %s", self._socket.id, error)
        else:
            self._ask = ask

    # What the client is told.

    async def _tell(self) -> None:
        try:
            async for event in self._stream:
                is_interim = event.type is SpeechEventType.INTERIM_TRANSCRIPT
                for message in self._transcripts.messages(event):
                    if is_interim:
                        await self._interims.offer(message)
                    else:
                        await self._tell_at_once(message)
        except APIError as error:
            own = _own(error)
            if not self._may_part(own):
                raise own from error
            await asyncio.Event().wait()  # how it ends is told by ``_part``
        for message in self._transcripts.rest():
            await self._tell_at_once(message)
        await self._socket.send(text_of(Closed()))
        await self._socket.close()

    async def _tell_at_once(self, message: str) -> None:
        self._told_at = self._clock()
        self._interims.drop()
        await self._socket.send(message)

    async def _answer(self) -> None:
        """Tell the end of utterances that have no words: the client waits for it."""
        while True:
            await self._transcripts.unanswered.wait()
            await asyncio.sleep(_WORDS_SECONDS)
            if self._transcripts.unanswered.is_set():
                for message in self._transcripts.rest():
                    await self._tell_at_once(message)

    def _may_part(self, error: TrunklineError) -> bool:
        """Whether the caller is to be told of ``error``; then nothing more is heard."""
        if self._has_ended or not isinstance(error, Refused) or not error.notice:
            return False
        self._refused = error
        self._house.farewells.begin(self._identity, error.notice)
        return True

    async def _part(self) -> None:
        """End when the call is to end and has been told so."""
        await self._ends.wait()
        farewells, identity = self._house.farewells, self._identity
        if self._refused is None:
            await farewells.until_said(identity)
        for _ in range(_PROMPTS):
            if farewells.is_said(identity):
                break
            await farewells.until_quiet(identity)
            await self._tell_at_once(self._transcripts.prompt())
            await farewells.until_said(identity)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_HEARD_SECONDS):
                await self._heard_out()
        farewells.end(identity)
        raise self._refused or Refusal(429, "the call ends, as it was told", code="refused")

    async def _heard_out(self) -> None:
        """Wait until the notice has been heard; who cuts in asks again, and is told again."""
        left = 0.0
        while left >= 0:
            await asyncio.sleep(left)
            await self._house.farewells.until_heard(self._identity)
            await self._transcripts.pause.wait()
            left = self._told_at + _ANSWER_SECONDS - self._clock()

    async def _drain(self) -> None:
        """End between two utterances: the client opens its next stream elsewhere."""
        await self._house.draining.wait()
        await self._transcripts.pause.wait()


async def _telling_why(giving: Coroutine[Any, Any, None]) -> None:
    """``giving`` to a stream, which takes no more once it has ended: its reader says why."""
    try:
        await giving
    except RuntimeError:
        await asyncio.sleep(_WHY_SECONDS)
        raise


def _own(error: APIError) -> TrunklineError:
    """Our own error behind one that the wrapper has made LiveKit's."""
    return error.__cause__ if isinstance(error.__cause__, TrunklineError) else from_livekit(error)
