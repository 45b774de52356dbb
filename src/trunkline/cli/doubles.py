"""``trunkline doubles serve``: vendors' protocols on this machine, until somebody ends it."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from ..doubles import Config, Double, read_config, serve_forever
from ..doubles.config import every_vendor, with_engine
from . import loop


def run(file: Path | None, engine: str | None) -> None:
    """Serve what ``file`` describes, or every vendor, until SIGINT or SIGTERM.

    ``engine`` takes the place of each provider's. Raises UsageError.
    """
    config = read_config(file) if file else every_vendor()
    loop.run(_serve(with_engine(config, engine) if engine else config))


async def _serve(config: Config) -> None:
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        await serve_forever(config, ready=_announce)
    except asyncio.CancelledError:
        return  # a server is ended by a signal: that is how it is meant to end


def _announce(double: Double) -> None:
    """Write each address, for people and for scripts that wait for them."""
    addresses = {provider.name: double.url(provider.name) for provider in double.config.providers}
    addresses["control"] = double.control_url
    width = max(map(len, addresses))
    for name, url in addresses.items():
        print(f"{name:{width}}  {url}")
    print("serving until Ctrl-C", flush=True)
