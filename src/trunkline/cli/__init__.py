"""The command line. Commands import what they need when they run: ``--help`` must be quick."""

from .app import app, main

__all__ = ["app", "main"]
