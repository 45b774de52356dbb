"""The catalogue against the installed SDK and plugins: names, constructors, credentials."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import aiohttp
import pytest
from livekit.agents import inference
from livekit.agents.inference.llm import ChatCompletionOptions, drop_unsupported_params

from trunkline.catalog import (
    PROVIDERS,
    Plugin,
    Provider,
    Wire,
    build,
    chat_options,
    preferred,
    served_by,
    takes,
)
from trunkline.catalog import provider as row_of
from trunkline.catalog.quirks import CHAT_PARAMS
from trunkline.core.models import Modality
from trunkline.errors import MissingCredential, MissingExtra, UnknownModel, UnsupportedOption

CANARY = "canary-of-the-environment"
STT, LLM, TTS = Modality.STT, Modality.LLM, Modality.TTS

SERVED_BY_PLUGIN = [
    pytest.param(row, modality, plugin, id=f"{row.name}-{modality}-{plugin.target}")
    for row in PROVIDERS.values()
    for modality in row.modalities
    if isinstance(served := getattr(row, modality.value), Plugin)
    for plugin in (served, *served.variants.values())
]
CLOUD = [p for p in SERVED_BY_PLUGIN if not p.values[0].local]


def literals(models: Any) -> Iterator[str]:
    for arg in get_args(models):
        yield from ([arg] if isinstance(arg, str) else literals(arg))


def installed(plugin: Plugin) -> None:
    module = plugin.target.partition(":")[0]
    package = ".".join(module.split(".")[:3])
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


def secrets(row: Provider) -> dict[str, str]:
    return {c.name: f"explicit-{row.name}" for c in row.credentials}


def strings_in(root: Any) -> Iterator[str]:
    """Every string that can be reached from an object through attributes and containers."""
    seen: set[int] = set()
    queue = [root]
    while queue:
        thing = queue.pop()
        if id(thing) in seen or len(seen) > 50_000:
            continue
        seen.add(id(thing))
        if isinstance(thing, str):
            yield thing
        elif isinstance(thing, bytes):
            yield thing.decode("latin-1")
        elif isinstance(thing, dict):
            queue += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            queue += thing
        elif not isinstance(thing, type) and not callable(thing):
            queue += vars(thing).values() if hasattr(thing, "__dict__") else ()
            queue += [
                getattr(thing, name)
                for kind in type(thing).__mro__
                for name in getattr(kind, "__slots__", ())
                if isinstance(name, str) and hasattr(thing, name)
            ]


@pytest.mark.parametrize(
    ("modality", "models"),
    [(STT, inference.STTModels), (LLM, inference.LLMModels), (TTS, inference.TTSModels)],
)
def test_every_model_the_sdk_names_has_a_row_that_serves_its_modality(
    modality: Modality, models: Any
) -> None:
    for name in literals(models):
        if name != "auto":
            assert modality in row_of(name.partition("/")[0]).modalities, name


NOT_TAKEN: list[tuple[Modality, str, Any, set[str]]] = [
    (STT, "assemblyai/universal-3-6-pro", inference.stt.AssemblyaiOptions, {"inactivity_timeout"}),
    (STT, "cartesia/ink-2", inference.stt.CartesiaOptions,
     {"min_volume", "max_silence_duration_secs"}),
    (STT, "deepgram/flux-general", inference.stt.DeepgramFluxOptions, {"detect_language"}),
    (STT, "deepgram/nova-3", inference.stt.DeepgramOptions,
     {"utterance_end", "channels", "version", "callback", "callback_method", "extra"}),
    (STT, "google/gemini-3.5-transcribe-live", inference.stt.GoogleOptions, set()),
    (STT, "inworld/inworld-stt-1", inference.stt.InworldOptions,
     {"include_word_timestamps", "audio_encoding", "inactivity_timeout_seconds", "prompts"}),
    (STT, "openai/gpt-live-transcribe", inference.stt.OpenAIOptions, {"languages", "delay"}),
    (STT, "speechmatics/enhanced", inference.stt.SpeechmaticsOptions,
     {"max_delay", "max_delay_mode", "diarization", "enable_entities", "punctuation_overrides",
      "end_of_utterance_silence_trigger", "audio_filtering_config",
      "transcript_filtering_config"}),
    (STT, "xai/stt-1", inference.stt.XaiOptions, {"format"}),
    (TTS, "cartesia/sonic-3", inference.tts.CartesiaOptions, {"duration", "max_buffer_delay_ms"}),
    (TTS, "deepgram/aura-2", inference.tts.DeepgramOptions, set()),
    (TTS, "fishaudio/s2.1-pro", inference.tts.FishAudioOptions, set()),
    (TTS, "inworld/inworld-tts-2", inference.tts.InworldOptions, set()),
    (TTS, "rime/coda", inference.tts.RimeOptions, {"inline_speed_alpha", "no_text_normalization"}),
    (TTS, "xai/tts-1", inference.tts.XaiOptions, {"bit_rate"}),
]  # fmt: skip
"""Options of LiveKit Inference that the official plugin of the same provider does not have."""


@pytest.mark.parametrize(
    ("modality", "name", "options", "not_taken"), NOT_TAKEN, ids=[row[1] for row in NOT_TAKEN]
)
def test_an_option_of_the_sdk_is_taken_or_known_to_be_refused(
    modality: Modality, name: str, options: Any, not_taken: set[str]
) -> None:
    provider, _, model = name.partition("/")
    row = row_of(provider)
    how = served_by(row, modality)
    assert isinstance(how, Plugin)
    installed(how)
    refused = {o for o in options.__annotations__ if not takes(row, modality, model, o)}
    assert refused == not_taken


@pytest.mark.parametrize(("row", "modality", "plugin"), SERVED_BY_PLUGIN)
def test_a_row_names_arguments_that_the_constructor_has(
    row: Provider, modality: Modality, plugin: Plugin
) -> None:
    import inspect
    from importlib import import_module

    installed(plugin)
    module, _, name = plugin.target.partition(":")
    accepted = inspect.signature(getattr(import_module(module), name)).parameters
    named = {plugin.model, plugin.suffix, plugin.language} - {None}
    named |= set(plugin.aliases.values()) | plugin.fixed.keys() | {c.name for c in row.credentials}
    if plugin.home:
        named.add("base_url")
    assert named <= accepted.keys()


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable that a plugin, a vendor's client or the catalogue knows, set to a canary."""
    names = {v for row in PROVIDERS.values() for c in row.credentials for v in c.variables}
    names |= {f"OPENAI_{n}" for n in ("ORG_ID", "PROJECT_ID", "ADMIN_KEY", "WEBHOOK_SECRET")}
    names |= {"ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_WEBHOOK_SIGNING_KEY", "GOOGLE_CLOUD_PROJECT"}
    names |= {"GOOGLE_CLOUD_LOCATION", "GOOGLE_GENAI_API_VERSION"}
    for name in names:
        monkeypatch.setenv(name, CANARY)
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"):
        monkeypatch.setenv(name, f"http://{CANARY}.invalid/v1")
    for name in ("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.setenv(name, f"Authorization: {CANARY}")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "1")


@pytest.mark.usefixtures("canaries")
@pytest.mark.parametrize(("row", "modality", "plugin"), CLOUD)
async def test_a_plugin_holds_only_the_credentials_it_was_given(
    row: Provider, modality: Modality, plugin: Plugin
) -> None:
    installed(plugin)
    model = next((p for p, v in getattr(row, modality).variants.items() if v is plugin), "")
    if plugin.models and model:
        model = next(iter(plugin.models))
    async with aiohttp.ClientSession() as session:
        built = build(
            row, modality, model, credentials=secrets(row), options={}, http_session=session
        )
        found = list(strings_in(built))
    assert any(f"explicit-{row.name}" in text for text in found)
    assert not [text for text in found if CANARY in text]


@pytest.mark.usefixtures("canaries")
@pytest.mark.parametrize(("row", "modality", "plugin"), CLOUD)
def test_without_credentials_nothing_is_built_and_the_remedy_is_named(
    row: Provider, modality: Modality, plugin: Plugin
) -> None:
    credential = row.credentials[0]
    with pytest.raises(MissingCredential) as caught:
        build(row, modality, credentials={}, options={})
    assert f"providers.{row.name}.{credential.name}" in str(caught.value)
    assert credential.variables[0] in str(caught.value)


@pytest.mark.usefixtures("canaries")
async def test_a_server_of_ones_own_gets_no_key_rather_than_that_of_the_environment() -> None:
    built = build(
        row_of("openai"), TTS, credentials={}, options={}, base_url="http://127.0.0.1:8000/v1"
    )
    assert CANARY not in set(strings_in(built))


@pytest.mark.parametrize(
    ("name", "modality", "model", "suffix", "options", "expected"),
    [
        ("deepgram", TTS, "", "", {}, "aura-2-andromeda-en"),
        ("deepgram", TTS, "aura-2", "athena", {}, "aura-2-athena-en"),
        ("deepgram", TTS, "aura-2", "celeste", {"language": "es"}, "aura-2-celeste-es"),
        ("deepgram", TTS, "aura-2-thalia-en", "", {}, "aura-2-thalia-en"),
        ("deepgram", TTS, "aura", "", {"voice": "luna"}, "aura-luna-en"),
        ("deepgram", STT, "flux-general", "en", {}, "flux-general-en"),
        ("deepgram", STT, "flux-general-multi", "de", {}, "flux-general-multi"),
        ("deepgram", STT, "nova-3", "multi", {"endpointing": 300}, "nova-3"),
        ("assemblyai", STT, "universal-streaming", "en", {}, "universal-streaming-english"),
        ("cartesia", TTS, "sonic-3", "a-voice", {"language": "fr"}, "sonic-3"),
        ("elevenlabs", TTS, "", "a-voice", {}, "eleven_turbo_v2_5"),
        ("google", STT, "", "de-DE", {}, "gemini-3.5-transcribe-live"),
        ("anthropic", LLM, "", "", {"max_completion_tokens": 80}, "claude-sonnet-4-6"),
    ],
)
async def test_a_reference_becomes_the_plugin_s_model(
    name: str, modality: Modality, model: str, suffix: str, options: Any, expected: str
) -> None:
    row = row_of(name)
    async with aiohttp.ClientSession() as session:
        built = build(
            row,
            modality,
            model,
            suffix,
            credentials=secrets(row),
            options=options,
            http_session=session,
        )
    assert built.model == expected
    if suffix and name in ("cartesia", "elevenlabs", "google"):
        assert suffix in set(strings_in(built))


@pytest.mark.parametrize("language", ["", "en", "en-GB"])
async def test_every_recogniser_the_sdk_names_hears_english(language: str) -> None:
    async with aiohttp.ClientSession() as session:
        for name in set(literals(inference.STTModels)) - {"auto"}:
            provider, _, model = name.partition("/")
            row = row_of(provider)
            given = {"credentials": secrets(row), "options": {}, "http_session": session}
            assert build(row, STT, model, language, **given)


@pytest.mark.parametrize(
    ("name", "modality", "model", "suffix", "options", "error", "told"),
    [
        ("deepgram", STT, "", "", {"smart_fromat": True}, UnsupportedOption, '"smart_format"?'),
        ("deepgram", STT, "", "", {"api_key": "x"}, UnsupportedOption, "providers.deepgram.api_"),
        ("deepgram", STT, "", "", {"http_session": 1}, UnsupportedOption, "no option"),
        ("deepgram", STT, "flux-general-en", "fr", {}, UnsupportedOption, "takes no language"),
        ("deepgram", TTS, "", "", {"speed": 99.0}, UnsupportedOption, "refuses its options"),
        ("deepgram", LLM, "", "", {}, UnknownModel, "serves stt, tts"),
        ("openai", TTS, "", "", {"language": "en"}, UnsupportedOption, "no option"),
        ("anthropic", LLM, "", "", {"temprature": 1}, UnsupportedOption, '"temperature"?'),
    ],
)
def test_what_a_provider_cannot_act_on_is_refused_by_name(
    name: str,
    modality: Modality,
    model: str,
    suffix: str,
    options: Any,
    error: type[Exception],
    told: str,
) -> None:
    row = row_of(name)
    with pytest.raises(error, match=re.escape(told)) as caught:
        build(row, modality, model, suffix, credentials=secrets(row), options=options)
    assert f"explicit-{name}" not in str(caught.value)


async def test_a_base_url_reaches_the_vendor_s_path() -> None:
    row = row_of("deepgram")
    url = "http://127.0.0.1:9999/"
    async with aiohttp.ClientSession() as session:
        for modality, path in ((STT, "/v1/listen"), (TTS, "/v1/speak")):
            built = build(
                row,
                modality,
                credentials=secrets(row),
                options={},
                base_url=url,
                http_session=session,
            )
            assert f"http://127.0.0.1:9999{path}" in set(strings_in(built))
    with pytest.raises(UnsupportedOption, match="base_url"):
        build(row_of("google"), TTS, credentials={"api_key": "k"}, options={}, base_url=url)


def test_a_package_that_is_missing_is_named_by_its_extra() -> None:
    """In a process whose import of the plugin fails, as on a machine without it."""
    code = (
        "import sys; sys.modules['livekit.plugins.deepgram'] = None\n"
        "from trunkline.catalog import build, provider\n"
        "from trunkline.core.models import Modality\n"
        "try: build(provider('deepgram'), Modality.STT, credentials={'api_key': 'k'}, options={})\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith(MissingExtra.__name__)
    assert "pip install 'trunkline[deepgram]'" in done.stdout


def test_every_extra_is_one_that_the_package_has() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = set(project["optional-dependencies"])
    assert {row.extra for row in PROVIDERS.values() if row.extra} <= extras


def test_the_catalogue_imports_no_plugin_and_no_livekit() -> None:
    code = "import sys, trunkline.catalog; print(*[m for m in sys.modules if 'livekit' in m])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.stdout.strip() == ""


def test_an_unknown_provider_names_the_nearest() -> None:
    with pytest.raises(UnknownModel, match='unknown provider "deepgarm"; did you mean "deepgram"'):
        row_of("deepgarm")
    assert row_of("deepseek").name == "deepseek-ai"


@pytest.mark.parametrize("effort", [None, "none", "low"])
@pytest.mark.parametrize(
    "model", [m for m in literals(inference.LLMModels) if m.startswith(("openai/", "xai/"))]
)
def test_refused_parameters_are_those_that_the_sdk_drops(model: str, effort: str | None) -> None:
    params: dict[str, Any] = dict.fromkeys(CHAT_PARAMS - {"reasoning_effort"}, 1)
    if effort:
        params["reasoning_effort"] = effort
    name, _, own = model.partition("/")
    wire = row_of(name).llm
    assert isinstance(wire, Wire)
    assert wire.quirks.accepted(own, params) == drop_unsupported_params(model, params)


def test_the_options_of_a_chat_are_the_sdk_s_and_a_typing_error_is_not_sent() -> None:
    assert set(ChatCompletionOptions.__annotations__) <= CHAT_PARAMS
    row = row_of("openrouter")
    assert isinstance(row.llm, Wire)
    assert chat_options(row, row.llm, {"models": ["a"]}) == {"models": ["a"]}
    with pytest.raises(UnsupportedOption, match='"temprature"; did you mean "temperature"'):
        chat_options(row, row.llm, {"temprature": 1})


def test_the_default_stack_takes_a_configured_cloud_provider_before_an_embedded_engine() -> None:
    embedded = {name for name, row in PROVIDERS.items() if row.local}
    assert preferred(STT, embedded) == "pocketsphinx/en-us"
    assert preferred(STT, embedded | {"assemblyai", "deepgram"}) == "deepgram/nova-3"
    assert preferred(LLM, embedded | {"mistral"}) == "mistral/mistral-small-latest"
    assert preferred(TTS, embedded | {"mistral"}) == "flite/slt"
