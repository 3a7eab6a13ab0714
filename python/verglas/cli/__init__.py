"""The command line: one thin module per job; ``main`` is the entry point."""

from verglas.cli.app import main

__all__ = ["main"]
