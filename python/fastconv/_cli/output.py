"""A folder of results that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["whole_folder"]


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a temporary folder whose files move to ``target`` when the block ends without an exception.

    The temporary folder lies beside the target, so that moving is renaming, which is atomic. A target that does not
    exist appears with all its files at once; in one that does, each file is replaced at once and others are left
    alone. An exception, an interruption too, removes the temporary folder and leaves the target as it was.

    Raises
    ------
    NotADirectoryError
        If the target is a file.
    OSError
        If nothing can be written there.
    """
    target = target.absolute()
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(f"output: {target} is a file, expected a folder")
    beside = target.parent
    while not beside.exists():
        beside = beside.parent
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".partial", dir=beside))
    try:
        yield partial
        with _uninterrupted():
            _publish(partial, target)
    finally:
        with _uninterrupted():
            shutil.rmtree(partial, ignore_errors=True)


def _publish(partial: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        mask = os.umask(0)
        os.umask(mask)
        partial.chmod(0o777 & ~mask)  # mkdtemp's folder is for its owner only
        partial.rename(target)
        return
    for path in sorted(partial.iterdir()):
        path.replace(target / path.name)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back for a moment; one that came takes effect at the end."""
    came: list[int] = []
    try:
        before = {
            number: signal.signal(number, lambda n, _: came.append(n)) for number in (signal.SIGINT, signal.SIGTERM)
        }
    except ValueError:  # not in the main thread, which has no signals
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt
