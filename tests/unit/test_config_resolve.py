"""From a name to a plan."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from trunkline.config import ModelChoice, Settings, defaults, in_language, load, resolve
from trunkline.core.models import CASCADE, AfterOutput, Deadlines, Modality
from trunkline.errors import MissingCredential, UnknownModel

STT, LLM, TTS = Modality.STT, Modality.LLM, Modality.TTS

FILE = """\
version: 1
providers:
  deepgram: {api_key: k, options: {stt: {punctuate: false, smart_format: true}}}
  openai-eu: {kind: openai, api_key: k}
  our-gpu: {kind: openai, base_url: "http://127.0.0.1:8000/v1"}
  deepseek: {api_key: k}
routes:
  listen:
    modality: stt
    candidates: [{model: "deepgram/nova-3:de", options: {smart_format: false}}, pocketsphinx]
    deadlines: {connect: 1}
  answer:
    modality: llm
    candidates: [openai]
    after_output: restart
stacks:
  default: {stt: listen, llm: our-gpu/llama, tts: deepgram}
  night: {stt: pocketsphinx/en-us, llm: scripted, tts: espeak/en-us}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    path = tmp_path / "trunkline.yaml"
    path.write_text(FILE)
    return load(path, {})


@pytest.mark.parametrize(
    ("name", "modality", "candidates", "route", "stack"),
    [
        ("deepgram/nova-2:en", STT, ["deepgram/nova-2:en @deepgram"], "", ""),
        ("deepgram", TTS, ["deepgram/aura-2 @deepgram"], "", ""),
        ("deepgram:athena", TTS, ["deepgram/aura-2:athena @deepgram"], "", ""),
        ("openai/gpt-4o", LLM, ["openai/gpt-4o @openai-eu"], "", ""),
        ("openai-eu/gpt-4o", LLM, ["openai/gpt-4o @openai-eu"], "", ""),
        ("our-gpu/meta/llama:8b", LLM, ["our-gpu/meta/llama:8b @our-gpu"], "", ""),
        ("deepseek/deepseek-v3", LLM, ["deepseek-ai/deepseek-v3 @deepseek-ai"], "", ""),
        ("deepseek-ai/deepseek-v3", LLM, ["deepseek-ai/deepseek-v3 @deepseek-ai"], "", ""),
        ("ollama/qwen3:8b", LLM, ["ollama/qwen3:8b @ollama"], "", ""),
        (
            "listen",
            STT,
            ["deepgram/nova-3:de @deepgram", "pocketsphinx/en-us @pocketsphinx"],
            "listen",
            "",
        ),
        (
            "auto",
            STT,
            ["deepgram/nova-3:de @deepgram", "pocketsphinx/en-us @pocketsphinx"],
            "listen",
            "default",
        ),
        ("auto", LLM, ["our-gpu/llama @our-gpu"], "", "default"),
        ("night", TTS, ["espeak/en-us @espeak"], "", "night"),
        ("local", TTS, ["flite/slt @flite"], "", "local"),
    ],
)
def test_a_name_is_a_route_a_stack_a_provider_or_a_reference(
    settings: Settings,
    name: str,
    modality: Modality,
    candidates: list[str],
    route: str,
    stack: str,
) -> None:
    plan = resolve(settings, name, modality)
    assert [f"{c.ref} @{c.connection}" for c in plan.candidates] == candidates
    assert (plan.route, plan.stack) == (route, stack)


def test_a_route_brings_its_policy_and_its_options_lie_over_the_connection_s(
    settings: Settings,
) -> None:
    plan = resolve(settings, "listen", STT)
    assert plan.candidates[0].options == {"punctuate": False, "smart_format": False}
    assert plan.deadlines == Deadlines(connect=1.0)
    assert resolve(settings, "answer", LLM).after_output is AfterOutput.RESTART
    assert resolve(settings, "deepgram", STT).candidates[0].options["smart_format"] is True
    assert resolve(settings, "deepgram", TTS).candidates[0].options == {}
    assert resolve(settings, "openai", LLM).after_output is AfterOutput.STOP


def test_fallbacks_are_tried_after_the_name_s_own_candidates(settings: Settings) -> None:
    spare = ModelChoice.of("deepgram/aura-2", TTS, voice="athena", options={"speed": 1.1})
    plan = resolve(settings, "flite/slt", TTS, fallback=[spare, "night"])
    assert [str(c) for c in plan.candidates] == [
        "flite/slt",
        "deepgram/aura-2:athena",
        "espeak/en-us",
    ]
    assert plan.candidates[1].options == {"speed": 1.1}


@pytest.mark.parametrize(
    ("name", "modality", "error", "told"),
    [
        ("listne", STT, UnknownModel, 'no route, stack, provider or model; did you mean "listen"'),
        ("deepgarm/nova-3", STT, UnknownModel, 'provider "deepgarm"; did you mean "deepgram"'),
        ("listen", TTS, UnknownModel, 'route "listen" is for stt, not for tts'),
        ("deepgram/nova-3", LLM, UnknownModel, "does not serve llm; it serves stt, tts"),
        ("deepgram/", STT, UnknownModel, "not of the form provider/model[:suffix]"),
        ("", STT, UnknownModel, "not of the form"),
        ("cartesia", TTS, MissingCredential, "providers.cartesia.api_key or the variable CARTESIA"),
    ],
)
def test_what_cannot_be_resolved_is_told_with_the_nearest_name_or_the_missing_key(
    settings: Settings, name: str, modality: Modality, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=re.escape(told)):
        resolve(settings, name, modality)


def test_a_connection_of_the_provider_s_own_name_wins_over_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "trunkline.yaml"
    path.write_text(
        "version: 1\nproviders:\n  spare: {kind: openai, api_key: a}\n  openai: {api_key: b}\n"
    )
    (candidate,) = resolve(load(path, {}), "openai/gpt-4o", LLM).candidates
    assert candidate.connection == "openai"


@pytest.mark.parametrize("modality", CASCADE)
def test_auto_always_resolves_even_with_nothing_configured(modality: Modality) -> None:
    (candidate,) = resolve(defaults({}), "auto", modality).candidates
    assert candidate.connection in {"pocketsphinx", "scripted", "flite"}


@pytest.mark.parametrize(
    ("name", "fallback", "patient"),
    [
        ("night", [], True),
        ("pocketsphinx", [], True),
        ("pocketsphinx", ["deepgram/nova-3"], False),
        ("deepgram/nova-3", ["pocketsphinx"], False),
        ("listen", ["pocketsphinx"], False),
    ],
)
def test_only_an_engine_of_this_machine_without_a_backup_is_waited_for(
    settings: Settings, name: str, fallback: list[str], patient: bool
) -> None:
    """A busy machine makes it late, and there is nobody to go to."""
    plan = resolve(settings, name, STT, fallback=fallback)
    assert (plan.deadlines.connect > 10) is patient
    assert (plan.deadlines.first_content > Deadlines().first_content) is patient


@pytest.mark.parametrize(
    ("name", "language", "heard"),
    [
        ("deepgram/nova-2", "es", "es"),
        ("deepgram/nova-2", "", ""),
        ("deepgram/nova-2", "multi", ""),
        ("deepgram/nova-2:fr", "es", "fr"),
        ("deepgram/flux-general", "es", ""),
        ("deepgram/flux-general-multi", "es", "es"),
        ("pocketsphinx/en-us", "es", ""),
    ],
)
def test_a_recogniser_hears_the_language_of_its_caller_where_it_takes_one(
    settings: Settings, name: str, language: str, heard: str
) -> None:
    [one] = in_language(settings.connections, language, resolve(settings, name, STT).candidates)
    assert one.ref.suffix == heard
