"""A voice that cannot stream, asked sentence by sentence, and what each request used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions, tts

from ..core.models import Usage
from ..core.newest import Newest
from .livekit_compat import set_expressive, told_tokens


@dataclass
class _Pace:
    """What a voice has told of its whole requests: tokens in a character, in a second of audio."""

    characters: int = 0
    tokens_in: int = 0
    audio_ns: int = 0
    tokens_out: int = 0


_paces: Newest[tuple[str, str], _Pace] = Newest(256)
"""Of the voices that are billed by tokens, by label and model."""


class Sentences(tts.TTS[Any]):
    """A plugin's voice for one utterance; it remembers the requests that it was asked for."""

    def __init__(self, plugin: tts.TTS[Any], *, expressive: bool) -> None:
        super().__init__(
            capabilities=plugin.capabilities,
            sample_rate=plugin.sample_rate,
            num_channels=plugin.num_channels,
        )
        self._plugin = plugin
        self._requests: list[tts.ChunkedStream] = []
        set_expressive(self, expressive)

    @property
    def model(self) -> str:
        return self._plugin.model

    @property
    def provider(self) -> str:
        return self._plugin.provider

    @property
    def markup(self) -> tts.TTS.Markup:
        return self._plugin.markup

    def synthesize(
        self, text: str, *, conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS
    ) -> tts.ChunkedStream:
        request = self._plugin.synthesize(text, conn_options=conn_options)
        self._requests.append(request)
        return request

    def used(self, audio_ns: int) -> Usage:
        """What the requests so far have used, ``audio_ns`` of audio among it.

        Tokens of a request that was cut are reckoned by the pace of those that were told.
        """
        characters = sum(len(request.input_text) for request in self._requests)
        told = [told_tokens(request) for request in self._requests]
        tokens_in, tokens_out = map(sum, zip(*told, strict=True)) if told else (0, 0)
        name = self._plugin.label, self._plugin.model
        if told and all(map(any, told)):
            _paces[name] = _Pace(characters, tokens_in, audio_ns, tokens_out)
        elif (pace := _paces.get(name)) and pace.characters and pace.audio_ns:
            tokens_in = max(tokens_in, -(-characters * pace.tokens_in // pace.characters))
            tokens_out = max(tokens_out, -(-audio_ns * pace.tokens_out // pace.audio_ns))
        return Usage(
            audio_out_ns=audio_ns,
            characters=characters,
            tokens_in=tokens_in,
            tokens_out=tokens_out,
            tokens_audio_out=tokens_out,
        )
