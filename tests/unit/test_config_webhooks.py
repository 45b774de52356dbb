"""``webhooks`` in trunkline.yaml: what is read, and each mistake in one sentence."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from trunkline.config import load, without_secrets
from trunkline.core.webhooks import Notice
from trunkline.errors import ConfigError
from trunkline.services.drills import lines, rehearsed

KEY = bytes(range(24))
ENV = {
    "GOOD": "whsec_" + base64.b64encode(KEY).decode(),
    "SHORT": "whsec_" + base64.b64encode(KEY[1:]).decode(),
    "LONG": "whsec_" + base64.b64encode(bytes(65)).decode(),
    "PLAIN": "hunter2-hunter2-hunter2-hunter2",
    "NOT_BASE64": "whsec_hunter2!hunter2!",
    "URL": "https://user:hunter2@example.com/",
}


def write(directory: Path, text: str) -> Path:
    path = directory / "trunkline.yaml"
    path.write_text(f"version: 1\n{text}\n")
    return path


def test_what_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "webhooks:\n"
        "  ops: {url: 'https://example.com/t0ken', secret: '${GOOD}', events: [blocked]}\n"
        "  all: {url: 'http://localhost:9000', secret: '${GOOD}'}",
    )
    ops, everything = load(path, ENV).webhooks
    assert (ops.name, ops.url, ops.key) == ("ops", "https://example.com/t0ken", KEY)
    assert ops.notices == {Notice.BLOCKED}
    assert everything.notices == set(Notice)
    assert "t0ken" not in repr(ops)
    assert repr(KEY) not in repr(ops)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{url: 'ftp://example.com', secret: '${GOOD}'}", "url: must be a URL such as https://"),
        ("{url: 'https://', secret: '${GOOD}'}", "url: must be a URL such as https://host/path"),
        ("{url: '${URL}', secret: '${GOOD}'}", "url: holds a password: leave it out"),
        ("{url: 'https://example.com'}", 'the key "secret" is missing'),
        ("{secret: '${GOOD}'}", 'the key "url" is missing'),
        (
            "{url: 'https://example.com', secret: whsec_hunter2}",
            "secret: must come from the environment: write ${NAME}",
        ),
        ("{url: 'https://example.com', secret: '${NONE}'}", "the variable NONE is not set"),
        ("{url: 'https://example.com', secret: '${SHORT}'}", "the base64 of 24 to 64 bytes"),
        ("{url: 'https://example.com', secret: '${LONG}'}", "the base64 of 24 to 64 bytes"),
        ("{url: 'https://example.com', secret: '${PLAIN}'}", "openssl rand -base64 32"),
        ("{url: 'https://example.com', secret: '${NOT_BASE64}'}", "must be whsec_ and the base64"),
        (
            "{url: 'https://example.com', secret: '${GOOD}', events: [degrade]}",
            'events[0]: must be one of failover, degraded, recovered, blocked, budget, and is "deg',
        ),
        ("{url: 'https://example.com', secret: '${GOOD}', event: [x]}", 'unknown key "event"'),
    ],
)
def test_mistakes(tmp_path: Path, entry: str, told: str) -> None:
    path = write(tmp_path, f"webhooks:\n  ops: {entry}")
    with pytest.raises(ConfigError) as raised:
        load(path, ENV)
    (problem,) = raised.value.problems
    assert f"{path}:3: webhooks.ops" in problem
    assert told in problem
    assert "hunter2" not in problem


def test_a_drill_tells_nobody_and_needs_no_secret(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "routes: {brain: {modality: llm, candidates: [openai/gpt-4.1]}}\n"
        "webhooks: {ops: {url: 'https://example.com', secret: '${NOT_SET}'}}",
    )
    settings = load(path, without_secrets(path, {}))
    assert settings.webhooks
    assert rehearsed(settings, lines(settings)[0], {}).webhooks == ()
