"""YAML as a small tree in which every node knows its line and key path.

Only plain data is read: no anchors, aliases, tags or second documents, so a document cannot grow
beyond its own size. ``${NAME}`` and ``${NAME:-default}`` in text are replaced from the given
environment, ``$${`` stands for ``${``; what was replaced is never quoted in a problem.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

import yaml

from ..errors import ConfigError

MAX_BYTES = 1_000_000
MAX_DEPTH = 12
MAX_NODES = 20_000

# libyaml where PyYAML was built with it: ten times as fast.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_PLACE = re.compile(r"\$\$\{|\$\{(?P<body>[^{}]*)(?P<end>\}?)")
_NAME = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>.*))?", re.DOTALL)
_READ_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null")}

_LONGEST_NUMBER = 40


@dataclass(frozen=True, slots=True)
class Node:
    line: int
    path: str


@dataclass(frozen=True, slots=True)
class Broken(Node):
    """A node whose problem has been told; whoever meets it keeps silent."""


@dataclass(frozen=True, slots=True)
class Scalar(Node):
    """``raw`` is what the file says, ``expanded`` whether ``value`` came from the environment."""

    value: str | int | float | bool | None
    raw: str
    expanded: bool = False

    def __str__(self) -> str:
        return json.dumps(self.raw[:80], ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Table(Node):
    entries: Mapping[str, Node]
    key_lines: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Items(Node):
    items: tuple[Node, ...]


class Problems:
    """Collects every mistake of a file, to be told together."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, path: str, told: str) -> None:
        where = f"{self._file}:{line}: " if line else f"{self._file}: "
        self._found.append((line, f"{where}{path}: {told}" if path else f"{where}{told}"))

    def at(self, node: Node, told: str) -> None:
        self.add(node.line, node.path, told)

    def raise_any(self) -> None:
        """Raise ConfigError with all of them in the order of the lines, if there are any."""
        if self._found:
            raise ConfigError([text for _, text in sorted(self._found, key=lambda p: p[0])])


class _Refused(Exception):
    """The document cannot be read further; its problem has been told."""


def read_tree(text: str, env: Mapping[str, str], problems: Problems) -> Node | None:
    """The document's root, or None when it is empty or not YAML that is read here."""
    try:
        return _Reader(text, env, problems).document()
    except _Refused:
        return None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        problems.add(line, "", f"not valid YAML: {error.problem or error.context}")
    except yaml.YAMLError as error:
        # A reader's error: a character that YAML does not allow. It has a position, no mark.
        position = getattr(error, "position", None) or 0
        line = text.count("\n", 0, position) + 1
        problems.add(line, "", "not valid YAML: a control character; save the file as plain text")
    return None


class _Reader:
    def __init__(self, text: str, env: Mapping[str, str], problems: Problems) -> None:
        self._events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=_LOADER))
        self._env = env
        self._problems = problems
        self._nodes = 0
        self._scalars = yaml.constructor.SafeConstructor()
        self._resolver = yaml.resolver.Resolver()

    def document(self) -> Node | None:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._refuse(event, "a second document; one file holds one document")
                root = self._node(next(self._events), "", 0)
        if isinstance(root, Scalar) and root.value is None:
            return None
        return root

    def _node(self, event: yaml.Event, path: str, depth: int, key_line: int = 0) -> Node:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > MAX_NODES:
            self._refuse(event, "nested too deep or too long for a configuration")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            self._refuse(event, "anchors and aliases (& and *) are not read here; write it out")
        line = key_line or _line(event)
        if isinstance(event, yaml.MappingStartEvent):
            return self._table(line, path, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(line, path, depth)
        assert isinstance(event, yaml.ScalarEvent)
        return self._scalar(event, line, path)

    def _table(self, line: int, path: str, depth: int) -> Table:
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or event.anchor:
                self._refuse(event, "a key must be plain text")
            key, at = str(event.value), _line(event)
            inner = f"{path}.{key}" if path else key
            node = self._node(next(self._events), inner, depth + 1, at)
            if key in entries:
                self._problems.add(at, inner, f"the same key is already on line {lines[key]}")
                continue
            entries[key], lines[key] = node, at
        return Table(line, path, entries, lines)

    def _items(self, line: int, path: str, depth: int) -> Items:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, f"{path}[{len(items)}]", depth + 1))
        return Items(line, path, tuple(items))

    def _scalar(self, event: yaml.ScalarEvent, line: int, path: str) -> Node:
        if event.tag is not None:
            self._refuse(event, "tags (!) are not read here")
        raw = event.value
        if "${" in raw:
            text = self._expand(raw, line, path)
            return Broken(line, path) if text is None else Scalar(line, path, text, raw, True)
        tag = self._resolver.resolve(yaml.ScalarNode, raw, event.implicit)  # type: ignore[no-untyped-call]
        if tag not in _READ_TAGS or len(raw) > _LONGEST_NUMBER:
            return Scalar(line, path, raw, raw)
        value = self._scalars.construct_object(yaml.ScalarNode(tag, raw))
        return Scalar(line, path, value, raw)

    def _expand(self, raw: str, line: int, path: str) -> str | None:
        broken = False

        def replace(place: re.Match[str]) -> str:
            nonlocal broken
            if place["body"] is None:
                return "${"
            told = _NAME.fullmatch(place["body"]) if place["end"] else None
            if told is None:
                self._problems.add(line, path, "write ${NAME} or ${NAME:-default}, or $${ for ${")
            else:
                name, default = told["name"], told["default"]
                value = self._env.get(name)
                if value is not None and (value or default is None):
                    return value
                if default is not None:
                    return default
                self._problems.add(line, path, f"the variable {name} is not set")
            broken = True
            return ""

        text = _PLACE.sub(replace, raw)
        return None if broken else text

    def _refuse(self, event: yaml.Event, told: str) -> NoReturn:
        self._problems.add(_line(event), "", told)
        raise _Refused


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0
