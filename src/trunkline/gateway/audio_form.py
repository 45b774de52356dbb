"""A body of ``multipart/form-data``: named texts, and one recording.

https://www.rfc-editor.org/rfc/rfc7578
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from .refusal import Refusal

_TYPE = "multipart/form-data"
_FILE = "file"
_MOST_PARTS = 100
_LONGEST_TEXT = 64 << 10


@dataclass
class Form:
    """The fields by name, each with every value that came, and the bytes of ``file``.

    A name that ends in ``[]`` is a list's and counts without it, as OpenAI's clients send lists.
    """

    texts: dict[str, list[str]] = field(default_factory=dict)
    file: bytes | None = None

    def text(self, name: str) -> str:
        """The last value of ``name``, empty when there is none."""
        return self.texts.get(name, [""])[-1].strip()


def read_form(body: bytes, content_type: str) -> Form:
    """Read a body. Raises Refusal: 415 for another type, 400 for what is no such body."""
    kind, options = parse_options_header(content_type)
    if kind.decode("latin-1") != _TYPE:
        told = f"the body is {_TYPE} with the recording as {_FILE}"
        raise Refusal(415, told, code="unsupported_media_type")
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise Refusal(400, "the content type names no boundary", code="invalid_form")
    reader = _Reader()
    try:
        parser = MultipartParser(boundary, reader.callbacks)  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except MultipartParseError:
        raise Refusal(400, f"the body is no {_TYPE}", code="invalid_form") from None
    if not reader.has_ended:
        told = "the body ends in the middle of a field"
        raise Refusal(400, told, code="invalid_form")
    return reader.form


class _Reader:
    """Collects what the parser finds. Raises Refusal."""

    def __init__(self) -> None:
        self.form = Form()
        self.has_ended = False
        self._parts = 0
        self._name = ""
        self._header = b""
        self._headers: dict[bytes, bytes] = {}
        self._value = b""
        self._data = bytearray()
        self.callbacks: Mapping[str, object] = {
            "on_part_begin": self._begin,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._named,
            "on_part_data": self._more,
            "on_part_end": self._end,
            "on_end": self._ended,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise Refusal(400, f"the body has more than {_MOST_PARTS} fields", code="invalid_form")
        self._headers = {}
        self._data = bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _named(self) -> None:
        said = self._headers.get(b"content-disposition", b"").decode("latin-1")
        _, options = parse_options_header(said)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise Refusal(400, "a field of the body has no name", code="invalid_form")
        self._name = name.removesuffix("[]")

    def _more(self, data: bytes, start: int, end: int) -> None:
        self._data += memoryview(data)[start:end]
        if self._name != _FILE and len(self._data) > _LONGEST_TEXT:
            told = f"{self._name[:40]}: longer than {_LONGEST_TEXT:,} bytes"
            raise Refusal(400, told, param=self._name[:40])

    def _end(self) -> None:
        if self._name == _FILE:
            self.form.file = bytes(self._data)
            return
        try:
            text = self._data.decode()
        except UnicodeDecodeError:
            told = f"{self._name[:40]}: the text is not UTF-8"
            raise Refusal(400, told, param=self._name[:40]) from None
        self.form.texts.setdefault(self._name, []).append(text)

    def _ended(self) -> None:
        self.has_ended = True
