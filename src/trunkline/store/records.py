"""The journal's format: one line a record, ``<crc32 of the rest, 8 hex digits> <JSON>\\n``.

JSON holds no raw line feed, so a line ends where its record ends. A line that was never finished
lacks its line feed, one that was damaged later fails its checksum, and the next line is readable in
either case. A settlement has ``attempt`` and ``entry``, a correction ``entry`` alone.
"""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Iterator
from typing import BinaryIO

import msgspec

from ..core.models import Attempt, Entry, Settlement

Record = Settlement | Entry
"""What a journal holds: an ended attempt with its first entry, or a later entry of an attempt."""


class _Line(msgspec.Struct, omit_defaults=True):
    entry: Entry
    attempt: Attempt | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Line)


def encode(record: Record) -> bytes:
    """Return the line of a record; text that is not valid Unicode is replaced, never refused."""
    line = record if isinstance(record, Settlement) else _Line(record)
    try:
        body = _encoder.encode(line)
    except UnicodeEncodeError:  # a header from a provider may hold lone surrogates
        body = json.dumps(msgspec.to_builtins(line), ensure_ascii=False).encode(errors="replace")
    return b"%08x %b\n" % (crc32(body), body)


def decode(line: bytes) -> Record | None:
    """Return the record of a complete line, or None when the line is damaged."""
    checksum, body = line[:9], line[9:-1]
    if checksum != b"%08x " % crc32(body):
        return None
    try:
        read = _decoder.decode(body)
    except msgspec.MsgspecError:  # whole, but not ours to understand: kept by whoever reads it
        return None
    return Settlement(read.attempt, read.entry) if read.attempt else read.entry


def read_records(file: BinaryIO, offset: int = 0) -> Iterator[tuple[Record | None, int]]:
    """Yield each complete record from ``offset`` with the offset of its end; None if damaged.

    Ends before an unfinished last line: its owner may still complete it.
    """
    file.seek(offset)
    for line in file:
        if not line.endswith(b"\n"):
            return
        offset += len(line)
        yield decode(line), offset
