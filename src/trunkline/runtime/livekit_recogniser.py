"""A plugin's recogniser as a provider stream of ours."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, Protocol

from livekit import rtc
from livekit.agents import APIConnectOptions, LanguageCode, stt
from livekit.agents.types import NotGivenOr
from msgspec.structs import replace as replace_fields

from ..core.models import Usage
from ..errors import ConnectFailed, ProviderError, RequestRejected, StreamCut
from .inlet_socket import telling
from .livekit_compat import has_failed, hear_past_tee, unread_ns, watch_turn_ends
from .livekit_errors import from_livekit
from .livekit_inlet import Inlet
from .meter import audio_ns

_Event = stt.SpeechEventType

_ENDLESS = 1e6
"""Seconds that no recogniser can have heard at once."""

Piece = rtc.AudioFrame | None
"""Audio, or a flush."""


class Recogniser(Protocol):
    """What a line needs of a recogniser, whether its plugin streams or takes whole recordings.

    A recogniser that has died takes no input: what is pushed to it then is dropped, its iterator
    raises why, and the line's buffer says the audio again to the next candidate.
    """

    @property
    def request_id(self) -> str: ...
    @property
    def used(self) -> Usage:
        """Audio that the provider has been given, and what it has told of tokens."""

    @property
    def listens(self) -> bool:
        """Whether audio gets through: False when none of what was pushed has been taken."""

    @property
    def behind(self) -> float:
        """Seconds until audio that is said again has all been said."""

    def replay(self, pieces: Iterable[Piece]) -> None:
        """Say audio again, at the speed the provider takes."""

    def push_frame(self, frame: rtc.AudioFrame) -> None: ...
    def flush(self) -> None: ...
    def end_input(self) -> None: ...
    def __aiter__(self) -> Recogniser: ...
    async def __anext__(self) -> stt.SpeechEvent: ...
    async def aclose(self) -> None: ...


class PluginRecogniser:
    """One audio stream of a plugin that streams; its times count from ``begins`` seconds.

    ``connect_timeout`` is in seconds. ``replay_speed`` is how many times faster than it was said
    audio may be said again; 0 is as fast as it goes. Until a paced replay has caught up, live
    frames wait behind it. ``failed`` is called when the plugin refuses a frame.
    """

    def __init__(
        self,
        plugin: stt.STT[Any],
        language: NotGivenOr[str],
        begins: float,
        *,
        connect_timeout: float,
        replay_speed: float,
        failed: Callable[[ProviderError], None],
    ) -> None:
        self.request_id = ""
        options = APIConnectOptions(max_retry=0, timeout=connect_timeout)
        self._inlet = Inlet()
        try:
            with telling(self._inlet.connected):
                self._stream = plugin.stream(language=language, conn_options=options)
        except (ValueError, TypeError) as error:  # nobody was asked yet: it is about the options
            told = (
                f"the provider's plugin hears nothing with these options ({type(error).__name__})"
            )
            raise RequestRejected(told) from error
        except Exception as error:  # the edge: whatever a plugin raises is translated here
            raise from_livekit(error) from error
        self._inlet.opened(self._stream)
        hear_past_tee(self._stream)
        self._stream.start_time_offset = begins
        self._failed = failed
        self._replay_speed = replay_speed
        self._pushed = self._rate = 0
        self._told = Usage()
        self._waiting: deque[Piece] = deque()
        self._replaying: asyncio.Task[None] | None = None
        self._ending = False
        self._made_up = False
        self._turns_ended = 0
        self._knows_ends = watch_turn_ends(self._stream, self._turn_ended)

    @property
    def used(self) -> Usage:
        """What the plugin has taken, or what it says it has sent: it may add silence of its own."""
        told = self._told
        return replace_fields(told, audio_in_ns=max(self._heard_ns, told.audio_in_ns))

    @property
    def _pushed_ns(self) -> int:
        return audio_ns(self._pushed, self._rate)

    @property
    def _heard_ns(self) -> int:
        return max(0, self._pushed_ns - unread_ns(self._stream))

    @property
    def listens(self) -> bool:
        return not self._pushed or self._heard_ns > 0

    @property
    def behind(self) -> float:
        if self._replaying is None:
            return 0.0
        waiting = sum(piece.duration for piece in self._waiting if piece is not None)
        return waiting / self._replay_speed

    def replay(self, pieces: Iterable[Piece]) -> None:
        self._waiting.extend(pieces)
        if self._replay_speed and len(self._waiting) > 1:
            self._replaying = asyncio.create_task(self._catch_up())
            return
        while self._waiting:
            self._push(self._waiting.popleft())

    async def _catch_up(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while self._waiting:
            piece = self._waiting.popleft()
            self._push(piece)
            if piece is not None:
                due += piece.duration / self._replay_speed
                await asyncio.sleep(max(0.0, due - clock()))
        self._replaying = None
        if self._ending:
            self.end_input()

    def push_frame(self, frame: rtc.AudioFrame) -> None:
        if self._replaying is not None:
            self._waiting.append(frame)
        else:
            self._push(frame)

    def flush(self) -> None:
        if self._replaying is not None:
            self._waiting.append(None)
        else:
            self._push(None)

    def _push(self, piece: Piece) -> None:
        try:
            if piece is None:
                self._stream.flush()
                self._inlet.flushed()
            else:
                if not self._inlet.takes(piece):
                    self._stream.push_frame(piece)
                self._pushed += piece.samples_per_channel
                self._rate = self._rate or piece.sample_rate
        except RuntimeError:
            pass  # the stream is over: its iterator says how
        except Exception as error:  # noqa: BLE001 - the edge, as above; the agent must not die of it
            self._failed(from_livekit(error))

    def end_input(self) -> None:
        self._ending = True
        if self._replaying is None:
            # a plugin whose input has ended before its task begins may not even connect (cartesia)
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._stream.end_input()

    def __aiter__(self) -> PluginRecogniser:
        return self

    async def __anext__(self) -> stt.SpeechEvent:
        while True:
            try:
                event = await self._stream.__anext__()
            except StopAsyncIteration:
                raise
            except Exception as error:  # the edge, as above
                raise self._translated(error) from error
            if event.recognition_usage is not None:
                self._told = _more(self._told, event.recognition_usage)
            if not await self._is_made_up(event):
                self.request_id = self.request_id or event.request_id
                return event

    def _turn_ended(self) -> None:
        self._turns_ended += 1

    def _translated(self, error: Exception) -> ProviderError:
        """What ``error`` is: a connection that has taken audio was made, whatever its plugin says.

        Cartesia's says of a connection that is lost what it says of one that never was.
        """
        told = from_livekit(error)
        if isinstance(told, ConnectFailed) and self._heard_ns:
            return StreamCut(str(told))
        return told

    async def _is_made_up(self, event: stt.SpeechEvent) -> bool:
        """Whether ``event`` ends an utterance that the provider did not end.

        A plugin that loses its connection may call final what it has (cartesia's does, also when
        the connection ends cleanly). The words after that would be lost: the whole utterance goes
        to the next candidate instead.
        """
        if event.type is _Event.FINAL_TRANSCRIPT and not _is_timed(event, self._stream):
            if self._knows_ends:
                self._made_up = not self._turns_ended
                self._turns_ended = max(0, self._turns_ended - 1)
            else:
                await asyncio.sleep(0)  # the plugin raises its error right after its last events
                self._made_up = has_failed(self._stream)
            return self._made_up
        return self._made_up and event.type is _Event.END_OF_SPEECH

    def close(self) -> Coroutine[Any, Any, None]:
        return self.aclose()

    async def aclose(self) -> None:
        if self._replaying is not None:
            self._replaying.cancel()
        await self._stream.aclose()


class Attended:
    """A recogniser whose clean end is judged."""

    def __init__(self, recogniser: Recogniser, conclude: Callable[[], Awaitable[None]]) -> None:
        self._recogniser = recogniser
        self._conclude = conclude

    @property
    def request_id(self) -> str:
        return self._recogniser.request_id

    def __aiter__(self) -> Attended:
        return self

    async def __anext__(self) -> stt.SpeechEvent:
        try:
            return await self._recogniser.__anext__()
        except StopAsyncIteration:
            await self._conclude()
            raise

    def close(self) -> Coroutine[Any, Any, None]:
        return self._recogniser.aclose()


def _more(told: Usage, now: stt.RecognitionUsage) -> Usage:
    """``told`` and what a plugin tells ``now``; what a recogniser takes in is audio."""
    seconds = now.audio_duration
    return Usage(
        audio_in_ns=told.audio_in_ns + (round(seconds * 1e9) if 0 < seconds < _ENDLESS else 0),
        tokens_in=told.tokens_in + now.input_tokens,
        tokens_audio_in=told.tokens_audio_in + now.input_tokens,
        tokens_out=told.tokens_out + now.output_tokens,
    )


def end_of(said: stt.SpeechData) -> float:
    """When the last of ``said`` was spoken, 0 if that is not told.

    By its words, if they have times: the end of a final may be the sum of the durations of all
    transcripts so far (cartesia's ink-whisper), and so lie in words that are still to come.
    """
    ends = [word.end_time for word in said.words or [] if isinstance(word.end_time, float | int)]
    return min(said.end_time, max(ends)) if ends else said.end_time


def _is_timed(event: stt.SpeechEvent, stream: stt.RecognizeStream) -> bool:
    return bool(event.alternatives) and event.alternatives[0].end_time > stream.start_time_offset


def joined(finals: list[stt.SpeechEvent]) -> stt.SpeechEvent:
    """The finals of one recording as one; without any, a final without words."""
    said = [event.alternatives[0] for event in finals if event.alternatives]
    whole = stt.SpeechData(language=LanguageCode(""), text="")
    if said:
        whole = replace(
            said[0],
            text=" ".join(part.text for part in said),
            end_time=said[-1].end_time,
            confidence=min(part.confidence for part in said),
        )
    return stt.SpeechEvent(
        type=stt.SpeechEventType.FINAL_TRANSCRIPT,
        request_id=finals[0].request_id if finals else "",
        alternatives=[whole],
    )
