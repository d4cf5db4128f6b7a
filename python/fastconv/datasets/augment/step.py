"""Steps, one after another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mix", "Step", "check", "chosen", "per_image", "pipeline"]

Images = NDArray[Any]
Step = Callable[[Images, np.random.Generator], Images]
Mix = Callable[[Images, NDArray[Any], np.random.Generator], tuple[Images, NDArray[Any]]]


def pipeline(*steps: Step, mix: Mix | None = None) -> Mix:
    """Return ``augment(x, y, rng)`` for `fastconv.train.fit`: steps in order, then a mix of images.

    Parameters
    ----------
    *steps : callable
        ``step(images, rng)``.
    mix : callable, optional
        ``mix(images, targets, rng)``: `mixup` or `cutmix`.
    """

    def augment(x: Images, y: NDArray[Any], rng: np.random.Generator) -> tuple[Images, NDArray[Any]]:
        check(x)
        for step in steps:
            x = step(x, rng)
        return (x, y) if mix is None else mix(x, y, rng)

    return augment


def check(images: Images) -> None:
    """Refuse what is no batch of images.

    Raises
    ------
    ValueError
        If the shape is not ``(N, C, H, W)``.
    TypeError
        If the values are integers.
    """
    if images.ndim != 4:
        raise ValueError(f"images: expected shape (N, C, H, W), got {images.shape}")
    if images.dtype.kind in "iub":
        raise TypeError(f"images: expected floating-point values, got {images.dtype}; cast with images.astype('f')")


def chosen(images: Images, probability: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the indices of the images that a step is to change."""
    return np.flatnonzero(rng.random(len(images)) < probability)


def per_image(values: NDArray[Any], images: Images) -> Images:
    """Return a number for each image, in their dtype and ready to be broadcast over them."""
    return values.astype(images.dtype).reshape(-1, 1, 1, 1)
