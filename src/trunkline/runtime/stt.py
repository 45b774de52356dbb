"""The engine as a recogniser: a real ``stt.STT`` whose every stream is an engine run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from livekit import rtc
from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, NOT_GIVEN, APIConnectOptions, stt, utils
from livekit.agents.stt import AvailabilityChangedEvent
from livekit.agents.types import NotGivenOr
from livekit.agents.vad import VAD

from ..core.models import Candidate, Identity, Modality, Plan
from ..errors import Refused, TrunklineError
from .attempt import Engine
from .audio_buffer import AudioBuffer
from .audio_line import AudioLine
from .gate_rules import Audience
from .livekit_compat import (
    TranscriptStream,
    forward_conversation_item,
    forward_keyterms,
    no_retry,
)
from .livekit_errors import to_livekit
from .livekit_farewell import audience_of, say_and_end
from .livekit_options import with_options
from .livekit_recogniser import joined
from .probes import probe
from .served import Served

if TYPE_CHECKING:
    from livekit.agents.voice import ConversationItemAddedEvent


_PROBE_NS = 1_500_000_000
"""How much of what a caller has said is said to a recogniser that was ill: a word or two."""


class STT(Served, stt.STT[Any]):
    """Serves every stream by a plan: one stream lasts a call, failures are mended inside it.

    Each candidate's ``live`` is a plugin's STT. Audio is handed on at ``sample_rate`` Hz, or as it
    comes when that is None. ``vad`` ends the utterances of candidates that cannot stream.
    ``audience`` None is that of the session that uses it.
    """

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        identity: Callable[[], Identity],
        *,
        sample_rate: int | None,
        vad: VAD | None,
        closing: Callable[[], Awaitable[None]] | None,
        audience: Audience | None = None,
    ) -> None:
        stt.STT.__init__(self, capabilities=_together(plan))
        self.sample_rate = sample_rate
        self.vad = vad
        self.audience = audience
        self._open: set[RecognizeStream] = set()
        self._understood: list[rtc.AudioFrame] = []
        self.begin(engine, plan, identity, closing)

    def swap(self, plan: Plan, closing: Callable[[], Awaitable[None]] | None) -> None:
        """Be served by ``plan``; open streams follow between two utterances."""
        super().swap(plan, closing)
        for stream in self._open:
            stream.swap(plan)

    async def probe(self, candidate: Candidate, plan: Plan) -> None:
        await probe(
            self.engine, Modality.STT, candidate, plan, self.identity, said=self._understood
        )

    def may_probe(self, candidate: Candidate) -> bool:
        """A plugin that is told when to commit has nothing to say to a click, not even an end."""
        return bool(self._understood) or not candidate.live.capabilities.manual_flush

    def understood(self, audio: AudioBuffer) -> None:
        """Keep the beginning of what became words, while somebody is ill who can be asked it."""
        if self.is_probing:
            self._understood = audio.beginning(_PROBE_NS)

    def available(self, candidate: Candidate, available: bool) -> None:
        self.emit("stt_availability_changed", AvailabilityChangedEvent(candidate.live, available))
        order = self.plan.candidates
        serving = order.index(self.serving) if self.serving in order else 0
        if available and order.index(candidate) < serving:
            for stream in self._open:
                stream.swap(self.plan)

    def prewarm(self) -> None:
        """Open what the first words will need."""
        self.warm_up_soon(Modality.STT)

    async def _recognize_impl(
        self,
        buffer: utils.AudioBuffer,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions,
    ) -> stt.SpeechEvent:
        """Recognise a whole recording through a stream, so that it is metered like one."""
        finals: list[stt.SpeechEvent] = []
        frames = buffer if isinstance(buffer, list) else [buffer]
        stream = self.stream(language=language, conn_options=conn_options)
        stream.remember(sum(frame.duration for frame in frames))
        async with stream:
            for frame in frames:
                stream.push_frame(frame)
            stream.end_input()
            async for event in stream:
                if event.type is stt.SpeechEventType.FINAL_TRANSCRIPT:
                    finals.append(event)
        return joined(finals)

    def stream(
        self,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
    ) -> RecognizeStream:
        """Start a stream. ``conn_options`` other than LiveKit's default set its deadlines."""
        stream = RecognizeStream(self, language, conn_options)
        self._open.add(stream)
        return stream

    def ended(self, stream: RecognizeStream) -> None:
        """Forget a stream that is over."""
        self._open.discard(stream)

    def _update_session_keyterms(self, keyterms: list[str]) -> None:
        for candidate in self.plan.candidates:
            forward_keyterms(candidate.live, keyterms)

    def _push_conversation_item(self, ev: ConversationItemAddedEvent) -> None:
        for candidate in self.plan.candidates:
            forward_conversation_item(candidate.live, ev)

    async def aclose(self) -> None:
        """Close the recogniser and everything that served for it."""
        for stream in list(self._open):
            await stream.aclose()
        await self.close()


class RecognizeStream(TranscriptStream):
    """One audio stream: the engine's run over the plan, its events with continuous times."""

    def __init__(
        self, owner: STT, language: NotGivenOr[str], conn_options: APIConnectOptions
    ) -> None:
        self._owner = owner
        self._options = conn_options
        self._plan = with_options(owner.prepare(), conn_options)
        self._line = AudioLine(self, owner.serves, language, owner.vad, self._plan.deadlines)
        super().__init__(
            stt=owner,
            conn_options=no_retry(conn_options),
            sample_rate=owner.sample_rate or NOT_GIVEN,
        )

    def remember(self, seconds: float) -> None:
        """Keep at least so much audio until it is text: a recording comes all at once."""
        self._line.remember(seconds)

    def swap(self, plan: Plan) -> None:
        """Move to ``plan`` as soon as nobody is in the middle of an utterance."""
        self._plan = with_options(plan, self._options)
        self._line.move()

    def understood(self, audio: AudioBuffer) -> None:
        self._owner.understood(audio)

    def on_frame(self, frame: rtc.AudioFrame) -> None:
        self._line.push(frame)

    def on_flush(self) -> None:
        self._line.flush()

    def on_end(self) -> None:
        self._line.end()

    async def serve(self) -> None:
        owner = self._owner
        try:
            while await self._line.has_audio():
                self._line.audience = owner.audience or audience_of(owner)
                # a recogniser's stream lasts as long as the call: it has no total deadline
                deadlines = replace(self._plan.deadlines, total=float("inf"))
                plan = replace(self._plan, deadlines=deadlines)
                await owner.engine.run(self._line, plan, owner.caller())
        except Refused as refused:
            # whatever is raised here, a session that goes on opens the next stream for it
            say_and_end(owner, refused.notice)
            raise to_livekit(refused) from refused
        except TrunklineError as error:
            raise to_livekit(error) from error
        finally:
            self._line.close()
            owner.ended(self)


def _together(plan: Plan) -> stt.STTCapabilities:
    """What the candidates can do together: LiveKit reads it once, when an activity starts."""
    each = [candidate.live.capabilities for candidate in plan.candidates]
    aligned: set[Literal["word", "chunk", False]] = {one.aligned_transcript for one in each}
    return stt.STTCapabilities(
        streaming=True,
        interim_results=any(one.interim_results for one in each),
        diarization=all(one.diarization for one in each),
        aligned_transcript=aligned.pop() if len(aligned) == 1 else False,
        offline_recognize=True,
        keyterms=any(one.keyterms for one in each),
        chat_context=any(one.chat_context for one in each),
        manual_flush=any(one.manual_flush for one in each),
    )
