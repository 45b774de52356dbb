"""``inference.LLM``: LiveKit's signature, served by the engine in this process."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from livekit.agents import DEFAULT_API_CONNECT_OPTIONS, APIConnectOptions, inference, llm
from livekit.agents.inference import InferenceClass, LLMModels
from livekit.agents.inference.llm import ChatCompletionOptions
from livekit.agents.types import NOT_GIVEN, NotGivenOr

from .. import catalog
from ..compose import current
from ..core.models import Modality, Plan
from ..errors import UnsupportedOption
from ..runtime.llm import LLM as EngineLLM
from ..runtime.llm import LLMStream
from ._common import Caller, Closing, given, is_remote, named, ready, remote, renamed, table, wanted


class LLM(EngineLLM, inference.LLM):
    """A language model by name: ``provider/model``, ``auto``, a provider, a route or a stack.

    ``provider`` names another provider of the catalogue that is to serve the model, for example
    ``LLM("openai/gpt-oss-120b", provider="groq")``. ``inference_class`` becomes the provider's
    service tier, and is refused where it has none. With ``base_url`` a remote gateway serves
    instead, by LiveKit's own client. Raises UsageError.
    """

    def __init__(
        self,
        model: LLMModels | str,
        *,
        provider: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        api_secret: str | None = None,
        inference_class: InferenceClass | None = None,
        extra_kwargs: ChatCompletionOptions | dict[str, Any] | None = None,
        prompt_cache_breakpoints: bool | Literal["auto"] = "auto",
    ) -> None:
        self._model, self._by_provider = named(model), provider
        self._inference_class = inference_class
        self._extra = table("extra_kwargs", extra_kwargs)
        self._remote: inference.LLM | None = None
        if is_remote(base_url, api_key=api_key, api_secret=api_secret):
            self._remote = inference.LLM(
                model,
                provider=provider,
                base_url=base_url,
                api_key=api_key,
                api_secret=api_secret,
                inference_class=inference_class,
                extra_kwargs=extra_kwargs,
                prompt_cache_breakpoints=prompt_cache_breakpoints,
            )
            catalog.forget_environment(self._remote)
            plan, closing = remote(Modality.LLM, wanted(model), str(base_url), self._remote)
        else:
            plan, closing = _ready(model, provider, inference_class, self._extra)
        EngineLLM.__init__(
            self,
            current().engine,
            plan,
            Caller(),
            closing=closing,
            prompt_cache_breakpoints=prompt_cache_breakpoints,
        )

    @classmethod
    def from_model_string(cls, model: str) -> LLM:
        """Create an LLM from ``provider/model`` or any other name."""
        return cls(model)

    def remember(self, name: str) -> None:
        """Note by which name it is served now; later changes of options build on it."""
        self._model, self._by_provider = name, None

    def update_options(
        self,
        *,
        model: NotGivenOr[LLMModels | str] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[ChatCompletionOptions | dict[str, Any]] = NOT_GIVEN,
        prompt_cache_breakpoints: NotGivenOr[bool | Literal["auto"]] = NOT_GIVEN,
    ) -> None:
        """Change the model or replace the parameters from the next chat on."""
        name = named(given(model, self._model))
        extra = table("extra_kwargs", given(extra_kwargs, self._extra))
        if self._remote is not None:
            self._remote.update_options(
                model=model,
                extra_kwargs=extra_kwargs,
                prompt_cache_breakpoints=prompt_cache_breakpoints,
            )
            self.plan = renamed(self.plan, Modality.LLM, wanted(name))
        elif model is not NOT_GIVEN or extra_kwargs is not NOT_GIVEN:
            self.swap(*_ready(name, self._by_provider, self._inference_class, extra))
        self._model, self._extra = name, extra
        self.breakpoints = given(prompt_cache_breakpoints, self.breakpoints)

    def chat(  # type: ignore[override]  # the stream is the engine's, not the gateway client's
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[llm.Tool] | None = None,
        conn_options: APIConnectOptions = DEFAULT_API_CONNECT_OPTIONS,
        parallel_tool_calls: NotGivenOr[bool] = NOT_GIVEN,
        tool_choice: NotGivenOr[llm.ToolChoice] = NOT_GIVEN,
        response_format: NotGivenOr[Any] = NOT_GIVEN,
        inference_class: NotGivenOr[InferenceClass] = NOT_GIVEN,
        extra_kwargs: NotGivenOr[dict[str, Any]] = NOT_GIVEN,
    ) -> LLMStream:
        """Start a chat; ``inference_class`` outranks the constructor's for this one."""
        plan = self.plan
        if inference_class is not NOT_GIVEN:
            if self._remote is not None:
                raise UnsupportedOption(
                    "inference_class of one chat cannot be sent to a remote gateway: "
                    "give it to the constructor"
                )
            plan = _tiered(plan, given(inference_class))
        return self.start(
            plan,
            chat_ctx=chat_ctx,
            tools=tools,
            conn_options=conn_options,
            parallel_tool_calls=parallel_tool_calls,
            tool_choice=tool_choice,
            response_format=response_format,
            extra_kwargs=extra_kwargs,
        )


def _ready(
    model: str,
    provider: str | None,
    inference_class: InferenceClass | None,
    extra: dict[str, Any],
) -> tuple[Plan, Closing]:
    """The plan for ``model``, served by ``provider`` where its own only made it."""
    name = f"{provider}/{model}" if provider else model
    plan, closing = ready(Modality.LLM, wanted(name, options=extra), [], NOT_GIVEN)
    return (_tiered(plan, inference_class) if inference_class else plan), closing


def _tiered(plan: Plan, inference_class: InferenceClass) -> Plan:
    """``plan`` at the service tier that each provider calls ``inference_class``."""
    candidates = []
    for candidate in plan.candidates:
        connection = current().settings.connections[candidate.connection]
        how = catalog.provider(connection.provider).llm
        tiers = how.service_tiers if isinstance(how, catalog.Wire) else {}
        if inference_class in tiers:
            options = {**candidate.options, "service_tier": tiers[inference_class]}
            candidate = replace(candidate, options=options)
        elif inference_class != "standard":
            raise UnsupportedOption(
                f"inference_class {inference_class!r} means nothing to "
                f"{candidate.ref.provider}: leave it out, or choose a provider with service tiers"
            )
        candidates.append(candidate)
    return replace(plan, candidates=tuple(candidates))
