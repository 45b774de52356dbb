"""The code against docs/architecture.md: floors, cycles, and who may touch what.

Every rule is a function from sources to breaches. It is run twice: on the repository, where it must
find nothing, and on a small breach of its own, which it must find.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from trunkline import errors

ROOT = Path(__file__).parents[2]
SRC = ROOT / "src" / "trunkline"
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")

MAX_FILE_LINES = 450
MAX_FUNCTION_LINES = 60


@dataclass(frozen=True)
class Import:
    """One imported name: ``from module import name``, or ``import module`` with an empty name."""

    line: int
    module: str
    name: str = ""

    @property
    def path(self) -> str:
        return f"{self.module}.{self.name}" if self.name else self.module


@dataclass(frozen=True)
class Source:
    """A file of the package, or one made up for a test. ``path`` is relative to the package."""

    path: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return _parse(self.text)

    @property
    def unit(self) -> str:
        head, slash, _ = self.path.partition("/")
        return head + slash

    @property
    def module(self) -> str:
        return ".".join(["trunkline", *self.path.removesuffix(".py").split("/")]).removesuffix(
            ".__init__"
        )

    def imports(self) -> Iterator[Import]:
        """Every import, wherever it stands, with relative ones made absolute."""
        package = self.module.split(".")
        if not self.path.endswith("__init__.py"):
            package = package[:-1]
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(node.lineno, alias.name)
            elif isinstance(node, ast.ImportFrom):
                base = package[: len(package) - node.level + 1] if node.level else []
                module = ".".join([*base, *([node.module] if node.module else [])])
                for alias in node.names:
                    yield Import(node.lineno, module, alias.name)

    def own_imports(self) -> Iterator[tuple[int, str, str]]:
        """Imports of Trunkline itself as (line, unit, module)."""
        for found in self.imports():
            parts = found.path.split(".")
            if parts[0] != "trunkline":
                continue
            known = [p for p in parts[1:2] if p in UNIT_OF]
            yield found.line, UNIT_OF[known[0]] if known else "__init__.py", found.path


@cache
def _parse(text: str) -> ast.Module:
    return ast.parse(text)


def repository() -> list[Source]:
    """Every file of the package."""
    return [
        Source(path.relative_to(SRC).as_posix(), path.read_text("utf-8"))
        for path in sorted(SRC.rglob("*.py"))
    ]


def _floors() -> dict[str, int]:
    rows = re.findall(r"^\| (\d) \| `([^`]+)` \|", PAGE, re.MULTILINE)
    return {unit: int(floor) for floor, unit in rows}


def _allowance(rule: str) -> tuple[str, ...]:
    """The files of a row in the second table; a trailing slash stands for all below."""
    row = re.search(rf"^\| {re.escape(rule)} \| (.+) \|$", PAGE, re.MULTILINE)
    assert row, f"docs/architecture.md has no row {rule!r}"
    return tuple(re.findall(r"`([^`]+)`", row[1]))


FLOORS = _floors()
UNIT_OF = {unit.removesuffix("/").removesuffix(".py"): unit for unit in FLOORS}
PLANNED = set(re.findall(r"^\| \d \| `([^`]+)` \| \*planned\*", PAGE, re.MULTILINE))
WITHOUT_LIVEKIT = _allowance("never import `livekit`")
PRIVATE_NAMES = _allowance("may use the SDK's private names")
ENVIRONMENT = _allowance("may read the environment")
ENGINES = _allowance("may import `engines/`")


def within(source: Source, allowed: tuple[str, ...]) -> bool:
    return any(
        source.path.startswith(entry) if entry.endswith("/") else source.path == entry
        for entry in allowed
    )


def imports_sideways_or_up(sources: list[Source]) -> list[str]:
    """A unit imports from lower floors only; ``cli/`` may import anything."""
    return [
        f"{source.path}:{line} is on floor {FLOORS[source.unit]} and imports {unit} on floor"
        f" {FLOORS[unit]}"
        for source in sources
        if source.unit in FLOORS and source.unit != "cli/"
        for line, unit, _ in source.own_imports()
        if unit != source.unit and FLOORS[unit] >= FLOORS[source.unit]
    ]


def imports_in_a_circle(sources: list[Source]) -> list[str]:
    """Files of a package import each other without cycles."""
    modules = {source.module for source in sources}
    graph = {
        source.module: {
            target
            for _, _, path in source.own_imports()
            if (target := path if path in modules else path.rpartition(".")[0]) in modules
            and target != source.module
        }
        for source in sources
    }
    return [f"{module} imports itself through {way}" for module, way in _circles(graph)]


def _circles(graph: dict[str, set[str]]) -> Iterator[tuple[str, str]]:
    for start in graph:
        reached: dict[str, str] = {}
        pending = [(target, target) for target in graph[start]]
        while pending:
            module, way = pending.pop()
            if module not in reached:
                reached[module] = way
                pending += [(target, f"{way} -> {target}") for target in graph[module]]
        if start in reached:
            yield start, reached[start]


def imports_livekit_where_barred(sources: list[Source]) -> list[str]:
    """The loop, the lean client and everything below them run without livekit."""
    return [
        f"{source.path}:{found.line} imports {found.path}"
        for source in sources
        if within(source, WITHOUT_LIVEKIT)
        for found in source.imports()
        if found.path.split(".")[0] == "livekit"
    ]


def uses_private_names_of_the_sdk(sources: list[Source]) -> list[str]:
    """A private name is imported from livekit, or reached through a name that was."""
    return [
        f"{source.path}:{line} uses {name}"
        for source in sources
        if not within(source, PRIVATE_NAMES)
        for line, name in _private_names(source)
    ]


def _private_names(source: Source) -> Iterator[tuple[int, str]]:
    bound = {}
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
        for alias in node.names:
            path = f"{module}.{alias.name}" if module else alias.name
            if path.split(".")[0] == "livekit" and not getattr(node, "level", 0):
                if any(map(_is_private, path.split("."))):
                    yield node.lineno, path
                imported_as = alias.asname or (alias.name if module else "livekit")
                bound[imported_as] = path if alias.asname or module else "livekit"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr):
            root, *rest = ast.unparse(node).split(".")
            if root in bound:
                yield node.lineno, ".".join([bound[root], *rest])


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def reads_the_environment(sources: list[Source]) -> list[str]:
    """Settings come from compose.py; nothing else looks at the environment."""
    names = {"environ", "environb", "getenv", "getenvb"}
    return [
        f"{source.path}:{node.lineno} reads the environment"
        for source in sources
        if not within(source, ENVIRONMENT)
        for node in ast.walk(source.tree)
        if (isinstance(node, ast.Attribute) and node.attr in names)
        or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and names & {alias.name for alias in node.names}
        )
    ]


def imports_an_engine(sources: list[Source]) -> list[str]:
    """Engines are loaded by name, through the catalogue."""
    return [
        f"{source.path}:{line} imports {path}"
        for source in sources
        if not within(source, ENGINES)
        for line, unit, path in source.own_imports()
        if unit == "engines/"
    ]


def decides_with_side_effects(sources: list[Source]) -> list[str]:
    """The core does no I/O, reads no clock and rolls no dice."""
    barred = {
        *("aiohttp", "asyncio", "io", "logging", "os", "pathlib", "random", "secrets", "socket"),
        *("sqlalchemy", "sqlite3", "subprocess", "threading", "time", "urllib"),
    }
    return [
        f"{source.path}:{found.line} imports {found.path}"
        for source in sources
        if source.unit == "core/"
        for found in source.imports()
        if found.path.split(".")[0] in barred or f"{found.path}.".startswith("trunkline.clock.")
    ]


def is_too_long(sources: list[Source]) -> list[str]:
    """A file or a function that wants to be two."""
    files = [
        f"{source.path} has {lines} lines"
        for source in sources
        if (lines := len(source.text.splitlines())) > MAX_FILE_LINES
    ]
    functions = [
        f"{source.path}:{node.lineno} {node.name} has {lines} lines"
        for source in sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    return files + functions


Rule = Callable[[list[Source]], list[str]]

BREACHES: list[tuple[Rule, str, str]] = [
    (imports_sideways_or_up, "core/x.py", "from ..store import journal"),
    (imports_sideways_or_up, "core/x.py", "from .. import compose"),
    (
        imports_sideways_or_up,
        "runtime/x.py",
        "def late():\n    from trunkline.config import Settings",
    ),
    (imports_sideways_or_up, "services/x.py", "from trunkline import inference"),
    (imports_sideways_or_up, "store/x.py", "import trunkline.catalog.model"),
    (imports_in_a_circle, "core/x.py", "from . import y"),
    (imports_livekit_where_barred, "runtime/attempt.py", "from livekit.agents import llm"),
    (uses_private_names_of_the_sdk, "runtime/x.py", "from livekit.agents.stt import _Secret"),
    (uses_private_names_of_the_sdk, "runtime/x.py", "import livekit.agents._exceptions"),
    (uses_private_names_of_the_sdk, "runtime/x.py", "from livekit.agents import tts\ntts._Secret"),
    (uses_private_names_of_the_sdk, "runtime/x.py", "import livekit.agents\nlivekit.agents._x"),
    (reads_the_environment, "runtime/x.py", "import os\nos.environ['KEY']"),
    (reads_the_environment, "store/x.py", "from os import getenv"),
    (imports_an_engine, "services/x.py", "from ..engines.flite import TTS"),
    (decides_with_side_effects, "core/x.py", "import time"),
    (decides_with_side_effects, "core/x.py", "from ..clock import now_ns"),
    (decides_with_side_effects, "core/x.py", "from .. import clock"),
    (is_too_long, "core/x.py", "x = 1\n" * (MAX_FILE_LINES + 1)),
    (is_too_long, "core/x.py", "def f():\n" + "    pass\n" * MAX_FUNCTION_LINES),
]
RULES = list(dict.fromkeys(rule for rule, _, _ in BREACHES))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_no_file(rule: Rule) -> None:
    assert rule(repository()) == []


@pytest.mark.parametrize(("rule", "path", "text"), BREACHES)
def test_a_breach_is_seen(rule: Rule, path: str, text: str) -> None:
    back = Source("core/y.py", "from .x import thing")
    assert rule([Source(path, text), back])


def test_the_page_lists_the_units_that_exist() -> None:
    units = {source.unit for source in repository()}
    assert units == set(FLOORS) - PLANNED


def test_the_page_names_files_that_exist() -> None:
    named = {*WITHOUT_LIVEKIT, *PRIVATE_NAMES, *ENVIRONMENT, *ENGINES}
    assert [entry for entry in sorted(named) if not (SRC / entry).exists()] == []


def test_the_drawn_error_tree_is_the_real_one() -> None:
    assert errors.__doc__
    drawn: dict[str, str] = {}
    line_of_ancestors = ["Exception"]
    for indent, name in re.findall(r"^    ([│├└─ ]*)([A-Z]\w+)", errors.__doc__, re.MULTILINE):
        depth = len(indent) // 4
        del line_of_ancestors[depth + 1 :]
        drawn[name] = line_of_ancestors[-1]
        line_of_ancestors.append(name)
    real = {
        name: thing.__bases__[0].__name__
        for name, thing in vars(errors).items()
        if isinstance(thing, type) and issubclass(thing, Exception)
    }
    assert drawn == real
    assert sorted([*real, "Remedy"]) == errors.__all__
