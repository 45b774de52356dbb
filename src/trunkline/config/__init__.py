"""trunkline.yaml as frozen settings, and from names to plans. Reads no environment of its own."""

from .environment import defaults
from .parse import load
from .resolve import candidate, connection_for, followed, in_language, resolve
from .settings import (
    Connection,
    GatewaySettings,
    ModelChoice,
    Route,
    Secret,
    Settings,
    Stack,
    after_output_of,
)
from .without_secrets import THROWAWAY, without_secrets

__all__ = [
    "THROWAWAY",
    "Connection",
    "GatewaySettings",
    "ModelChoice",
    "Route",
    "Secret",
    "Settings",
    "Stack",
    "after_output_of",
    "candidate",
    "connection_for",
    "defaults",
    "followed",
    "in_language",
    "load",
    "resolve",
    "without_secrets",
]
