"""On what terms an attempt is charged: what was asked, the account, and what costs extra."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trunkline.config import defaults, load
from trunkline.config.resolve import candidate
from trunkline.config.settings import ModelChoice
from trunkline.core.models import Modality, Terms
from trunkline.inference._live import live_candidate
from trunkline.runtime.line import charged_on, language_of, option_of

KEYS = {
    f"{name}_API_KEY": "k" for name in ("OPENAI", "ANTHROPIC", "DEEPGRAM", "ASSEMBLYAI", "ELEVEN")
}
STT, LLM = Modality.STT, Modality.LLM
GEO = {"extra_body": {"inference_geo": "us"}}
SEARCH = {"web_search_options": {"search_context_size": "low"}}
CACHE = {"extra_body": {"cache_control": {"type": "ephemeral", "ttl": "1h"}}}


@pytest.mark.parametrize(
    ("modality", "name", "asked", "options", "tier"),
    [
        (STT, "deepgram/nova-3", Terms(), {}, ""),
        (STT, "deepgram/nova-3", Terms(), {"keyterm": ["a"], "smart_format": True}, "+keyterms"),
        (STT, "deepgram/nova-3", Terms(), {"keyterm": [], "enable_diarization": False}, ""),
        (STT, "deepgram/flux-general-en", Terms(), {"keyterms": ["a"]}, "+keyterms"),
        (STT, "assemblyai/universal-streaming", Terms(), {"keyterms_prompt": ["a"]}, "+keyterms"),
        (STT, "assemblyai/u3-rt-pro", Terms(), {"domain": "medical-v1"}, "+domain"),
        (STT, "elevenlabs/scribe_v2_realtime", Terms(), {"keyterms": ["a"]}, "+keyterms"),
        (LLM, "anthropic/claude-opus-5", Terms(), GEO, "+region"),
        (LLM, "anthropic/claude-opus-5", Terms(), {"extra_body": {"inference_geo": "global"}}, ""),
        (LLM, "anthropic/claude-opus-5", Terms(tier="auto"), CACHE, "+long cache"),
        (LLM, "anthropic/claude-opus-5", Terms(), {"extra_body": {"cache_control": None}}, ""),
        (LLM, "openai/gpt-4.1", Terms(tier="flex"), SEARCH, "flex+web search"),
        (LLM, "openai/gpt-4.1", Terms(tier="default"), {"temperature": 1}, "default"),
    ],
)  # fmt: skip
def test_what_costs_extra_is_on_the_terms(
    modality: Modality, name: str, asked: Terms, options: dict[str, Any], tier: str
) -> None:
    connections = defaults(KEYS).connections
    one = candidate(connections, ModelChoice.of(name, modality), modality)
    assert charged_on(one, asked, options) == Terms(tier=tier)


@pytest.mark.parametrize(
    ("settings", "region"),
    [
        ({"api_key": "k"}, ""),
        ({"api_key": "k", "base_url": "https://api.openai.com/v1"}, ""),
        ({"api_key": "k", "base_url": "https://eu.api.openai.com/v1"}, "regional"),
        ({"api_key": "k", "base_url": "https://eu.api.openai.com.example/v1"}, ""),
        ({"api_key": "k", "base_url": "https://us.api.openai.com", "region": "us"}, "us"),
    ],
)
def test_an_endpoint_of_one_region_is_on_the_terms(
    tmp_path: Path, settings: dict[str, str], region: str
) -> None:
    (tmp_path / "t.yaml").write_text(json.dumps({"version": 1, "providers": {"openai": settings}}))
    connections = load(tmp_path / "t.yaml", {}).connections
    one = candidate(connections, ModelChoice.of("openai/gpt-5.4", LLM), LLM)
    assert charged_on(one, Terms(), {}) == Terms(region=region)


@pytest.mark.parametrize(
    ("options", "tier"),
    [
        ({"service_tier": "flex"}, "flex"),
        ({"extra_body": {"service_tier": "flex"}}, "flex"),
        ({"extra_body": {"service_tier": "priority"}, "service_tier": "flex"}, "priority"),
        ({}, "scale"),
        ({"extra_body": None}, "scale"),
    ],
)
def test_an_option_is_what_is_sent_in_the_end(options: dict[str, Any], tier: str) -> None:
    plugin = SimpleNamespace(_opts=SimpleNamespace(service_tier="scale"))
    assert option_of(plugin, "service_tier", options) == tier
    assert option_of(None, "service_tier", {}) is None


def test_what_a_plugin_was_built_with_and_told_since_is_seen() -> None:
    from livekit.plugins import deepgram, openai

    chat = openai.LLM(api_key="k", service_tier="flex")
    assert option_of(chat, "service_tier", {}) == "flex"
    assert option_of(openai.LLM(api_key="k"), "service_tier", {}) is None

    own = deepgram.STT(api_key="k")
    one = live_candidate(own)
    assert charged_on(one, Terms(), one.options) == Terms()
    own._update_session_keyterms(["Trunkline"])
    assert charged_on(one, Terms(), one.options) == Terms(tier="+keyterms")
    assert language_of(live_candidate(deepgram.STT(api_key="k", language="multi"))) == "multi"
    own = deepgram.STT(api_key="k", enable_diarization=True)
    assert charged_on(live_candidate(own), Terms(), {}) == Terms(tier="+diarization")
