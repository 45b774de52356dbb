"""``trunkline drill`` as a CI job runs it: a process, a trunkline.yaml, an exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

COMMAND = Path(sys.executable).with_name("trunkline")
LIMIT_SECONDS = 300

WATCH = """
import ipaddress, os, socket, sys

def watch(event, args):
    if event == "socket.getaddrinfo":
        host = args[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(args[1], tuple):
        host = args[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    try:
        here = host in (None, "", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        here = False
    if not here:
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {host}\\n")
        raise OSError(f"not from here: {host}")

sys.addaudithook(watch)
"""

PATIENT = "{connect: 10, first_content: 10, idle: 5}"
"""Deadlines that a busy machine keeps too."""

THREE = f"""
    version: 1
    state: ./state
    providers:
      deepgram: {{api_key: "${{NOT_SET_HERE}}"}}
      elevenlabs: {{}}
      openai: {{}}
      cartesia: {{api_key: sk-of-the-user}}
      gpu: {{kind: openai, base_url: "https://gpu.example.invalid/v1"}}
    routes:
      ears:
        modality: stt
        candidates: [deepgram/nova-3, elevenlabs/scribe_v2_realtime]
        deadlines: {PATIENT}
      brain:
        modality: llm
        candidates: [openai/gpt-4.1, gpu/llama]
        deadlines: {PATIENT}
        apology: One moment please.
      mouth:
        modality: tts
        candidates: [cartesia/sonic-3, elevenlabs/eleven_turbo_v2_5]
        deadlines: {PATIENT}
"""


@dataclass(frozen=True)
class Drilled:
    status: int
    stdout: str
    stderr: str
    left: str
    """What the process tried to reach beside this machine."""

    def rows(self, route: str) -> dict[str, Any]:
        (found,) = [one for one in json.loads(self.stdout)["routes"] if one["route"] == route]
        return {row["fault"]: row for row in found["rows"]}


Drill = Callable[..., Drilled]


@pytest.fixture
def drill(tmp_path: Path) -> Drill:
    """Runs the command on settings, in a process that can reach nothing but this machine."""

    def run(settings: str, *args: str) -> Drilled:
        config = tmp_path / "trunkline.yaml"
        config.write_text(textwrap.dedent(settings))
        (tmp_path / "sitecustomize.py").write_text(WATCH)
        watched = tmp_path / "watched"
        watched.touch()
        home = {"PYTHONPATH": str(tmp_path), "WATCHED": str(watched), "HOME": str(tmp_path)}
        ran = subprocess.run(
            [COMMAND, "drill", "--config", config, *args],
            cwd=tmp_path,
            env={**os.environ, **home},
            capture_output=True,
            text=True,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        return Drilled(ran.returncode, ran.stdout, ran.stderr, watched.read_text())

    return run


def test_faults_in_three_modalities_without_a_key_or_a_vendor(drill: Drill, tmp_path: Path) -> None:
    faults = [f"--fault={name}" for name in ("refuse", "stall", "all_refuse")]
    drilled = drill(THREE, "--json", "--max-dead-air=60", *faults)
    assert (drilled.status, drilled.left) == (0, ""), drilled
    assert "12 of 12 calls played" in drilled.stderr

    for route in ("ears", "mouth"):
        rows = drilled.rows(route)
        assert list(rows) == ["healthy", "refuse", "stall", "all refuse"]
        for name in ("healthy", "refuse", "stall"):
            assert rows[name]["words_lost"] == 0
            assert rows[name]["added_usd"] is not None
        assert "connect_failed" in rows["refuse"]["attempts"][0]
        assert "idle_timeout" in rows["stall"]["attempts"][0]
        assert rows["stall"]["dead_air"] > 0
        assert rows["all refuse"]["told"].startswith("silence, and an error")
    brain = drilled.rows("brain")
    assert brain["refuse"]["words_lost"] == 0
    assert brain["refuse"]["added_usd"] is None, "nobody knows the price of a server of one's own"
    assert brain["stall"]["told"] == "breaks off with an error: after_output is stop"
    assert 0 < brain["stall"]["words_lost"] < 16
    assert brain["all refuse"]["told"].startswith("the apology")

    assert not (tmp_path / "state").exists(), "the user's ledger is not touched"
    assert "sk-of-the-user" not in drilled.stdout + drilled.stderr


def test_what_falls_short_is_status_1(drill: Drill) -> None:
    settings = """
        version: 1
        routes:
          brain: {modality: llm, candidates: [openai/gpt-4.1, groq/any], deadlines: {connect: 2}}
          alone: {modality: llm, candidates: [openai/gpt-4.1]}
          shared: {modality: llm, candidates: [openai/gpt-4.1, openai/gpt-4.1-mini]}
    """
    args = ("--fault=hang", "--fault=unauthorized", "--max-dead-air=0.5")
    drilled = drill(settings, "--json", *args)
    assert drilled.status == 1, drilled
    brain = drilled.rows("brain")
    assert brain["hang"]["told"] == "more than 0.5 s of dead air"
    assert brain["hang"]["verdict"] == "short"
    assert drilled.rows("alone")["hang"]["told"] == "nobody takes over: there is one candidate"
    shared = drilled.rows("shared")
    assert shared["unauthorized"]["told"] == "nobody took over", "both need the same key"
    assert shared["hang"]["words_lost"] == 0, "one model that hangs is not the other"


def test_what_cannot_be_tried_is_said_and_status_3(drill: Drill) -> None:
    settings = """
        version: 1
        routes:
          brain: {modality: llm, candidates: [openai/gpt-4.1, anthropic/claude-sonnet-4-6]}
          script: {modality: llm, candidates: [openai/gpt-4.1, scripted]}
        stacks:
          front: {stt: deepgram, llm: scripted, tts: rime}
    """
    drilled = drill(settings, "brain", "script", "front", "--fault=refuse", "--fault=all_hang")
    assert drilled.left == ""
    told = drilled.stdout
    assert "anthropic/claude-sonnet-4-6@anthropic has no double: it is left out" in told
    assert "untried  who would take over has no double" in told
    assert "scripted/receptionist@scripted runs on this machine as it is" in told
    assert "rime/coda@rime has no double" in told
    assert "nothing of it could be played" in told
    assert "not wholly tried: brain, front.llm, front.tts" in told
    assert drilled.status == 1, "one that fell short outranks it"
    assert "front.stt (stt): deepgram/nova-3" in told

    drilled = drill(settings, "brain", "--fault=refuse")
    assert drilled.status == 3, drilled


def test_a_candidate_that_cannot_be_built_is_status_2(drill: Drill) -> None:
    settings = """
        version: 1
        routes:
          brain: {modality: llm, candidates: [openai/gpt-4.1, groq/any]}
          mouth:
            modality: tts
            candidates: [{model: cartesia/sonic-3, options: {nonsense: 1}}]
    """
    drilled = drill(settings, "--fault=refuse")
    assert (drilled.status, drilled.stdout) == (2, ""), drilled
    assert "error: " in drilled.stderr
    assert "nonsense" in drilled.stderr
    assert "Traceback" not in drilled.stderr


@pytest.mark.parametrize(
    ("settings", "args", "told"),
    [
        ("version: 1", (), "the settings name no route and no stack: there is nothing to drill"),
        (THREE, ("ear",), '"ear" is no route or stack of the settings; did you mean "ears"'),
        (THREE, ("--fault=hung",), 'unknown fault "hung"'),
        (THREE, ("--max-dead-air=0",), "--max-dead-air is 0: give seconds above 0"),
        ("version: 2", (), 'unsupported version "2"'),
    ],
)
def test_bad_input_is_status_2(
    drill: Drill, settings: str, args: tuple[str, ...], told: str
) -> None:
    drilled = drill(settings, *args)
    assert (drilled.status, drilled.stdout) == (2, "")
    assert drilled.stderr.startswith("error: ")
    assert told in drilled.stderr
