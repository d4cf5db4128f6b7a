"""Images made of two: their targets become the classes' probabilities."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._check import integer
from .step import Mix, check, per_image

__all__ = ["cutmix", "mixup"]


def _probabilities(targets: NDArray[Any], classes: int, images: NDArray[Any]) -> NDArray[Any]:
    """Return targets as probabilities: class indices as rows with a 1, probabilities as they are."""
    if targets.ndim == 2:
        return targets.astype(images.dtype)
    result = np.zeros((len(targets), classes), images.dtype)
    result[np.arange(len(targets)), targets] = 1
    return result


def _blend(probabilities: NDArray[Any], partner: NDArray[np.intp], own: NDArray[Any]) -> NDArray[Any]:
    share = own.astype(probabilities.dtype)[:, None]
    return share * probabilities + (1 - share) * probabilities[partner]  # type: ignore[no-any-return]


def mixup(alpha: float, classes: int) -> Mix:
    """Return a mix that lays another image of the batch over each one (Zhang and others, 2018).

    Parameters
    ----------
    alpha : float
        Of the Beta distribution of the shares: small ones are nearly 0 or 1, at 1 all are equally probable.
    classes : int
        Number of classes, for targets that are indices.
    """
    integer(classes, "classes", 1)

    def mix(x: NDArray[Any], y: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        check(x)
        own, partner = rng.beta(alpha, alpha, len(x)), rng.permutation(len(x))
        share = per_image(own, x)
        return share * x + (1 - share) * x[partner], _blend(_probabilities(y, classes, x), partner, own)

    return mix


def cutmix(alpha: float, classes: int) -> Mix:
    """Return a mix that puts a rectangle of another image of the batch into each one (Yun and others, 2019).

    Parameters
    ----------
    alpha : float
        Of the Beta distribution of the area that is kept.
    classes : int
        Number of classes, for targets that are indices. An image's probability of its class is the part of its area
        that is left.
    """
    integer(classes, "classes", 1)

    def mix(x: NDArray[Any], y: NDArray[Any], rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
        check(x)
        partner, result = rng.permutation(len(x)), x.copy()
        height, width = x.shape[2:]
        own = np.empty(len(x))
        for i, kept in enumerate(rng.beta(alpha, alpha, len(x))):
            high, wide = (round(size * np.sqrt(1 - kept)) for size in (height, width))
            y0, x0 = rng.integers(0, height) - high // 2, rng.integers(0, width) - wide // 2
            rows, columns = slice(max(y0, 0), max(y0 + high, 0)), slice(max(x0, 0), max(x0 + wide, 0))
            result[i, :, rows, columns] = x[partner[i], :, rows, columns]
            own[i] = 1 - result[i, 0, rows, columns].size / (height * width)
        return result, _blend(_probabilities(y, classes, x), partner, own)

    return mix
