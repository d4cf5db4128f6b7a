"""Colour pictures: CIFAR-10, and folders of one's own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._check import integer
from .._extras import require
from .split import ImageSplit, find_folder, where

__all__ = ["ImageFolder", "cifar10", "image_folder"]

_CIFAR_TRAIN = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_CIFAR_TEST = "test_batch.bin"
_CIFAR_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_RECORD = 1 + 3 * 32 * 32
_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")


def cifar10(directory: str | os.PathLike[str] | None = None) -> ImageSplit:
    """Return CIFAR-10 (Krizhevsky, 2009), 50,000 colour pictures of 32 x 32 and 10,000 held out, from its binary form.

    Parameters
    ----------
    directory : path, optional
        Where ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin`` are, or a folder
        ``cifar-10-batches-bin`` with them; ``FASTCONV_DATA`` unless given.

    Raises
    ------
    FileNotFoundError
        If the six files are not there.
    ValueError
        If they do not hold what CIFAR-10 holds.
    """
    files = (*_CIFAR_TRAIN, _CIFAR_TEST)
    folder = find_folder(directory, (".", "cifar-10-batches-bin", "cifar10"), [(name,) for name in files])
    if folder is None:
        raise FileNotFoundError(
            f"directory: CIFAR-10's files {', '.join(files)} are not in {where(directory)}; they are in "
            "cifar-10-binary.tar.gz of www.cs.toronto.edu/~kriz/cifar.html"
        )
    parts = [_cifar_file(folder / name) for name in files]
    images, labels = (np.concatenate([part[i] for part in parts[:-1]]) for i in (0, 1))
    return ImageSplit(images, labels, *parts[-1], f"CIFAR-10 in {folder}", _CIFAR_CLASSES)


def _cifar_file(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Read records of a label and 32 x 32 pixels of red, green and blue, one colour after another."""
    data = np.fromfile(path, np.uint8)
    records = data.reshape(-1, _RECORD) if data.size % _RECORD == 0 else data[:0].reshape(0, _RECORD)
    if not len(records) or records[:, 0].max() > 9:
        raise ValueError(
            f"directory: {path} is no file of CIFAR-10: expected records of {_RECORD} bytes, labels 0 to 9"
        )
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)


class ImageFolder(NamedTuple):
    """Pictures of a folder."""

    images: NDArray[np.uint8]
    """``(N, H, W, 3)``."""
    labels: NDArray[np.int64]
    """``(N,)``, indices into ``classes``."""
    classes: tuple[str, ...]
    """The folders' names, sorted."""
    paths: tuple[Path, ...]
    """The files, in the order of the pictures."""


def image_folder(directory: str | os.PathLike[str], size: int | tuple[int, int] | None = None) -> ImageFolder:
    """Return the pictures of a folder that has a folder for each class: ``DIRECTORY/CLASS/anything.jpg``.

    Parameters
    ----------
    directory : path
        The folder.
    size : int or tuple of two int, optional
        Height and width to which to resize each picture, with antialiasing. All must have the same size unless given.

    Raises
    ------
    FileNotFoundError
        If there is no picture.
    ValueError
        If a picture cannot be read, or the sizes differ.
    ImportError
        If Pillow is not installed.
    """
    pillow = require("PIL.Image", purpose="reading pictures", extra="datasets", package="pillow")
    root = Path(directory)
    paths = sorted(path for path in root.glob("*/*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise FileNotFoundError(f"directory: there are no pictures ({', '.join(_SUFFIXES)}) in folders of {root}")
    height, width = (size, size) if isinstance(size, int) else size or (None, None)
    images: list[NDArray[np.uint8]] = []
    for path in paths:
        try:
            with pillow.open(path) as picture:
                colours = picture.convert("RGB")
                if height is not None:
                    shape = integer(width, "size", 1), integer(height, "size", 1)
                    colours = colours.resize(shape, pillow.Resampling.BILINEAR)
                images.append(np.asarray(colours))
        except OSError as error:
            raise ValueError(f"directory: {path} cannot be read as a picture: {error}") from None
        if images[-1].shape != images[0].shape:
            raise ValueError(
                f"size: {path} has shape {images[-1].shape}, {paths[0]} has {images[0].shape}; give a size for all"
            )
    classes = sorted({path.parent.name for path in paths})
    labels = np.array([classes.index(path.parent.name) for path in paths], np.int64)
    return ImageFolder(np.stack(images), labels, tuple(classes), tuple(paths))
