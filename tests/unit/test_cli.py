"""The command line as its user meets it: status, one sentence on stderr, nothing else."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import wave
from functools import partial
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner, Result

from trunkline import __version__
from trunkline.cli import quick
from trunkline.cli.app import app

COMMAND = Path(sys.executable).with_name("trunkline")
HELP_SECONDS = 0.4


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="trunkline")


def wav(path: Path, frames: bytes) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(frames)
    return path


def test_help_and_version() -> None:
    assert run("--version").stdout == f"trunkline {__version__}\n"
    shown = run("--help")
    assert shown.exit_code == 0
    for command in ("demo", "ledger", "config"):
        assert re.search(rf"^  {command} ", shown.stdout, re.MULTILINE)


def test_help_is_quick() -> None:
    """CPU seconds of the best of three: the machine may be busy with something else."""

    def once() -> float:
        before = os.times()
        subprocess.run([COMMAND, "--help"], check=True, capture_output=True)
        after = os.times()
        spent = after.children_user + after.children_system
        return spent - before.children_user - before.children_system

    assert min(once() for _ in range(3)) < HELP_SECONDS


PLAIN = ["serve", "--config", "a.yaml", "--port", "0", "--workers", "2", "--host", "::1"]


def test_the_quick_way_to_serve_takes_the_options_that_the_usual_one_has() -> None:
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    usual = {name for one in command.params for name in one.opts} - {"--help"}
    assert usual == set(quick.OPTIONS)
    assert quick._read(PLAIN) == dict(zip(PLAIN[1::2], PLAIN[2::2], strict=True))
    assert quick._read(["serve"]) == {}


@pytest.mark.parametrize(
    "arguments",
    [[], ["ledger"], ["--debug", *PLAIN], ["serve", "--help"], ["serve", "--port"],
     ["serve", "--port=1"], ["serve", "--port", "x"], ["serve", "--port", "65536"],
     ["serve", "--port", "-1"], ["serve", "--workers", "\u0663"], ["serve", "--conf", "a"],
     ["serve", "--port", "1", "--port", "2"], ["serve", "--host", ""]],
    ids=" ".join,
)  # fmt: skip
def test_all_that_is_not_plain_goes_the_usual_way(arguments: list[str]) -> None:
    assert quick._read(arguments) is None


def test_bad_input_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    mp3 = tmp_path / "song.wav"
    mp3.write_bytes(b"ID3\x04" + bytes(100))
    settings = tmp_path / "bad.yaml"
    settings.write_text("version: 1\nstackz: {}\n")
    out = ("--out", tmp_path / "out")
    table = {
        "looks like MP3": ("demo", *out, "--caller", mp3),
        "is silent": ("demo", *out, "--caller", wav(tmp_path / "silent.wav", bytes(32_000))),
        "No such file": ("demo", *out, "--caller", tmp_path / "none.wav"),
        "cannot be written to": ("demo", "--out", tmp_path / "file" / "out"),
        "nowhere": ("demo", *out, "--stack", "nowhere"),
        "stackz": ("config", "check", settings),
        "bad.yaml": ("demo", *out, "--config", settings),
        "holds no ledger": ("ledger", "--state", tmp_path / "empty"),
    }
    for told, args in table.items():
        result = run(*args)
        assert result.exit_code == 2, result.output
        assert re.fullmatch(r"error: [^\n]+\n", result.stderr), result.stderr
        assert told in result.stderr
        assert result.stdout == ""


def test_every_mistake_of_a_configuration_is_told(tmp_path: Path) -> None:
    settings = tmp_path / "bad.yaml"
    settings.write_text("version: 1\nstackz: {}\nprojekt: a\n")
    result = run("config", "check", settings)
    assert result.exit_code == 2
    assert [line[:7] for line in result.stderr.splitlines()] == ["error: ", "error: "]


def test_settings_in_order_are_confirmed(tmp_path: Path) -> None:
    settings = tmp_path / "good.yaml"
    settings.write_text("version: 1\n")
    result = run("config", "check", settings)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "in order" in result.stdout


def test_wrong_options_are_told_by_the_parser() -> None:
    result = run("demo", "--nonsense")
    assert result.exit_code == 2
    assert "--nonsense" in result.stderr


@pytest.fixture
def surprise(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the code: settings are read by something that cannot read."""

    def fail(*_: object) -> None:
        raise RuntimeError("out of cheese")

    monkeypatch.setattr("trunkline.compose.configure", fail)


@pytest.mark.usefixtures("surprise")
def test_the_unexpected_is_one_line_and_a_way_to_more() -> None:
    result = run("config", "check")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: unexpected RuntimeError: out of cheese; ")
    assert "trunkline --debug" in result.stderr
    assert result.stderr.count("\n") == 1
    assert "Traceback" in run("--debug", "config", "check").stderr


LOGGING = """
    import logging, sys
    from trunkline.cli import app

    def fail(*_):
        try:
            raise RuntimeError("the cheese\\nis out")
        except RuntimeError:
            logging.getLogger("livekit.agents").exception("a session failed")

    import trunkline.compose
    trunkline.compose.configure = fail
    sys.argv[1:] = ["--debug"] * (sys.argv[1] == "debug") + ["config", "check"]
    app.app()
"""


@pytest.mark.parametrize("debug", [False, True])
def test_what_a_library_logs_has_its_traceback_with_debug_alone(debug: bool) -> None:
    command = [sys.executable, "-c", textwrap.dedent(LOGGING), "debug" if debug else ""]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "livekit.agents:a session failed" in done.stderr
    assert "RuntimeError" in done.stderr
    assert ("Traceback" in done.stderr) is debug


@pytest.mark.parametrize("stage", ["Python starts", "the call starts"])
def test_an_interrupted_start_is_clean(tmp_path: Path, stage: str) -> None:
    # whoever runs these tests in the background has Ctrl-C ignored, which is inherited
    demo = subprocess.Popen(
        [COMMAND, "demo", "--out", tmp_path],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert demo.stdout
    seen = b""
    if stage == "Python starts":
        time.sleep(0.2)
    else:
        seen = demo.stdout.readline()
    demo.send_signal(signal.SIGINT)
    out, err = demo.communicate(timeout=60)
    assert demo.returncode in (130, -signal.SIGINT), seen + out
    assert b"Traceback" not in out + err


def test_a_reader_who_leaves_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    settings = tmp_path / "good.yaml"
    settings.write_text("version: 1\n")
    done = subprocess.run(
        [COMMAND, "config", "check", settings], stdout=writing, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writing)
    assert done.stderr == b""
    assert done.returncode == 141
