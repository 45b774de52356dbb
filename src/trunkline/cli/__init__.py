"""The command line. Commands import what they need when they run: ``--help`` must be quick."""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit."""
    # Until there is a command that can say "interrupted", Ctrl-C just ends the process.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .quick import serve

    if (status := serve(sys.argv[1:])) is not None:
        sys.exit(status)
    from .app import app

    app(prog_name="trunkline")
