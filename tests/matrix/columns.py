"""The columns of the matrix: a client, how it is used, and what the caller gets from it."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import aiohttp
from livekit.agents import llm, tts

from trunkline import catalog, inference
from trunkline.core.models import Modality
from trunkline.doubles import tones
from trunkline.errors import AllCandidatesFailed

from .vendors import TEXT

NEVER = 6.0
"""Seconds after which what has not come will not come."""


@dataclass
class Heard:
    """What came of one call, in seconds from its start.

    ``gap`` is the longest wait between two outputs, or from the last one to the end. ``error`` is
    the exception's name, empty for a clean end, ``never`` when there was neither.
    """

    words: list[str] = field(default_factory=list)
    first: float | None = None
    gap: float = 0.0
    took: float = 0.0
    error: str = ""
    causes: int = 0

    def __post_init__(self) -> None:
        self._begun = self._last = time.perf_counter()

    def output(self) -> None:
        """Note that output came."""
        now = time.perf_counter()
        if self.first is None:
            self.first = now - self._begun
        else:
            self.gap = max(self.gap, now - self._last)
        self._last = now

    def end(self, error: BaseException | None = None) -> None:
        """Note how it ended."""
        now = time.perf_counter()
        self.took = now - self._begun
        if self.first is not None:
            self.gap = max(self.gap, now - self._last)
        if isinstance(error, TimeoutError):
            self.error = "never"
        elif error is not None:
            self.error = type(error).__name__
            cause = error.__cause__
            self.causes = len(cause.causes) if isinstance(cause, AllCandidatesFailed) else 1


class Column(ABC):
    """One client of one modality; ``vendor`` is the double that it talks to.

    ``kind`` is the provider's row in the catalogue. The same client is used for every candidate.
    """

    modality: ClassVar[Modality]
    expected: ClassVar[list[str]]

    by_sentence = False
    """Whether each sentence is a request of its own, so that the next one tells of a cut."""

    def __init__(self, name: str, vendor: str, *, kind: str = "", model: str = "any") -> None:
        self.name = name
        self.vendor = vendor
        self.kind = kind or vendor
        self.model = model

    def __str__(self) -> str:
        return f"{self.modality} {self.name}"

    def connection(self, url: str, kind: str = "") -> dict[str, str]:
        """What trunkline.yaml says of a connection to the double at ``url``."""
        path = "/v1" if self.vendor in ("openai", "elevenlabs") else ""
        key = {} if kind else {"api_key": "key"}
        return {"kind": kind or self.kind, "base_url": f"{url}{path}", **key}

    @abstractmethod
    def open(self, route: str, http: aiohttp.ClientSession) -> Any:
        """Our class for ``route``."""

    def bare(self, url: str, http: aiohttp.ClientSession, kind: str = "") -> Any:
        """The official plugin itself, as LiveKit's own adapters take it."""
        row = catalog.provider(kind or self.official)
        return catalog.build(
            row,
            self.modality,
            self.model,
            credentials={} if kind else {"api_key": "key"},
            options={},
            base_url=self.connection(url)["base_url"],
            http_session=http,
        )

    @property
    def official(self) -> str:
        """The row of the official plugin."""
        return self.kind

    @abstractmethod
    async def use(self, client: Any, heard: Heard, **options: Any) -> None:
        """Use ``client`` once, to the end; ``options`` go to its ``chat`` or ``stream``."""

    async def call(self, client: Any, **options: Any) -> Heard:
        """Use ``client`` once, bounded; what came of it."""
        heard = Heard()
        try:
            async with asyncio.timeout(NEVER):
                await self.use(client, heard, **options)
        except Exception as error:  # noqa: BLE001 - the boundary to clients that misbehave
            heard.end(error)
        else:
            heard.end()
        self.read(heard)
        return heard

    @abstractmethod
    def read(self, heard: Heard) -> None:
        """Make words of what came, once the clock has stopped."""


def conversation() -> llm.ChatContext:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="Is my room ready?")
    return context


class Chat(Column):
    modality = Modality.LLM
    expected: ClassVar[list[str]] = TEXT.split()

    @property
    def official(self) -> str:
        return "openai_plugin"

    def open(self, route: str, http: aiohttp.ClientSession) -> Any:
        return inference.LLM(route)

    async def use(self, client: Any, heard: Heard, **options: Any) -> None:
        self._said = ""
        async with client.chat(chat_ctx=conversation(), **options) as stream:
            async for chunk in stream:
                if chunk.delta and chunk.delta.content:
                    heard.output()
                    self._said += chunk.delta.content

    def read(self, heard: Heard) -> None:
        heard.words = self._said.split()


class Voice(Column):
    """A voice whose tones are read back."""

    modality = Modality.TTS
    expected: ClassVar[list[str]] = tones.words_of(TEXT)

    def open(self, route: str, http: aiohttp.ClientSession) -> Any:
        return inference.TTS(route, http_session=http)

    async def use(self, client: tts.TTS[Any], heard: Heard, **options: Any) -> None:
        self._pcm = bytearray()
        async with client.stream(**options) as stream:
            for piece in TEXT.partition(". "):
                stream.push_text(piece)
            stream.end_input()
            async for audio in stream:
                pcm = bytes(audio.frame.data)
                self._rate = audio.frame.sample_rate
                self._pcm += pcm
                if any(pcm):
                    heard.output()

    def read(self, heard: Heard) -> None:
        if self._pcm:
            heard.words = tones.decode(bytes(self._pcm), self._rate)


class VoiceBySentence(Voice):
    by_sentence = True

    def bare(self, url: str, http: aiohttp.ClientSession, kind: str = "") -> Any:
        voice = super().bare(url, http, kind)
        return voice if voice.capabilities.streaming else tts.StreamAdapter(tts=voice)


COLUMNS: list[Column] = [
    Chat("our client", "openai"),
    Chat("openai", "openai", kind="openai_plugin"),
    Voice("deepgram", "deepgram", model="aura-2"),
    Voice("cartesia", "cartesia", model="sonic-3"),
    Voice("elevenlabs", "elevenlabs", model="eleven_turbo_v2_5"),
    VoiceBySentence("openai", "openai", model="gpt-4o-mini-tts"),
]
