"""Reading a script from its YAML file; every mistake is told with file, line and key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import yaml

from ..errors import UsageError
from ._script import Script

LARGEST = 256 * 1024
"""Bytes; a script is a page or two of text."""
DEEPEST = 16


class _Mark(Protocol):
    @property
    def line(self) -> int: ...


_STEP = re.compile(r"\.(\w+)|\[(\d+)\]")
_SLOT = re.compile(r"\{(\w+)\}")


def load(path: Path) -> Script:
    """Read a script. Raises UsageError naming the file, the line and the key of the mistake."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise UsageError(f"script {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"script {path} is not UTF-8 text") from error
    if len(raw) > LARGEST:
        raise UsageError(f"script {path} is larger than {LARGEST} bytes")
    try:
        _refuse_bombs(path, text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        place = _place(error.problem_mark)
        raise UsageError(f"script {path}{place}: not valid YAML, {error.problem}") from error
    except yaml.YAMLError as error:  # a character that no YAML may hold
        told = str(error).partition("\n")[0]
        raise UsageError(f"script {path}: not valid YAML, {told}") from error
    try:
        script = msgspec.convert(data, Script)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `")
        raise _mistake(path, root, where.rstrip("`") or "$", what) from error
    for where, what in _mistakes(script):
        raise _mistake(path, root, where, what)
    return script


def _refuse_bombs(path: Path, text: str) -> None:
    """Refuse aliases and deep nesting before anything is built from the text."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if isinstance(event, yaml.AliasEvent):
            raise UsageError(f"script {path}{_place(event.start_mark)}: aliases (*) are not read")
        if depth > DEEPEST:
            raise UsageError(f"script {path}{_place(event.start_mark)}: nested over {DEEPEST} deep")


def _place(mark: _Mark | None) -> str:
    return f", line {mark.line + 1}" if mark else ""


def _mistake(path: Path, root: yaml.Node | None, where: str, what: str) -> UsageError:
    key = where.removeprefix("$").lstrip(".")
    line = _line(root, where, what)
    return UsageError(f"script {path}, line {line}{f', key {key}' if key else ''}: {what}")


def _line(root: yaml.Node | None, where: str, what: str) -> int:
    """Return the line of ``$.rules[2].says``; of the unknown key that ``what`` may name."""
    node = root
    steps = [name or int(index) for name, index in _STEP.findall(where)]
    unknown = re.search(r"unknown field `(\w+)`", what)
    line = 1 if node is None else node.start_mark.line + 1
    for step in [*steps, *([unknown[1]] if unknown else [])]:
        if isinstance(node, yaml.MappingNode):
            pair = next((pair for pair in node.value if pair[0].value == step), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            node = node.value[step]
            line = node.start_mark.line + 1
    return line


def _mistakes(script: Script) -> Iterator[tuple[str, str]]:
    """Yield (key, mistake) for what types alone cannot say."""
    for name, slot in script.slots.items():
        for index, pattern in enumerate(slot.patterns):
            where = f"$.slots.{name}.patterns[{index}].match"
            if pattern.match.count("{value}") != 1:
                yield where, "must hold {value} exactly once"
            else:
                yield from _bad_expression(where, pattern.match.replace("{value}", "(?P<value>x)"))
    for name, tool in script.tools.items():
        where = f"$.tools.{name}"
        yield from _unknown("slot", f"{where}.needs", tool.needs, script.slots)
        for argument, text in tool.arguments.items():
            key = f"{where}.arguments.{argument}"
            yield from _unknown("slot", key, _SLOT.findall(text), script.slots)
    for index, rule in enumerate(script.rules):
        where = f"$.rules[{index}]"
        for number, text in enumerate(rule.hears):
            yield from _bad_expression(f"{where}.hears[{number}]", text)
        for number, text in enumerate(rule.says):
            key = f"{where}.says[{number}]"
            yield from _unknown("slot", key, _SLOT.findall(text), script.slots)
        yield from _unknown("slot", f"{where}.learns", rule.learns, script.slots)
        if rule.call is not None:
            yield from _unknown("tool", f"{where}.call", [rule.call], script.tools)


def _bad_expression(where: str, text: str) -> Iterator[tuple[str, str]]:
    try:
        re.compile(text)
    except re.error as error:
        yield where, f"{text!r} is not a regular expression: {error}"


def _unknown(
    kind: str, where: str, names: Iterable[str], known: Mapping[str, object]
) -> Iterator[tuple[str, str]]:
    for name in names:
        if name not in known:
            yield where, f"there is no {kind} {name!r}; known: {', '.join(known) or 'none'}"
