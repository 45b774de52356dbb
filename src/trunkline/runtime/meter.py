"""What an attempt used, counted at the wrapper: also when the provider never gets to say it."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.models import Quality, Usage

CHARACTERS_PER_TOKEN = 4
"""Stated estimate for text whose tokenizer is unknown: about four characters of English a token."""


@dataclass(frozen=True, slots=True)
class Metered:
    """Usage so far and how far it can be trusted."""

    usage: Usage
    quality: Quality


NOTHING = Metered(Usage(), Quality.EXACT)
"""An attempt that never reached the provider, or that it refused, uses nothing."""


def estimated_tokens(characters: int) -> int:
    """Tokens of ``characters`` characters of text, rounded up."""
    return -(-characters // CHARACTERS_PER_TOKEN)


def audio_ns(samples: int, rate: int) -> int:
    """The duration of ``samples`` per channel at ``rate`` Hz, rounded to the nanosecond."""
    return (samples * 1_000_000_000 + rate // 2) // rate if rate else 0
