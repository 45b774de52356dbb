"""``trunkline serve`` as a process of its own, before doubles in this one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trunkline.core.models import Attempt
from trunkline.doubles import Double, Provider, Rule
from trunkline.store import LEDGER_NAME, Ingester
from trunkline.store.ledger import Ledger

INSTALLED = Path(__file__).parents[2] / ".make" / "clients"
COMMAND = Path(sys.executable).with_name("trunkline")
KEY, SECRET = "APIclients", "a-secret-of-thirty-two-characters"


def installed(name: str) -> Path:
    """Where ``scripts/clients`` put it; the test is skipped, with the reason, where it is not."""
    if not (INSTALLED / name).exists():
        missing = INSTALLED / f"{name}.missing"
        pytest.skip(missing.read_text("utf-8").strip() if missing.exists() else "scripts/clients")
    return INSTALLED / name


@dataclass
class Gateway:
    """``url`` ends in ``/v1``; ``variables`` are what an agent's environment needs."""

    process: asyncio.subprocess.Process
    url: str
    place: Path

    @property
    def variables(self) -> dict[str, str]:
        return {
            "LIVEKIT_INFERENCE_URL": self.url,
            "LIVEKIT_INFERENCE_API_KEY": KEY,
            "LIVEKIT_INFERENCE_API_SECRET": SECRET,
        }

    async def attempts(self) -> list[Attempt]:
        """End the gateway as an operator does; what its ledger then has, in order."""
        self.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(self.process.wait(), 60) == 0
        state = Path(os.environ["TRUNKLINE_STATE"])
        with contextlib.closing(Ingester(state)) as ingester:
            ingester.run_once()  # on a busy machine it had no time to do so itself
        ledger = Ledger(state / LEDGER_NAME)
        found = [one.attempt for one in ledger.attempts()]
        ledger.close()
        return sorted(found, key=lambda attempt: attempt.started_ns)


@contextlib.asynccontextmanager
async def gateway(place: Path, **said: Any) -> AsyncIterator[Gateway]:
    """A gateway with the settings ``said``. Its log is printed when the test fails."""
    said = {"version": 1, "gateway": {"keys": {KEY: SECRET}}, **said}
    (place / "trunkline.yaml").write_text(json.dumps(said), "utf-8")
    log = place / "gateway.log"
    async with program(log, COMMAND, "serve", "--port", "0", cwd=place) as process:
        await until(lambda: "serving on " in log.read_text("utf-8"), 60, process)
        url = log.read_text("utf-8").split("serving on ")[1].split()[0]
        yield Gateway(process, url, place)


@contextlib.asynccontextmanager
async def program(
    log: Path, *command: str | Path, **options: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that writes to ``log`` and is ended with the block, its children with it."""
    with log.open("wb") as out:
        options = {"stdout": out, "stderr": out, "start_new_session": True, **options}
        process = await asyncio.create_subprocess_exec(*command, **options)
    try:
        yield process
    except BaseException:
        _show(log)
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _show(log: Path) -> None:
    print(f"--- {log.name}", log.read_text("utf-8", "replace")[-6000:], sep="\n")


async def until(
    met: Any, seconds: float = 30.0, process: asyncio.subprocess.Process | None = None
) -> None:
    """Wait, bounded, for ``met()``; in vain when ``process``, which is to bring it, has ended."""
    async with asyncio.timeout(seconds):
        while not met():
            assert process is None or process.returncode is None, "the program has ended"
            await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Place:
    """One candidate of a route, served by a double of its own: its connection is ``name``."""

    name: str
    modality: str
    kind: str
    model: str
    path: str = ""


# Nobody has to be quick here: what is tested is who answers.
PATIENT = {"connect": 20, "first_content": 45, "idle": 45}
ROUTES = {"stt": "ears", "llm": "brain", "tts": "mouth"}
PRIMARY = (
    Place("stt-a", "stt", "deepgram", "nova-3"),
    Place("llm-a", "llm", "openai", "gpt-4.1", "/v1"),
    Place("tts-a", "tts", "cartesia", "sonic-3"),
)
BACKUP = (
    Place("stt-b", "stt", "deepgram", "nova-3"),
    Place("llm-b", "llm", "openai", "gpt-4.1", "/v1"),
    Place("tts-b", "tts", "elevenlabs", "eleven_flash_v2_5", "/v1"),
)


def routes(places: Mapping[Place, Double], **more: Any) -> dict[str, Any]:
    """The settings: a route a modality with the places in their order, and the stack of them."""
    providers = {
        place.name: {
            "kind": place.kind,
            "api_key": f"key-of-{place.name}",
            "base_url": double.url(place.kind) + place.path,
        }
        for place, double in places.items()
    }
    of = {
        route: {
            "modality": modality,
            "deadlines": PATIENT,
            "candidates": [f"{p.name}/{p.model}" for p in places if p.modality == modality],
        }
        for modality, route in ROUTES.items()
    }
    return {"providers": providers, "routes": of, "stacks": {"default": ROUTES}, **more}


@contextlib.asynccontextmanager
async def double(places: tuple[Place, ...], *rules: Rule, **how: Any) -> AsyncIterator[Double]:
    """One double for all of ``places``; ``how`` it behaves is by the kind of vendor."""
    served = [Provider(place.kind, **how.get(place.kind, {})) for place in places]
    async with Double.serve(served, faults=rules) as one:
        yield one
