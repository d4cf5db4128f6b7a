"""The ``fastconv`` command.

A command is a module of this package with ``add_arguments(parser)`` and ``run(arguments) -> exit status``, and a row in
`COMMANDS`. Such modules import what is slow to import inside their functions: all of them are loaded for the help.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from .._extras import MissingExtraError

__all__ = ["COMMANDS", "INTERRUPTED", "main"]

COMMANDS = {
    "info": "print versions, instruction sets, threads and devices",
    "demo": "watch LeNet-5 learn handwritten digits",
    "report": "write a page about a run of the demo",
    "bench": "measure speed",
}
"""Names of the commands and what they do; a command whose module is not installed is left out."""

INTERRUPTED = 130
"""Exit status after an interruption: 128 + SIGINT, as shells report it."""


def _parser() -> argparse.ArgumentParser:
    from .. import __version__

    parser = argparse.ArgumentParser(prog="fastconv", description="Fast convolutions for NumPy arrays.")
    parser.add_argument("--version", action="version", version=f"fastconv {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        if importlib.util.find_spec(f"{__name__}.{name}") is None:
            continue
        module = importlib.import_module(f"{__name__}.{name}")
        command = commands.add_parser(name, help=purpose, description=getattr(module, "DESCRIPTION", None))
        module.add_arguments(command)
        command.set_defaults(run=module.run, command=name)
    return parser


@contextmanager
def _interruptible() -> Iterator[None]:
    """Turn SIGTERM into what Ctrl-C is, so that both unwind through the same clean-up."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread, which has no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process unless given.
    """
    command = "fastconv"
    try:
        with _interruptible():
            arguments = _parser().parse_args(argv)
            command = f"fastconv {arguments.command}"
            status: int = arguments.run(arguments)
            sys.stdout.flush()
            return status
    except KeyboardInterrupt:
        print(f"{command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has what it wanted. Python would complain once more when it closes stdout.
        sys.stdout = None
        return 0
    except (MissingExtraError, OSError, ValueError) as error:
        print(f"{command}: {error}", file=sys.stderr)
        return 1
