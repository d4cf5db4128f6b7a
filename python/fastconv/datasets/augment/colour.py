"""What values pixels have: contrast, brightness, blur, channels and noise."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._extras import require
from .step import Step, chosen, per_image

__all__ = ["blur", "brightness", "channel_shuffle", "contrast", "noise"]


def contrast(part: float) -> Step:
    """Return a step that stretches or presses each image's values around their mean, by a factor of ``1 ± part``."""

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        factor = per_image(rng.uniform(1 - part, 1 + part, len(images)), images)
        mean = images.mean((1, 2, 3), keepdims=True)
        return mean + factor * (images - mean)  # type: ignore[no-any-return]

    return step


def brightness(amount: float) -> Step:
    """Return a step that adds a number between minus and plus ``amount`` to each image."""

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        return images + per_image(rng.uniform(-amount, amount, len(images)), images)

    return step


def blur(sigma: float, probability: float = 0.5) -> Step:
    """Return a step that blurs some images by a Gaussian with a deviation of up to ``sigma`` pixels."""

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        ndimage = require("scipy.ndimage", purpose="blurring images", extra="datasets", package="scipy")
        result = images.copy()
        for i, deviation in zip(
            which := chosen(images, probability, rng), rng.uniform(0, sigma, len(which)), strict=True
        ):
            ndimage.gaussian_filter(images[i], (0, deviation, deviation), output=result[i], mode="nearest")
        return result

    return step


def channel_shuffle(probability: float = 0.5) -> Step:
    """Return a step that puts the channels of some images into another order."""

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        result = images.copy()
        for i in chosen(images, probability, rng):
            result[i] = images[i, rng.permutation(images.shape[1])]
        return result

    return step


def noise(deviation: float) -> Step:
    """Return a step that adds Gaussian noise, of a deviation between 0 and ``deviation``, to each image."""

    def step(images: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        strength = per_image(rng.uniform(0, deviation, len(images)), images)
        return images + strength * rng.standard_normal(images.shape).astype(images.dtype)  # type: ignore[no-any-return]

    return step
