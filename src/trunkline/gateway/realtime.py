"""``/v1/realtime``: OpenAI's Realtime API, passed on event by event, metered on the way.

The upgrade is answered once a candidate has opened a session and said its first event. From then
on the session is that candidate's: what has been said lives with it. When it dies the socket is
closed, the client connects anew and tells what has been said, and health knows who is well.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from math import inf

import msgspec

from ..compose import Wanted
from ..core.models import Candidate, Identity, Modality, ModelRef, Plan, Purpose
from ..errors import Refused, TrunklineError
from ..runtime.attempt import Engine
from . import realtime_events as events
from .identity import identity_of
from .plans import Ask
from .realtime_line import RealtimeLine, TranscriptLine
from .switchboard import Switchboard
from .websocket import GOING_AWAY, NORMAL, Socket

logger = logging.getLogger("trunkline")

IDLE_SECONDS = 600.0
"""Without an event from either side."""


async def converse(house: Switchboard, socket: Socket) -> None:
    """Serve a session, until either side ends it. Raises Refusal and the errors of the engine."""
    socket.error_of = events.refusal_event
    identity = identity_of(socket.headers, house.trunkline.settings, socket.id, socket.principal)
    provider = socket.headers.get("x-livekit-inference-provider", "")
    ask = Ask(Modality.REALTIME, Wanted(socket.model), provider=provider)
    with house.plans.lease(ask) as plan:
        await Session(house, socket, _open_ended(plan), identity).run()


async def probe(engine: Engine, candidate: Candidate, plan: Plan, identity: Identity) -> None:
    """Open a session with ``candidate`` and close it. Raises the attempt's error."""
    single = replace(_open_ended(plan), candidates=(candidate,), retries=0)
    await engine.run(RealtimeLine(single, None), single, identity, purpose=Purpose.PROBE)


def _open_ended(plan: Plan) -> Plan:
    """``plan`` for a session, which lasts as long as its call."""
    return replace(plan, deadlines=replace(plan.deadlines, total=inf), hedge=None)


class Session:
    """A socket and the session behind it."""

    def __init__(self, house: Switchboard, socket: Socket, plan: Plan, identity: Identity) -> None:
        self._house = house
        self._engine = house.trunkline.engine
        self._socket = socket
        self._plan = plan
        self._identity = identity
        self._line = RealtimeLine(plan, self, self._transcribes, self._transcript)
        self._beside: list[asyncio.Task[None]] = []
        self._candidate: Candidate | None = None
        self._transcribed_by = ""
        self._transcripts: TranscriptLine | None = None
        self._runs: set[asyncio.Task[None]] = set()
        self._code = GOING_AWAY

    async def run(self) -> None:
        try:
            await self._engine.run(self._line, self._plan, self._identity)
        finally:
            for task in self._beside:
                task.cancel()
            if self._transcripts is not None:
                self._transcripts.end()
            ended = await asyncio.gather(*self._beside, *self._runs, return_exceptions=True)
        await self._socket.close(self._code)
        for failure in ended:
            if isinstance(failure, Exception):
                raise failure

    # What the line does with its client.

    async def answer(self, candidate: Candidate) -> None:
        """Answer the upgrade, once."""
        if not self._socket.accepted:
            self._candidate = candidate
            await self._socket.accept()
            for work in (self._listen(), self._drain()):
                self._beside.append(asyncio.create_task(work))

    async def send(self, text: str) -> None:
        await self._socket.send(text)
        if self._socket.is_over:
            self._line.end()

    # What the client says.

    async def _listen(self) -> None:
        """Hand on what the client says until it goes, no faster than the provider takes it."""
        try:
            await self._pass_on()
        finally:
            self._line.end()

    async def _pass_on(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            heard = now()
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    frame = await self._socket.receive()
            except TimeoutError:
                if max(heard, self._line.last) + IDLE_SECONDS > now():
                    continue
                self._code = NORMAL
                return
            if frame is None:
                return
            if isinstance(frame, bytes):
                await self._complain("an event is JSON in a text frame, and this one is binary")
            elif (asked := await self._asked(frame)) is not None:
                await self._say(asked, frame)

    async def _asked(self, text: str) -> events.Asked | None:
        """What the client wants; None when it cannot be told, and the client has been told so."""
        try:
            return events.decode_asked(text)
        except msgspec.DecodeError as error:
            await self._complain(f"the event is no JSON object with a type: {error}")
            return None

    async def _say(self, asked: events.Asked, text: str) -> None:
        """Hand an event on: as it is, or without a model that its session has anyway."""
        if asked.type == events.UPDATE:
            try:
                text, model = events.without_model(text)
            except msgspec.DecodeError as error:
                await self._complain(f"the session is no JSON object: {error}")
                return
            if model and model not in self._names():
                told = f"this session's model is {self._candidate}, not {model[:200]}: connect anew"
                event_id, param = asked.event_id or "", "session.model"
                await self._complain(told, "invalid_value", event_id=event_id, param=param)
                return
        await self._line.send(text, asks=asked.type == events.ASKS)

    def _names(self) -> set[str]:
        """What a client may call the model of its session."""
        serving = self._candidate
        asked = {self._socket.model}
        return asked | ({str(serving), serving.ref.model} if serving is not None else set())

    async def _complain(
        self,
        told: str,
        code: str = "invalid_event",
        *,
        event_id: str = "",
        param: str | None = None,
    ) -> None:
        await self.send(events.error_event(told, code, event_id=event_id, param=param))

    async def _drain(self) -> None:
        """End between two answers once the house is to end: the client finds another."""
        await self._house.draining.wait()
        await self._line.tally.at_rest.wait()
        self._line.end()

    # Who writes down what the caller says.

    def _transcribes(self, candidate: Candidate, model: str) -> None:
        if model == self._transcribed_by:
            return
        self._transcribed_by = model
        if self._transcripts is not None:
            self._transcripts.end()
            self._transcripts = None
        if model:
            line = self._transcripts = TranscriptLine()
            task = asyncio.create_task(self._account(line, candidate, model))
            self._runs.add(task)
            task.add_done_callback(self._runs.discard)

    def _transcript(self, event: events.Event) -> None:
        if self._transcripts is not None:
            self._transcripts.take(event)

    async def _account(self, line: TranscriptLine, candidate: Candidate, model: str) -> None:
        """Have the transcripts of ``line`` allowed and settled as an attempt beside the session."""
        by = replace(candidate, ref=ModelRef(candidate.ref.provider, model))
        plan = replace(self._plan, candidates=(by,), retries=0)
        try:
            await self._engine.run(line, plan, self._identity, purpose=Purpose.TRANSCRIPT)
        except Refused as refused:
            if self._line.watch is not None:
                self._line.watch.interrupt(refused)
        except TrunklineError as error:
            logger.warning("transcripts of %s are not counted: %s", self._socket.id, error)
