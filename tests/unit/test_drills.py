"""What a drill is made of, and what it says of its calls: plain data, no call is played."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from pathlib import Path

import pytest

from trunkline import catalog
from trunkline.cli.app import drill
from trunkline.config import load, without_secrets
from trunkline.core.models import Modality
from trunkline.doubles.faults import Kind
from trunkline.errors import ConfigError, UsageError
from trunkline.services.drill_verdicts import MAX_DEAD_AIR, NEVER, Take, Verdict, judge
from trunkline.services.drills import (
    HEALTHY,
    SCENARIOS,
    Line,
    Scenario,
    lines,
    neighbours,
    rehearsed,
    scenarios,
)

FILE = """
version: 1
providers:
  deepgram: {api_key: "${DG}"}
  openai: {api_key: sk-real}
  assemblyai: {}
  gpu: {kind: openai, base_url: "${GPU_URL:-http://10.0.0.5/v1}"}
  cartesia: {}
gateway: {keys: {devkey: "${GATE}"}}
routes:
  ears: {modality: stt, candidates: [deepgram/nova-3, assemblyai/universal-streaming]}
  brain: {modality: llm, candidates: [openai/gpt-4.1, gpu/llama]}
  mouth: {modality: tts, candidates: [cartesia/sonic-3, espeak]}
  robot: {modality: tts, candidates: [espeak, cartesia/sonic-3]}
  talk: {modality: realtime, candidates: [openai/gpt-realtime]}
stacks:
  one: {stt: ears, llm: openai/gpt-4.1, tts: mouth}
"""


class Watched(MutableMapping[str, str]):
    """An environment that remembers what it was asked for, by any way."""

    def __init__(self, values: dict[str, str]) -> None:
        self.values_, self.asked = values, set[str]()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        raise AssertionError("the environment was copied")

    def __len__(self) -> int:
        return len(self.values_)

    def __setitem__(self, name: str, value: str) -> None:
        raise AssertionError

    def __delitem__(self, name: str) -> None:
        raise AssertionError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "trunkline.yaml"
    path.write_text(FILE)
    return path


def test_no_secret_of_the_environment_is_read(file: Path) -> None:
    secrets = {"DG", "GATE", "OPENAI_API_KEY", "ASSEMBLYAI_API_KEY", "CARTESIA_API_KEY"}
    env = Watched({**dict.fromkeys(secrets, "sk-real"), "GPU_URL": "http://10.9.9.9/v1"})
    settings = load(file, without_secrets(file, env))
    assert not secrets & env.asked
    assert settings.connections["gpu"].base_url == "http://10.9.9.9/v1"
    assert settings.connections["deepgram"].credentials["api_key"].reveal() == "throw-away"


def test_an_account_is_no_secret(file: Path) -> None:
    account = "  deepgram:\n    tier: ${PLAN:-growth}\n    region: ${WHERE}\n"
    file.write_text(re.sub(r"^  deepgram: .*\n", account, FILE, count=1, flags=re.MULTILINE))
    connection = load(file, without_secrets(file, {"WHERE": "eu"})).connections["deepgram"]
    assert (connection.tier, connection.region) == ("growth", "eu")


def test_what_is_no_secret_is_still_missed(file: Path) -> None:
    file.write_text(FILE.replace("${GPU_URL:-http://10.0.0.5/v1}", "${GPU_URL}"))
    with pytest.raises(ConfigError, match="the variable GPU_URL is not set"):
        load(file, without_secrets(file, {}))


def line(file: Path, name: str) -> tuple[Line, object]:
    settings = load(file, without_secrets(file, {}))
    (found,) = lines(settings, [name])
    return found, settings


@pytest.mark.parametrize("name", ["ears", "brain", "mouth"])
def test_whatever_is_left_in_a_drill_is_a_double_or_local(file: Path, name: str) -> None:
    settings = load(file, without_secrets(file, {}))
    (found,) = lines(settings, [name])
    names = neighbours(settings, found)
    urls = dict.fromkeys(names, "http://127.0.0.1:1")
    for one in rehearsed(settings, found, urls).connections.values():
        assert one.double or catalog.provider(one.provider).local, one.name
        assert {secret.reveal() for secret in one.credentials.values()} <= {"throw-away"}
        assert one.address != "http://10.0.0.5/v1"


def test_a_stack_stands_for_its_members(file: Path) -> None:
    settings = load(file, without_secrets(file, {}))
    assert [one.name for one in lines(settings, ["one"])] == ["ears", "one.llm", "mouth"]
    everything = [one.name for one in lines(settings)]
    assert everything == ["ears", "brain", "mouth", "robot", "one.llm"]
    with pytest.raises(UsageError, match='route "talk" is for realtime, which no drill plays'):
        lines(settings, ["talk"])


def test_who_stands_in(file: Path) -> None:
    settings = load(file, without_secrets(file, {}))
    stands = {one.name: [s.double for s in one.stands] for one in lines(settings)}
    assert stands["ears"] == ["deepgram", ""]
    assert stands["brain"] == ["openai", "openai"]
    assert stands["mouth"] == ["cartesia", ""]


def played(file: Path, name: str) -> set[str]:
    settings = load(file, without_secrets(file, {}))
    (found,) = lines(settings, [name])
    return {one.name for one in scenarios(found, SCENARIOS)}


def test_every_fault_is_played_where_it_means_something(file: Path) -> None:
    every = {kind.value for kind in Kind}
    assert played(file, "ears") == every - {"wrong_rate"} | {"all refuse", "all hang"}
    assert played(file, "brain") == every - {"wrong_rate", "truncate"} | {"all refuse", "all hang"}
    assert played(file, "mouth") == every, "espeak cannot be down"
    assert played(file, "robot") == set(), "espeak, which is asked first, cannot be made to fail"


WORDS = ["my", "room", "is", "cold"]
GOOD = Take(words=WORDS, first=0.2, gap=0.1, nanos=100)
STALL = Scenario(Kind.STALL)
ALL = Scenario(Kind.REFUSE, everywhere=True)


@pytest.mark.parametrize(
    ("name", "scenario", "take", "verdict", "told"),
    [
        ("brain", STALL, GOOD, "ok", ""),
        ("brain", STALL, replace(GOOD, first=4.1), "ok", ""),
        ("brain", STALL, replace(GOOD, first=4.3), "short", "more than 4 s of dead air"),
        ("brain", STALL, replace(GOOD, gap=4.2), "short", "more than 4 s of dead air"),
        ("brain", STALL, replace(GOOD, last=4.2), "short", "more than 4 s of dead air"),
        ("brain", STALL, replace(GOOD, words=WORDS[1:]), "short", "1 of 4 words lost"),
        ("mouth", STALL, replace(GOOD, words=["my", *WORDS]), "ok", ""),
        ("mouth", STALL, replace(GOOD, words=["ro-", *WORDS]), "ok", ""),
        ("mouth", STALL, replace(GOOD, words=["a", "b", *WORDS]), "short", "2 words heard twice"),
        ("mouth", STALL, replace(GOOD, words=None), "ok", ""),
        ("mouth", Scenario(Kind.WRONG_RATE), replace(GOOD, words=[]), "ok", ""),
        ("brain", STALL, replace(GOOD, error="x"), "ok", "breaks off"),
        ("brain", STALL, replace(GOOD, error="x", first=None), "short", "nobody took over"),
        ("mouth", STALL, replace(GOOD, error="x"), "short", "nobody took over"),
        ("ears", STALL, replace(GOOD, error="x"), "untried", "who would take over has no double"),
        ("one", STALL, replace(GOOD, error="x", first=None), "short", "nobody takes over"),
        ("brain", STALL, replace(GOOD, error=NEVER, took=60.0), "short", "not ended after 60 s"),
        ("brain", HEALTHY, replace(GOOD, error="x: refused"), "short", "any fault: x: refused"),
        ("brain", ALL, Take(words=[], error="x", took=1.2), "ok", "an error 1.2 s into the call"),
        ("brain", ALL, Take(words=[], first=1.3, apology=True), "ok", "the apology, 1.3 s"),
        ("brain", ALL, Take(words=[]), "short", "silence without an error"),
    ],
)
def test_verdicts(
    file: Path, name: str, scenario: Scenario, take: Take, verdict: str, told: str
) -> None:
    settings = load(file, without_secrets(file, {}))
    found = next(
        o for o in lines(settings, [name]) if o.modality is not Modality.STT or name == "ears"
    )
    result = judge(found, scenario, take, GOOD, WORDS)
    assert (result.verdict, told in result.told) == (Verdict(verdict), True), result.told


def test_added_cost_is_unknown_where_a_price_is(file: Path) -> None:
    found, _ = line(file, "brain")
    assert judge(found, STALL, replace(GOOD, nanos=250), GOOD, WORDS).added == 150
    assert judge(found, STALL, replace(GOOD, nanos=None), GOOD, WORDS).added is None


def test_the_limit_that_the_command_line_shows_is_the_one_that_holds() -> None:
    shown = inspect.signature(drill).parameters["max_dead_air"].default
    assert shown == MAX_DEAD_AIR
