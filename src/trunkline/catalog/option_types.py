"""Whether an option's value is of a type that the plugin's constructor says it takes.

Plugins check few values themselves. One of another type is found deep in a task of theirs, where it
looks like a failure of the provider, so the constructor's own annotations are asked before. What
they name and no JSON can be, such as a vendor's message, is left to the plugin.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from importlib import import_module
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, Union, get_args, get_origin

_QUOTED = 40
"""So much of a text of a client's is repeated."""

_NAMED = 12
"""So many of the values, or fields, that there may be are named."""

_WORDS = {
    bool: ("a boolean", "booleans"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    NoneType: ("null", "nulls"),
}


class Misfit(ValueError):
    """``where`` in the option the value is wrong, and ``told`` what it may be and what it is."""

    def __init__(self, where: str, told: str) -> None:
        super().__init__(f'"{where}" {told}')
        self.where = where


class _Unknown(Exception):
    """A type that nothing here can tell."""


@cache
def type_of(cls: Any, argument: str) -> Any:
    """What the constructor of ``cls`` says that ``argument`` is; Any where that cannot be told."""
    said = inspect.signature(cls).parameters[argument].annotation
    if said is inspect.Parameter.empty:
        return Any
    maker = cls.__init__ if inspect.isclass(cls) else cls
    names = getattr(inspect.unwrap(maker), "__globals__", {})
    # some plugins import what they annotate with for type checkers only
    known = {**vars(typing), **_livekit_types(), **names}
    try:
        hint = typing.get_type_hints(SimpleNamespace(__annotations__={"it": said}), known)["it"]
    except (NameError, AttributeError, TypeError, SyntaxError):
        return Any
    return _given(hint)


def _given(hint: Any) -> Any:
    """``hint`` without LiveKit's word for what is not given."""
    if get_origin(hint) not in (Union, UnionType):
        return hint
    nothing = _livekit_types()["NotGiven"]
    return Union[tuple(one for one in get_args(hint) if one is not nothing)]  # noqa: UP007


def _livekit_types() -> dict[str, Any]:
    return vars(import_module("livekit.agents.types"))  # with a plugin, it is here already


def fitted(cls: Any, argument: str, value: Any, name: str) -> Any:
    """``value`` as the constructor of ``cls`` takes it: an object becomes the class it stands for.

    ``name`` is what whoever gave the value calls the argument. A null stays one, a text stands for
    a list of one text. Raises Misfit.
    """
    hint = type_of(cls, argument)
    if value is None or not _is_json(value):
        return value  # what a program gives of its own is its own affair
    try:
        return _made(hint, value, name)
    except _Unknown:
        return value


def _is_json(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | list | tuple | dict)


def _made(hint: Any, value: Any, name: str) -> Any:
    origin = get_origin(hint) or hint
    if origin is Any:
        return value
    if origin in (Union, UnionType):
        return _one_of(get_args(hint), value, name)
    if origin in _WORDS:
        if not _is_plain(origin, value):
            raise _misfit(hint, value, name)
        return value
    if origin is Literal:
        if not any(type(value) is type(one) and value == one for one in get_args(hint)):
            raise _misfit(hint, value, name)
        return value
    for kinds, make in _MAKERS:
        if kinds(origin):
            return make(hint, value, name)
    if isinstance(origin, type) and isinstance(value, origin):
        return value
    raise _Unknown


def _is_plain(kind: type, value: Any) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _one_of(hints: Sequence[Any], value: Any, name: str) -> Any:
    """The value as the first type that takes it."""
    unknown, within = False, []
    for hint in hints:
        try:
            return _made(hint, value, name)
        except _Unknown:
            unknown = True
        except Misfit as misfit:
            if misfit.where != name:
                within.append(misfit)
    if unknown:
        raise _Unknown
    raise within[0] if within else _misfit(Union[tuple(hints)], value, name)  # noqa: UP007


def _enum(hint: Any, value: Any, name: str) -> Any:
    try:
        return hint(value)
    except ValueError:
        raise _misfit(hint, value, name) from None


def _list(hint: Any, value: Any, name: str) -> Any:
    (item,) = get_args(hint) or (Any,)
    if isinstance(value, str) and item is str:
        return [value]
    if not isinstance(value, list | tuple):
        raise _misfit(hint, value, name)
    return [_made(item, one, f"{name}[{at}]") for at, one in enumerate(value)]


def _tuple(hint: Any, value: Any, name: str) -> Any:
    items = get_args(hint)
    if not items or items[-1] is Ellipsis:
        raise _Unknown
    if not isinstance(value, list | tuple) or len(value) != len(items):
        raise _misfit(hint, value, name)
    pairs = enumerate(zip(items, value, strict=True))
    return tuple(_made(item, one, f"{name}[{at}]") for at, (item, one) in pairs)


def _mapping(hint: Any, value: Any, name: str) -> Any:
    _, item = get_args(hint) or (str, Any)
    if not isinstance(value, dict):
        raise _misfit(hint, value, name)
    return {key: _made(item, one, f"{name}.{_cut(key)}") for key, one in value.items()}


def _typed_dict(hint: Any, value: Any, name: str) -> Any:
    """An object of which some fields are known: an API may have more of them."""
    if not isinstance(value, dict):
        raise _misfit(hint, value, name)
    return {**value, **_fields(hint, value, name, hint.__required_keys__)}


def _dataclass(hint: Any, value: Any, name: str) -> Any:
    if isinstance(value, hint):
        return value
    if not isinstance(value, dict):
        raise _misfit(hint, value, name)
    fields = {one.name: one for one in dataclasses.fields(hint) if one.init}
    for key in value:
        if key not in fields:
            raise Misfit(f"{name}.{_cut(key)}", f"is none of its fields: {_listed(fields)}")
    nothing = dataclasses.MISSING
    required = {n for n, f in fields.items() if f.default is f.default_factory is nothing}
    found = _fields(hint, value, name, required)
    try:
        return hint(**found)
    except (TypeError, ValueError):  # the class's own complaint
        raise _misfit(hint, value, name) from None


def _fields(
    hint: Any, value: Mapping[str, Any], name: str, required: typing.AbstractSet[str]
) -> dict[str, Any]:
    if missing := sorted(required - value.keys()):
        raise Misfit(f"{name}.{missing[0]}", "is missing")
    try:
        hints = typing.get_type_hints(hint)
    except (NameError, AttributeError, TypeError):
        raise _Unknown from None
    found = {}
    for key, one in value.items():
        if key in hints:
            found[key] = _made(_given(hints[key]), one, f"{name}.{key}")
    return found


_MAKERS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any, str], Any]], ...] = (
    (lambda kind: isinstance(kind, type) and issubclass(kind, Enum), _enum),
    (lambda kind: kind in (list, Sequence), _list),
    (lambda kind: kind is tuple, _tuple),
    (lambda kind: kind in (dict, Mapping), _mapping),
    (lambda kind: hasattr(kind, "__required_keys__"), _typed_dict),
    (lambda kind: isinstance(kind, type) and dataclasses.is_dataclass(kind), _dataclass),
)


def _misfit(hint: Any, value: Any, name: str) -> Misfit:
    return Misfit(name, f"is {_described(hint)}, not {_kind(value, hint)}")


def _described(hint: Any) -> str:
    """What values of a type are to somebody who writes JSON."""
    origin, inner = get_origin(hint) or hint, get_args(hint)
    if origin in _WORDS:
        return _WORDS[origin][0]
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_described(one) for one in inner))
    if origin is Literal:
        return f"one of {_listed(inner)}"
    if origin in (list, Sequence):
        return f"a list of {_several(inner[0])}" if inner else "a list"
    if origin is tuple:
        return f"a list of {', '.join(map(_described, inner))}"
    if origin in (dict, Mapping):
        return f"an object of {_several(inner[1])}" if inner else "an object"
    if isinstance(origin, type) and issubclass(origin, Enum):
        return f"one of {_listed([one.value for one in origin])}"
    fields = getattr(origin, "__annotations__", None)
    return f"an object of {_listed(fields)}" if fields else "an object"


def _several(hint: Any) -> str:
    return _WORDS[hint][1] if hint in _WORDS else _described(hint)


def _listed(values: typing.Iterable[Any]) -> str:
    named = [f'"{one}"' if isinstance(one, str) else str(one) for one in values]
    more = [f"{len(named) - _NAMED} more"] if len(named) > _NAMED else []
    return ", ".join([*named[:_NAMED], *more])


def _kind(value: Any, hint: Any) -> str:
    """What a value is; a short text itself where only some are taken."""
    if isinstance(value, str):
        return f'"{_cut(value)}"' if "one of" in _described(hint) else "a text"
    if isinstance(value, float):
        return "a fraction" if "whole number" in _described(hint) else "a number"
    if isinstance(value, list | tuple):
        return "a list" if "list" not in _described(hint) else "that"
    return {bool: "a boolean", int: "a number", NoneType: "null"}.get(type(value), "an object")


def _cut(text: Any) -> str:
    told = "".join(c if c.isprintable() else "?" for c in str(text))
    return told if len(told) <= _QUOTED else f"{told[:_QUOTED]}..."
