"""``trunkline serve`` as scripts call it, without what reads the command line for people.

That takes as long to import as half of the gateway, and its memory stays with a process that runs
for months. Whatever is not plain here (``--help``, an abbreviation, a mistake) goes the usual way.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

OPTIONS = ("--config", "--host", "--port", "--workers")


def serve(arguments: Sequence[str]) -> int | None:
    """Run ``serve`` with its options each given once; the exit status, None when it is not that."""
    given = _read(arguments)
    if given is None:
        return None
    from .boundary import begin_log, heed_interrupts, status_of
    from .serve import run

    begin_log(debug=False)
    heed_interrupts()
    config, host, port, workers = map(given.get, OPTIONS)
    try:
        run(
            Path(config) if config else None,
            host,
            int(port) if port else None,
            int(workers) if workers else 1,
        )
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last boundary
        return status_of(error)
    return 0


def _read(arguments: Sequence[str]) -> dict[str, str] | None:
    """Values by option; None for anything that somebody else should read or complain of."""
    if arguments[:1] != ["serve"] or len(arguments) % 2 == 0:
        return None
    names, values = arguments[1::2], arguments[2::2]
    given = dict(zip(names, values, strict=True))
    numbers = [given[name] for name in OPTIONS[2:] if name in given]
    is_plain = (
        len(given) == len(names)
        and given.keys() <= set(OPTIONS)
        and all(value and not value.startswith("-") for value in values)
        and all(n.isascii() and n.isdecimal() and int(n) <= 65535 for n in numbers)
    )
    return given if is_plain else None
