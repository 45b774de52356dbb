"""Several processes on one port: forked before anything runs, replaced when one dies."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

from ..errors import TrunklineError

logger = logging.getLogger("trunkline")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_REST_SECONDS = 1.0
"""A worker that dies younger than this is replaced only after as long a wait."""


def supervise(count: int, work: Callable[[], None], ready: Callable[[], None]) -> None:
    """Run ``work`` in ``count`` processes until SIGTERM or SIGINT, which they get as well.

    SIGHUP is passed on; ``ready`` is called once all three are. The parent does nothing else: it
    has no loop, no thread, no connection.
    """
    workers: dict[int, float] = {}
    ending = False

    def passed_on(number: int, frame: object) -> None:
        nonlocal ending
        ending = ending or number != signal.SIGHUP
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    for number in _SIGNALS:
        signal.signal(number, passed_on)
    ready()
    while workers or not ending:
        while len(workers) < count and not ending:
            with _signals_wait():  # so that each one finds every worker in the table
                workers[_fork(work)] = time.monotonic()
        with contextlib.suppress(ChildProcessError):
            pid, status = os.wait()
            age = time.monotonic() - workers.pop(pid, 0.0)
            if not ending:
                code = os.waitstatus_to_exitcode(status)
                logger.error("worker %d ended (status %d) and is replaced", pid, code)
                if age < _REST_SECONDS:
                    time.sleep(_REST_SECONDS)


def _fork(work: Callable[[], None]) -> int:
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    status = 1
    try:
        work()
        status = 0
    except TrunklineError as error:  # told by its own words, such as mistakes in the settings
        logger.error("a worker cannot start: %s", error)
    except BaseException:  # the child's last boundary: it must not go on as the parent
        logger.exception("a worker failed")
    finally:
        sys.stdout.flush()
        os._exit(status)


@contextlib.contextmanager
def _signals_wait() -> Iterator[None]:
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
