"""The main job, run for real: a caller, an ``AgentSession``, the engine, and what is written down.

One call of the shipped caller is held for the whole file; it takes its time, as calls do.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import wave
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trunkline.store import LEDGER_NAME
from trunkline.store.ledger import Ledger, Recorded

COMMAND = Path(sys.executable).with_name("trunkline")
RATE = 16_000
LOUD = 300.0  # RMS of 16-bit samples; the voices are around 2000, silence is exactly 0


@dataclass(frozen=True)
class Call:
    """A finished run of the demo."""

    status: int
    stdout: str
    stderr: str
    out: Path

    @property
    def report(self) -> Any:
        return json.loads((self.out / "call.json").read_text("utf-8"))

    @property
    def turns(self) -> list[Any]:
        return list(self.report["turns"])

    def loudness(self, channel: int, start_ms: int, stop_ms: int) -> float:
        """RMS of a stretch of one channel: 0 is the caller, 1 the agent."""
        with wave.open(str(self.out / "call.wav")) as file:
            assert (file.getframerate(), file.getnchannels()) == (RATE, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, 2)
        part = samples[start_ms * 16 : stop_ms * 16, channel].astype(float)
        return float(np.sqrt((part**2).mean())) if len(part) else 0.0


def demo(out: Path, *args: str | Path) -> Call:
    command = [COMMAND, "demo", "--out", out, *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    return Call(done.returncode, done.stdout, done.stderr, out)


@pytest.fixture(scope="module")
def call(tmp_path_factory: pytest.TempPathFactory) -> Call:
    return demo(tmp_path_factory.mktemp("demo"), "--json")


def ledger(out: Path) -> list[Recorded]:
    reader = Ledger(out / LEDGER_NAME)
    try:
        return reader.attempts()
    finally:
        reader.close()


def test_every_turn_is_answered(call: Call) -> None:
    assert call.status == 0, call.stderr
    assert call.report["answered"] is True
    assert len(call.turns) == 5
    assert all(turn["answered"] for turn in call.turns)
    assert call.report["duration_ms"] < 60_000


def test_one_turn_calls_a_tool_and_one_is_interrupted(call: Call) -> None:
    assert ["book_table"] in [turn["tools"] for turn in call.turns]
    assert [turn["interrupted"] for turn in call.turns] == [False, False, True, False, False]
    assert call.turns[3]["agent"], "the answer to what interrupted"


def test_the_recording_holds_both_sides_where_the_report_says(call: Call) -> None:
    ends = [turn["stopped_ms"] for turn in call.turns[1:]] + [call.report["duration_ms"]]
    for turn, end in zip(call.turns, ends, strict=True):
        assert call.loudness(0, turn["started_ms"], turn["stopped_ms"]) > LOUD
        answer = turn["stopped_ms"] + turn["e2e_ms"]
        assert call.loudness(1, answer, answer + 1000) > LOUD
        assert call.loudness(1, turn["stopped_ms"], answer - 40) == 0
        assert answer < end


def test_barge_in_stops_the_agent(call: Call) -> None:
    cut, barging = call.turns[2], call.turns[3]
    assert call.loudness(1, barging["started_ms"] - 1000, barging["started_ms"]) > LOUD
    assert call.loudness(1, barging["stopped_ms"], barging["stopped_ms"] + 300) == 0
    # The agent's words are kept up to where the caller cut in, and no further.
    assert 0 < len(cut["agent"]) < 150


def test_each_turn_says_where_its_time_went(call: Call) -> None:
    for turn in call.turns:
        assert 0 < turn["stt_ms"] <= turn["eou_ms"] <= turn["e2e_ms"]
        for part in ("ttft_ms", "ttfb_ms"):
            assert 0 <= turn[part] <= turn["e2e_ms"]


def test_the_ledger_has_every_attempt_at_an_explicit_rate_of_zero(call: Call) -> None:
    recorded = ledger(call.out)
    report = call.report
    assert {one.attempt.identity.call for one in recorded} == {report["call"]}
    assert sum(used["attempts"] for used in report["usage"].values()) == len(recorded)
    for modality in ("stt", "llm", "tts"):
        assert report["usage"][modality]["attempts"] >= 1
        assert report["usage"][modality]["models"] == [report["stack"][modality]]
        assert report["charges"][modality] == {"usd": "0", "unpriced": 0, "sources": ["local"]}
    for one in recorded:
        assert [entry.charge.source for entry in one.entries if entry.charge] == ["local"]
    answers = [one for one in recorded if one.attempt.modality == "tts"]
    assert len(answers) >= len(call.turns)


def test_machine_output_is_the_report_and_the_rest_is_for_people(call: Call) -> None:
    assert json.loads(call.stdout) == call.report
    assert f"caller  {call.turns[0]['caller']}" in call.stderr
    assert "0 (local)" in call.stderr
    assert "\x1b" not in call.stderr
    assert "Traceback" not in call.stderr


def test_nothing_half_written_stays(call: Call) -> None:
    assert not [path for path in call.out.iterdir() if "part" in path.name]


def test_a_recording_of_another_rate_and_two_channels_is_a_caller(tmp_path: Path) -> None:
    """Its turns are found by the pipeline: the file is played as it is."""
    shipped = resources.files("trunkline.cli.demo")
    sheet = json.loads((shipped / "caller.json").read_text("utf-8"))
    with wave.open(str(shipped / "caller.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    line = samples[sheet["lines"][0]["start"] : sheet["lines"][0]["stop"]]
    at = np.arange(int(len(line) * 44_100 / RATE)) * RATE / 44_100
    wide = np.interp(at, np.arange(len(line)), line).astype("<i2")
    path = tmp_path / "caller.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44_100)
        file.writeframes(np.repeat(wide, 2).tobytes())

    call = demo(tmp_path / "out", "--caller", path)

    assert call.status == 0, call.stdout + call.stderr
    assert call.stderr == ""
    assert [turn["answered"] for turn in call.turns] == [True]
    assert "caller  " + call.turns[0]["caller"] in call.stdout
    assert call.report["caller"] == str(path)


def test_a_caller_that_nobody_understands_is_not_answered(tmp_path: Path) -> None:
    path = tmp_path / "click.wav"
    samples = np.zeros(RATE, "<i2")
    samples[8000:8400:7] = 20_000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())
    call = demo(tmp_path / "out", "--caller", path)
    assert call.status == 1, call.stderr
    assert call.stderr == ""
    assert call.turns == []
    assert "no turn was heard" in call.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_call_is_clean_and_metered(tmp_path: Path, number: int) -> None:
    command = [COMMAND, "demo", "--out", tmp_path]
    running = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, text=False
    )
    assert running.stdout
    seen = b""
    while b"agent   " not in seen and (byte := running.stdout.read(1)):
        seen += byte
    running.send_signal(number)
    _, err = running.communicate(timeout=60)
    assert running.returncode == 130
    assert err.endswith(b"error: interrupted\n")
    assert b"Traceback" not in err
    recorded = ledger(tmp_path)
    assert {one.attempt.modality for one in recorded} == {"stt", "llm", "tts"}
    assert not (tmp_path / "call.json").exists()
