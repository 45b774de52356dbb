"""The configuration of a double, in YAML or in process.

port: 8800                  # shared by the providers without one of their own; 0: a free one
control: 8801
seed: 7
providers:
  - name: openai
    keys: [sk-test]
    replies: ["Good morning.", {tools: [{name: weather, arguments: {city: Oslo}}]}]
    pace: {first: {p50: 0.2, p95: 0.6}, between: 0.02}
  - {name: deepgram, port: 8802}
faults:
  - {kind: die, provider: openai, after: 3, nth: [2]}
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import msgspec
import yaml
from msgspec.structs import replace

from ..errors import UsageError
from .cartesia import Cartesia
from .deepgram import Deepgram
from .elevenlabs import ElevenLabs
from .faults import Rule
from .openai import OpenAI
from .provider import Engine, Provider
from .vendor import Vendor

__all__ = ["VENDORS", "Config", "read_config", "vendor_for"]

VENDORS: dict[str, type[Vendor]] = {
    vendor.name: vendor for vendor in (Cartesia, Deepgram, ElevenLabs, OpenAI)
}
"""The vendors that have a double, by name."""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a ``Double`` is made from."""

    providers: tuple[Provider, ...]
    faults: tuple[Rule, ...] = ()
    seed: int = 0
    host: str = "127.0.0.1"
    port: int = 0
    control: int = 0

    def __post_init__(self) -> None:
        for name in ("port", "control"):
            if not 0 <= getattr(self, name) <= 65535:
                raise ValueError(f"{name} {getattr(self, name)} is not between 0 and 65535")
        names = [provider.name for provider in self.providers]
        if not names:
            raise ValueError("providers is empty")
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"providers names {', '.join(sorted(twice))} more than once")


def read_config(path: Path) -> Config:
    """Read a YAML file. Raises UsageError naming the file and the key."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        config = msgspec.convert(data, Config)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from None
    for provider in config.providers:
        vendor_for(provider)
    return config


def every_vendor() -> Config:
    """All the vendors there are, as they come, on one free port."""
    return Config(providers=tuple(map(Provider, VENDORS)))


def with_engine(config: Config, engine: str) -> Config:
    """``config`` with ``engine`` behind every provider. Raises UsageError for an unknown one."""
    try:
        chosen = msgspec.convert(engine, Engine)
    except msgspec.ValidationError:
        known = ", ".join(get_args(Engine))
        raise UsageError(f"engine {engine!r} is unknown; there are: {known}") from None
    return replace(config, providers=tuple(replace(p, engine=chosen) for p in config.providers))


def vendor_for(settings: Provider) -> Vendor:
    """The protocol that ``settings`` name. Raises UsageError for one that has no double."""
    if settings.name not in VENDORS:
        known = ", ".join(sorted(VENDORS))
        raise UsageError(f"providers: {settings.name!r} has no double; there are: {known}")
    return VENDORS[settings.name](settings)
