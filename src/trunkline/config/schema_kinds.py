"""The kinds of value that a key of trunkline.yaml may have: each reads its node or says why not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from ..core.names import did_you_mean
from .yaml_nodes import Broken, Items, Node, Problems, Scalar, Table


class Read(NamedTuple):
    """A value that has its type, and the node it came from."""

    value: Any
    node: Node


class Type(Protocol):
    """A kind of value: ``label`` is its name for people, ``read`` gives None after a problem."""

    @property
    def label(self) -> str: ...
    def read(self, node: Node, problems: Problems) -> Read | None: ...


@dataclass(frozen=True)
class Key:
    """One key: its type, its default as documented (empty when required) and its meaning."""

    type: Type
    meaning: str
    default: str = ""
    required: bool = False


@dataclass(frozen=True)
class Text:
    label: str = "text"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Scalar) and isinstance(node.value, str) and node.value.isprintable():
            if node.value.strip():
                return Read(node.value, node)
            problems.at(node, "must not be empty")
        elif isinstance(node, Scalar) and isinstance(node.value, str):
            problems.at(node, "must be one line without control characters")
        elif isinstance(node, Scalar) and node.value is not None:
            problems.at(node, "must be text; put it in quotes")
        elif not isinstance(node, Broken):
            problems.at(node, "must be text")
        return None


@dataclass(frozen=True)
class Version:
    label: str = "`1`"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Scalar) and node.value == 1 and not isinstance(node.value, bool):
            return Read(1, node)
        if not isinstance(node, Broken):
            told = f" {node}" if isinstance(node, Scalar) else ""
            problems.at(node, f"unsupported version{told}; this program reads version 1")
        return None


@dataclass(frozen=True)
class Seconds:
    label: str = "seconds, above 0"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Broken):
            return None
        value = self._number(node) if isinstance(node, Scalar) else None
        if value is not None and math.isfinite(value) and value > 0:
            return Read(value, node)
        told = f", and is {node}" if isinstance(node, Scalar) else ""
        problems.at(node, f"must be a number of seconds above 0{told}")
        return None

    @staticmethod
    def _number(node: Scalar) -> float | None:
        value = node.value
        if isinstance(value, bool) or value is None:
            return None
        if isinstance(value, str) and not node.expanded:
            return None
        try:
            return float(value)
        except (ValueError, OverflowError):
            return None


@dataclass(frozen=True)
class Port:
    label: str = "port, 1 to 65535"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Broken):
            return None
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(node, Scalar) and node.expanded and node.raw and str(value).isdecimal():
            value = int(str(value))
        if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536:
            return Read(value, node)
        told = f", and is {node}" if isinstance(node, Scalar) else ""
        problems.at(node, f"must be a port number from 1 to 65535{told}")
        return None


@dataclass(frozen=True)
class OneOf:
    choices: type[StrEnum]

    @property
    def label(self) -> str:
        return ", ".join(f"`{c}`" for c in self.choices)

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Broken):
            return None
        names = [c.value for c in self.choices]
        if isinstance(node, Scalar) and node.value in names:
            return Read(self.choices(node.value), node)
        near = ""
        if isinstance(node, Scalar):
            near = f", and is {node}{did_you_mean(node.raw, names)}"
        problems.at(node, f"must be one of {', '.join(names)}{near}")
        return None


@dataclass(frozen=True)
class Plain:
    """Any plain data, for options whose names the provider's class decides."""

    label: str = "options"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if not isinstance(node, Table):
            if not isinstance(node, Broken):
                problems.at(node, "must be a table of options")
            return None
        return Read(self._value(node), node)

    def _value(self, node: Node) -> Any:
        if isinstance(node, Table):
            return {key: self._value(inner) for key, inner in node.entries.items()}
        if isinstance(node, Items):
            return [self._value(inner) for inner in node.items]
        return node.value if isinstance(node, Scalar) else None


@dataclass(frozen=True)
class Section:
    """Keys with names of their own; ``others`` is the key that every further name stands for."""

    keys: Mapping[str, Key]
    others: tuple[str, Key] | None = None
    label: str = "table"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if not isinstance(node, Table):
            if not isinstance(node, Broken):
                problems.at(node, f"must be a table with {', '.join(self.keys)}")
            return None
        found: dict[str, Read] = {}
        for name, inner in node.entries.items():
            key = self.keys.get(name) or (self.others[1] if self.others else None)
            if key is None:
                near = did_you_mean(name, self.keys) or f": it is one of {', '.join(self.keys)}"
                told = f'unknown key "{name}"{near}'
                problems.add(node.key_lines[name], inner.path, told)
            elif (read := key.type.read(inner, problems)) is not None:
                found[name] = read
        for name, key in self.keys.items():
            if key.required and name not in node.entries:
                problems.at(node, f'the key "{name}" is missing: {key.meaning}')
        return Read(found, node)


@dataclass(frozen=True)
class Named:
    """A table whose names the user chooses."""

    placeholder: str
    of: Type
    label: str = "table"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if not isinstance(node, Table):
            if not isinstance(node, Broken):
                problems.at(node, f"must be a table of {self.placeholder}: ...")
            return None
        found = {n: self.of.read(inner, problems) for n, inner in node.entries.items()}
        return Read({n: read for n, read in found.items() if read is not None}, node)


@dataclass(frozen=True)
class Listed:
    of: Type
    label: str = "list"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if not isinstance(node, Items) or not node.items:
            if not isinstance(node, Broken):
                problems.at(node, "must be a list with at least one entry")
            return None
        found = [self.of.read(inner, problems) for inner in node.items]
        return Read([read for read in found if read is not None], node)


@dataclass(frozen=True)
class YesNo:
    label: str = "true or false"

    def read(self, node: Node, problems: Problems) -> Read | None:
        if isinstance(node, Scalar) and isinstance(node.value, bool):
            return Read(node.value, node)
        if not isinstance(node, Broken):
            problems.at(node, "must be true or false")
        return None


@dataclass(frozen=True)
class TextOr:
    """Text, or a section that says more."""

    section: Section
    text: Text = field(default_factory=Text)

    @property
    def label(self) -> str:
        return "text or table"

    def read(self, node: Node, problems: Problems) -> Read | None:
        kind: Type = self.section if isinstance(node, Table) else self.text
        return kind.read(node, problems)
