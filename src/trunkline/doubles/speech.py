"""Who thinks, speaks and hears for a double: a script, or with ``engine: local`` real speech."""

from __future__ import annotations

from .hearing import Ear, ScriptEar, ToneEar, laid_out
from .language import LanguageModel, ScriptedModel
from .provider import Provider
from .tones import Heard
from .voice import ToneVoice, Voice


def open_model(settings: Provider) -> LanguageModel:
    """The model that a provider's settings ask for."""
    if settings.engine == "local":
        from .local import LocalModel  # pulls in the engines

        return LocalModel()
    return ScriptedModel(settings)


def open_voice(settings: Provider) -> Voice:
    """The voice that a provider's settings ask for."""
    if settings.engine == "local":
        from .local import LocalVoice  # pulls in the engines

        return LocalVoice()
    return ToneVoice()


def open_ear(settings: Provider, rate: int) -> Ear:
    """The ear that a provider's settings ask for."""
    if settings.engine == "local":
        from .local import LocalEar  # pulls in the engines

        return LocalEar(rate)
    if settings.words:
        return ScriptEar([Heard(w.text, w.start, w.end) for w in settings.words], rate)
    if settings.hears:
        return ScriptEar(laid_out(settings.hears), rate, from_sound=True)
    return ToneEar(rate)
