"""What a charge costs a settlement, and what the first one of a provider costs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

from trunkline.catalog.pricelist import PriceList, shipped
from trunkline.clock import now_ns
from trunkline.core.models import Attempt, Charge, Identity, Modality, Usage
from trunkline.core.pricing import charge

TIMES = 20_000
CHARGES = [
    ("a chat, cached", "openai/gpt-4.1", Usage(tokens_in=1200, tokens_cached=1024, tokens_out=80)),
    ("a chat, long prompts apart", "anthropic/claude-haiku-5-5", Usage(tokens_in=9000)),
    ("an utterance spoken", "deepgram/aura-2-andromeda-en", Usage(characters=57)),
    ("a minute heard", "deepgram/nova-3", Usage(audio_in_ns=60_000_000_000)),
    ("heard, at least 10 s", "groq/whisper-large-v3-turbo", Usage(audio_in_ns=3_000_000_000)),
    ("an engine of this machine", "flite/slt", Usage(characters=57)),
]


def main() -> None:
    """Print a small table."""
    print("| pricing | measured | wanted |")
    print("|---|---:|---:|")
    for what, name, usage in CHARGES:
        one = attempt(name, usage)
        took = microseconds(lambda one=one: shipped().quote(one))
        print(f"| {what} ({name}) | {took:.2f} us | < 10 us |")
    price = next(p for p in shipped().prices("openai") if p.models[0] == "gpt-4.1")
    usage = CHARGES[0][2]
    print(f"| of it, `charge` | {microseconds(lambda: charge(usage, price)):.2f} us | |")
    for provider in ("openai", "deepgram"):
        print(f"| first charge of {provider}: its file | {reading(provider):.1f} ms | |")
    print(f"| of it, importing YAML | {importing():.1f} ms | |")


def attempt(name: str, usage: Usage) -> Attempt:
    provider, _, model = name.partition("/")
    modality = Modality.LLM if usage.tokens_in else Modality.TTS
    modality = Modality.STT if usage.audio_in_ns else modality
    made = Attempt("a", Identity("call"), modality, provider, model, "env", now_ns(), usage=usage)
    assert isinstance(shipped().quote(made), Charge)
    return made


def microseconds(call: Callable[[], object]) -> float:
    """The median of 20 rounds."""
    rounds = []
    for _ in range(20):
        started = time.perf_counter_ns()
        for _ in range(TIMES // 20):
            call()
        rounds.append((time.perf_counter_ns() - started) / (TIMES // 20) / 1000)
    return median(rounds)


def reading(provider: str) -> float:
    """Milliseconds to read a provider's file and to check it; YAML is imported already."""
    took = []
    for _ in range(10):
        started = time.perf_counter()
        PriceList().prices(provider)
        took.append(time.perf_counter() - started)
    return median(took) * 1000


def importing() -> float:
    """Milliseconds for ``import yaml`` in a fresh interpreter, which settings import anyway."""
    program = "import time; t = time.perf_counter(); import yaml; print(time.perf_counter() - t)"
    took = [
        float(
            subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
        )
        for _ in range(5)
    ]
    return median(took) * 1000
