"""What most readers return, and where they look."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["DATA_VARIABLE", "ImageSplit", "find_folder", "where"]

DATA_VARIABLE = "FASTCONV_DATA"
"""Environment variable that names the folder with data sets."""


class ImageSplit(NamedTuple):
    """Pictures to learn from and pictures held out."""

    train_images: NDArray[np.uint8]
    """``(N, H, W)``, or ``(N, H, W, 3)`` in colour. Of digits and clothes, 0 is the background and 255 the ink."""
    train_labels: NDArray[np.int64]
    """``(N,)``, counted from 0."""
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    source: str
    """Where they came from, for people."""
    classes: tuple[str, ...] = ()
    """Names of the classes."""


def find_folder(
    directory: str | os.PathLike[str] | None,
    below: Sequence[str],
    files: Iterable[Sequence[str]],
    elsewhere: Sequence[str] = (),
) -> Path | None:
    """Return the first folder that has all files, or ``None``.

    Parameters
    ----------
    directory : path or None
        Where to look; the folder that `DATA_VARIABLE` names, and then ``elsewhere``, unless given.
    below : sequence of str
        Folders in it to look in.
    files : iterable of sequence of str
        For each file the names that it may have.
    elsewhere : sequence of str
        Folders in which packages of a distribution put them.
    """
    wanted = list(files)
    root = directory if directory is not None else os.environ.get(DATA_VARIABLE)
    folders = [Path(root) / folder for folder in below] if root else []
    if directory is None:
        folders += [Path(folder) for folder in elsewhere]
    for folder in folders:
        if all(any((folder / name).is_file() for name in names) for names in wanted):
            return folder
    return None


def where(directory: str | os.PathLike[str] | None) -> str:
    """Return, for an error, where `find_folder` looked."""
    return str(directory) if directory is not None else f"${DATA_VARIABLE} ({os.environ.get(DATA_VARIABLE, 'not set')})"
