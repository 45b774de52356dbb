"""What a protocol file fills in: the vendor's endpoints, its key, the words of its errors."""

from __future__ import annotations

import io
import wave
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from aiohttp import web

from .exchange import Exchange
from .provider import Provider
from .transport import Rejected

Handler = Callable[[Exchange], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of a vendor; ``name`` is what faults and the bill call it."""

    method: str
    path: str
    name: str
    handler: Handler


class Vendor(ABC):
    """The protocol of one vendor, served by a ``Double`` under ``/<name>``."""

    name: ClassVar[str]
    base: ClassVar[str] = ""
    """What a client's ``base_url`` has behind the vendor's host."""

    def __init__(self, settings: Provider) -> None:
        self.settings = settings

    @abstractmethod
    def endpoints(self) -> list[Endpoint]:
        """The addresses that this vendor answers."""

    @abstractmethod
    def key(self, request: web.Request) -> str:
        """The API key that the client shows, empty when it shows none."""

    @abstractmethod
    def error(self, status: int, message: str, request_id: str) -> dict[str, Any]:
        """The body of an error; ``message`` is empty where the vendor's usual one fits."""

    def headers(self, request_id: str) -> dict[str, str]:
        """The headers that carry the vendor's id of the request."""
        return {"x-request-id": request_id}

    def accepts(self, request: web.Request) -> bool:
        """Whether the request may pass."""
        key = self.key(request)
        return key in self.settings.keys if self.settings.keys else bool(key)


def number(request: web.Request, name: str, default: int) -> int:
    """A whole number over 0 of the query. Raises Rejected naming it."""
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= 1_000_000:
        raise Rejected(400, f"query parameter {name} is {text!r}, not a whole number over 0")
    return int(text)


async def body(request: web.Request) -> dict[str, Any]:
    """The JSON object in the body. Raises Rejected when there is none."""
    try:
        data = msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        raise Rejected(400, f"the body is not JSON: {error}") from None
    if not isinstance(data, dict):
        raise Rejected(400, "the body is not a JSON object")
    return data


def text(data: dict[str, Any], name: str) -> str:
    """A field that has to be text, and not empty. Raises Rejected naming it."""
    value = data.get(name)
    if not isinstance(value, str) or not value:
        raise Rejected(400, f"field {name} is missing or not text")
    return value


def read_wav(data: bytes) -> tuple[bytes, int]:
    """Mono 16-bit samples and their rate. Raises Rejected."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            if file.getsampwidth() != 2 or file.getnchannels() != 1:
                raise Rejected(400, "this double hears 16-bit mono WAV only")
            return file.readframes(file.getnframes()), file.getframerate()
    except (wave.Error, EOFError) as error:
        raise Rejected(400, f"Invalid file format: {error}") from None
