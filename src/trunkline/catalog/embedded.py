"""Engines on this machine: no key, no network, an explicit rate of zero."""

from __future__ import annotations

from typing import Final

from .model import Plugin, Provider

EMBEDDED: Final[tuple[Provider, ...]] = (
    Provider(
        name="flite",
        title="Flite, in this process",
        local=True,
        tts=Plugin(
            target="trunkline.engines.flite:TTS", default_model="slt", model="voice", suffix="voice"
        ),
    ),
    Provider(
        name="espeak",
        title="eSpeak NG, in a process of its own",
        local=True,
        tts=Plugin(
            target="trunkline.engines.espeak:TTS",
            default_model="en-us",
            model="voice",
            suffix="voice",
        ),
    ),
    Provider(
        name="pocketsphinx",
        title="PocketSphinx, in worker processes",
        extra="pocketsphinx",
        local=True,
        stt=Plugin(
            target="trunkline.engines.pocketsphinx:STT",
            default_model="en-us",
            model="language",
            suffix="language",
        ),
    ),
    Provider(
        name="scripted",
        title="Scripted answers, no model",
        local=True,
        llm=Plugin(
            target="trunkline.engines.scripted:LLM", default_model="receptionist", model="script"
        ),
    ),
)
