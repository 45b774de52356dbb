"""Where an error becomes a sentence and an exit status, and what of the log a user sees."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Iterable

from ..errors import ConfigError, TrunklineError, UsageError


class _Brief(logging.Formatter):
    """The kind of an exception without its traceback, which is for ``--debug``."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        told = super().formatMessage(record)
        kind = record.exc_info[0] if record.exc_info else None
        return f"{told} ({kind.__name__})" if kind else told

    def formatException(self, _: object) -> str:
        return ""


def begin_log(*, debug: bool) -> None:
    """Log to stderr: all of it, or errors in one line each."""
    logging.basicConfig(level=logging.DEBUG if debug else logging.ERROR)
    if not debug:
        for handler in logging.getLogger().handlers:
            handler.setFormatter(_Brief(logging.BASIC_FORMAT))


def heed_interrupts() -> None:
    """Have Ctrl-C raise, now that there is somebody who can say "interrupted"."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def status_of(error: BaseException, *, debug: bool = False) -> int:
    """Say what went wrong; returns the exit status that stands for it."""
    if isinstance(error, TrunklineError):
        _tell(error.problems if isinstance(error, ConfigError) else [str(error)])
        return 2 if isinstance(error, UsageError) else 1
    if isinstance(error, KeyboardInterrupt):
        _tell(["interrupted"])
        return 130
    if isinstance(error, BrokenPipeError):
        # Nobody reads: the interpreter must not fail again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if debug:
        traceback.print_exception(error)
    advice = "for the traceback run it as: trunkline --debug ..."
    _tell([f"unexpected {type(error).__name__}: {error}; {advice}"])
    return 1


def _tell(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        print(f"error: {sentence}", file=sys.stderr)
