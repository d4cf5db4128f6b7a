"""``fastconv info``."""

from __future__ import annotations

import argparse

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = "Print versions, compiler, instruction set in use, threads and devices."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no options."""


def run(arguments: argparse.Namespace) -> int:
    """Print the configuration."""
    from .. import show_config

    show_config()
    return 0
