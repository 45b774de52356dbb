"""Plugins no double can imitate, offered as providers the way other distributions offer theirs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Never

from livekit.agents import llm, stt, tts

from trunkline.catalog import Credential, Plugin, Provider, installed
from trunkline.catalog.quirks import OPENAI_CLIENT

_HOUR = 3600.0


async def _deaf(*_: Any) -> None:
    """Hang, whatever the timeout that was given."""
    await asyncio.sleep(_HOUR)


async def _broken(*_: Any) -> Never:
    raise ZeroDivisionError("a bug of the plugin")


class DeafLLM(llm.LLM[Any]):
    run = staticmethod(_deaf)

    def __init__(self, model: str = "", base_url: str = "") -> None:
        super().__init__()

    def chat(
        self, *, chat_ctx: Any, tools: Any = None, conn_options: Any, **_: Any
    ) -> llm.LLMStream:
        return _Chat(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class BrokenLLM(DeafLLM):
    run = staticmethod(_broken)


class _Chat(llm.LLMStream):
    async def _run(self) -> None:
        await self._llm.run()  # type: ignore[attr-defined]


class DeafTTS(tts.TTS[Any]):
    run = staticmethod(_deaf)

    def __init__(self, model: str = "", base_url: str = "") -> None:
        super().__init__(
            capabilities=tts.TTSCapabilities(streaming=True), sample_rate=24000, num_channels=1
        )

    def synthesize(self, text: str, *, conn_options: Any) -> tts.ChunkedStream:
        return self._synthesize_with_stream(text, conn_options=conn_options)

    def stream(self, *, conn_options: Any) -> tts.SynthesizeStream:
        return _Speech(tts=self, conn_options=conn_options)


class BrokenTTS(DeafTTS):
    run = staticmethod(_broken)


class _Speech(tts.SynthesizeStream):
    async def _run(self, output_emitter: tts.AudioEmitter) -> None:
        await self._tts.run()  # type: ignore[attr-defined]


class DeafSTT(stt.STT[Any]):
    run = staticmethod(_deaf)

    def __init__(self, model: str = "", base_url: str = "") -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))

    async def _recognize_impl(self, *_: Any, **__: Any) -> Never:
        raise NotImplementedError

    def stream(self, *, language: Any = None, conn_options: Any) -> stt.RecognizeStream:
        return _Hearing(stt=self, conn_options=conn_options)


class BrokenSTT(DeafSTT):
    run = staticmethod(_broken)


class _Hearing(stt.RecognizeStream):
    async def _run(self) -> None:
        await self._stt.run()  # type: ignore[attr-defined]


def _row(name: str, **by: Any) -> Provider:
    return Provider(name=name, title=name, **by)


def _plugin(name: str) -> Plugin:
    return Plugin(target=f"{__name__}:{name}", default_model="any")


def _all(kind: str) -> dict[str, Plugin]:
    return {one: _plugin(f"{kind}{one.upper()}") for one in ("stt", "llm", "tts")}


deaf = _row("deaf", **_all("Deaf"))
broken = _row("broken", **_all("Broken"))
openai_plugin = _row(
    "openai_plugin",
    credentials=(Credential("api_key", ("OPENAI_API_KEY",)),),
    llm=Plugin(
        target="livekit.plugins.openai:LLM", default_model="gpt-4.1", overrides=OPENAI_CLIENT
    ),
)
"""OpenAI's official plugin in the place of our own client."""

_OFFERED = ("deaf", "broken", "openai_plugin")


def install(directory: Path) -> None:
    """Make ``directory`` look like a distribution that offers these rows, for this process."""
    info = directory / "matrix_providers-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: matrix-providers\nVersion: 1\n")
    offered = "\n".join(f"{name} = {__name__}:{name}" for name in _OFFERED)
    (info / "entry_points.txt").write_text(f"[{installed.GROUP}]\n{offered}\n")
    sys.path.append(str(directory))
    installed.offered.cache_clear()
