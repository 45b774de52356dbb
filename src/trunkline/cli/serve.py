"""``trunkline serve``: the gateway, until somebody ends it."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from ..compose import configure, read_settings
from ..errors import UsageError


def run(config: Path | None, host: str | None, port: int | None, workers: int) -> None:
    """Serve agents until SIGTERM or SIGINT. Raises UsageError, ConfigError among them."""
    if workers < 1:
        raise UsageError(f"--workers is {workers}; it must be at least 1")
    from ..gateway.auth import check_secrets
    from ..gateway.server import listen, serve
    from ..gateway.workers import supervise

    logging.getLogger("trunkline").setLevel(logging.INFO)
    settings = read_settings(config).gateway
    host = host or settings.host
    check_secrets(settings, host)
    listening = listen(host, settings.port if port is None else port)
    announce = partial(_announce, host, listening.getsockname()[1])
    if workers == 1:
        serve(configure(config), listening, host, announce)
    else:
        # who connects before the first worker runs waits in the socket's queue
        supervise(workers, lambda: serve(configure(config), listening, host), announce)


def _announce(host: str, port: int) -> None:
    """Say where, for people and for scripts that wait for it."""
    shown = f"[{host}]" if ":" in host else host
    print(f"serving on http://{shown}:{port}/v1", flush=True)
