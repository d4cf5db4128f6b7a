"""What comes between the camera and the thing: holes, glare, patterns and rain; images lie between 0 and 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .step import Step, chosen

__all__ = ["erase", "glare", "pattern", "rain"]


def erase(share: tuple[float, float] = (0.02, 0.3), probability: float = 0.5, value: float | None = None) -> Step:
    """Return a step that covers a rectangle of some images (Zhong and others, 2020).

    Parameters
    ----------
    share : tuple of two floats
        Smallest and largest part of the area; the sides are in a ratio between 1 : 3 and 3 : 1.
    probability : float
        Of an image to be covered.
    value : float, optional
        What covers it; uniform noise between 0 and 1 unless given.
    """

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        result = images.copy()
        channels, height, width = images.shape[1:]
        for i in chosen(images, probability, rng):
            area, ratio = rng.uniform(*share) * height * width, np.exp(rng.uniform(-np.log(3), np.log(3)))
            high = int(np.clip(round(np.sqrt(area * ratio)), 1, height))
            wide = int(np.clip(round(np.sqrt(area / ratio)), 1, width))
            top, left = rng.integers(0, height - high + 1), rng.integers(0, width - wide + 1)
            patch = rng.random((channels, high, wide)) if value is None else value
            result[i, :, top : top + high, left : left + wide] = patch
        return result

    return step


def glare(strength: float = 0.8, radius: float = 0.3, probability: float = 0.5) -> Step:
    """Return a step that lays a bright spot over some images.

    Parameters
    ----------
    strength : float
        How far the middle of the spot goes to white, at most: 1 is all the way.
    radius : float
        Largest deviation of the spot, as a part of the size.
    probability : float
        Of an image to have one.
    """

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        result = images.copy()
        rows, columns = np.indices(images.shape[2:])
        for i in chosen(images, probability, rng):
            y, x = rng.uniform(0, images.shape[2]), rng.uniform(0, images.shape[3])
            deviation = rng.uniform(0.3, 1) * radius * max(images.shape[2:])
            light = rng.uniform(0, strength) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * deviation**2))
            result[i] += ((1 - images[i]) * light).astype(images.dtype)
        return result

    return step


def pattern(strength: float = 0.3, probability: float = 0.5) -> Step:
    """Return a step that adds a wave of random direction and length, as of a fence or a screen, to some images.

    Parameters
    ----------
    strength : float
        Largest height of the wave.
    probability : float
        Of an image to have one.
    """

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        result = images.copy()
        rows, columns = np.indices(images.shape[2:])
        for i in chosen(images, probability, rng):
            angle, length, phase = (
                rng.uniform(0, np.pi),
                rng.uniform(3, max(images.shape[2:]) / 2),
                rng.uniform(0, 2 * np.pi),
            )
            along = (rows * np.sin(angle) + columns * np.cos(angle)) * (2 * np.pi / length)
            result[i] += (rng.uniform(0, strength) * np.sin(along + phase)).astype(images.dtype)
        return result

    return step


def rain(drops: int = 20, length: float = 0.2, strength: float = 0.5, probability: float = 0.5) -> Step:
    """Return a step that draws bright, slanted lines over some images.

    Parameters
    ----------
    drops : int
        How many, in an image.
    length : float
        Of each, as a part of the height.
    strength : float
        How far a pixel of a drop goes to white.
    probability : float
        Of an image to have rain.
    """

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        result = images.copy()
        height, width = images.shape[2:]
        fall = np.arange(max(2, round(length * height)))
        for i in chosen(images, probability, rng):
            slant = rng.uniform(-0.5, 0.5)
            rows = rng.integers(-len(fall), height, drops)[:, None] + fall
            columns = np.rint(rng.uniform(0, width, drops)[:, None] + slant * fall).astype(np.int64)
            seen = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
            wet = np.zeros((height, width), bool)
            wet[rows[seen], columns[seen]] = True
            result[i] += ((1 - images[i]) * (strength * wet)).astype(images.dtype)
        return result

    return step
