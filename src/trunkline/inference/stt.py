"""``inference.STT``: LiveKit's signature, served by the engine in this process."""

from __future__ import annotations

from typing import Any, cast

import aiohttp
from livekit.agents import APIConnectOptions, inference
from livekit.agents import vad as livekit_vad
from livekit.agents.inference.stt import FallbackModelType, STTEncoding, STTLanguages, STTModels
from livekit.agents.types import NOT_GIVEN, NotGivenOr

from ..compose import Wanted, current
from ..core.models import Modality, Plan
from ..runtime.stt import STT as EngineSTT
from ._common import (
    Caller,
    Closing,
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


class STT(EngineSTT, inference.STT):  # type: ignore[misc]  # streams are the engine's
    """A recogniser by name: ``provider/model[:language]``, ``auto``, a provider, route or stack.

    ``sample_rate`` in Hz is what the audio is brought to before it goes to a provider; left out,
    it goes as it comes. ``vad`` ends the utterances of candidates that cannot stream. With
    ``base_url`` a remote gateway serves instead, by LiveKit's own client. Raises UsageError.
    """

    def __init__(
        self,
        model: NotGivenOr[STTModels | str] = NOT_GIVEN,
        *,
        language: NotGivenOr[str] = NOT_GIVEN,
        base_url: NotGivenOr[str] = NOT_GIVEN,
        encoding: NotGivenOr[STTEncoding] = NOT_GIVEN,
        sample_rate: NotGivenOr[int] = NOT_GIVEN,
        api_key: NotGivenOr[str] = NOT_GIVEN,
        api_secret: NotGivenOr[str] = NOT_GIVEN,
        http_session: aiohttp.ClientSession | None = None,
        extra_kwargs: NotGivenOr[Any] = NOT_GIVEN,
        fallback: NotGivenOr[list[FallbackModelType] | FallbackModelType] = NOT_GIVEN,
        conn_options: NotGivenOr[APIConnectOptions] = NOT_GIVEN,
        vad: NotGivenOr[livekit_vad.VAD | None] = NOT_GIVEN,
    ) -> None:
        check_audio(encoding, sample_rate)
        self._wanted = wanted(given(model, "auto"), language, extra_kwargs)
        self._fallback = wanted_fallback(fallback)
        self._conn_options = conn_options
        self._http_session = http_session
        self._rate: int | None = given(sample_rate)
        self._remote: inference.STT | None = None
        if is_remote(base_url, api_key=api_key, api_secret=api_secret):
            # LiveKit's overloads name vad only for the models that need one
            self._remote = cast(Any, inference.STT)(
                model,
                language=language,
                base_url=base_url,
                encoding=encoding,
                sample_rate=sample_rate,
                api_key=api_key,
                api_secret=api_secret,
                http_session=http_session,
                extra_kwargs=extra_kwargs,
                fallback=fallback,
                conn_options=conn_options,
                vad=vad,
            )
            plan, closing = remote(
                Modality.STT, self._wanted, given(base_url), self._remote, conn_options
            )
        else:
            plan, closing = self._ready(self._wanted)
        EngineSTT.__init__(
            self,
            current().engine,
            plan,
            Caller(),
            sample_rate=self._rate,
            vad=given(vad),
            closing=closing,
        )

    @classmethod
    def from_model_string(cls, model: str) -> STT:
        """Create an STT from ``provider/model[:language]`` or any other name."""
        return cls(model)

    def remember(self, name: str) -> None:
        """Note by which name it is served now; later changes of options build on it."""
        self._wanted = Wanted(name)

    def update_options(
        self,
        *,
        model: NotGivenOr[STTModels | str] = NOT_GIVEN,
        language: NotGivenOr[STTLanguages | str] = NOT_GIVEN,
        extra: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> None:
        """Change the model, language or options; open streams follow between two utterances."""
        before = self._wanted
        kept = before.suffix if model is NOT_GIVEN else ""
        asked = wanted(
            given(model, before.name),
            given(language, kept),
            {**before.options, **table("extra", given(extra))},
        )
        if self._remote is not None:
            self.plan = renamed(self.plan, Modality.STT, asked)
            self._remote.update_options(model=model, language=language, extra=extra)
        else:
            self.swap(*self._ready(asked))
        self._wanted = asked

    def _ready(self, asked: Wanted) -> tuple[Plan, Closing]:
        return ready(
            Modality.STT,
            asked,
            self._fallback,
            self._conn_options,
            self._http_session,
            self._rate,
        )
