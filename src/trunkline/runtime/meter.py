"""What an attempt used, counted at the wrapper: also when the provider never gets to say it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import msgspec
from msgspec.structs import astuple

from ..core.models import Quality, Usage

BYTES_PER_TOKEN = 4
"""Stated estimate for text whose tokenizer is unknown, which they all are without a download: four
characters of English a token."""

FOREIGN_BYTES_PER_TOKEN = 2
"""The same for what is not ASCII, by its bytes of UTF-8: 1.5 tokens for a character of Chinese, one
for a letter of Cyrillic. Today's tokenizers need fewer, so this is a bound for them."""

_MOST = 2**61
"""More than this is nobody's usage; a column can still add some up."""

TOKENS_PER_PART = 4
"""What goes around a message, a tool or a call of one, beside its text."""


class Metered(msgspec.Struct, frozen=True):
    """Usage so far and how far it can be trusted."""

    usage: Usage
    quality: Quality


NOTHING = Metered(Usage(), Quality.EXACT)
"""An attempt that never reached the provider, or that it refused, uses nothing."""


def held(metered: Metered) -> Metered:
    """``metered`` as far as a ledger holds it: a provider may tell any number, in error or not."""
    units = astuple(metered.usage)
    if max(units) <= _MOST and min(units) >= -_MOST:
        return metered
    return Metered(Usage(*(max(min(n, _MOST), -_MOST) for n in units)), Quality.ESTIMATED)


def with_thoughts(prompt: int | None, answer: int, thoughts: int, total: int) -> tuple[int, int]:
    """The tokens out, and how many of them are reasoning, of what a provider told of a chat.

    OpenAI counts thoughts as part of the answer. Google leaves them out of ``answer`` and has them
    in ``total`` alone, xAI has them beside it as well; both bill them all the same. Sources:
    https://discuss.ai.google.dev/t/127400 (the end of an answer of Gemini),
    https://github.com/UKGovernmentBEIS/inspect_ai/issues/5528 (Grok).
    """
    if prompt is not None and total > prompt + answer:
        out = total - prompt
    else:
        out = answer + thoughts if thoughts > answer else answer
    return out, max(thoughts, out - answer)


def told_late(settled: Metered, usage: Usage) -> Usage:
    """What ``usage``, the provider's own count, adds to what was ``settled`` before it came.

    It may take away from an estimate. An underestimate was too little; nothing is given back of it.
    """
    least = 0 if settled.quality is Quality.UNDERESTIMATE else -(2**63)
    counted = zip(astuple(usage), astuple(settled.usage), strict=True)
    return Usage(*(max(told - before, least) for told, before in counted))


def plus(one: Usage, other: Usage) -> Usage:
    """Both together, unit by unit."""
    return Usage(*map(sum, zip(astuple(one), astuple(other), strict=True)))


def estimated_tokens(text: str) -> int:
    """About how many tokens ``text`` has: rounded up, and by its bytes."""
    if text.isascii():
        return -(-len(text) // BYTES_PER_TOKEN)
    plain = len(text.encode("ascii", "ignore"))
    foreign = len(text.encode("utf-8", "replace")) - plain
    return -(-plain // BYTES_PER_TOKEN) - (-foreign // FOREIGN_BYTES_PER_TOKEN)


def tokens_of_parts(parts: Iterable[str]) -> int:
    """About how many tokens messages have, or tools, each as its text."""
    return sum(TOKENS_PER_PART + estimated_tokens(part) for part in parts)


@lru_cache(256)  # frames come in a few lengths
def audio_ns(samples: int, rate: int) -> int:
    """The duration of ``samples`` per channel at ``rate`` Hz, rounded to the nanosecond."""
    return (samples * 1_000_000_000 + rate // 2) // rate if rate else 0
