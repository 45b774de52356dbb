"""Providers of chat alone, all through our own client.

Sources, read on 2026-11-21: the base URLs and default models of
``livekit.plugins.openai.LLM.with_*``, else the provider's own API reference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from .model import Credential, Provider, Wire
from .quirks import (
    COMPLETION_TOKENS,
    MISTRAL_RULES,
    NO_STREAM_OPTIONS,
    OPENROUTER_PARAMS,
    PERPLEXITY_PARAMS,
)


def _key(*variables: str) -> tuple[Credential, ...]:
    return (Credential("api_key", variables),)


CHAT: Final[tuple[Provider, ...]] = (
    Provider(
        name="cerebras",
        title="Cerebras",
        credentials=_key("CEREBRAS_API_KEY"),
        llm=Wire(
            base_url="https://api.cerebras.ai/v1",
            default_model="gpt-oss-120b",
            quirks=COMPLETION_TOKENS,
        ),
    ),
    Provider(
        name="deepseek-ai",
        title="DeepSeek",
        aliases=("deepseek",),
        credentials=_key("DEEPSEEK_API_KEY"),
        llm=Wire(
            base_url="https://api.deepseek.com/v1",
            default_model="deepseek-chat",
            models={"deepseek-v3": "deepseek-chat", "deepseek-v3.2": "deepseek-chat"},
        ),
    ),
    Provider(
        name="mistral",
        title="Mistral AI",
        aliases=("mistralai",),
        credentials=_key("MISTRAL_API_KEY"),
        llm=Wire(
            base_url="https://api.mistral.ai/v1",
            default_model="mistral-small-latest",
            quirks=replace(NO_STREAM_OPTIONS, rules=MISTRAL_RULES),
            extra_params=frozenset({"random_seed", "safe_prompt"}),
        ),
    ),
    Provider(
        name="moonshotai",
        title="Moonshot AI",
        aliases=("moonshot",),
        credentials=_key("MOONSHOT_API_KEY"),
        llm=Wire(base_url="https://api.moonshot.ai/v1", default_model="kimi-k2.6"),
    ),
    Provider(
        name="zai",
        title="Z.ai",
        credentials=_key("ZAI_API_KEY"),
        llm=Wire(base_url="https://api.z.ai/api/paas/v4", default_model="glm-5.1"),
    ),
    Provider(
        name="together",
        title="Together AI",
        aliases=("togetherai",),
        credentials=_key("TOGETHER_API_KEY"),
        llm=Wire(
            base_url="https://api.together.xyz/v1",
            default_model="meta-llama/Meta-Llama-3.1-8B-Instruct-Turbo",
        ),
    ),
    Provider(
        name="fireworks",
        title="Fireworks AI",
        credentials=_key("FIREWORKS_API_KEY"),
        llm=Wire(
            base_url="https://api.fireworks.ai/inference/v1",
            default_model="accounts/fireworks/models/llama-v3p3-70b-instruct",
        ),
    ),
    Provider(
        name="openrouter",
        title="OpenRouter",
        credentials=_key("OPENROUTER_API_KEY"),
        llm=Wire(
            base_url="https://openrouter.ai/api/v1",
            default_model="openrouter/auto",
            models={"auto": "openrouter/auto"},
            extra_params=OPENROUTER_PARAMS,
        ),
    ),
    Provider(
        name="perplexity",
        title="Perplexity",
        credentials=_key("PERPLEXITY_API_KEY"),
        llm=Wire(
            base_url="https://api.perplexity.ai",
            default_model="sonar",
            quirks=NO_STREAM_OPTIONS,
            extra_params=PERPLEXITY_PARAMS,
        ),
    ),
    Provider(
        name="ollama",
        title="Ollama",
        llm=Wire(base_url="http://localhost:11434/v1", default_model="llama3.1"),
    ),
)
