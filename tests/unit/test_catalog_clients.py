"""What a client of a gateway may set of a plugin: each option was looked at by a person."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, is_typeddict

import pytest
from livekit.agents import inference

from trunkline.catalog import PROVIDERS, Plugin, check_for_clients, is_for_clients, served_by
from trunkline.errors import UnsupportedOption

LOOKED_AT = """
adaptation add_phoneme_timestamps additional_vocab agent_context agent_context_carryover
apply_language_text_normalization apply_text_normalization auto_mode bit_rate
buffer_char_threshold caching chunk_length chunk_length_schedule
condition_on_previous_chunks continuous_partials custom_prompt_config custom_pronunciations
custom_vocabulary delivery_mode denoiser_config detect_language dictation domain
eager_eot_threshold early_stop_threshold effects_profile_id emotion enable_diarization
enable_interim_results enable_logging enable_ssml enable_ssml_parsing
enable_voice_activity_events enable_voice_profile enable_word_confidence
enable_word_time_offsets end_of_turn_confidence_threshold endpointing endpointing_ms
endpointing_sensitivity eot_threshold eot_timeout_ms filler_words format_turns gender
include_language_detection include_partials include_timestamps instructions interim_results
interruption_delay keyterm keyterms keyterms_prompt keywords known_speakers language_code
language_codes language_detection language_hint latency_mode max_buffer_delay_ms
max_new_tokens max_speakers max_tokens max_turn_silence min_chunk_length
min_confidence_threshold min_end_of_turn_silence_when_confident min_turn_silence mip_opt_out
mode mp3_bitrate no_delay no_verbatim noise_reduction_type normalize normalize_loudness
numerals operating_point optimize_streaming_latency opus_bitrate output_locale
parallel_tool_calls pause_between_brackets phonemize_between_brackets pitch
prefer_current_speaker preferred_alignment previous_context_n_turns previous_text
profanity_filter prompt pronunciation_dict_id pronunciation_dictionary_locators punctuate
redact reduce_latency repetition_penalty replace retain_format search secondary_languages
segment server_vad smart_format smart_turn smart_turn_timeout speaker speaker_format
speaker_labels speaker_sensitivity speakers speaking_rate speech_end_timeout
speech_start_timeout speed speed_alpha spoken_punctuation streaming_latency sync_alignment
tag_audio_events tags temperature text_normalization time_scale_factor
timestamp_transport_strategy timestamp_type tool_choice top_k top_p turn_detection
turn_detection_mode turn_eager_end_threshold turn_end_threshold turn_end_timeout_ms
turn_start_threshold use_markup use_normalized_timestamps user utterance_end_ms vad_events
vad_threshold voice_cloning_key voice_focus voice_focus_threshold voice_profile_top_n
voice_settings volume volume_gain_db word_timestamps
"""
"""None says where a request goes, whose key it has, what is read here, or how a loop steps."""

BESIDE = {"self", "base_url", "http_session", "client", "model", "voice", "language", "languages"}


def arguments(plugin: Plugin) -> set[str]:
    module, _, name = plugin.target.partition(":")
    accepted = inspect.signature(getattr(import_module(module), name)).parameters
    apart = BESIDE | {plugin.model, plugin.suffix, plugin.language} | plugin.fixed.keys()
    return {one for one in accepted if not one.startswith("_")} - apart


@pytest.mark.parametrize("row", PROVIDERS.values(), ids=PROVIDERS)
def test_what_a_client_may_set_was_looked_at(row: Any) -> None:
    secrets = {credential.name for credential in row.credentials}
    for modality in row.modalities:
        how = served_by(row, modality)
        for plugin in (how, *how.variants.values()) if isinstance(how, Plugin) else ():
            pytest.importorskip(plugin.target.partition(":")[0])
            free = {one for one in arguments(plugin) - secrets if is_for_clients(one)}
            assert free <= set(LOOKED_AT.split())


@pytest.mark.parametrize(
    "option",
    ["ws_url", "websocket_url", "credentials_info", "directory", "audio_chunk_duration_ms"],
)
def test_what_is_not_for_clients_is_refused_with_a_remedy(option: str) -> None:
    with pytest.raises(UnsupportedOption, match=rf'"{option}".* belongs in trunkline\.yaml'):
        check_for_clients({option: 1})


@pytest.mark.parametrize("module", [inference.stt, inference.tts])
def test_what_livekit_documents_is_for_clients(module: Any) -> None:
    tables = [one for name, one in vars(module).items() if name.endswith("Options")]
    asked = {option for one in tables if is_typeddict(one) for option in one.__annotations__}
    assert {"keyterm", "speed"} & asked
    assert {one for one in asked if not is_for_clients(one)} <= NO_PLUGIN_HAS


NO_PLUGIN_HAS = {"audio_encoding", "inactivity_timeout"}
