"""Values of options against the annotations of the official plugins' constructors."""

from __future__ import annotations

import inspect
import sys
import typing
from importlib import import_module
from typing import Any, get_args, get_origin, is_typeddict

import pytest
from livekit.agents import inference

from trunkline.catalog import PROVIDERS, Plugin, fits, is_for_clients, served_by, takes
from trunkline.catalog import provider as row_of
from trunkline.catalog.option_types import Misfit, fitted
from trunkline.core.models import Modality

STT, TTS = Modality.STT, Modality.TTS

LEFT_TO_THE_PLUGIN = {
    "adaptation",
    "custom_prompt_config",
    "custom_pronunciations",
    "denoiser_config",
}
"""Messages of Google's own, which no JSON can be."""


def class_of(plugin: Plugin) -> Any:
    module, _, name = plugin.target.partition(":")
    pytest.importorskip(module)
    return getattr(import_module(module), name)


KINDS: list[Any] = [True, 7, 0.5, "none of them", [[[]]], {"none of them": [[]]}]
"""A value of each kind that JSON has; no option takes all of them."""


def is_checked(cls: Any, option: str) -> bool:
    """Whether some value is refused."""
    for value in KINDS:
        try:
            fitted(cls, option, value, option)
        except Misfit:
            return True
    return False


@pytest.mark.parametrize("row", PROVIDERS.values(), ids=PROVIDERS)
def test_every_option_that_a_client_may_set_is_checked(row: Any) -> None:
    for modality in row.modalities:
        how = served_by(row, modality)
        for plugin in (how, *how.variants.values()) if isinstance(how, Plugin) else ():
            cls = class_of(plugin)
            for option in inspect.signature(cls).parameters:
                if is_for_clients(option) and takes(row, modality, "", option):
                    assert is_checked(cls, option) is (option not in LEFT_TO_THE_PLUGIN), option


VOICE_SETTINGS = {"stability": 0.5, "similarity_boost": 1}

RIGHT: list[tuple[str, Modality, str, str, Any]] = [
    ("cartesia", STT, "", "keyterm", "Ada"),
    ("cartesia", STT, "", "keyterm", ["Ada", "Grace"]),
    ("cartesia", STT, "", "turn_end_threshold", 1),
    ("cartesia", TTS, "", "speed", "fast"),
    ("cartesia", TTS, "", "speed", 1.2),
    ("cartesia", TTS, "", "emotion", "Happy"),
    ("deepgram", STT, "", "replace", {"a": "b"}),
    ("deepgram", STT, "", "search", "one"),
    ("deepgram", STT, "", "tag", "one"),
    ("deepgram", STT, "", "endpointing", 25),
    ("deepgram", STT, "", "keywords", [["Ada", 2], ["Grace", 1.5]]),
    ("deepgram", STT, "flux-general-en", "eot_threshold", 0.7),
    ("deepgram", STT, "", "numerals", None),
    ("elevenlabs", STT, "", "server_vad", {"vad_threshold": 0.4, "min_speech_duration_ms": None}),
    ("elevenlabs", TTS, "", "voice_settings", {**VOICE_SETTINGS, "style": 0.1}),
    ("elevenlabs", TTS, "", "apply_text_normalization", "off"),
    ("elevenlabs", TTS, "", "chunk_length_schedule", [80, 120]),
    ("fishaudio", TTS, "", "latency", "low"),
    ("inworld", TTS, "", "apply_text_normalization", "ON"),
    ("inworld", TTS, "", "apply_text_normalization", True),
    ("openai", STT, "", "noise_reduction", "near_field"),
    ("openai", STT, "", "turn_detection", {"type": "server_vad", "of_tomorrow": 1}),
    ("speechmatics", STT, "", "additional_vocab", [{"content": "Ada", "sounds_like": ["a da"]}]),
    ("speechmatics", STT, "", "turn_detection_mode", "external"),
    ("speechmatics", STT, "", "operating_point", "enhanced"),
]


@pytest.mark.parametrize(("name", "modality", "model", "option", "value"), RIGHT)
def test_what_is_right_is_taken(
    name: str, modality: Modality, model: str, option: str, value: Any
) -> None:
    assert takes(row_of(name), modality, model, option)
    assert fits(row_of(name), modality, model, option, value)


WRONG: list[tuple[str, Modality, str, Any, str]] = [
    ("cartesia", STT, "keyterm", True, '"keyterm" is a list of texts, not a boolean'),
    ("cartesia", STT, "keyterm", ["Ada", 7], r'"keyterm\[1\]" is a text, not a number'),
    ("cartesia", STT, "turn_end_timeout_ms", 640.5, "is a whole number, not a fraction"),
    ("cartesia", STT, "turn_end_timeout_ms", "640", "is a whole number, not a text"),
    ("cartesia", TTS, "speed", "warp", 'is one of "fastest", .* or a number or null, not "warp"'),
    ("deepgram", STT, "replace", True, '"replace" is an object of texts or null, not a boolean'),
    ("deepgram", STT, "replace", {"a": 1}, r'"replace.a" is a text, not a number'),
    ("deepgram", STT, "numerals", 1, "is a boolean, not a number"),
    ("deepgram", STT, "endpointing_ms", False, "is a whole number, not a boolean"),
    ("deepgram", STT, "keywords", [["Ada"]], r'"keywords\[0\]" is a list of a text, a number'),
    ("elevenlabs", STT, "server_vad", 0, "is an object of .*vad_threshold.* or null, not a number"),
    ("elevenlabs", STT, "server_vad", {"vad_threshold": "x"}, '"server_vad.vad_threshold" is a nu'),
    ("elevenlabs", TTS, "voice_settings", 1, "is an object of .*stability.*, not a number"),
    ("elevenlabs", TTS, "voice_settings", {"stability": 1}, "similarity_boost.* is missing"),
    ("elevenlabs", TTS, "voice_settings", {**VOICE_SETTINGS, "x": 1}, "x.* none of its fields"),
    ("elevenlabs", TTS, "apply_text_normalization", "x" * 9999, 'not "x{40}\\.\\.\\."$'),
    ("speechmatics", STT, "turn_detection_mode", "psychic", 'is one of .*"external".*"psychic"$'),
]  # fmt: skip


@pytest.mark.parametrize(("name", "modality", "option", "value", "told"), WRONG)
def test_what_is_wrong_names_the_field_and_what_it_may_be(
    name: str, modality: Modality, option: str, value: Any, told: str
) -> None:
    how = served_by(row_of(name), modality)
    assert isinstance(how, Plugin)
    with pytest.raises(Misfit, match=told) as caught:
        fitted(class_of(how), option, value, option)
    assert len(str(caught.value)) < 500
    assert not fits(row_of(name), modality, "", option, value)


def test_an_object_becomes_the_class_that_it_stands_for() -> None:
    how = served_by(row_of("elevenlabs"), TTS)
    assert isinstance(how, Plugin)
    cls = class_of(how)
    made = fitted(cls, "voice_settings", VOICE_SETTINGS, "voice_settings")
    assert (made.stability, made.similarity_boost) == (0.5, 1)
    assert fitted(cls, "voice_settings", made, "voice_settings") is made


def examples(hint: Any) -> list[Any]:
    """Values of each type that LiveKit's own tables of options name."""
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin is typing.Literal:
        return list(inner)
    if origin is list:
        return [[one] for one in examples(inner[0])]
    if origin is tuple:
        return [tuple(examples(one)[0] for one in inner)]
    if inner and origin is not dict:
        return [value for one in inner for value in examples(one)]
    plain = {bool: [True, False], int: [3], float: [0.5, 1], str: ["balanced"], dict: [{}]}
    return plain[origin]


TABLES = [
    (STT, "assemblyai/universal-3-6-pro", inference.stt.AssemblyaiOptions),
    (STT, "cartesia/ink-2", inference.stt.CartesiaOptions),
    (STT, "deepgram/flux-general", inference.stt.DeepgramFluxOptions),
    (STT, "deepgram/nova-3", inference.stt.DeepgramOptions),
    (STT, "google/gemini-3.5-transcribe-live", inference.stt.GoogleOptions),
    (STT, "inworld/inworld-stt-1", inference.stt.InworldOptions),
    (STT, "openai/gpt-live-transcribe", inference.stt.OpenAIOptions),
    (STT, "speechmatics/enhanced", inference.stt.SpeechmaticsOptions),
    (STT, "xai/stt-1", inference.stt.XaiOptions),
    (TTS, "cartesia/sonic-3", inference.tts.CartesiaOptions),
    (TTS, "deepgram/aura-2", inference.tts.DeepgramOptions),
    (TTS, "fishaudio/s2.1-pro", inference.tts.FishAudioOptions),
    (TTS, "inworld/inworld-tts-2", inference.tts.InworldOptions),
    (TTS, "rime/coda", inference.tts.RimeOptions),
    (TTS, "xai/tts-1", inference.tts.XaiOptions),
]

NEVER_TAKEN = {"replace"}
"""Deepgram's API has texts, LiveKit's plugin an object: it never took what the SDK names."""

NEEDS_FIELDS = {"additional_vocab"}


@pytest.mark.parametrize(("modality", "name", "table"), TABLES, ids=[row[1] for row in TABLES])
def test_what_livekit_s_own_tables_name_is_taken(modality: Modality, name: str, table: Any) -> None:
    assert is_typeddict(table)
    provider, _, model = name.partition("/")
    row = row_of(provider)
    hints = typing.get_type_hints(table, vars(sys.modules[table.__module__]))
    for option in hints.keys() - NEVER_TAKEN - NEEDS_FIELDS:
        if takes(row, modality, model, option):
            for value in examples(hints[option]):
                assert fits(row, modality, model, option, value), (option, value)
