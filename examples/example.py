"""What the examples share: their two options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple


class Options(NamedTuple):
    output: Path
    small: bool


def options(description: str | None) -> Options:
    """Read the command line, and make the folder for the pictures."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--output", type=Path, default=Path("examples-output"), help="folder for the pictures")
    parser.add_argument("--small", action="store_true", help="a short form, for tests")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    return Options(arguments.output, arguments.small)
