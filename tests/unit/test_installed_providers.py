"""Providers of other distributions, with real ones: metadata and a module on the path of a child.

Each case runs in an interpreter of its own, because what is installed is read once a process.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROW = """
from trunkline.catalog import Credential, Plugin, Provider, Wire

PROVIDER = Provider(
    name="acme",
    title="Acme Voices",
    credentials=(Credential("api_key", ("ACME_KEY",)),),
    llm=Wire(base_url="http://127.0.0.1:9/v1", default_model="acme-1"),
    tts=Plugin(target="acme_voices:Voice", default_model="loud", suffix="voice"),
)

class Voice:
    def __init__(self, *, model, voice="", api_key=""):
        self.said = (model, voice, api_key)
"""
KEYLESS = ROW.replace('credentials=(Credential("api_key", ("ACME_KEY",)),),', "local=True,")


@dataclass
class Site:
    """A directory of installed distributions, and an interpreter that sees it."""

    path: Path

    def install(
        self, module: str, source: str, *, name: str = "acme", value: str = "PROVIDER"
    ) -> None:
        (self.path / f"{module}.py").write_text(source)
        info = self.path / f"{module}-1.2.dist-info"
        info.mkdir()
        title = module.replace("_", "-")
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {title}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(
            f"[trunkline.providers]\n{name} = {module}:{value}\n"
        )

    def run(self, code: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONPATH": str(self.path), "HOME": str(self.path), **environment},
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return (done.stdout + done.stderr).strip()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    place = tmp_path / "site"
    place.mkdir()
    return Site(place)


ASK = """
from trunkline import config
from trunkline.catalog import build, provider
from trunkline.core.models import CASCADE, Modality
from trunkline.errors import UsageError
try:
    {body}
except UsageError as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""


def asked(body: str) -> str:
    return ASK.format(body=body)


RESOLVED = "print(config.resolve(config.defaults({}), {!r}, Modality.TTS).candidates[0].ref)"


def test_a_row_serves_like_a_built_in_one(site: Site) -> None:
    site.install("acme_voices", ROW)
    code = asked(
        "settings = config.defaults({'ACME_KEY': 'k'})\n"
        "    (one,) = config.resolve(settings, 'acme/loud:bella', Modality.TTS).candidates\n"
        "    secrets = settings.connections[one.connection].credentials\n"
        "    voice = build(provider('acme'), Modality.TTS, one.ref.model, one.ref.suffix,"
        "credentials={n: s.reveal() for n, s in secrets.items()}, options={})\n"
        "    print(one.connection, one.ref, voice.said)\n"
        "    print(config.resolve(settings, 'acme', Modality.LLM).candidates[0].ref)"
    )
    assert site.run(code).splitlines() == [
        "acme acme/loud:bella ('loud', 'bella', 'k')",
        "acme/acme-1",
    ]


def test_a_file_configures_it_and_the_default_stack_takes_it(site: Site) -> None:
    site.install("acme_voices", ROW)
    file = site.path / "t.yaml"
    file.write_text(
        "version: 1\n"
        "providers:\n"
        "  acme: { api_key: k }\n"
        "  branch: { kind: acme, api_key: b, base_url: http://127.0.0.1:9/v1 }\n"
        "stacks:\n"
        "  desk: { stt: pocketsphinx, llm: branch/acme-2, tts: acme }\n"
    )
    code = asked(
        f"s = config.load(config.parse.Path({str(file)!r}), {{}})\n"
        "    for name in ('auto', 'desk'):\n"
        "        print(*(config.resolve(s, name, m).candidates[0].ref for m in CASCADE))"
    )
    assert site.run(code).splitlines() == [
        "pocketsphinx/en-us acme/acme-1 acme/loud",
        "pocketsphinx/en-us branch/acme-2 acme/loud",
    ]


def test_nothing_of_it_is_imported_before_it_is_named(site: Site) -> None:
    site.install("acme_voices", "raise SystemExit('imported')")
    code = (
        "import sys, trunkline, trunkline.catalog, trunkline.config\n"
        "from trunkline import config\n"
        "from trunkline.core.models import CASCADE\n"
        "print('importlib.metadata' in sys.modules)\n"
        "s = config.defaults({})\n"
        "print([config.resolve(s, 'auto', m).candidates[0].ref.provider for m in CASCADE])\n"
        "print('importlib.metadata' in sys.modules, 'acme_voices' in sys.modules)"
    )
    assert site.run(code).splitlines() == [
        "False",
        "['pocketsphinx', 'scripted', 'flite']",
        "False False",
    ]


BROKEN = [
    (
        "raise OSError('no libacme')",
        "PROVIDER",
        "acme_voices:PROVIDER raises OSError: no libacme",
    ),
    ("", "PROVIDER", "acme_voices:PROVIDER raises AttributeError"),
    ("PROVIDER = 3", "PROVIDER", "acme_voices:PROVIDER is a int, no trunkline.catalog.Provider"),
    (ROW.replace('"acme",', '"other",'), "PROVIDER", 'its row is called "other"'),
    (ROW.replace("llm=", 'aliases=("a",), llm='), "PROVIDER", "its row has aliases"),
]


@pytest.mark.parametrize(
    ("source", "value", "told"), BROKEN, ids=["raises", "absent", "type", "name", "aliases"]
)
def test_a_broken_one_is_one_sentence_with_its_distribution(
    site: Site, source: str, value: str, told: str
) -> None:
    site.install("acme_voices", source, value=value)
    said = site.run(asked(RESOLVED.replace("{}", "{{}}", 1).format("acme/loud")))
    assert said.startswith('BrokenPlugin: provider "acme" of acme-voices 1.2 cannot be used: ')
    assert told in said
    assert "\n" not in said


def test_a_broken_one_in_a_file_is_told_with_its_line(site: Site) -> None:
    site.install("acme_voices", "raise OSError('no libacme')")
    file = site.path / "t.yaml"
    file.write_text("version: 1\nproviders:\n  acme: { api_key: k }\n  oops: { api_key: k }\n")
    said = site.run(asked(f"config.load(config.parse.Path({str(file)!r}), {{}})"))
    assert 't.yaml:3: providers.acme: provider "acme" of acme-voices 1.2' in said
    assert 'unknown provider "oops"' in said


def test_two_distributions_with_one_name_are_told_apart(site: Site) -> None:
    site.install("acme_voices", ROW)
    site.install("acme_fork", ROW)
    said = site.run(asked("provider('acme')"))
    assert said.startswith('BrokenPlugin: provider "acme" is offered by acme-')
    assert "acme-fork 1.2" in said
    assert "acme-voices 1.2" in said
    assert "uninstall all but one" in said


@pytest.mark.parametrize("name", ["openai", "deepseek"])
def test_a_built_in_name_stays_built_in_and_that_is_told(site: Site, name: str) -> None:
    site.install("acme_voices", ROW, name=name)
    said = site.run(
        asked(f"print(provider({name!r}).title)\n    provider('nobody')"),
    )
    assert "Acme" not in said
    assert f'acme-voices 1.2 offers a provider "{name}", which is built in' in said


def test_a_mistyped_name_finds_it_and_a_missing_key_says_where_it_goes(site: Site) -> None:
    site.install("acme_voices", ROW)
    assert 'did you mean "acme"?' in site.run(asked("provider('acmee')"))
    said = site.run(asked(RESOLVED.replace("{}", "{{}}", 1).format("acme/loud")))
    assert said == (
        "MissingCredential: acme is not configured: set providers.acme.api_key "
        "or the variable ACME_KEY"
    )


def test_one_without_credentials_needs_no_configuration(site: Site) -> None:
    site.install("acme_voices", KEYLESS)
    said = site.run(asked(RESOLVED.replace("{}", "{{}}", 1).format("acme")))
    assert said == "acme/loud"


def test_a_package_that_its_plugin_lacks_is_told(site: Site) -> None:
    site.install("acme_voices", KEYLESS.replace("acme_voices:Voice", "acme_engine:Voice"))
    said = site.run(asked("build(provider('acme'), Modality.TTS, credentials={}, options={})"))
    assert said.startswith("MissingExtra: Acme Voices needs a package that is not installed")
    assert "acme_engine" in said
