"""``inference.TTS``: LiveKit's signature, served by the engine in this process."""

from __future__ import annotations

from typing import Any

import aiohttp
from livekit.agents import APIConnectOptions, inference
from livekit.agents.inference.tts import FallbackModelType, TTSEncoding, TTSModels
from livekit.agents.types import NOT_GIVEN, NotGivenOr

from ..compose import Wanted, current
from ..core.models import Modality
from ..runtime.tts import TTS as EngineTTS
from ._common import (
    Caller,
    check_audio,
    given,
    is_remote,
    ready,
    remote,
    renamed,
    table,
    wanted,
    wanted_fallback,
)

_DEFAULT_RATE = 24000


class TTS(EngineTTS, inference.TTS):  # type: ignore[misc]  # streams are the engine's
    """A voice by name: ``provider/model[:voice]``, ``auto``, a provider, a route or a stack.

    ``sample_rate`` in Hz is what the agent gets, whatever the provider speaks at. With
    ``base_url`` a remote gateway serves instead, by LiveKit's own client. Raises UsageError.
    """

    class Markup(EngineTTS.Markup):
        """The markup dialect of the candidate that is to serve."""

    def __init__(
        self,
        model: TTSModels | str,
        *,
        voice: NotGivenOr[str] = NOT_GIVEN,
        language: NotGivenOr[str] = NOT_GIVEN,
        encoding: NotGivenOr[TTSEncoding] = NOT_GIVEN,
        sample_rate: NotGivenOr[int] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        api_key: NotGivenOr[str] = NOT_GIVEN,
        api_secret: NotGivenOr[str] = NOT_GIVEN,
        http_session: aiohttp.ClientSession | None = None,
        extra_kwargs: NotGivenOr[Any] = NOT_GIVEN,
        fallback: NotGivenOr[list[FallbackModelType] | FallbackModelType] = NOT_GIVEN,
        conn_options: NotGivenOr[APIConnectOptions] = NOT_GIVEN,
    ) -> None:
        check_audio(encoding, sample_rate)
        rate = given(sample_rate, _DEFAULT_RATE)
        self._wanted = wanted(model, voice, _options(language, extra_kwargs))
        self._fallback = wanted_fallback(fallback, "voice")
        self._remote: inference.TTS | None = None
        if is_remote(base_url, api_key=api_key, api_secret=api_secret):
            self._remote = inference.TTS(
                model,
                voice=voice,
                language=language,
                encoding=encoding,
                sample_rate=rate,
                base_url=base_url,
                api_key=api_key,
                api_secret=api_secret,
                http_session=http_session,
                extra_kwargs=extra_kwargs,
                fallback=fallback,
                conn_options=conn_options,
            )
            plan, closing = remote(
                Modality.TTS, self._wanted, given(base_url), self._remote, conn_options
            )
        else:
            plan, closing = ready(
                Modality.TTS, self._wanted, self._fallback, conn_options, http_session
            )
        self._conn_options = conn_options
        self._http_session = http_session
        EngineTTS.__init__(
            self, current().engine, plan, Caller(), sample_rate=rate, closing=closing
        )

    @classmethod
    def from_model_string(cls, model: str) -> TTS:
        """Create a TTS from ``provider/model[:voice]`` or any other name."""
        return cls(model)

    def remember(self, name: str) -> None:
        """Note by which name it is served now; later changes of options build on it."""
        self._wanted = Wanted(name)

    def update_options(
        self,
        *,
        voice: NotGivenOr[str] = NOT_GIVEN,
        model: NotGivenOr[TTSModels | str] = NOT_GIVEN,
        language: NotGivenOr[str] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> None:
        """Change the voice, model, language or options from the next utterance on."""
        before = self._wanted
        # another model has other voices: the one before does not go with it
        kept = before.suffix if model is NOT_GIVEN else ""
        asked = wanted(
            given(model, before.name),
            given(voice, kept),
            {**before.options, **_options(language, extra_kwargs)},
        )
        if self._remote is not None:
            self._remote.update_options(
                voice=voice, model=model, language=language, extra_kwargs=extra_kwargs
            )
            self.plan = renamed(self.plan, Modality.TTS, asked)
        else:
            self.swap(
                *ready(Modality.TTS, asked, self._fallback, self._conn_options, self._http_session)
            )
        self._wanted = asked


def _options(language: NotGivenOr[str], extra: NotGivenOr[Any]) -> dict[str, Any]:
    options = table("extra_kwargs", given(extra))
    if language:
        options["language"] = str(language)
    return options
