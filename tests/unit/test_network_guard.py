"""The guard in conftest.py: a test cannot reach anything but this machine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import pytest

# TEST-NET-1 and the reserved top-level domain of RFC 5737 and RFC 2606: nobody answers there.
AWAY = ("192.0.2.1", 9)
NAME = "example.invalid"


def _connect() -> None:
    with socket.socket() as line:
        line.settimeout(1)
        line.connect(AWAY)


def _send() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as line:
        line.sendto(b"x", AWAY)


def _connect_asynchronously() -> None:
    asyncio.run(asyncio.wait_for(asyncio.open_connection(NAME, 9), 1))


@pytest.mark.parametrize(
    "leave",
    [_connect, _send, _connect_asynchronously, lambda: socket.getaddrinfo(NAME, 80)],
    ids=["connect", "sendto", "asyncio", "getaddrinfo"],
)
def test_leaving_this_machine_is_refused(
    leave: Callable[[], None], network_refusals: list[str]
) -> None:
    with pytest.raises(RuntimeError, match="tests reach loopback only"):
        leave()
    assert network_refusals
    network_refusals.clear()


def test_a_swallowed_refusal_is_remembered(network_refusals: list[str]) -> None:
    with contextlib.suppress(Exception):
        _connect()
    assert network_refusals == ["socket.connect 192.0.2.1"]
    network_refusals.clear()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_open(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(1)
        with socket.create_connection((host, server.getsockname()[1]), timeout=1):
            server.accept()[0].close()
