"""The columns of the matrix."""

from __future__ import annotations

from typing import Any, ClassVar

import aiohttp
from livekit.agents import llm, tts

from trunkline import inference
from trunkline.core.models import Modality
from trunkline.doubles import tones

from .column import Column, Heard
from .ears import Ears, Recordings
from .vendors import TEXT


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
    Ears("deepgram nova", "deepgram", model="nova-3"),
    Ears("deepgram flux", "deepgram", model="flux-general-en", turn=0.5,
         options={"eot_timeout_ms": 500}),
    Ears("cartesia ink", "cartesia", model="ink-2", turn=0.64,
         options={"turn_end_timeout_ms": 640}),
    Ears("cartesia ink-whisper", "cartesia", model="ink-whisper", interim=False),
    Ears("elevenlabs", "elevenlabs", model="scribe_v2_realtime", flushes=True),
    Recordings("openai", "openai", model="whisper-1"),
]  # fmt: skip
