"""The body of ``POST /v1/chat/completions``: what is checked, and what is handed on as it is.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from ..runtime.wire_request import BESIDE_THE_BODY
from .names import AUTO, model_of
from .refusal import Refusal

T = TypeVar("T")

BODY_LIMIT = 16 << 20
"""Bytes of a request: a long conversation with a few pictures in it."""

_OURS = frozenset({"model", "messages", "tools", "stream", "stream_options"})
_CLASSES = frozenset({"priority", "standard", "low"})


class _Message(msgspec.Struct):
    role: str
    tool_calls: list[dict[str, Any]] | None = None


class _Tool(msgspec.Struct):
    function: dict[str, Any] | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Known(msgspec.Struct):
    """The fields whose shape we depend on; the provider judges the others."""

    messages: Annotated[list[_Message], msgspec.Meta(min_length=1)]
    model: str | None = None
    tools: list[_Tool] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None


class Asked(msgspec.Struct, frozen=True):
    """A chat as a client asks for it. ``params`` are all further fields, by their OpenAI names.

    ``inference_class`` is LiveKit's scheduling class, empty for none.
    """

    messages: list[dict[str, Any]]
    model: str = AUTO
    tools: list[dict[str, Any]] = []
    params: dict[str, Any] = {}
    stream: bool = False
    wants_usage: bool = False
    inference_class: str = ""


_decode = msgspec.json.Decoder(dict[str, Any]).decode


def checked(body: bytes, kind: type[T]) -> tuple[dict[str, Any], T]:
    """Read a JSON object, and the fields of ``kind`` in it.

    Raises Refusal (400) naming the field; it quotes nothing of the talk.
    """
    try:
        data = _decode(body)
    except msgspec.ValidationError as error:
        raise _misshapen(error) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "the body is not JSON", code="invalid_json") from None
    return data, shaped(data, kind)


def shaped(data: object, kind: type[T], where: str = "") -> T:
    """``data`` as ``kind``. Raises Refusal (400) naming the field, under the name ``where``."""
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        raise _misshapen(error, where) from None


def _misshapen(error: msgspec.ValidationError, where: str = "") -> Refusal:
    told, _, path = str(error).partition(" - at ")
    inner = path.rpartition("$")[2].strip("`")
    name = (where + inner).removeprefix(".")
    return Refusal(400, f"{name or 'the body'}: {told}", param=name or None)


def inference_class(priority: str) -> str:
    """LiveKit's scheduling class by the header that asks for it; empty for none that it has."""
    return priority if priority in _CLASSES else ""


def read(body: bytes, priority: str = "") -> Asked:
    """Read a request. Raises Refusal (400) naming the field."""
    data, known = checked(body, _Known)
    if not BESIDE_THE_BODY.isdisjoint(data):
        name = min(BESIDE_THE_BODY.intersection(data))
        told = f"{name} is a way of the openai package to add to a request, no field of one"
        raise Refusal(400, told, param=name)
    options = known.stream_options
    return Asked(
        messages=data["messages"],
        model=model_of(known.model),
        tools=data.get("tools") or [],
        params={name: value for name, value in data.items() if name not in _OURS},
        stream=known.stream or False,
        wants_usage=bool(options and options.include_usage),
        inference_class=inference_class(priority),
    )
