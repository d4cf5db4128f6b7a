"""How the demo teaches a network: distorted copies of the digits, and a learning-rate schedule."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .. import optim

__all__ = ["as_input", "distort", "rise_and_fall"]

Images = NDArray[np.float32]


def rise_and_fall(optimizer: optim.Optimizer, steps: int, warmup: float = 0.15) -> optim.LRScheduler:
    """Return a schedule by batches: a linear rise to the base rate, then half a cosine down to 0.

    Parameters
    ----------
    optimizer : Optimizer
        With the highest rate as its ``lr``.
    steps : int
        Batches of the whole training.
    warmup : float
        Part of the training that the rise takes.
    """
    rise = max(1, round(warmup * steps))
    return optim.SequentialLR(
        optimizer,
        [
            optim.LinearLR(optimizer, 0.01, total_iters=rise),
            optim.CosineAnnealingLR(optimizer, max(1, steps - rise)),
        ],
        [rise],
    )


def distort(
    images: Images,
    rng: np.random.Generator,
    *,
    shift: float = 2.0,
    angle: float = 0.2,
    scale: float = 0.12,
    shear: float = 0.15,
    bend: float = 0.8,
) -> Images:
    """Return each image shifted, turned, scaled, slanted and bent at random: the same digit in another hand.

    Bending is the elastic distortion of Simard, Steinkraus and Platt (2003), made from few random numbers: a coarse
    grid of displacements, spread over the pixels by Gaussian weights.

    Parameters
    ----------
    images : numpy.ndarray
        ``(N, H, W)`` float32 with a background of 0.
    rng : numpy.random.Generator
        Source of the amounts: the first four uniform between plus and minus the following, the bend normal.
    shift : float
        Pixels.
    angle : float
        Radians.
    scale, shear : float
        Parts of the size.
    bend : float
        Standard deviation of a pixel's displacement, in pixels.
    """
    n, height, width = images.shape
    turn = rng.uniform(-angle, angle, n)
    zoom = rng.uniform(1.0 - scale, 1.0 + scale, n)
    slant = rng.uniform(-shear, shear, n)
    move = rng.uniform(-shift, shift, (n, 2))
    cos, sin = np.cos(turn) / zoom, np.sin(turn) / zoom
    matrix = np.array([[cos, slant * cos - sin], [sin, slant * sin + cos]]).transpose(2, 0, 1)

    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    grid = np.indices((height, width)).reshape(2, -1) - centre[:, None]
    # Where in the old image each new pixel looks, in an image with a border of background that catches the outside.
    source = (matrix @ grid + (centre + move)[:, :, None] + 1.0).astype(np.float32)
    knots = rng.normal(0.0, bend, (n, 2, _KNOTS, _KNOTS)).astype(np.float32)
    source += (_spread(height) @ knots @ _spread(width).T).reshape(n, 2, -1)
    source = np.clip(source, 0.0, np.array([[height + 1], [width + 1]], np.float32))
    corner = source.astype(np.int32)
    fraction = source - corner.astype(np.float32)

    bordered = np.pad(images, ((0, 0), (1, 2), (1, 2)))
    row = bordered.shape[2]
    first = np.arange(n, dtype=np.int32)[:, None] * (bordered.shape[1] * row) + corner[:, 0] * row + corner[:, 1]
    pixels = bordered.ravel()
    down, right = fraction[:, 0], fraction[:, 1]
    upper = pixels[first] * (1 - right) + pixels[first + 1] * right
    lower = pixels[first + row] * (1 - right) + pixels[first + row + 1] * right
    result: Images = (upper * (1 - down) + lower * down).reshape(n, height, width)
    return result


_KNOTS = 7
"""Displacements along each side of the grid that bends an image."""


def _spread(size: int) -> Images:
    """Return ``(size, _KNOTS)`` weights of the displacements in each pixel; rows of length 1 keep the variance."""
    knots = np.linspace(0, size - 1, _KNOTS)
    spacing = (size - 1) / (_KNOTS - 1)
    weights = np.exp(-0.5 * ((np.arange(size)[:, None] - knots) / (0.75 * spacing)) ** 2)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    return weights.astype(np.float32)


def as_input(images: NDArray[np.uint8]) -> Images:
    """Return ``(N, H, W)`` images as a network's input, ``(N, 1, H, W)``, with ink of 1 on a background of 0."""
    return images[:, None].astype(np.float32) / np.float32(255.0)
