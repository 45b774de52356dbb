"""Real speech behind the protocols: ``engine: local`` puts this machine's engines there.

flite speaks, pocketsphinx hears, the scripted model answers (see ``trunkline.engines``). Importing
this file loads livekit-agents, so it is imported when a provider asks for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from livekit import rtc
from livekit.agents import llm

from ..engines import flite, pocketsphinx, scripted
from .language import text_of
from .provider import Reply, ToolCall
from .tones import Heard
from .voice import Spoken, Timed

_SOUND = 600
"""The amplitude of a 16-bit sample over which there is speech: the floor of a quiet line."""


class LocalVoice:
    """flite. It tells no times, so words share the length of the audio by their characters."""

    def __init__(self) -> None:
        self._engine = flite.TTS()

    async def say(self, text: str, rate: int) -> Spoken:
        pcm = b"".join([piece async for piece in self._engine.pcm(text)])
        pcm = _resampled(pcm, self._engine.sample_rate, rate)
        words, letters = text.split(), len("".join(text.split()))
        each, at, timed = len(pcm) / 2 / rate / max(letters, 1), 0.0, []
        for word in words:
            timed.append(Timed(word, at, at + each * len(word)))
            at += each * len(word)
        return Spoken(pcm, rate, tuple(timed))


class LocalEar:
    """pocketsphinx. It decodes an utterance when that is over, so there are no interim words."""

    def __init__(self, rate: int) -> None:
        self.words: list[Heard] = []
        self.sound_until = 0.0
        self._engine = pocketsphinx.STT()
        self._rate = rate
        self._utterance = bytearray()
        self._samples = 0

    def hear(self, pcm: bytes) -> None:
        samples = np.frombuffer(pcm[: len(pcm) // 2 * 2], dtype="<i2").astype(np.int32)
        loud = np.flatnonzero(np.abs(samples) > _SOUND)
        if loud.size:
            self.sound_until = (self._samples + int(loud[-1]) + 1) / self._rate
        self._samples += samples.size
        self._utterance += pcm

    async def settle(self) -> None:
        pcm, self._utterance = bytes(self._utterance), bytearray()
        begun = self._samples / self._rate - len(pcm) / 2 / self._rate
        if self.sound_until <= begun:
            return
        frame = rtc.AudioFrame(pcm, self._rate, 1, len(pcm) // 2)
        event = await self._engine.recognize(frame)
        said = event.alternatives[0].text.split() if event.alternatives else []
        each = (self.sound_until - begun) / max(len(said), 1)
        self.words += [
            Heard(word, begun + i * each, begun + (i + 1) * each) for i, word in enumerate(said)
        ]


class LocalModel:
    """The scripted model of ``trunkline.engines``."""

    def __init__(self) -> None:
        self._engine = scripted.LLM()

    async def reply(self, messages: Sequence[dict[str, Any]]) -> Reply:
        context = llm.ChatContext.empty()
        for message in messages:
            if message.get("role") in ("system", "user", "assistant"):
                context.add_message(role=message["role"], content=text_of(message))
        said = await self._engine.chat(chat_ctx=context).collect()
        calls = (ToolCall(call.name, _arguments(call)) for call in said.tool_calls)
        return Reply(text=said.text, tools=tuple(calls))


def _arguments(call: llm.FunctionToolCall) -> dict[str, Any]:
    return msgspec.json.decode(call.arguments or "{}", type=dict[str, Any])


def _resampled(pcm: bytes, source: int, target: int) -> bytes:
    if source == target or not pcm:
        return pcm
    resampler = rtc.AudioResampler(source, target)
    frames = [*resampler.push(bytearray(pcm)), *resampler.flush()]
    return b"".join(bytes(frame.data) for frame in frames)
