"""LiteLLM's proxy for ``bench.gateway``, in an environment of its own that is kept between runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "1.106.2"
_PATIENCE_SECONDS = 600


def litellm_command() -> str | None:
    """The ``litellm`` command: TRUNKLINE_BENCH_LITELLM, else installed now. None: told why not."""
    if named := os.environ.get("TRUNKLINE_BENCH_LITELLM"):
        return named
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "trunkline" / f"litellm-{VERSION}"
    command = place / "bin" / "litellm"
    if not command.exists():
        print(f"installing LiteLLM {VERSION} into {place}", flush=True)
        if (reason := _install(place)) is not None:
            print(f"LiteLLM takes no part: {reason}", flush=True)
            return None
    return str(command)


def _install(place: Path) -> str | None:
    """Install it there, whole or not at all; returns the reason when it cannot be."""
    uv = Path(sys.executable).with_name("uv")
    new = place.with_name(f"{place.name}.{os.getpid()}")
    steps = [
        [uv, "venv", "-q", "--relocatable", "--python", sys.executable, new],
        [
            uv,
            "pip",
            "install",
            "-q",
            "--python",
            new / "bin" / "python",
            f"litellm[proxy]=={VERSION}",
        ],
    ]
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True, timeout=_PATIENCE_SECONDS)
        new.rename(place)
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").strip().splitlines()
        return told[-1] if told else f"{step[1]} ended with status {error.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return None
