"""A realtime session's side of the loop: two sockets, and a tally of what the provider tells.

Imports no livekit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from ..core.models import Candidate, Modality, Plan, Quality, Terms, Usage
from ..core.pricing import with_extras
from ..errors import ProtocolViolation, ProviderError, StreamCut
from ..runtime.gate_rules import Audience
from ..runtime.line import Line, ProviderStream
from ..runtime.meter import Metered, plus
from ..runtime.wire_errors import ErrorBody, from_event
from ..runtime.wire_realtime import RealtimeStream
from . import realtime_events as events
from .exchange import ClientGone

_SILENT_SECONDS = 8.0
"""A model may think in the middle of an answer; on top of this it has the plan's idle deadline."""

_TURN = Usage(tokens_in=400, tokens_audio_in=200, tokens_out=300, tokens_audio_out=240)
"""What is reserved at a time: some ten seconds of each side, with instructions before them."""

_PARTING = "trunkline_parting"
_CANCEL = f'{{"type":"response.cancel","event_id":"{_PARTING}"}}'


class Client(Protocol):
    """Where a provider's events go."""

    async def answer(self, candidate: Candidate) -> None:
        """Answer the upgrade: ``candidate`` serves. Raises ClientGone."""

    async def send(self, text: str) -> None:
        """Send an event; waits while the client takes none. Raises ClientGone."""


class Tally:
    """What a provider has told of one session: its usage, and what it has not told the usage of."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.has_images = False
        self.is_unreadable = False
        self.at_rest = asyncio.Event()
        self.at_rest.set()
        self._open: set[str] = set()
        self._asked = 0
        self._is_answering = False

    def hears(self) -> None:
        """The caller has spoken: the provider begins to answer, and to charge, before it says so.

        It may think better of it, so nothing is owed.
        """
        self._is_answering = True

    def asks(self) -> None:
        """The client has asked for an answer, which the provider is to begin."""
        self._asked += 1
        self.at_rest.clear()

    def begins(self, name: str) -> None:
        """Something is under way whose usage comes at its end."""
        self._open.add(name)
        self._asked = max(0, self._asked - 1)
        self._is_answering = False
        self.at_rest.clear()

    def caught_up(self) -> None:
        """All that was asked for has begun by now, or does not come."""
        self._asked, self._is_answering = 0, False
        self._rest()

    def refused(self) -> None:
        """What was asked for last may not come."""
        self._asked = max(0, self._asked - 1)
        self._rest()

    def ends(self, name: str, told: events.Told | None) -> None:
        if name not in self._open:  # it was called off before it was said to begin
            self._asked = max(0, self._asked - 1)
        self._open.discard(name)
        self._rest()
        if told is not None:
            self.usage = plus(self.usage, events.usage_of(told))
            self.has_images = self.has_images or events.has_images(told)

    @property
    def is_open(self) -> bool:
        return bool(self._open or self._asked)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is under way of which the usage is not told."""
        return not (self.is_open or self._is_answering)

    def _rest(self) -> None:
        if not self.is_open:
            self.at_rest.set()

    def metered(self) -> Metered:
        is_whole = self.is_whole and not self.is_unreadable
        return Metered(self.usage, Quality.EXACT if is_whole else Quality.UNDERESTIMATE)


class RealtimeLine(Line[str]):
    """A session that is opened once, on the first candidate that has something to say.

    ``transcribes`` is told by whom the provider has the caller written down, ``transcript`` of the
    usage of that; its name is an item's.
    """

    modality = Modality.REALTIME
    audience = Audience.NOBODY
    is_read_here = False

    def __init__(
        self,
        plan: Plan,
        client: Client | None,
        transcribes: Callable[[Candidate, str], None] = lambda *_: None,
        transcript: Callable[[events.Event], None] = lambda _: None,
    ) -> None:
        self._plan = plan
        self._client = client
        self._transcribes = transcribes
        self._transcript = transcript
        self._now = asyncio.get_running_loop().time
        self._pending: str | None = None
        self._has_begun = self._is_over = False
        self._expired = self._answers = self._is_answered = self._was_called_off = False
        self._candidate: Candidate | None = None
        self._stream: RealtimeStream | None = None
        self.last = self._now()
        """When the provider last said something, or was last asked to."""
        self.tally = Tally()

    @property
    def has_begun(self) -> bool:
        """Whether a candidate serves."""
        return self._has_begun

    def open(self, candidate: Candidate) -> ProviderStream[str]:
        self._candidate, self.tally, self.last = candidate, Tally(), self._now()
        self._stream = candidate.live.stream(
            candidate.ref.model,
            connect_timeout=self._plan.deadlines.connect,
            before_wait=self._flush,
            farewell=self._farewell,
        )
        return self._stream

    async def send(self, text: str, *, asks: bool = False) -> None:
        """Say something to the provider; ``asks``: it is to answer. After the end it is dropped."""
        if self._is_over:  # else it would come behind the farewell
            return
        if asks:
            self.last = self._now()
            self.tally.asks()
            self._owes()
        if self._stream is not None:
            await self._stream.send(text)

    def _owes(self) -> None:
        if self.watch is not None:
            self.watch.poke()

    def end(self) -> None:
        """Nobody wants more of it: end well."""
        self._is_over = True
        if self._stream is not None:
            self._stream.end()

    def deliver(self, out: str) -> bool:
        self.last = self._now()
        if out[:1] != "{":
            raise ProtocolViolation("the provider sent what is no JSON object")
        if events.is_read(out):
            self._read(out)
        self._has_begun = True
        self._pending = out
        return True

    async def _flush(self) -> None:
        """Hand on what came. A client that has gone ends the session."""
        text, self._pending = self._pending, None
        if text is None:
            return
        if self._client is None:  # a probe: it has seen enough
            self.end()
            return
        assert self._candidate is not None
        with suppress(ClientGone):
            await self._client.answer(self._candidate)
            await self._client.send(text)
            return
        self.end()

    def _read(self, text: str) -> None:
        try:
            event = events.decode_event(text)
        except msgspec.DecodeError:
            self.tally.is_unreadable = True
            return
        response = event.response or events.Response()
        match event.type:
            case events.CREATED:
                self.tally.begins(response.id or "")
                self._owes()
            case events.DONE:
                self.tally.ends(response.id or "", response.usage)
                self._was_called_off = response.status == "cancelled"
                if response.usage is None and response.status != "failed":
                    self.tally.is_unreadable = True  # a failure costs nothing
            case events.ERROR:
                self._failed(event.error or events.Wrong())
            case events.COMMITTED | events.TRANSCRIBED | events.UNTRANSCRIBED:
                self._transcript(event)
            case events.STOPPED if self._answers:
                self.tally.hears()
            case kind if kind in events.SESSIONS and event.session is not None:
                assert self._candidate is not None
                self._answers = event.session.answers
                self._transcribes(self._candidate, event.session.transcribes_by)

    def _failed(self, error: events.Wrong) -> None:
        """An error instead of a session is a failure; in one it is the client's own affair."""
        if not self._has_begun:
            raise from_event(ErrorBody(error.message, error.type, error.code))
        self._is_answered = error.event_id == _PARTING
        self._expired = error.code == "session_expired"
        self.tally.refused()

    def owed_since(self) -> float | None:
        if not self._has_begun:
            return self.last
        return self.last + _SILENT_SECONDS if self.tally.is_open else None

    def finish(self) -> None:
        if self._is_over:
            return
        if not self._has_begun:
            raise StreamCut("the provider ended the session before it began")
        if self.tally.is_open and not self._expired:
            raise StreamCut("the provider ended the session in the middle of an answer")

    def excuses(self, error: ProviderError) -> bool:
        return self._expired and isinstance(error, StreamCut)

    def may_continue(self, plan: Plan) -> bool:
        return not self._has_begun

    def estimate(self, candidate: Candidate) -> Usage:
        return _TURN if self._client is not None else Usage()

    def metered(self) -> Metered:
        return self.tally.metered()

    def terms(self, candidate: Candidate) -> Terms:
        return Terms(tier=with_extras("", ["images"]) if self.tally.has_images else "")

    async def _farewell(self, stream: RealtimeStream) -> Usage | None:
        """Call off what nobody hears any more; returns all that the session has used.

        A provider deals with events in their order. So when it says that there is nothing to call
        off, it has told of all that was asked for before.
        """
        if self._client is None:
            return None
        tally, self._is_answered, self._was_called_off = self.tally, False, True
        with suppress(ProviderError):
            while not self._is_answered or tally.is_open:
                if self._was_called_off:  # by this or another's wish: is there more?
                    self._was_called_off = False
                    await stream.send(_CANCEL)
                text = await stream.receive()
                if text is None:
                    return None
                if events.is_read(text):
                    self._read(text)
                if self._is_answered:
                    tally.caught_up()
        return tally.usage if tally.metered().quality is Quality.EXACT else None


class TranscriptLine(Line[None]):
    """What a realtime model's provider writes down of the caller, for as long as the session lasts.

    It opens nothing: the transcripts come on the session's socket. It is an attempt of its own
    because another model is asked, at another price.
    """

    modality = Modality.STT
    audience = Audience.NOBODY

    def __init__(self) -> None:
        self.tally = Tally()
        self._stream = _Quiet()

    def take(self, event: events.Event) -> None:
        """A part of the caller's audio waits for its transcript, or has it."""
        name = event.item_id or ""
        if event.type == events.COMMITTED:
            self.tally.begins(name)
        elif event.status == "in_progress":  # xAI's word for one that goes on
            return
        elif event.type == events.UNTRANSCRIBED or event.usage is not None:
            self.tally.ends(name, event.usage)

    def end(self) -> None:
        self._stream.over.set()

    def open(self, candidate: Candidate) -> ProviderStream[None]:
        return self._stream

    def deliver(self, out: None) -> bool:
        return False

    def owed_since(self) -> float | None:
        return None

    def finish(self) -> None: ...

    def may_continue(self, plan: Plan) -> bool:
        return False

    def estimate(self, candidate: Candidate) -> Usage:
        return Usage(tokens_in=100, tokens_audio_in=100, tokens_out=30, audio_in_ns=10_000_000_000)

    def metered(self) -> Metered:
        return self.tally.metered()


class _Quiet:
    """A stream of nothing, until it is over."""

    request_id = ""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    def __aiter__(self) -> _Quiet:
        return self

    async def __anext__(self) -> None:
        await self.over.wait()
        raise StopAsyncIteration

    def close(self) -> None:
        return None
