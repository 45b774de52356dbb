"""Providers of speech, and of chat beside it, through their official LiveKit plugins (1.8.9).

Sources, read on 2026-11-21: the plugins' constructors and constants; for chat the base URLs and
default models of ``livekit.plugins.openai.LLM.with_*``.

How fast a recogniser takes audio, as documented. AssemblyAI closes a session (3007) that sends
faster than real time, and throttles at about 1.25 times ("Common session errors and closures",
"Message sequence"). Deepgram takes more than 1.25 times real time but answers late ("Recovering
From Connection Errors"): to wait here would be no faster. Speechmatics and ElevenLabs buffer, with
an error when the buffer is full and no figure; Cartesia states nothing. How long a turn may stay
open: ``eot_timeout_ms`` 5000 ("Flux"), ``turn_end_timeout_ms`` 5600 ("Configuring turn detection"),
``max_turn_silence`` 1280 or 2400 by model ("Turn detection"), ``vad_silence_threshold_secs`` 1.5
("Realtime speech to text"). The languages of AssemblyAI's multilingual model: "Multilingual
streaming".
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ..core.quirks import ChatQuirks
from .model import Credential, Plugin, Provider, Realtime, Wire
from .quirks import (
    COMPLETION_TOKENS,
    GOOGLE_CLIENT,
    GOOGLE_HTTP,
    OPENAI_CLIENT,
    OPENAI_RULES,
    OPENAI_VOICES,
    XAI_RULES,
)


def _key(*variables: str) -> tuple[Credential, ...]:
    return (Credential("api_key", variables),)


VOICE: Final[tuple[Provider, ...]] = (
    Provider(
        name="openai",
        title="OpenAI",
        extra="openai",
        regional=".api.openai.com",
        credentials=(Credential("api_key", ("OPENAI_API_KEY",), optional_elsewhere=True),),
        stt=Plugin(
            target="livekit.plugins.openai:STT",
            default_model="gpt-live-transcribe",
            suffix="language",
            aliases={"noise_reduction": "noise_reduction_type"},
            home="https://api.openai.com/v1",
            overrides=OPENAI_CLIENT,
        ),
        llm=Wire(
            base_url="https://api.openai.com/v1",
            default_model="gpt-4.1",
            quirks=ChatQuirks(max_tokens_field="max_completion_tokens", rules=OPENAI_RULES),
            service_tiers={"low": "flex", "standard": "default", "priority": "priority"},
            surcharges={"web_search_options": "web search"},
        ),
        tts=Plugin(
            target="livekit.plugins.openai:TTS",
            default_model="gpt-4o-mini-tts",
            suffix="voice",
            named_voices=OPENAI_VOICES,
            home="https://api.openai.com/v1",
            overrides=OPENAI_CLIENT,
        ),
        realtime=Realtime(base_url="https://api.openai.com/v1", default_model="gpt-realtime"),
    ),
    Provider(
        name="anthropic",
        title="Anthropic",
        extra="anthropic",
        credentials=_key("ANTHROPIC_API_KEY"),
        llm=Plugin(
            target="livekit.plugins.anthropic:LLM",
            default_model="claude-sonnet-4-6",
            aliases={"max_completion_tokens": "max_tokens"},
            home="https://api.anthropic.com",
            overrides={"_client.webhook_key": None, "_client._custom_headers": {}},
            surcharges={
                "inference_geo": "region",
                "speed": "speed",
                "cache_control.ttl": "long cache",
            },
        ),
    ),
    Provider(
        name="google",
        title="Google Gemini API",
        extra="google",
        credentials=_key("GOOGLE_API_KEY", "GEMINI_API_KEY"),
        stt=Plugin(
            target="livekit.plugins.google.beta:GeminiSTT",
            default_model="gemini-3.5-transcribe-live",
            suffix="language",
            fixed={"vertexai": False, "http_options": dict(GOOGLE_HTTP)},
        ),
        llm=Wire(
            base_url="https://generativelanguage.googleapis.com/v1beta/openai",
            default_model="gemini-3.8-flash",
            quirks=ChatQuirks(strict_tools=False, max_tokens_field="max_tokens"),
            models={
                "gemini-3-flash": "gemini-3-flash-preview",
                "gemini-3.1-pro": "gemini-3.1-pro-preview",
            },
        ),
        tts=Plugin(
            target="livekit.plugins.google.beta:GeminiTTS",
            default_model="gemini-3.8-flash-tts",
            suffix="voice_name",
            fixed={"vertexai": False},
            overrides=GOOGLE_CLIENT,
        ),
    ),
    Provider(
        name="google-cloud",
        title="Google Cloud Speech",
        extra="google",
        credentials=(Credential("credentials_file", ("GOOGLE_APPLICATION_CREDENTIALS",)),),
        stt=Plugin(
            target="livekit.plugins.google:STT", default_model="latest_long", suffix="languages"
        ),
        tts=Plugin(
            target="livekit.plugins.google:TTS",
            default_model="chirp_3",
            model="model_name",
            suffix="voice_name",
            language="language",
        ),
    ),
    Provider(
        name="deepgram",
        title="Deepgram",
        extra="deepgram",
        credentials=_key("DEEPGRAM_API_KEY"),
        stt=Plugin(
            target="livekit.plugins.deepgram:STT",
            default_model="nova-3",
            suffix="language",
            base_url="{base}/v1/listen",
            aliases={
                "endpointing": "endpointing_ms",
                "diarize": "enable_diarization",
                "tag": "tags",
            },
            flush_is_final=True,
            surcharges={
                "enable_diarization": "diarization",
                "keyterm": "keyterms",
                "keyterms": "keyterms",
                "redact": "redaction",
            },
            variants={
                "flux-": Plugin(
                    target="livekit.plugins.deepgram:STTv2",
                    models={"flux-general": "flux-general-en"},
                    implied=frozenset({"en"}),
                    base_url="{base}/v2/listen",
                    aliases={"tag": "tags"},
                    turn_ms=5000,
                    turn_option="eot_timeout_ms",
                ),
                "flux-general-multi": Plugin(
                    target="livekit.plugins.deepgram:STTv2",
                    suffix="language_hint",
                    suffix_listed=True,
                    implied=frozenset({"multi"}),
                    base_url="{base}/v2/listen",
                    aliases={"tag": "tags"},
                    turn_ms=5000,
                    turn_option="eot_timeout_ms",
                ),
            },
        ),
        tts=Plugin(
            target="livekit.plugins.deepgram:TTS",
            default_model="aura-2",
            voices={"aura-2": "andromeda", "aura": "asteria"},
            base_url="{base}/v1/speak",
        ),
    ),
    Provider(
        name="cartesia",
        title="Cartesia",
        extra="cartesia",
        credentials=_key("CARTESIA_API_KEY"),
        stt=Plugin(
            target="livekit.plugins.cartesia:STT",
            default_model="ink-2",
            suffix="language",
            turn_ms=5600,
            turn_option="turn_end_timeout_ms",
            variants={
                "ink-whisper": Plugin(target="livekit.plugins.cartesia:STT", suffix="language"),
            },
        ),
        tts=Plugin(
            target="livekit.plugins.cartesia:TTS",
            default_model="sonic-3",
            suffix="voice",
            language="language",
            aliases={"add_timestamps": "word_timestamps"},
        ),
    ),
    Provider(
        name="elevenlabs",
        title="ElevenLabs",
        extra="elevenlabs",
        credentials=_key("ELEVEN_API_KEY", "ELEVENLABS_API_KEY"),
        stt=Plugin(
            target="livekit.plugins.elevenlabs:STT",
            default_model="scribe_v2_realtime",
            suffix="language_code",
            turn_ms=1500,
            flush_is_final=True,
            surcharges={"keyterms": "keyterms"},
        ),
        tts=Plugin(
            target="livekit.plugins.elevenlabs:TTS",
            default_model="eleven_turbo_v2_5",
            suffix="voice_id",
            language="language",
        ),
    ),
    Provider(
        name="assemblyai",
        title="AssemblyAI",
        extra="assemblyai",
        credentials=_key("ASSEMBLYAI_API_KEY"),
        stt=Plugin(
            target="livekit.plugins.assemblyai:STT",
            default_model="universal-3-6-pro",
            suffix="language_codes",
            base_url="{ws}",
            replay_speed=1.25,
            turn_ms=2400,
            turn_option="max_turn_silence",
            surcharges={
                "domain": "domain",
                "keyterms_prompt": "keyterms",
                "prompt": "prompt",
                "speaker_labels": "diarization",
            },
            variants={
                "universal-streaming": Plugin(
                    target="livekit.plugins.assemblyai:STT",
                    models={"universal-streaming": "universal-streaming-english"},
                    implied=frozenset({"en"}),
                    base_url="{ws}",
                    replay_speed=1.25,
                    turn_ms=2400,
                    turn_option="max_turn_silence",
                ),
                "universal-streaming-multilingual": Plugin(
                    target="livekit.plugins.assemblyai:STT",
                    implied=frozenset({"multi", "en", "es", "fr", "de", "it", "pt"}),
                    base_url="{ws}",
                    replay_speed=1.25,
                    turn_ms=2400,
                    turn_option="max_turn_silence",
                ),
            },
        ),
        tts=Plugin(
            target="livekit.plugins.assemblyai:TTS",
            default_model="assemblyai-tts-1",
            suffix="voice",
            language="language",
            base_url="{ws}",
        ),
    ),
    Provider(
        name="groq",
        title="Groq",
        extra="groq",
        credentials=_key("GROQ_API_KEY"),
        stt=Plugin(
            target="livekit.plugins.groq:STT",
            default_model="whisper-large-v3-turbo",
            suffix="language",
            overrides=OPENAI_CLIENT,
        ),
        llm=Wire(
            base_url="https://api.groq.com/openai/v1",
            default_model="llama-3.3-70b-versatile",
            quirks=COMPLETION_TOKENS,
            service_tiers={"low": "flex", "standard": "on_demand"},
        ),
        tts=Plugin(
            target="livekit.plugins.groq:TTS",
            default_model="canopylabs/orpheus-v1-english",
            suffix="voice",
        ),
    ),
    Provider(
        name="xai",
        title="xAI",
        extra="xai",
        credentials=_key("XAI_API_KEY"),
        stt=Plugin(
            target="livekit.plugins.xai:STT",
            default_model="stt-1",
            model=None,
            suffix="language",
            aliases={"diarize": "enable_diarization", "interim_results": "enable_interim_results"},
        ),
        llm=Wire(
            base_url="https://api.x.ai/v1",
            default_model="grok-4-1-fast-non-reasoning",
            quirks=replace(COMPLETION_TOKENS, rules=XAI_RULES),
        ),
        tts=Plugin(
            target="livekit.plugins.xai:TTS",
            default_model="tts-1",
            model=None,
            suffix="voice",
            language="language",
        ),
        realtime=Realtime(base_url="https://api.x.ai/v1", default_model="grok-voice-latest"),
    ),
    Provider(
        name="rime",
        title="Rime",
        extra="rime",
        credentials=_key("RIME_API_KEY"),
        tts=Plugin(
            target="livekit.plugins.rime:TTS",
            default_model="coda",
            suffix="speaker",
            language="lang",
        ),
    ),
    Provider(
        name="inworld",
        title="Inworld",
        extra="inworld",
        credentials=_key("INWORLD_API_KEY"),
        stt=Plugin(
            target="livekit.plugins.inworld:STT",
            default_model="inworld-stt-1",
            models={"inworld-stt-1": "inworld/inworld-stt-1"},
            suffix="language",
        ),
        tts=Plugin(
            target="livekit.plugins.inworld:TTS",
            default_model="inworld-tts-1.5-max",
            suffix="voice",
            language="language",
            aliases={"apply_text_normalization": "text_normalization"},
        ),
    ),
    Provider(
        name="fishaudio",
        title="Fish Audio",
        extra="fishaudio",
        credentials=_key("FISH_API_KEY"),
        tts=Plugin(
            target="livekit.plugins.fishaudio:TTS",
            default_model="s2.1-pro",
            suffix="voice_id",
            aliases={"latency": "latency_mode"},
        ),
    ),
    Provider(
        name="speechmatics",
        title="Speechmatics",
        extra="speechmatics",
        credentials=_key("SPEECHMATICS_API_KEY"),
        stt=Plugin(
            target="livekit.plugins.speechmatics:STT",
            default_model="enhanced",
            suffix="language",
            aliases={"enable_partials": "include_partials"},
            base_url="{ws}",
            home="wss://eu2.rt.speechmatics.com/v2/agent",
        ),
        tts=Plugin(
            target="livekit.plugins.speechmatics:TTS",
            model=None,
            suffix="voice",
        ),
    ),
)
