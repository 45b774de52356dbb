"""Two exchanges of vendors, each a process of ``trunkline doubles serve``, with seeded faults."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from trunkline.doubles import BillLine, RequestLog

ANSWER = "Good morning to you, this is the front desk. Your room is ready now."
"""What every model answers, every voice says and every caller asks."""

FAULTY = 0.2
_RARE = 0.04
"""The share of faults after which a connection is left alone for a minute."""

_BEFORE = ("refuse", "black_hole", "rate_limited", "server_error", "hang", "hang_after")
_EMPTY = ("keep_alive", "empty")
_MIDWAY = ("die", "stall", "end", "garbage")
_BARRING = ("unauthorized", "payment_required")

MODELS = {
    "a": {"llm": "openai/gpt-4o", "tts": "cartesia/sonic-3", "stt": "deepgram/nova-3"},
    "b": {"llm": "openai/gpt-4o", "tts": "deepgram/aura-2", "stt": "deepgram/nova-3"},
}
DEADLINE = 1.0
"""Seconds, for connect, first content and idle: more than a busy machine makes of 20 ms."""

T = TypeVar("T")


def rules(seed: str, provider: str, requests: int) -> list[dict[str, Any]]:
    """Faults for a seeded fifth of a vendor's first ``requests`` requests, of every kind."""
    draw = random.Random(f"{seed} {provider}")
    struck: dict[tuple[str, int], list[int]] = {}
    for number in range(1, requests + 1):
        if draw.random() < FAULTY:
            kinds = _BARRING if draw.random() < _RARE else _BEFORE + _EMPTY + _MIDWAY
            kind = draw.choice(kinds)
            after = draw.randint(0, 4) if kind in _MIDWAY else 0
            struck.setdefault((kind, after), []).append(number)
    return [
        {"kind": kind, "after": after, "provider": provider, "every": 0.1, "nth": numbers}
        for (kind, after), numbers in struck.items()
    ]


@dataclass(frozen=True)
class Exchange:
    """One process of doubles: the vendors' addresses, and its books."""

    urls: dict[str, str]

    def bill(self) -> list[BillLine]:
        return self._books("bill", list[BillLine])

    def requests(self) -> list[RequestLog]:
        return self._books("requests", list[RequestLog])

    def _books(self, name: str, kind: type[T]) -> T:
        with urllib.request.urlopen(f"{self.urls['control']}/{name}", timeout=30) as answer:
            return msgspec.json.decode(answer.read(), type=kind)


@contextlib.contextmanager
def exchange(directory: Path, seed: str, requests: int) -> Iterator[Exchange]:
    """Serve an exchange until the block ends; every vendor has a port of its own."""
    names = ("openai", "cartesia", "deepgram")
    pace = {"first": 0.02, "between": 0.002}
    config = directory / f"doubles-{seed}.yaml"  # JSON is YAML
    providers = [{"name": n, "port": 0, "replies": [ANSWER], "pace": pace} for n in names]
    faults = [rule for name in names for rule in rules(seed, name, requests)]
    config.write_text(json.dumps({"port": 0, "providers": providers, "faults": faults}))
    run = "from trunkline.cli import main; main()"
    command = [sys.executable, "-c", run, "doubles", "serve", str(config)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            urls: dict[str, str] = {}
            for line in process.stdout:
                if line.startswith("serving"):
                    break
                name, url = line.split()
                urls[name] = url
            assert "control" in urls, "the doubles did not start"
            yield Exchange(urls)
        finally:
            process.kill()


def configuration(exchanges: dict[str, Exchange], priced: str = "", **more: Any) -> str:
    """trunkline.yaml (as JSON): a route of two candidates for each modality, and ``more``.

    The exchange ``priced`` is charged for by the prices of its vendors; the others have none.
    """
    deadlines = {"connect": DEADLINE, "first_content": DEADLINE, "idle": DEADLINE, "total": 10}
    providers: dict[str, dict[str, str]] = {}
    routes: dict[str, list[str]] = {modality: [] for modality in MODELS["a"]}
    for name, one in exchanges.items():
        for modality, model in MODELS[name].items():
            vendor, _, model = model.partition("/")
            url = one.urls[vendor] + ("/v1" if vendor == "openai" else "")
            connection = vendor if name == priced else f"{modality}-{name}"
            providers[connection] = {"kind": vendor, "base_url": url, "api_key": "key"}
            routes[modality].append(f"{connection}/{model}")
    return json.dumps(
        {
            "version": 1,
            "providers": providers,
            "routes": {
                modality: {"modality": modality, "candidates": names, "deadlines": deadlines}
                for modality, names in routes.items()
            },
            **more,
        }
    )
