"""A text spoken to a listener at the other end of a connection, by the plan that it asks for.

The line is that of the in-process door; what is added is where its audio goes, and that it goes no
faster than the connection takes it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import Protocol, Self

from livekit import rtc
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions, tts

from ..core.models import Candidate, Identity, Plan
from ..errors import AllCandidatesFailed, Refused, TrunklineError
from ..runtime.audio import read_clip
from ..runtime.hedge import Held
from ..runtime.line import ProviderStream
from ..runtime.livekit_options import with_options
from ..runtime.speech_line import SpeechLine, SpeechSink, VoiceOwner
from .exchange import ClientGone
from .flushing import Flushing
from .plans import Ask
from .refusal import log_refusal, refusal_of
from .switchboard import Switchboard

logger = logging.getLogger("trunkline")


class Listener(SpeechSink, VoiceOwner, Protocol):
    """Where the audio of an utterance goes; ``id`` is what the log calls the request."""

    id: str
    serving: Candidate | None

    @property
    def has_ready(self) -> bool:
        """Whether anything waits to be sent."""

    async def flush(self) -> None:
        """Send what is ready; waits while the client takes none. Raises ClientGone."""


class _HeldListener:
    """The listener of an attempt that may come to nothing: nothing is ready before it wins."""

    def __init__(self, listener: Listener, held: Held) -> None:
        self.id = listener.id
        self.sample_rate = listener.sample_rate
        self.serving: Candidate | None = None
        self._listener = listener
        self._held = held

    def serves(self, candidate: Candidate) -> None:
        self._held.keep(partial(self._listener.serves, candidate))

    def mark_started(self, at: float) -> None:
        self._held.keep(partial(self._listener.mark_started, at))

    def send(self, frame: rtc.AudioFrame, segment: str, *, final: bool = False) -> None:
        self._held.keep(partial(self._listener.send, frame, segment, final=final))

    @property
    def has_ready(self) -> bool:
        return self._held.is_released and self._listener.has_ready

    async def flush(self) -> None:
        if self._held.is_released:
            await self._listener.flush()


class SpokenLine(SpeechLine):
    """An utterance, or its part by one voice, whose audio leaves before more is taken."""

    def __init__(self, listener: Listener) -> None:
        super().__init__(listener, listener, expressive=False)
        self.listener = listener
        self.is_deserted = False
        """Whether it was cancelled because nobody is there to listen."""
        self._waits = False

    def open(self, candidate: Candidate) -> ProviderStream[tts.SynthesizedAudio]:
        return Flushing(super().open(candidate), self._flush)

    def _held_back(self, held: Held) -> SpokenLine:
        return SpokenLine(_HeldListener(self.listener, held))

    def adopt(self, rival: Self) -> None:
        super().adopt(rival)
        self.is_deserted = rival.is_deserted

    async def _flush(self) -> None:
        if not self.listener.has_ready:
            return
        self._waits = True
        try:
            await self.listener.flush()
        except ClientGone:
            # for the engine this is what it is when somebody hangs up: the work is called off
            self.is_deserted = True
            raise asyncio.CancelledError from None
        finally:
            self._waits = False
        self.forgive()

    def owed_since(self) -> float | None:
        return None if self._waits else super().owed_since()


async def speak(
    house: Switchboard,
    ask: Ask,
    identity: Identity,
    line: SpokenLine,
    options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
) -> bool:
    """Speak what is pushed to ``line``, to its end; False when something else was heard instead.

    Raises the engine's errors and ClientGone.

    A caller who has heard one voice fail keeps the other. Where nobody speaks, or a budget forbids
    it, the settings may have a recording or a sentence that is heard instead. A call that is to end
    hears that sentence, whatever the text is.
    """
    await house.ready_for(ask)  # another voice than the last sentence's may be asked for
    listener, call, key = line.listener, identity.call, ask.key
    farewell = house.farewells.of(identity)
    with house.plans.lease(ask) as leased:
        plan = house.voices.ordered(with_options(leased, options), call, key)
        # it lasts as long as the text does; what the provider owes has deadlines of its own
        plan = replace(plan, deadlines=replace(plan.deadlines, total=float("inf")))
        if farewell is not None and await _instead(house, plan, identity, line, farewell.notice):
            logger.info("request %s is spoken as the notice of its call", listener.id)
            return False
        try:
            await _run(house, plan, identity, line)
        except (AllCandidatesFailed, Refused) as error:
            notice = error.notice if isinstance(error, Refused) else ""
            if isinstance(error, Refused) and error.ends_call and notice:
                house.farewells.begin(identity, notice)
            if line.has_begun or not await _instead(house, plan, identity, line, notice):
                raise
            log_refusal(listener.id, refusal_of(error))
            return False
        if listener.serving is not None:
            house.voices.note(listener.serving, leased, call, key)
    await listener.flush()
    return True


async def _instead(
    house: Switchboard, plan: Plan, identity: Identity, line: SpokenLine, notice: str
) -> bool:
    """Let the listener hear what the settings have in place of the text; False without that."""
    is_told = bool(notice) and await _told(house, plan, identity, line, notice)
    if not is_told and plan.apology:
        line.play(read_clip(plan.apology, line.listener.sample_rate))
    is_heard = is_told or bool(plan.apology)
    if is_heard:
        await line.listener.flush()
        house.farewells.said(identity)
    return is_heard


async def _told(
    house: Switchboard, plan: Plan, identity: Identity, line: SpokenLine, notice: str
) -> bool:
    """Have ``notice`` spoken, beyond any amount; whether any of it was."""
    house.trunkline.gate.expect_notice(identity.call, notice)
    told = SpokenLine(line.listener)
    told.push(notice)
    told.end()
    try:
        await _run(house, plan, identity, told)
    except TrunklineError:  # refused too, or nobody is well: the text's refusal says why
        return told.has_begun
    return True


async def _run(house: Switchboard, plan: Plan, identity: Identity, line: SpokenLine) -> None:
    """Have ``line`` spoken. Raises ClientGone when nobody takes it any more."""
    try:
        await house.trunkline.engine.run(line, plan, identity)
    except asyncio.CancelledError:
        if line.is_deserted:
            raise ClientGone from None
        raise
