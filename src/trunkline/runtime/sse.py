"""Server-sent events, incrementally, from bytes.

The format is https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6, cut to
what chat completions use: ``data`` fields, comments, and line ends LF or CRLF.
"""

from __future__ import annotations

from ..errors import ProtocolViolation

EVENT_LIMIT = 1 << 20
"""Bytes an event, or a line, may have."""


class SseParser:
    """Feed it the body as it comes; it returns the payload of each event that is complete.

    It works on bytes, so a character split between two reads needs no care.
    """

    __slots__ = ("_data", "_size", "_tail")

    def __init__(self) -> None:
        self._tail = bytearray()
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Return the payloads that ``data`` completes, mostly one.

        Raises ProtocolViolation when an event grows over ``EVENT_LIMIT``; those before it have
        been returned by then.
        """
        self._check_size()
        if not self._tail and not self._data and (plain := _plain(data)):
            return plain
        if self._tail or b"\n" not in data:
            self._tail += data
            if b"\n" not in data:
                return []
            data = bytes(self._tail)
        *lines, tail = data.split(b"\n")
        self._tail = bytearray(tail)
        events = []
        for line in lines:
            if line.startswith(b"data:"):
                self._add(line)
            elif self._data and line in (b"", b"\r") and (payload := self._take()):
                events.append(payload)
        return events

    def rest(self) -> bytes:
        """Return the payload that the body left without a blank line. Raises as ``feed`` does."""
        self._check_size()
        if self._tail.startswith(b"data:"):
            self._add(bytes(self._tail))
        return self._take()

    def _check_size(self) -> None:
        if len(self._tail) + self._size > EVENT_LIMIT:
            raise ProtocolViolation(f"an event of the stream is longer than {EVENT_LIMIT} bytes")

    def _add(self, line: bytes) -> None:
        value = line[5:].removesuffix(b"\r").removeprefix(b" ")
        self._data.append(value)
        self._size += len(value)

    def _take(self) -> bytes:
        payload = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
        self._data.clear()
        self._size = 0
        return payload


class WholeBody:
    """A body that is one payload: the same two calls as ``SseParser``, for an answer in JSON."""

    __slots__ = ("_data",)

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Keep ``data``. Raises ProtocolViolation when it grows over ``EVENT_LIMIT``."""
        self._data += data
        if len(self._data) > EVENT_LIMIT:
            raise ProtocolViolation(f"the answer is longer than {EVENT_LIMIT} bytes")
        return []

    def rest(self) -> bytes:
        """Return the body."""
        return bytes(self._data)


def _plain(data: bytes) -> list[bytes]:
    """The payloads of ``data`` where it is whole events of one data field each, else nothing.

    So nearly every read comes. No step is taken for an event: a provider sends one for each token.
    """
    if not data.startswith(b"data: ") or not data.endswith(b"\n\n") or b"\r" in data:
        return []
    payloads = data[6:-2].split(b"\n\ndata: ")
    is_plain = data.count(b"\n") == 2 * len(payloads) and b"" not in payloads
    return payloads if is_plain else []
