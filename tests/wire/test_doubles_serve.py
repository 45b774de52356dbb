"""``trunkline doubles serve`` as a process of its own."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trunkline.cli.app import app

COMMAND = Path(sys.executable).with_name("trunkline")
DOUBLES = "providers: [{name: openai, replies: [Good morning.]}, {name: deepgram, port: 0}]\n"


def ask(url: str, body: object = None) -> str:
    request = urllib.request.Request(
        url,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": "Bearer any", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_tells_its_addresses_serves_and_ends_cleanly(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "doubles.yaml").write_text(DOUBLES)
    with subprocess.Popen(
        [COMMAND, "doubles", "serve", tmp_path / "doubles.yaml"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as served:
        assert served.stdout
        try:
            lines = [served.stdout.readline() for _ in range(4)]
            urls = dict(line.split() for line in lines[:3])
            chat = {"model": "any", "messages": [{"role": "user", "content": "hello"}]}
            assert "Good morning." in ask(f"{urls['openai']}/v1/chat/completions", chat)
            assert "openai" in ask(f"{urls['control']}/bill")
        finally:
            served.send_signal(number)
        _, complaints = served.communicate(timeout=30)
    assert lines[3] == "serving until Ctrl-C\n"
    assert (served.returncode, complaints) == (0, "")


def test_without_a_file_it_serves_every_vendor_and_a_real_engine_on_demand() -> None:
    with subprocess.Popen(
        [COMMAND, "doubles", "serve", "--engine", "local"], stdout=subprocess.PIPE, text=True
    ) as served:
        assert served.stdout
        try:
            urls = dict(served.stdout.readline().split() for _ in range(5))
            chat = {"model": "any", "messages": [{"role": "user", "content": "when do you open"}]}
            assert "eleven in the morning" in ask(f"{urls['openai']}/v1/chat/completions", chat)
        finally:
            served.send_signal(signal.SIGTERM)
    assert set(urls) == {"cartesia", "deepgram", "elevenlabs", "openai", "control"}


def test_an_engine_that_is_not_there_is_told_with_those_that_are() -> None:
    result = CliRunner().invoke(app, ["doubles", "serve", "--engine", "loud"])
    assert result.exit_code == 2
    assert result.stderr == "error: engine 'loud' is unknown; there are: scripted, local\n"


def test_bad_input_is_one_sentence_and_status_2(tmp_path: Path) -> None:
    file = tmp_path / "doubles.yaml"
    for text, told in {
        "providers: [": "not YAML",
        "providers: []": "providers is empty",
        "providers: [{name: acme}]": "'acme' has no double",
        "providers: [{name: openai}]\nprot: 1": "prot",
    }.items():
        file.write_text(text)
        result = CliRunner().invoke(app, ["doubles", "serve", str(file)])
        assert result.exit_code == 2
        assert re.fullmatch(r"error: [^\n]+\n", result.stderr), result.stderr
        assert told in result.stderr
