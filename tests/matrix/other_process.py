"""Another process of the same machine, with the same configuration and the same state directory.

A line of JSON on its standard input is a command, a line on its standard output the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

import aiohttp

import trunkline
from trunkline.core.models import Purpose

from . import lateness, misbehaving
from .column import Heard
from .columns import COLUMNS
from .stage import settle_memory
from .vendors import companion

_ANSWER_SECONDS = 180.0
"""On a busy machine its imports alone take a minute."""


@dataclass(frozen=True)
class Answered:
    """A call in the other process: what came of it, and who was tried."""

    heard: Heard
    attempts: list[tuple[str, str]]


class OtherProcess:
    """This side of it."""

    def __init__(self, commands: IO[bytes], answers: IO[bytes]) -> None:
        self._commands = commands
        self._answers = answers

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls) -> AsyncIterator[Self]:
        """Run it until the block ends."""
        with companion("tests.matrix.other_process") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            yield cls(process.stdin, process.stdout)

    async def configure(self, config: Path, state: Path) -> None:
        """Let it be of the same user, and follow the same state."""
        await self._ask({"config": str(config), "state": str(state), "watch": lateness.watched()})

    async def call(self, column: object, route: str) -> Answered:
        """One call there."""
        told = await self._ask({"column": str(column), "route": route})
        heard = Heard(**told["heard"])
        return Answered(heard, [(name, outcome) for name, outcome in told["attempts"]])

    async def leave(self) -> None:
        """Let it bring its journal into the ledger."""
        await self._ask({"leave": True})

    async def _ask(self, command: dict[str, Any]) -> Any:
        self._commands.write(json.dumps(command).encode() + b"\n")
        self._commands.flush()
        async with asyncio.timeout(_ANSWER_SECONDS):
            return json.loads(await asyncio.to_thread(self._answers.readline))


async def main() -> None:
    logging.disable(logging.CRITICAL)
    settled: list[Any] = []
    columns = {str(column): column for column in COLUMNS}
    with tempfile.TemporaryDirectory() as rows:
        misbehaving.install(Path(rows))
        while line := await asyncio.to_thread(sys.stdin.readline):
            command = json.loads(line)
            answer: dict[str, Any] = {}
            if "config" in command:
                trunkline.configure(command["config"], command["state"])
                trunkline.on("settled", settled.append)
                lateness.watch(*command["watch"])
            elif "leave" in command:
                await trunkline.aclose()
                settle_memory()
            else:
                settled.clear()
                column = columns[command["column"]]
                async with aiohttp.ClientSession() as http:
                    client = column.open(command["route"], http)
                    heard = await column.call(client)
                    await client.aclose()
                tried = [
                    (one.attempt.connection, one.attempt.outcome)
                    for one in settled
                    if one.attempt.purpose is Purpose.SERVE
                ]
                answer = {"heard": asdict(heard), "attempts": tried}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
