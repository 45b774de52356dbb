"""The pages against the project: commands, options, links and examples are the real ones."""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
from livekit.agents.utils import http_context

import trunkline
from trunkline import catalog, config
from trunkline.cli.app import app

ROOT = Path(__file__).parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
VARIABLES = [
    variable
    for provider in catalog.PROVIDERS.values()
    for credential in provider.credentials
    for variable in credential.variables
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block and where it stands."""

    page: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.text.splitlines()[0] if self.text else ''}"


def blocks(*languages: str) -> list[Block]:
    return [
        Block(page.relative_to(ROOT).as_posix(), language, text)
        for page in PAGES
        for language, text in FENCE.findall(page.read_text("utf-8"))
        if language in languages
    ]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Each command of a console block, and each one quoted in a line, as (page, words)."""
    for block in blocks("console", "sh"):
        for line in block.text.splitlines():
            yield block.page, shlex.split(line.removeprefix("$ "), comments=True)
    for page in PAGES:
        for quoted in re.findall(r"`((?:make|trunkline) [^`\n]+)`", page.read_text("utf-8")):
            yield page.relative_to(ROOT).as_posix(), shlex.split(quoted)


@cache
def command_line() -> Any:
    return typer.main.get_command(app)


def unknown_words(words: list[str]) -> list[str]:
    """The words of ``trunkline ...`` that name no command or option."""
    command = command_line()
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    if getattr(command, "commands", None) and words and not words[0].startswith("-"):
        return words[:1]
    return [word for word in words if word.startswith("--") and word.split("=")[0] not in options]


def complaint(words: list[str]) -> str:
    """What is wrong with a command, empty when nothing is."""
    if words[:1] == ["make"]:
        target, *settings = words[1:]
        if target not in TARGETS:
            return f"make has no target {target}"
        given = [word.removeprefix("ARGS=") for word in settings if word.startswith("ARGS=")]
        if target == "demo" and given:
            return complaint(["trunkline", "demo", *shlex.split(given[0])])
    if words[:1] == ["trunkline"] and (unknown := unknown_words(words[1:])):
        return f"trunkline does not know {' '.join(unknown)}"
    return ""


def test_the_commands_exist() -> None:
    assert [f"{page}: {said}" for page, words in commands() if (said := complaint(words))] == []


@pytest.mark.parametrize(
    "command",
    ["make tea", "trunkline dmeo", "trunkline demo --jsn", 'make demo ARGS="--jsn"'],
)
def test_a_command_that_does_not_exist_is_seen(command: str) -> None:
    assert complaint(shlex.split(command))


def test_every_target_is_in_the_help() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    told = set(re.findall(r"^([a-z]+):[^#\n]*## ", makefile, re.MULTILINE))
    assert told == TARGETS - {"system"}


def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


PYTHON = pytest.mark.parametrize("block", blocks("python"), ids=str)


@PYTHON
def test_python_examples_name_what_exists(block: Block) -> None:
    tree = ast.parse(block.text, block.page)
    names = imported(tree)
    known = {*vars(builtins), *names, *assigned(tree)}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert used - known == set()
    wrong = [f"{block}: {said}" for call in calls(tree) if (said := refused(call, names))]
    assert wrong == []


@PYTHON
async def test_python_examples_run(
    block: Block, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each runs without a key that is worth anything; an agent runs up to where it is served."""
    monkeypatch.chdir(tmp_path)
    for variable in VARIABLES:
        monkeypatch.setenv(variable, "x")
    tree = ast.parse(block.text)
    tree.body = [one for one in tree.body if ast.unparse(one) != "cli.run_app(server)"]
    code = compile(tree, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    try:
        async with asyncio.timeout(30), http_context.open():
            if inspect.isawaitable(running := eval(code, {"__name__": "example"})):
                await running
    finally:
        await trunkline.aclose()


def imported(tree: ast.Module) -> dict[str, Any]:
    """What the imports of an example bind, by name."""
    found: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), "imports", "exec"), found)
    return found


def assigned(tree: ast.Module) -> set[str]:
    """Every name that an example gives to something itself."""
    stored = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    named = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    return stored | named | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}


def calls(tree: ast.Module) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def refused(call: ast.Call, names: dict[str, Any]) -> str:
    """What is wrong with a call of something imported: a name or a keyword; empty if nothing."""
    root, *path = ast.unparse(call.func).split(".")
    if root not in names:
        return ""
    function = names[root]
    for name in path:
        if not hasattr(function, name):
            return f"{ast.unparse(call.func)} does not exist"
        function = getattr(function, name)
    try:
        parameters = inspect.signature(function).parameters
    except ValueError:  # written in C, and says nothing of itself
        return ""
    if any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        return ""
    unknown = {word.arg for word in call.keywords if word.arg} - parameters.keys()
    return f"{ast.unparse(call.func)} has no {', '.join(unknown)}" if unknown else ""


@pytest.mark.parametrize(
    "text", ["import trunkline\ntrunkline.stak()", "import trunkline\ntrunkline.stack(nam=1)"]
)
def test_a_call_that_cannot_work_is_seen(text: str) -> None:
    tree = ast.parse(text)
    assert [refused(call, imported(tree)) for call in calls(tree)] != [""]


@pytest.mark.parametrize(
    "block", [block for block in blocks("yaml") if "version:" in block.text], ids=str
)
def test_configuration_examples_load(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "trunkline.yaml"
    path.write_text(block.text, "utf-8")
    signing = {"TRUNKLINE_WEBHOOK_SECRET": "whsec_" + "A" * 32}
    config.load(path, {**dict.fromkeys(VARIABLES, "x"), **signing})
