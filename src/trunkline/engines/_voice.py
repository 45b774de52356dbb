"""What the local voices share: sentences in, 16-bit mono PCM out, one segment a stream.

An engine says how one short piece of plain text becomes PCM (``LocalTTS.pcm``). This file makes the
LiveKit plugin around it: it cuts text into sentences as they complete, so that the first sentence
sounds while the model still writes the second, and keeps text away from the engine that it
could not speak or would take for a command.
"""

from __future__ import annotations

import asyncio
import re
from abc import abstractmethod
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Never

from livekit.agents import tokenize, tts, utils
from livekit.agents.types import (
    DEFAULT_API_CONNECT_OPTIONS,
    APIConnectOptions,
    TimedString,
)

LONGEST_PIECE = 300
"""Characters an engine gets at once; longer sentences are cut at a space. It bounds the time to the
first audio, and the time a cancelled synthesis still runs."""
LONGEST_WORD = 60
"""Characters; no real word is longer, and front ends written in C are not at their best there."""
SILENCE_SECONDS = 0.02

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_PIECE = re.compile(rf"\S{{{LONGEST_WORD}}}|\S+")


def pieces(sentence: str) -> Iterator[str]:
    """Cut a sentence into pieces an engine can speak; nothing comes of text without a word in it.

    Control characters become spaces: NUL ends a C string, and espeak-ng takes Control-A for the
    beginning of a command.
    """
    words: list[str] = []
    length = 0
    for word in _PIECE.findall(_CONTROL.sub(" ", sentence)):
        if words and length + len(word) > LONGEST_PIECE:
            yield from _spoken(words)
            words, length = [], 0
        words.append(word)
        length += len(word) + 1
    yield from _spoken(words)


def _spoken(words: list[str]) -> Iterator[str]:
    text = " ".join(words)
    if any(character.isalnum() for character in text):
        yield text


class LocalTTS(tts.TTS[Never]):
    """Base of the local voices: streaming, mono, aligned by sentence."""

    def __init__(self, *, provider: str, voice: str, sample_rate: int) -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=True, aligned_transcript=True),
            sample_rate=sample_rate,
            num_channels=1,
        )
        self._label = provider
        self._provider = provider
        self._voice = voice

    @property
    def model(self) -> str:
        return self._voice

    @property
    def provider(self) -> str:
        return self._provider

    @abstractmethod
    def pcm(self, text: str) -> AsyncGenerator[bytes]:
        """Speak one piece: 16-bit little-endian mono PCM at ``sample_rate``, as it is made.

        An asynchronous generator; closing it stops the engine. Raises livekit's APIError.
        """

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        return _Whole(tts=self, input_text=text, conn_options=conn_options)

    def stream(
        self, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.SynthesizeStream:
        return _Sentences(tts=self, conn_options=conn_options)

    async def _speak(self, sentence: str, emitter: tts.AudioEmitter) -> int:
        """Push a sentence's audio; returns the number of bytes.

        A sentence without a word gives a moment of silence: LiveKit takes none for a failure.
        """
        pushed = 0
        for piece in pieces(sentence):
            async with aclosing(self.pcm(piece)) as chunks:
                async for chunk in chunks:
                    emitter.push(chunk)
                    pushed += len(chunk)
        if not pushed:
            silence = bytes(2 * int(self.sample_rate * SILENCE_SECONDS))
            emitter.push(silence)
            pushed = len(silence)
        return pushed


def _tokenizer() -> tokenize.SentenceTokenizer:
    return tokenize.blingfire.SentenceTokenizer(retain_format=True)


class _Whole(tts.ChunkedStream):
    """Text that is complete at once, still spoken sentence by sentence."""

    _tts: LocalTTS

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=self._tts.sample_rate,
            num_channels=1,
            mime_type="audio/pcm",
        )
        for sentence in _tokenizer().tokenize(self._input_text):
            await self._tts._speak(sentence, output_emitter)
        output_emitter.flush()


class _Sentences(tts.SynthesizeStream):
    """Text that arrives in pieces; each sentence is spoken as soon as the next one begins."""

    _tts: LocalTTS

    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        output_emitter.initialize(
            request_id=utils.shortuuid(),
            sample_rate=self._tts.sample_rate,
            num_channels=1,
            mime_type="audio/pcm",
            stream=True,
        )
        output_emitter.start_segment(segment_id=utils.shortuuid())
        sentences = _tokenizer().stream()
        feeding = asyncio.create_task(self._feed(sentences))
        try:
            await self._speak(sentences, output_emitter)
            await feeding
        finally:
            await utils.aio.cancel_and_wait(feeding)
            await sentences.aclose()

    async def _feed(self, sentences: tokenize.SentenceStream) -> None:
        try:
            async for text in self._input_ch:
                if isinstance(text, self._FlushSentinel):
                    sentences.flush()
                else:
                    sentences.push_text(text)
        finally:
            sentences.end_input()

    async def _speak(
        self, sentences: tokenize.SentenceStream, output_emitter: tts.AudioEmitter
    ) -> None:
        pushed = 0
        async for event in sentences:
            self._mark_started()
            start = pushed / (2 * self._tts.sample_rate)
            output_emitter.push_timed_transcript(TimedString(text=event.token, start_time=start))
            pushed += await self._tts._speak(event.token, output_emitter)
            output_emitter.flush()
