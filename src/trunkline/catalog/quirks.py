"""Facts shared by several rows, each with its source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ..core.quirks import ParameterRule
from .model import LENIENT

COMPLETION_TOKENS: Final = replace(LENIENT, max_tokens_field="max_completion_tokens")
"""Where ``max_tokens`` is deprecated: Groq, Cerebras and xAI, by their API references."""

NO_STREAM_OPTIONS: Final = replace(LENIENT, stream_options=False)
"""Mistral and Perplexity send usage unasked, and Mistral answers 422 to the question."""

_SAMPLING = frozenset({"temperature", "top_p"})
_REASONING = _SAMPLING | {
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "n",
}
_GPT6 = (_REASONING - {"n"}) | {"stop"}

OPENAI_RULES: Final = (
    ParameterRule("o1", _REASONING),
    ParameterRule("o3", _REASONING),
    ParameterRule("o4", _REASONING),
    # Those whose lowest reasoning effort is "minimal": sampling is never taken.
    ParameterRule("gpt-5-", _REASONING),
    ParameterRule("gpt-5.3", _REASONING),
    ParameterRule("gpt-5.1-chat", _REASONING),
    ParameterRule("gpt-5.2-chat", _REASONING),
    ParameterRule("gpt-5.", _REASONING, taken_without_reasoning=_SAMPLING),
    ParameterRule("gpt-5", _REASONING),
    # The lowest effort of gpt-6.1-sol is "low".
    ParameterRule("gpt-6.1-sol", _GPT6),
    ParameterRule("gpt-6", _GPT6, taken_without_reasoning=_GPT6),
)
"""As ``livekit.agents.inference.llm.drop_unsupported_params`` has them; the first match counts."""

_GROK_REASONING = frozenset({"presence_penalty", "frequency_penalty", "stop"})

XAI_RULES: Final = (
    ParameterRule("grok-4-1-fast-reasoning", _GROK_REASONING),
    ParameterRule("grok-4.20-0309-reasoning", _GROK_REASONING),
    ParameterRule("grok-4.20-multi-agent", _GROK_REASONING),
)
"""From the same source."""

MISTRAL_RULES: Final = (
    ParameterRule("", frozenset({"seed", "logit_bias", "logprobs", "top_logprobs", "user"})),
)
"""Mistral answers 422 to fields it does not know; its seed is called ``random_seed``."""

OPENROUTER_PARAMS: Final = frozenset(
    {"provider", "models", "transforms", "plugins", "reasoning", "top_k", "min_p"}
)
"""https://openrouter.ai/docs/api-reference/parameters"""

PERPLEXITY_PARAMS: Final = frozenset(
    {"search_mode", "search_domain_filter", "search_recency_filter", "return_images"}
)
"""https://docs.perplexity.ai/api-reference/chat-completions-post"""

CHAT_PARAMS: Final = frozenset(
    {
        "extra_body",
        "extra_headers",
        "extra_query",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "metadata",
        "modalities",
        "n",
        "parallel_tool_calls",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "store",
        "temperature",
        "tool_choice",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        "web_search_options",
    }
)
"""The options of a chat: ``livekit.agents.inference.llm.ChatCompletionOptions`` and the extras."""

OPENAI_CLIENT: Final[Mapping[str, Any]] = {
    "_client.organization": None,
    "_client.project": None,
    "_client.admin_api_key": None,
    "_client.webhook_secret": None,
    "_client._custom_headers": {},
    "_client._ambient_authorizations": frozenset(),
}
"""What ``openai.AsyncClient`` reads from the environment even when it is given a key."""

GOOGLE_HTTP: Final[Mapping[str, str]] = {
    "base_url": "https://generativelanguage.googleapis.com/",
    "api_version": "v1beta",
}
"""``google.genai``'s own constants, for the places where the environment would replace them."""

GOOGLE_CLIENT: Final[Mapping[str, Any]] = {
    "_client._api_client.project": None,
    "_client._api_client.location": None,
    "_client._api_client._http_options.base_url": GOOGLE_HTTP["base_url"],
    "_client._api_client._http_options.api_version": GOOGLE_HTTP["api_version"],
}
"""What ``google.genai.Client`` reads from the environment even when it is given a key."""

OPENAI_VOICES: Final = frozenset(
    {
        "alloy",
        "ash",
        "ballad",
        "cedar",
        "coral",
        "echo",
        "fable",
        "marin",
        "nova",
        "onyx",
        "sage",
        "shimmer",
        "verse",
    }
)
"""The built-in voices of https://platform.openai.com/docs/api-reference/audio/createSpeech."""
