"""Galaxies and what volunteers answered about them."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._check import integer
from .._extras import require
from ..models.galaxy import GALAXY_QUESTIONS
from .split import find_folder, where

__all__ = ["ANSWERS", "PICTURES", "TABLE", "Galaxies", "galaxy_zoo"]

ANSWERS = tuple(
    f"Class{question}.{answer}"
    for question, (count, _) in enumerate(GALAXY_QUESTIONS, 1)
    for answer in range(1, count + 1)
)
TABLE, PICTURES = "training_solutions_rev1.csv", "images_training_rev1"
"""The challenge's names of its table and of the folder with the pictures."""
_CROP, _REDUCTION = 207, 3


class Galaxies(NamedTuple):
    """Pictures of galaxies and the answers about them."""

    images: NDArray[np.uint8]
    """``(N, H, W, 3)``."""
    answers: NDArray[np.float32]
    """``(N, 37)``: weighted shares of the volunteers."""
    ids: NDArray[np.int64]
    """``(N,)``, the numbers that name the files."""
    columns: tuple[str, ...]
    """Names of the answers, ``Class1.1`` to ``Class11.6``."""


def galaxy_zoo(
    directory: str | os.PathLike[str] | None = None, limit: int | None = None, reduced: bool = True
) -> Galaxies:
    """Return the training set of the Galaxy Zoo challenge (61,578 pictures of 424 x 424), or its beginning, from disk.

    Parameters
    ----------
    directory : path, optional
        With ``training_solutions_rev1.csv`` and, in a folder ``images_training_rev1``, the pictures ``ID.jpg``; or a
        folder ``galaxy-zoo`` with these. ``FASTCONV_DATA`` unless given.
    limit : int, optional
        How many to read: all unless given.
    reduced : bool
        Whether to cut the middle 207 x 207 of each picture out and to reduce it to 69 x 69 by means of 3 x 3, as
        `fastconv.models.galaxy_net` does; all pictures in full need 33 GB.

    Raises
    ------
    FileNotFoundError
        If the table or a picture is not there.
    ValueError
        If the table is not that of the challenge.
    ImportError
        If Pillow is not installed.
    """
    pillow = require("PIL.Image", purpose="reading pictures", extra="datasets", package="pillow")
    folder = find_folder(directory, (".", "galaxy-zoo"), [(TABLE,)])
    if folder is None:
        raise FileNotFoundError(
            f"directory: {TABLE} is not in {where(directory)}; it and images_training_rev1.zip are on the page of the "
            "Galaxy Zoo challenge, www.kaggle.com/c/galaxy-zoo-the-galaxy-challenge"
        )
    ids, answers = _read_table(folder / TABLE, None if limit is None else integer(limit, "limit", 1))
    images = []
    for number in ids:
        path = folder / PICTURES / f"{number}.jpg"
        if not path.is_file():
            raise FileNotFoundError(f"directory: {TABLE} names galaxy {number}, but there is no {path}")
        with pillow.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        images.append(_reduce(pixels) if reduced else pixels)
    return Galaxies(np.stack(images), answers, ids, ANSWERS)


def _read_table(path: Path, limit: int | None) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    with open(path, newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if tuple(header) != ("GalaxyID", *ANSWERS):
            raise ValueError(
                f"directory: {path} is not the challenge's table: expected GalaxyID and {len(ANSWERS)} answers"
            )
        rows = [row for _, row in zip(range(limit if limit is not None else 10**9), reader, strict=False)]
    try:
        ids = np.array([int(row[0]) for row in rows], np.int64)
        answers = np.array([[float(value) for value in row[1:]] for row in rows], np.float32).reshape(len(rows), -1)
    except (ValueError, IndexError) as error:
        raise ValueError(f"directory: {path} is damaged: {error}") from None
    if not len(rows) or answers.shape[1] != len(ANSWERS):
        raise ValueError(f"directory: {path} is damaged: expected rows of {1 + len(ANSWERS)} numbers")
    return ids, answers


def _reduce(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the mean of 3 x 3 pixels in the middle of a picture, rounded."""
    top, left = ((size - _CROP) // 2 for size in pixels.shape[:2])
    middle = pixels[top : top + _CROP, left : left + _CROP]
    size = _CROP // _REDUCTION
    blocks = middle.reshape(size, _REDUCTION, size, _REDUCTION, 3)
    result: NDArray[np.uint8] = np.rint(blocks.mean((1, 3))).astype(np.uint8)
    return result
