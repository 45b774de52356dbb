"""The locks: hashes for every file, no address, and all that pyproject asks for."""

from __future__ import annotations

import json
import re
import tomllib
from itertools import chain, pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))

ALONE = ("older", "pipecat")
"""Clients that the gateway is tested with: each has an environment of its own."""

ADDRESS = re.compile(r"//|@|\b[\w-]+\.(org|com|net|io|dev)\b", re.IGNORECASE)
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
PIN = re.compile(r"([a-z0-9-]+)(\[[a-z0-9,-]+\])?==[\w.+!]+( ; .+)? \\")


def problems(lock: str) -> list[str]:
    """What a lock must not have: an address, an option, a file without a hash."""
    lines = [line for line in lock.splitlines() if line.strip() and not line.startswith("    #")]
    found = [line for line in lock.splitlines() if ADDRESS.search(line)]
    found += [line for line in lines if not (PIN.fullmatch(line) or HASH.fullmatch(line))]
    for line, following in pairwise([*lines, ""]):
        if PIN.fullmatch(line) and not HASH.fullmatch(following):
            found.append(f"{line} has no hash")
    return found


def names(requirements: list[str]) -> set[str]:
    found = [re.match(r"[\w.-]+", text) for text in requirements]
    return {match[0].lower().replace("_", "-") for match in found if match}


def locked(name: str) -> set[str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
    return {line.split("==")[0].split("[")[0] for line in text.splitlines() if PIN.fullmatch(line)}


def pins(path: Path) -> set[str]:
    return {line for line in path.read_text("utf-8").splitlines() if PIN.fullmatch(line)}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_a_lock_has_hashes_and_no_address(path: Path) -> None:
    assert problems(path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "lock",
    [
        "--index-url https://mirror.example/simple\n",
        "--find-links wheels\n",
        "aiohttp==3.11.0\n",
        "aiohttp @ file:///wheels/aiohttp.whl\n",
        "aiohttp==3.11.0 \\\nmsgspec==0.19.0 \\\n    --hash=sha256:" + "0" * 64 + "\n",
        "    # from files.example.org\n",
    ],
)
def test_a_bad_lock_is_seen(lock: str) -> None:
    assert problems(lock)


def test_everything_declared_is_locked() -> None:
    project = PROJECT["project"]
    groups = PROJECT["dependency-groups"]
    extras = project["optional-dependencies"]
    everything = [*project["dependencies"], *chain.from_iterable(extras.values())]
    dev = [entry for entry in groups["dev"] if isinstance(entry, str)]
    backend = PROJECT["build-system"]["requires"]

    assert names(backend + groups["setup"]) <= locked("setup")
    assert names(project["dependencies"] + extras["demo"]) <= locked("demo")
    assert names(everything + dev + groups["setup"]) <= locked("dev")
    for alone in ALONE:
        assert names(groups[alone]) <= locked(alone)


def test_the_locks_agree() -> None:
    every = pins(ROOT / "requirements" / "dev.txt")
    assert {path.stem for path in LOCKS} == {"setup", "demo", "dev", *ALONE}
    ours = [path for path in LOCKS if path.stem not in ALONE]
    assert [pin for path in ours for pin in sorted(pins(path) - every)] == []


def test_the_packages_of_node_are_locked_by_hash_and_without_an_address() -> None:
    lock = json.loads((ROOT / "tests/e2e/clients/node/package-lock.json").read_text("utf-8"))
    assert lock["packages"].pop("")["dependencies"]
    assert [name for name, one in lock["packages"].items() if "integrity" not in one] == []
    assert [name for name, one in lock["packages"].items() if "resolved" in one] == []
