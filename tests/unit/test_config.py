"""trunkline.yaml: what it becomes, and what is said about every mistake in it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trunkline.config import Secret, Settings, defaults, load
from trunkline.core.models import AfterOutput, Deadlines, Modality
from trunkline.errors import ConfigError

KEY = "sk-never-to-be-seen"
ENV = {"DEEPGRAM_API_KEY": KEY, "OPENAI_API_KEY": KEY, "HOME": "/home/someone"}


def read(folder: Path, text: str, env: dict[str, str] | None = None) -> Settings:
    path = folder / "trunkline.yaml"
    path.write_text(text, "utf-8")
    return load(path, ENV if env is None else env)


def problems(folder: Path, text: str, env: dict[str, str] | None = None) -> list[str]:
    """What is wrong with a file, without its folder."""
    with pytest.raises(ConfigError) as caught:
        read(folder, text, env)
    assert KEY not in str(caught.value)
    return [line.replace(f"{folder}/", "") for line in caught.value.problems]


FULL = """\
version: 1
project: {org: acme, name: reception}
state: ./state
providers:
  deepgram:
    api_key: ${DEEPGRAM_API_KEY}
    options: {stt: {smart_format: true}}
  openai: {}
  our-gpu:
    kind: openai
    base_url: http://${GPU:-10.0.0.5:8000}/v1
routes:
  listen:
    modality: stt
    candidates: [deepgram/nova-3:en, {model: pocketsphinx}]
  answer:
    modality: llm
    candidates:
      - model: openai/gpt-4.1
        options: {temperature: 0.4}
      - our-gpu/llama-3.3-70b
    deadlines: {first_content: "${PATIENCE:-2.5}", total: 60}
    after_output: restart
  speak:
    modality: tts
    candidates: [{model: deepgram/aura-2, voice: athena, language: en}]
stacks:
  default: {stt: listen, llm: answer, tts: speak}
  spare: {stt: pocketsphinx, llm: openai, tts: "flite:rms"}
"""


def test_a_whole_file_becomes_settings(tmp_path: Path) -> None:
    settings = read(tmp_path, FULL)
    assert (settings.org, settings.project) == ("acme", "reception")
    assert settings.state_dir == tmp_path / "state"
    deepgram = settings.connections["deepgram"]
    assert deepgram.credentials["api_key"].reveal() == KEY
    assert deepgram.options == {Modality.STT: {"smart_format": True}}
    gpu = settings.connections["our-gpu"]
    assert (gpu.provider, gpu.base_url, gpu.credentials["api_key"].reveal()) == (
        "openai",
        "http://10.0.0.5:8000/v1",
        KEY,
    )
    assert {"flite", "espeak", "pocketsphinx", "scripted"} <= settings.connections.keys()
    assert [str(c.ref) for c in settings.routes["listen"].candidates] == [
        "deepgram/nova-3:en",
        "pocketsphinx",
    ]
    answer = settings.routes["answer"]
    assert answer.deadlines == Deadlines(first_content=2.5, total=60.0)
    assert answer.after_output is AfterOutput.RESTART
    assert answer.candidates[0].options == {"temperature": 0.4}
    (voice,) = settings.routes["speak"].candidates
    assert (str(voice.ref), voice.options) == ("deepgram/aura-2:athena", {"language": "en"})
    assert settings.routes["speak"].after_output is AfterOutput.CONTINUE
    assert settings.stacks["spare"].tts == "flite:rms"
    assert settings.stacks["local"].stt == "pocketsphinx/en-us"


@pytest.mark.parametrize(
    ("text", "org", "project", "state"),
    [
        ("version: 1", "default", "default", None),
        ("version: 1\nproject: shop", "default", "shop", None),
        ("version: 1\nproject: {org: acme}\nstate: ~/calls", "acme", "default", "~/calls"),
        ("version: 1\nstate: /var/lib/trunkline", "default", "default", "/var/lib/trunkline"),
    ],
)
def test_what_a_short_file_leaves_out_has_a_default(
    tmp_path: Path, text: str, org: str, project: str, state: str | None
) -> None:
    settings = read(tmp_path, text)
    assert (settings.org, settings.project) == (org, project)
    expected = state.replace("~", ENV["HOME"]) if state else None
    assert settings.state_dir == (Path(expected) if expected else None)
    assert settings.connections["deepgram"].credentials == {"api_key": Secret(KEY)}
    assert settings.stacks["default"].stt == "deepgram/nova-3"


@pytest.mark.parametrize(
    ("env", "stack"),
    [
        ({}, ("pocketsphinx/en-us", "scripted/receptionist", "flite/slt")),
        ({"DEEPGRAM_API_KEY": ""}, ("pocketsphinx/en-us", "scripted/receptionist", "flite/slt")),
        (
            {"DEEPGRAM_API_KEY": "k"},
            ("deepgram/nova-3", "scripted/receptionist", "deepgram/aura-2"),
        ),
        (
            {"ANTHROPIC_API_KEY": "k", "ELEVENLABS_API_KEY": "k"},
            (
                "elevenlabs/scribe_v2_realtime",
                "anthropic/claude-sonnet-4-6",
                "elevenlabs/eleven_turbo_v2_5",
            ),
        ),
    ],
)
def test_without_a_file_the_keys_of_the_environment_make_the_default_stack(
    env: dict[str, str], stack: tuple[str, str, str]
) -> None:
    settings = defaults(env)
    default = settings.stacks["default"]
    assert (default.stt, default.llm, default.tts) == stack
    local = settings.stacks["local"]
    assert (local.stt, local.llm, local.tts) == (
        "pocketsphinx/en-us",
        "scripted/receptionist",
        "flite/slt",
    )


MISTAKES = [
    # text, what is said; every line is one problem, "version: 1" is line 1
    ("providers: {deepgarm: {}}", '2: providers.deepgarm: unknown provider "deepgarm"; did you'),
    ("\n\nprovider:\n  a: 1", '4: provider: unknown key "provider"; did you mean "providers"?'),
    (
        "providers:\n  groq:\n    api_key: k\n    api_kye: x",
        '5: providers.groq.api_kye: unknown key "api_kye" of',
    ),
    ("providers:\n  groq: {}", "3: providers.groq: api_key is missing; set it here or in the"),
    ("providers:\n  groq:\n    api_key: 12", "4: providers.groq.api_key: must be text; put it in"),
    ("providers:\n  groq:\n    api_key: ''", "4: providers.groq.api_key: must not be empty"),
    ("providers:\n  groq:\n    api_key: ${GROQ}", "4: providers.groq.api_key: the variable GROQ"),
    ("providers:\n  x: {kind: gorq}", '3: providers.x.kind: unknown provider "gorq"; did you mean'),
    ("providers:\n  groq: {kind: xai, api_key: k}", '3: providers.groq: "groq" is a provider of'),
    ("providers:\n  openai: {base_url: 'nowhere'}", "3: providers.openai.base_url: must be a URL"),
    (
        "providers:\n  cartesia: {api_key: k, tier: startp}",
        'cartesia has no prices for "startp"; did you mean "startup"?',
    ),
    ("providers:\n  openai: {options: {sst: {}}}", 'sst: unknown key "sst"; did you mean "stt"?'),
    ("providers:\n  deepgram: {options: {llm: {}}}", 'llm: provider "deepgram" does not serve ll'),
    ("providers:\n  openai: {options: {llm: {tmp: 1}}}", 'openai (llm) has no option "tmp"'),
    ("providers: sk-never-to-be-seen", "2: providers: must be a table"),
    ("providers: {openai: sk-never-to-be-seen}", "2: providers.openai: must be a table"),
    ("providers: {openai: {}, openai: {}}", "2: providers.openai: the same key is already on li"),
    (
        "providers: {deepseek: {api_key: k}, deepseek-ai: {api_key: k}}",
        '2: providers.deepseek-ai: the same provider as "deepseek-ai"',
    ),
    ("providers: {a b: {kind: openai}}", "2: providers.a b: a name holds no blank, slash or"),
    ("routes: {r: {modality: stt, candidates: []}}", "2: routes.r.candidates: must be a list with"),
    ("routes: {r: {candidates: [flite]}}", '2: routes.r: the key "modality" is missing'),
    (
        "routes: {r: {modality: sst, candidates: [flite]}}",
        'must be one of stt, llm, tts, realtime, and is "s',
    ),
    ("routes: {r: {modality: stt, candidates: [flite]}}", 'candidates[0]: provider "flite" does'),
    (
        "routes: {r: {modality: realtime, candidates: [flite]}}",
        'provider "flite" does not serve realtime; it serves tts',
    ),
    (
        "routes: {r: {modality: realtime, candidates: [openai], apology: Sorry.}}",
        "2: routes.r.apology: means nothing for realtime",
    ),
    (
        "routes: {r: {modality: realtime, candidates: [openai, openai], hedge: {}}}",
        "2: routes.r.hedge: means nothing for realtime",
    ),
    (
        "routes: {r: {modality: realtime, candidates: [{model: openai/m, voice: marin}]}}",
        "2: routes.r.candidates[0].voice: means nothing for realtime",
    ),
    (
        "routes: {r: {modality: realtime, candidates: [{model: openai, options: {speed: 2}}]}}",
        'openai (realtime) has no option "speed": what a session is to be its client says',
    ),
    (
        "routes: {r: {modality: tts, candidates: [flit/slt]}}",
        'provider "flit"; did you mean "flite',
    ),
    ("routes: {r: {modality: stt, candidates: [gladia/x y]}}", "is not of the form provider/model"),
    (
        "routes: {r: {modality: llm, candidates: [groq]}}",
        "groq is not configured: set providers.gr",
    ),
    (
        "routes: {openai: {modality: llm, candidates: [openai]}}",
        '"openai" is the name of a provider',
    ),
    ("routes: {auto: {modality: tts, candidates: [flite]}}", '"auto" means the stack "default"'),
    (
        "routes: {r: {modality: stt, candidates: [pocketsphinx, pocketsphinx], hedge: {after: 1}}}",
        "2: routes.r.hedge: means nothing for stt",
    ),
    (
        "routes: {r: {modality: tts, candidates: [flite], hedge: {after: 1}}}",
        "2: routes.r.hedge: needs a second candidate",
    ),
    *(
        (
            "routes: {r: {modality: tts, candidates: [flite, espeak], "
            f"hedge: {{share: {share}}}}}}}",
            "2: routes.r.hedge.share: must be a part, above 0 and at most 1",
        )
        for share in ("0", "1.1", "-1", ".nan", "many")
    ),
    (
        "routes: {r: {modality: llm, candidates: [{model: openai, voice: x}]}}",
        "2: routes.r.candidates[0].voice: means nothing for llm",
    ),
    (
        "routes: {r: {modality: llm, candidates: [{model: openai, options: {temprature: 1}}]}}",
        '2: routes.r.candidates[0].options: openai (llm) has no option "temprature"; did you mean',
    ),
    *(
        (
            f"routes:\n  r:\n    modality: tts\n    candidates: [flite]\n    deadlines:\n"
            f"      idle: {value}",
            "7: routes.r.deadlines.idle: must be a number of seconds above 0",
        )
        for value in ("0", "-1", ".nan", ".inf", "true", "'2'", "soon", "null", "[1]", "9" * 400)
    ),
    ("stacks: {s: {stt: pocketsphinx, llm: scripted}}", '2: stacks.s: the key "tts" is missing'),
    ("stacks: {s: {stt: flite, llm: scripted, tts: flite}}", '2: stacks.s.stt: provider "flite"'),
    ("stacks: {s: {stt: a, llm: scripted, tts: flite}}", '2: stacks.s.stt: "a" is no route or mod'),
    ("stacks: {local: {stt: pocketsphinx, llm: scripted, tts: flite}}", '"local" is built in'),
    ("gateway: {decisions: nobody}", '2: gateway.decisions: "nobody" is no route or model ref'),
    ("gateway: {decisions: pocketsphinx}", '2: gateway.decisions: provider "pocketsphinx"'),
    (
        "routes: {ears: {modality: stt, candidates: [pocketsphinx]}}\ngateway: {decisions: ears}",
        '3: gateway.decisions: route "ears" is for stt',
    ),
    ("project: {nmae: x}", '2: project.nmae: unknown key "nmae"; did you mean "name"?'),
    ("project: [a]", "2: project: must be text"),
    ("state: {a: 1}", "2: state: must be text"),
    ("state: ${", "2: state: write ${NAME} or ${NAME:-default}"),
    ("project: &a x\nstate: *a", "2: anchors and aliases"),
    ("project: !!python/object:os.system x", "2: tags (!) are not read here"),
    ("state:\n\t- a", "3: not valid YAML"),
    ("state: [a", "not valid YAML"),
    ("state: 'a\x07b'", "2: not valid YAML: a control character"),
    ("---\nversion: 1", "2: a second document"),
    ("? [a]\n: b", "2: a key must be plain text"),
    (f"state: {'[' * 60}{']' * 60}", "2: nested too deep"),
]


@pytest.mark.parametrize(("text", "told"), MISTAKES)
def test_a_mistake_is_told_with_its_line_its_key_and_the_nearest_name(
    tmp_path: Path, text: str, told: str
) -> None:
    env = {**ENV, "SOON": KEY}
    (problem,) = problems(tmp_path, f"version: 1\n{text}\n", env)
    assert problem.startswith("trunkline.yaml:")
    assert told in problem


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "trunkline.yaml: the file is empty; it starts with version: 1"),
        ("# nothing\n", "trunkline.yaml: the file is empty; it starts with version: 1"),
        ("[]", "trunkline.yaml:1: must be a table with version, project"),
        ("project: x", 'trunkline.yaml:1: the key "version" is missing'),
        ("version: 2", 'trunkline.yaml:1: version: unsupported version "2"; this program reads'),
        ("version: true", "trunkline.yaml:1: version: unsupported version"),
    ],
)
def test_a_file_that_is_not_version_1_is_refused(tmp_path: Path, text: str, told: str) -> None:
    assert problems(tmp_path, text)[0].startswith(told)


def test_all_mistakes_are_told_together_in_the_order_of_the_lines(tmp_path: Path) -> None:
    text = (
        "version: 3\nproviders:\n  deepgarm: {}\n  openai: {api_key: '${NO_SUCH}'}\nroutes:\n"
        "  hear: {modality: stt, candidates: [deepgram/nova-3]}\nstacks:\n"
        "  s: {stt: haer, llm: openai/gpt-4.1, tts: hear}\n"
    )
    told = problems(tmp_path, text)
    assert [int(re.findall(r":(\d+):", line)[0]) for line in told] == [1, 3, 4, 6, 8, 8]
    assert 'did you mean "hear"?' in told[4]
    assert 'route "hear" is for stt' in told[5]


def test_a_route_or_stack_has_one_meaning(tmp_path: Path) -> None:
    text = (
        "version: 1\nroutes: {a: {modality: tts, candidates: [flite]}}\n"
        "stacks: {a: {stt: pocketsphinx, llm: scripted, tts: flite}}"
    )
    assert problems(tmp_path, text) == [
        'trunkline.yaml:3: stacks.a: "a" is a route already; take another name'
    ]


@pytest.mark.parametrize("key", ["state", "project", "stacks.s.tts", "base_url", "deadline"])
def test_what_came_from_the_environment_is_never_quoted(tmp_path: Path, key: str) -> None:
    text = {
        "state": 'version: "${SECRET}"',
        "project": "version: 1\nproject: ${SECRET}\nno: 1",
        "stacks.s.tts": "version: 1\nstacks: {s: {stt: pocketsphinx, llm: scripted, "
        "tts: '${SECRET}'}}",
        "base_url": "version: 1\nproviders: {openai: {base_url: '${SECRET}'}}",
        "deadline": "version: 1\nroutes: {r: {modality: tts, candidates: ['${SECRET}'], "
        "deadlines: {idle: '${SECRET}'}}}",
    }[key]
    assert problems(tmp_path, text, {"SECRET": KEY})


def test_escapes_and_defaults_of_variables(tmp_path: Path) -> None:
    text = "version: 1\nproject: {org: '$${A}-${A:-b}', name: '${EMPTY:-c}$ ${A:-}.'}"
    settings = read(tmp_path, text, {"EMPTY": ""})
    assert (settings.org, settings.project) == ("${A}-b", "c$ .")


def test_secrets_do_not_show_themselves(tmp_path: Path) -> None:
    settings = read(tmp_path, FULL)
    for text in (repr(settings), str(settings.connections["deepgram"].credentials), f"{settings}"):
        assert KEY not in text
        assert "Secret(hidden)" in text


@pytest.mark.parametrize("case", ["missing", "directory", "latin-1", "large", "loop", "bomb"])
def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path: Path, case: str) -> None:
    path = tmp_path / "trunkline.yaml"
    if case == "directory":
        path.mkdir()
    elif case == "latin-1":
        path.write_bytes("version: 1\nproject: Jos\xe9\n".encode("latin-1"))
    elif case == "large":
        path.write_text("version: 1\n" + "#" * 1_000_001)
    elif case == "loop":
        path.symlink_to(path)
    elif case == "bomb":
        path.write_text("version: 1\na: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]\n")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    (problem,) = caught.value.problems
    told = {
        "missing": "does not exist",
        "directory": "is not a file",
        "latin-1": ":2: not UTF-8",
        "large": "larger than 1,000,000 bytes",
        "loop": "does not exist",
        "bomb": ":2: anchors and aliases",
    }[case]
    assert told in problem


_WORDS = ["version: 1\n", "providers:", "routes:", "stacks:", "openai", "modality: stt", "null"]
_FRAGMENTS = st.sampled_from([*_WORDS, "candidates", "${X}", "1e999", "0x1", "12:30", "---"])
_SIGNS = st.sampled_from(" \n\t{}[]:-,#&*!?|>'\"%$é\ufeff\x07")


@given(st.lists(_FRAGMENTS | _SIGNS, max_size=40).map("".join) | st.text(max_size=80))
@example("version: 1\nstate: " + "9" * 6000)
@example("? ")
@example("!!float x")
def test_no_text_ends_otherwise_than_in_settings_or_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, "utf-8", newline="")
    try:
        load(path, {"X": "x"})
    except ConfigError as error:
        told = error.problems
    else:
        told = ("read",)
    assert told


def test_the_reference_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/reference.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_example_of_the_reference_is_read(tmp_path: Path) -> None:
    page = Path("docs/reference/settings.md").read_text("utf-8")
    (example_text,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert read(tmp_path, example_text).stacks["default"].llm == "answer"
