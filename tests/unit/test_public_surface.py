"""What users may rely on: names, extras, entry points, and what an import costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import trunkline
from trunkline import catalog
from trunkline.config.schema import keys

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

NAMES = ["__version__", "aclose", "configure", "errors", "inference", "on", "stack"]
DOOR = ["LLM", "STT", "Stack", "TTS", "llm_from_model_string"]
ENTRY_POINTS = "trunkline.providers"
ROW = ["ChatQuirks", "Credential", "ParameterRule", "Plugin", "Provider", "Wire"]
UNITS = ("tokens", "characters", "audio_seconds", "requests")
SHARED = ("scope", "amount", "notice", "shadow", "without_store")
SCOPE = ("org", "project", "agent", "key", "room", "tag", "modality")
KEYS = [
    "version",
    *("project", "project.org", "project.name"),
    "state",
    *("webhooks", *(f"webhooks.<name>.{key}" for key in ("url", "secret", "events"))),
    "providers",
    *(f"providers.<name>.{key}" for key in ("kind", "base_url", "options", "tier", "region")),
    *(f"providers.<name>.options.{modality}" for modality in ("stt", "llm", "tts")),
    "providers.<name>.<credential>",
    "routes",
    *(f"routes.<name>.{key}" for key in ("modality", "candidates", "deadlines", "after_output")),
    *(
        f"routes.<name>.{key}"
        for key in ("probe", "apology", "hedge", "hedge.after", "hedge.share")
    ),
    *(f"routes.<name>.candidates[].{key}" for key in ("model", "voice", "language", "options")),
    *(f"routes.<name>.deadlines.{key}" for key in ("connect", "first_content", "idle", "total")),
    "routes.<name>.deadlines.adaptive",
    "stacks",
    *(f"stacks.<name>.{modality}" for modality in ("stt", "llm", "tts")),
    "gateway",
    *(f"gateway.{key}" for key in ("keys", "bearer", "host", "port", "decisions")),
    *("budgets", "limits"),
    *(f"budgets.<name>.{key}" for key in ("window", "time_zone", "steps")),
    *(f"budgets.<name>.steps[].{key}" for key in ("at", "do", "seconds", "route")),
    *(f"budgets.<name>.amount.{unit}" for unit in (*UNITS, "usd")),
    *(f"limits.<name>.{key}" for key in ("per", "burst", "wait")),
    *(f"limits.<name>.amount.{unit}" for unit in (*UNITS, "streams")),
    *(f"{kind}.<name>.{key}" for kind in ("budgets", "limits") for key in SHARED),
    *(f"{kind}.<name>.scope[].{key}" for kind in ("budgets", "limits") for key in SCOPE),
]
ENGINES = ["espeak", "flite", "pocketsphinx", "scripted"]
PLUGINS = [
    *("anthropic", "assemblyai", "cartesia", "deepgram", "elevenlabs", "fishaudio", "google"),
    *("groq", "inworld", "openai", "rime", "speechmatics", "xai"),
]

HEAVY = ["aiohttp", "livekit", "numpy", "sqlalchemy", "typer", "yaml"]
WITHOUT_LIVEKIT = [
    "trunkline.core.models",
    "trunkline.store",
    "trunkline.runtime.attempt",
    "trunkline.runtime.chat",
    "trunkline.runtime.wire_llm",
    "trunkline.gateway.server",
]


def fresh(code: str) -> str:
    """Run code in an interpreter of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_names() -> None:
    assert trunkline.__all__ == NAMES
    assert [name for name in NAMES if getattr(trunkline, name, None) is None] == []


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'stak'"):
        trunkline.stak  # noqa: B018


def test_the_names_of_the_door() -> None:
    code = (
        "from livekit.agents import inference as theirs; from trunkline import inference as ours;"
        "print(*sorted(set(ours.__all__) - set(theirs.__all__) | "
        "{n for n in theirs.__all__ if getattr(ours, n) is not getattr(theirs, n)}))"
    )
    assert fresh(code).split() == DOOR


def test_the_entry_points_and_what_they_are_made_of() -> None:
    assert catalog.GROUP == ENTRY_POINTS
    assert set(ROW) <= set(catalog.__all__)


def test_the_keys_of_the_configuration() -> None:
    """A key that goes, or changes its name, breaks somebody's trunkline.yaml."""
    assert sorted(path for path, _ in keys()) == sorted(KEYS)


def test_the_extras() -> None:
    assert sorted(PROJECT["optional-dependencies"]) == sorted(
        [*ENGINES, "demo", "gateway", *PLUGINS]
    )


def test_the_commands() -> None:
    assert PROJECT["scripts"] == {"trunkline": "trunkline.cli:main"}


def test_importing_the_package_is_cheap() -> None:
    """By the time of the processor: the machine may be busy with something else."""
    code = (
        "import time; began = time.process_time(); import trunkline;"
        "print((time.process_time() - began) * 1000)"
    )
    best = min(float(fresh(code)) for _ in range(5))
    assert best < 50, f"import trunkline takes {best:.0f} ms"


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = f"import sys, trunkline; print(*sorted(set({HEAVY}) & set(sys.modules)))"
    assert fresh(code) == ""


@pytest.mark.parametrize("module", WITHOUT_LIVEKIT)
def test_the_engine_runs_without_livekit(module: str) -> None:
    assert fresh(f"import sys, {module}; print('livekit' in sys.modules)") == "False"
