"""What holds for every test: no network but loopback, no foreign credential, no shared state.

The guard sees the sockets of this process. A child process gets the scrubbed environment, so that
it has no credential to call anybody with.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("trunkline", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("trunkline")

_REFUSED: list[str] = []
_SENDING = {"socket.connect", "socket.sendto", "socket.sendmsg"}
_RESOLVING = {"socket.getaddrinfo", "socket.gethostbyname"}
_FOREIGN = re.compile(
    r"(TRUNKLINE|LIVEKIT|OPENAI|ANTHROPIC|GOOGLE|AWS|AZURE|OTEL)_"
    r"|.*_(API_KEY|API_SECRET|API_TOKEN|TOKEN)$"
    r"|(HTTPS?|ALL|NO)_PROXY$",
    re.IGNORECASE,
)


class NetworkBlocked(RuntimeError):
    """A test tried to leave this machine. No OSError: a retry loop must not take it for weather."""


def _is_local(host: object) -> bool:
    text = host.decode() if isinstance(host, bytes) else host
    if text in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(str(text).partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _guard(event: str, args: tuple[object, ...]) -> None:
    if event in _SENDING:
        line, address = args
        inet = isinstance(line, socket.socket) and line.family in (
            socket.AF_INET,
            socket.AF_INET6,
        )
        host = address[0] if inet and isinstance(address, tuple) else None
    elif event in _RESOLVING:
        host = args[0]
    else:
        return
    if not _is_local(host):
        _REFUSED.append(f"{event} {host}")
        raise NetworkBlocked(f"tests reach loopback only, not {host} ({event})")


sys.addaudithook(_guard)


@pytest.fixture(autouse=True)
def network_refusals() -> Iterator[list[str]]:
    """What the guard refused during this test; anything left in it at the end fails the test.

    The guard raises where the call is made, but code that swallows errors must not hide it.
    """
    _REFUSED.clear()
    yield _REFUSED
    assert _REFUSED == [], "the test tried to leave this machine"


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory of this test alone, in an environment without foreign settings.

    The process's Trunkline, which would remember another test's directory, is made anew.
    """
    for name in list(os.environ):
        if _FOREIGN.match(name):
            monkeypatch.delenv(name)
    directory = tmp_path / "state"
    monkeypatch.setenv("TRUNKLINE_STATE", str(directory))
    if compose := sys.modules.get("trunkline.compose"):
        monkeypatch.setattr(compose, "_current", None)
    return directory
