"""Where pixels go: turned, scaled, shifted, cropped and mirrored images; ``scipy.ndimage`` interpolates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._extras import require
from .step import Step, check, chosen

__all__ = ["affine", "crop", "flip", "rotate", "scale", "shift", "symmetries", "symmetry"]

_FILLS = {"zeros": "constant", "replicate": "nearest", "reflect": "mirror", "circular": "grid-wrap"}


def _ndimage() -> Any:
    return require("scipy.ndimage", purpose="turning and scaling images", extra="datasets", package="scipy")


def affine(
    rotation: float = 0.0, scale: float = 0.0, shift: float = 0.0, shear: float = 0.0, fill: str = "zeros"
) -> Step:
    """Return a step that turns, scales, slants and shifts each image by random amounts, with one interpolation for all.

    Parameters
    ----------
    rotation : float
        Largest angle in degrees, either way.
    scale : float
        Images become up to this part larger or smaller.
    shift : float
        Largest shift as a part of the size, along each axis.
    shear : float
        Largest slant: columns by one row.
    fill : {"zeros", "replicate", "reflect", "circular"}
        What comes in from beyond the border, by the names of ``padding_mode``.

    Raises
    ------
    ValueError
        If ``fill`` is none of these or ``scale`` is not below 1.
    """
    if fill not in _FILLS:
        raise ValueError(f"fill: expected one of {tuple(_FILLS)}, got {fill!r}")
    if not 0 <= scale < 1:
        raise ValueError(f"scale: expected a part below 1, got {scale!r}")

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        n, _, height, width = images.shape
        angle = np.deg2rad(rng.uniform(-rotation, rotation, n))
        zoom = rng.uniform(1 - scale, 1 + scale, n)
        slant = rng.uniform(-shear, shear, n)
        move = rng.uniform(-shift, shift, (n, 2)) * (height, width)
        cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
        # Where in the old image each new pixel looks, seen from the middle.
        matrices = np.array([[cos, slant * cos - sin], [sin, slant * sin + cos]]).transpose(2, 0, 1)
        centre = np.array([(height - 1) / 2, (width - 1) / 2])
        transform, result = _ndimage().affine_transform, np.empty_like(images)
        for image, out, matrix, by in zip(images, result, matrices, move, strict=True):
            offset = centre - matrix @ (centre + by)
            for channel, target in zip(image, out, strict=True):
                transform(channel, matrix, offset, output=target, order=1, mode=_FILLS[fill])
        return result

    return step


def rotate(degrees: float, fill: str = "zeros") -> Step:
    """Return a step that turns each image by up to so many degrees, either way."""
    return affine(rotation=degrees, fill=fill)


def scale(part: float, fill: str = "zeros") -> Step:
    """Return a step that makes each image larger or smaller by up to this part."""
    return affine(scale=part, fill=fill)


def shift(part: float, fill: str = "zeros") -> Step:
    """Return a step that shifts each image by up to this part of its size, along each axis."""
    return affine(shift=part, fill=fill)


def crop(size: int, padding: int = 0) -> Step:
    """Return a step that cuts a square out of each image, at a random place.

    Parameters
    ----------
    size : int
        Its side.
    padding : int
        Zeros that are put around the images before.
    """

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        check(images)
        padded = np.pad(images, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
        n, channels, height, width = padded.shape
        if min(height, width) < size:
            raise ValueError(f"size: {size} is larger than the padded images, {height} x {width}")
        top, left = rng.integers(0, height - size + 1, n), rng.integers(0, width - size + 1, n)
        rows = top[:, None, None, None] + np.arange(size)[:, None]
        columns = left[:, None, None, None] + np.arange(size)
        cut: NDArray[Any] = padded[np.arange(n)[:, None, None, None], np.arange(channels)[:, None, None], rows, columns]
        return cut

    return step


def flip(probability: float = 0.5, axis: str = "x") -> Step:
    """Return a step that mirrors images: left and right for axis ``"x"``, above and below for ``"y"``.

    Raises
    ------
    ValueError
        If the axis is neither of the two.
    """
    if axis not in ("x", "y"):
        raise ValueError(f"axis: expected 'x' or 'y', got {axis!r}")

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        result, which = images.copy(), chosen(images, probability, rng)
        result[which] = np.flip(images[which], -1 if axis == "x" else -2)
        return result

    return step


def symmetries(images: NDArray[Any]) -> NDArray[Any]:
    """Return the eight symmetries of square images: four quarter turns, and the same mirrored.

    Parameters
    ----------
    images : numpy.ndarray
        ``(..., H, H)``.

    Returns
    -------
    numpy.ndarray
        ``(8, ..., H, H)``, the first as they are. Nothing is interpolated: for galaxies, which have no up and down, an
        answer is the mean over all eight.
    """
    if images.shape[-1] != images.shape[-2]:
        raise ValueError(f"images: expected square ones, got shape {images.shape}")
    turned = [np.rot90(images, quarter, (-2, -1)) for quarter in range(4)]
    return np.stack([*turned, *(np.flip(each, -1) for each in turned)])


def symmetry() -> Step:
    """Return a step that puts each square image into one of its eight `symmetries`."""

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        check(images)
        which = rng.integers(0, 8, len(images))
        result: NDArray[Any] = symmetries(images)[which, np.arange(len(images))]
        return result

    return step
