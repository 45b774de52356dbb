"""The engine as a voice: a real ``tts.TTS`` whose every stream is an engine run."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions, tts
from livekit.agents.tts import AvailabilityChangedEvent

from ..core.models import Candidate, Identity, Modality, Plan
from ..errors import AllCandidatesFailed, Refused, TrunklineError
from .attempt import Engine
from .audio import read_clip
from .livekit_compat import SpeechStream, current_turn, is_expressive, markup_key, no_retry
from .livekit_errors import to_livekit
from .livekit_farewell import audience_of, end_after_speech
from .livekit_options import with_options
from .probes import probe
from .served import Served
from .speech_line import SpeechLine

logger = logging.getLogger("trunkline")


class TTS(Served, tts.TTS[Any]):
    """Serves every utterance by a plan, at one sample rate, mono.

    Each candidate's ``live`` is a plugin's TTS. A change of plan takes effect at the next
    utterance. A caller who has heard one voice fail hears the other for the rest of the call.
    """

    sticky = True

    class Markup(tts.TTS.Markup):
        """Speaks the dialect of the candidate that is to serve."""

        def _provider_key(self) -> str:
            owner = self._tts
            assert isinstance(owner, TTS)
            return markup_key(owner.plan.candidates[0].live)

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        identity: Callable[[], Identity],
        *,
        sample_rate: int,
        closing: Callable[[], Awaitable[None]],
    ) -> None:
        voices = [candidate.live.capabilities for candidate in plan.candidates]
        tts.TTS.__init__(
            self,
            capabilities=tts.TTSCapabilities(
                streaming=True,
                aligned_transcript=all(voice.aligned_transcript for voice in voices),
            ),
            sample_rate=sample_rate,
            num_channels=1,
        )
        self.clip = read_clip(plan.apology, sample_rate) if plan.apology else []
        self.begin(engine, plan, identity, closing)

    async def probe(self, candidate: Candidate, plan: Plan) -> None:
        await probe(self.engine, Modality.TTS, candidate, plan, self.identity)

    def available(self, candidate: Candidate, available: bool) -> None:
        self.emit("tts_availability_changed", AvailabilityChangedEvent(candidate.live, available))

    def prewarm(self) -> None:
        """Open what the first utterance will need."""
        self.warm_up_soon(Modality.TTS)

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        """Speak ``text`` as one utterance."""
        return self._synthesize_with_stream(text, conn_options=conn_options)

    def stream(
        self, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> SynthesizeStream:
        """Start an utterance. ``conn_options`` other than LiveKit's default set its deadlines."""
        return SynthesizeStream(self, conn_options)

    async def aclose(self) -> None:
        """Close the voice and everything that served for it."""
        await self.close()


class SynthesizeStream(SpeechStream):
    """One utterance: the engine's run over the plan, its audio as LiveKit's frames."""

    def __init__(self, owner: TTS, conn_options: APIConnectOptions) -> None:
        self._owner = owner
        self._plan = with_options(owner.prepare(), conn_options)
        self._turn = current_turn()
        self._line = SpeechLine(self, owner, expressive=is_expressive(owner))
        super().__init__(tts=owner, conn_options=no_retry(conn_options))

    def on_text(self, text: str) -> None:
        self._line.push(text)

    def on_flush(self) -> None:
        self._line.flush()

    def on_end(self) -> None:
        self._line.end()

    async def serve(self) -> None:
        owner = self._owner
        if not await self._line.has_text():
            return  # nothing that a voice could say is no request
        self._line.audience = audience_of(owner)
        try:
            await owner.engine.run(self._line, self._plan, owner.caller(), turn=self._turn)
        except AllCandidatesFailed as error:
            if not owner.clip or self._line.has_begun:
                raise to_livekit(error) from error
            self.report(to_livekit(error))
            self._line.play(owner.clip)
        except Refused as refused:
            if not await self._tell(refused):
                raise to_livekit(refused) from refused
        except TrunklineError as error:
            raise to_livekit(error) from error
        finally:
            self.mark_served(owner.serving, self._plan)

    async def _tell(self, refused: Refused) -> bool:
        """Say the notice in place of the text, else play the clip; False when neither can be."""
        owner = self._owner
        if refused.ends_call:
            end_after_speech(owner)
        line = self._line
        if refused.notice:
            line = SpeechLine(self, owner, expressive=False)
            line.push(refused.notice)
            line.end()
            try:
                await owner.engine.run(line, self._plan, owner.caller(), turn=self._turn)
                return True
            except TrunklineError:  # refused too, or nobody is well: the text's refusal says why
                logger.debug("a notice was not said to its end", exc_info=True)
        if owner.clip:
            line.play(owner.clip)
        return bool(owner.clip)
