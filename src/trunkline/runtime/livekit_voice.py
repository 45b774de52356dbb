"""A plugin's voice as a provider stream of ours."""

from __future__ import annotations

import time
from collections.abc import Coroutine
from typing import Any

from livekit.agents import APIConnectOptions, tokenize, tts

from ..core.models import Usage
from ..errors import ConnectFailed, ProviderError
from .livekit_compat import lowered_markup, markup_key, read_past_tee, release_text, text_sent_at
from .livekit_errors import from_livekit, may_be_sent
from .livekit_sentences import Sentences

_PLUGIN_TIMEOUT_SECONDS = 60.0
"""Given to plugins as theirs; ours come first, so that the ledger names what passed."""


class PluginVoice:
    """One utterance of a plugin; a voice that cannot stream speaks sentence by sentence.

    Under expressive mode the text carries LiveKit's markup. A StreamAdapter lowers it to the
    provider's own; for a streaming voice, whose input path is its own, it is lowered here, by
    whole sentences, so that no tag is cut in two.
    """

    def __init__(self, plugin: tts.TTS[Any], *, expressive: bool) -> None:
        self.request_id = ""
        self._adapter: tts.StreamAdapter | None = None
        self._sentences: Sentences | None = None
        self._markup = ""
        if plugin.capabilities.streaming:
            self._markup = markup_key(plugin) if expressive else ""
        else:
            self._sentences = Sentences(plugin, expressive=expressive)
            plugin = self._adapter = tts.StreamAdapter(
                tts=self._sentences,
                sentence_tokenizer=tokenize.blingfire.SentenceTokenizer(
                    retain_format=True, xml_aware=expressive
                ),
            )
        self._held = ""
        self._plugin = plugin
        self._stream = plugin.stream(
            conn_options=APIConnectOptions(max_retry=0, timeout=_PLUGIN_TIMEOUT_SECONDS)
        )
        read_past_tee(self._stream)
        self._pushed_at = 0.0

    def push_text(self, text: str) -> None:
        self._pushed_at = self._pushed_at or time.perf_counter()
        if self._markup:
            text = self._lower(text)
        if text:
            self._stream.push_text(text)

    def _lower(self, text: str) -> str:
        """The text up to the last place where no tag is open, in the provider's own markup."""
        self._held += text
        cut = len(self._held)
        opened = self._held.rfind("<")
        if opened > self._held.rfind(">"):
            cut = opened
        ready, self._held = self._held[:cut], self._held[cut:]
        return lowered_markup(self._markup, ready)

    def release(self) -> None:
        """Say the text there is without waiting for more, where the plugin can."""
        release_text(self._plugin, self._stream)

    def flush(self) -> None:
        self._release()
        self._stream.flush()

    def end_input(self) -> None:
        self._release()
        self._stream.end_input()

    def _release(self) -> None:
        if self._held:
            self._stream.push_text(lowered_markup(self._markup, self._held))
            self._held = ""

    def used(self, characters: int, audio_ns: int) -> Usage:
        """What is used once ``characters`` were pushed and ``audio_ns`` of audio have come."""
        if self._sentences is not None:
            return self._sentences.used(audio_ns)
        return Usage(characters=characters, audio_out_ns=audio_ns)

    def text_sent_at(self) -> float:
        """When the provider got its first text (``time.perf_counter``)."""
        return text_sent_at(self._stream) or self._pushed_at

    def __aiter__(self) -> PluginVoice:
        return self

    async def __anext__(self) -> tts.SynthesizedAudio:
        try:
            audio = await self._stream.__anext__()
        except StopAsyncIteration:
            raise
        except Exception as error:  # the edge: whatever a plugin raises is translated here
            raise self._translated(error) from error
        self.request_id = self.request_id or audio.request_id
        return audio

    def _translated(self, error: Exception) -> ProviderError:
        """What ``error`` is; a request that was sent may be billed though no answer came."""
        told = from_livekit(error)
        if isinstance(told, ConnectFailed) and self._sentences is not None:
            told.served = may_be_sent(error)
        return told

    def close(self) -> Coroutine[Any, Any, None]:
        return self.aclose()

    async def aclose(self) -> None:
        await self._stream.aclose()
        if self._adapter is not None:
            await self._adapter.aclose()
