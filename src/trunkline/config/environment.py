"""What is there without a file: connections from the environment's keys, and two stacks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from ..catalog import (
    LOCAL,
    PROVIDERS,
    Credential,
    Provider,
    canonical,
    is_provider,
    preferred,
    provider,
)
from ..core.models import CASCADE, Modality
from .settings import Connection, Connections, GatewaySettings, Secret, Settings, Stack

_PAIRS = (
    ("LIVEKIT_INFERENCE_API_KEY", "LIVEKIT_INFERENCE_API_SECRET"),
    ("LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"),
)
"""Where LiveKit's clients look for a key and its secret, in their order."""


def defaults(env: Mapping[str, str]) -> Settings:
    """The settings without a trunkline.yaml, from the variables in ``env``."""
    chosen = configured(env)
    connections = Connections({**chosen, **keyless()}, installed(env))
    gateway = GatewaySettings(gateway_keys(env))
    return Settings(connections, {}, stacks(chosen.values()), gateway=gateway)


def gateway_keys(env: Mapping[str, str]) -> dict[str, Secret]:
    """The pair that a LiveKit client in the same environment would use, if there is one."""
    for key, secret in _PAIRS:
        if env.get(key) and env.get(secret):
            return {env[key]: Secret(env[secret])}
    return {}


def configured(env: Mapping[str, str]) -> dict[str, Connection]:
    """A connection for every provider whose credentials are all in ``env``."""
    found: dict[str, Connection] = {}
    for row in PROVIDERS.values():
        connection = _connection(row, env)
        if row.credentials and connection is not None:
            found[row.name] = connection
    return found


def installed(env: Mapping[str, str]) -> Callable[[str], Connection | None]:
    """Makes the connection of an installed provider whose credentials, if any, are in ``env``."""

    def find(name: str) -> Connection | None:
        if canonical(name) in PROVIDERS or not is_provider(name):
            return None
        return _connection(provider(name), env)

    return find


def _connection(row: Provider, env: Mapping[str, str]) -> Connection | None:
    secrets = {c.name: looked_up(c, env) for c in row.credentials}
    if not all(secrets.values()):
        return None
    given = {name: Secret(value) for name, value in secrets.items()}
    return Connection(row.name, row.name, given)


def looked_up(credential: Credential, env: Mapping[str, str]) -> str:
    """A credential's value from the first of its variables that is set, else empty."""
    return next((env[name] for name in credential.variables if env.get(name)), "")


def keyless() -> dict[str, Connection]:
    """The connections that need no configuration: the embedded engines and local servers."""
    rows = (row for row in PROVIDERS.values() if not row.credentials)
    return {row.name: Connection(row.name, row.name) for row in rows}


def stacks(chosen: Iterable[Connection]) -> dict[str, Stack]:
    """``default``, the preferred of the connections that were chosen, and ``local``."""
    names = [c.provider for c in chosen if _speaks_for_provider(c, provider(c.provider))]
    default = {m: preferred(m, names) for m in CASCADE}
    return {"default": _stack("default", default), "local": _stack("local", LOCAL)}


def _speaks_for_provider(connection: Connection, row: Provider) -> bool:
    """Whether the provider's default model can be expected there: not on a server of one's own."""
    return connection.base_url is None or connection.name == row.name


def _stack(name: str, members: Mapping[Modality, str]) -> Stack:
    return Stack(name, members[Modality.STT], members[Modality.LLM], members[Modality.TTS])
