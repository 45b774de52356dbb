"""Clients that leave in the middle: the double counts it, and says nothing about it."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from typing import Any

import aiohttp
import pytest
from test_doubles import DOORS, Door

from trunkline.doubles import Double, Kind, Provider, Rule

ASK = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True}


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the double has to complain about; plugins may say of themselves what they like."""
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    texts = [logging.Formatter("%(name)s: %(message)s").format(record) for record in told]
    return [text for text in texts if "aiohttp.server" in text or "/doubles/" in text]


class Leaving:
    """Remembers the sockets of a session, and resets them all at once."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def open(self, address: Any) -> socket.socket:
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self.sockets.append(made)
        return made

    def session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=self.open))

    def now(self) -> None:
        for one in self.sockets:
            if one.fileno() >= 0:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                one.shutdown(socket.SHUT_RDWR)


async def test_a_client_gone_before_the_first_token_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = Leaving()

    def answer(_: Any) -> str:
        client.now()
        return "one two three four five six seven eight nine ten"

    async with Double.serve([Provider("openai", answer=answer)]) as double:
        async with client.session() as http:
            with pytest.raises(aiohttp.ClientError):
                async with http.post(
                    f"{double.url('openai')}/v1/chat/completions",
                    json=ASK,
                    headers={"Authorization": "Bearer key"},
                ) as response:
                    await response.read()
        async with asyncio.timeout(10):
            while double.requests[0].outcome == "running":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert [log.outcome for log in double.requests] == ["cancelled"]
    assert complaints(caplog) == []


@pytest.mark.parametrize("door", DOORS, ids=str)
async def test_a_client_gone_at_any_moment_leaves_no_traceback(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    rules = [Rule(kind=Kind.KEEP_ALIVE, every=0.001, nth=(1, 2)), Rule(kind=Kind.DRIP, every=0.001)]
    async with Double.serve([Provider(door.provider, hears="one two")], faults=rules) as double:
        for wait in (0.0, 0.02, 0.05, 0.1):
            client = Leaving()
            async with client.session() as http:
                plugin = door.plugin(double.url(door.provider), http)
                asking = asyncio.ensure_future(door.client(plugin, []))
                async with asyncio.timeout(10):
                    while not double.requests and not asking.done():  # noqa: ASYNC110
                        await asyncio.sleep(0.001)
                await asyncio.sleep(wait)
                client.now()
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                await plugin.aclose()
    assert complaints(caplog) == []
