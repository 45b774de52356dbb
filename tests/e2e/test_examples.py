"""The examples run, and do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_a_call_survives_its_outages() -> None:
    command = [sys.executable, str(EXAMPLES / "survive_outage.py")]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=dict(os.environ), check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "openai-a/gpt-4.1: first_content_timeout, over to openai-b/gpt-4.1" in ran.stdout
    assert "cartesia-a/sonic-3: stream_cut, over to cartesia-b/sonic-3" in ran.stdout
    assert "every turn was answered" in ran.stdout
