"""How the demo teaches a network: distorted copies of the digits, a learning-rate schedule, one pass after another."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import nn, optim
from ..datasets import DigitSplit

__all__ = ["Epoch", "Recipe", "distort", "learning_rate", "predict", "train"]

Images = NDArray[np.float32]


class Recipe(NamedTuple):
    """Settings of a training run."""

    epochs: int
    batch_size: int = 32
    lr: float = 2e-3
    """Highest learning rate of the schedule."""
    label_smoothing: float = 0.1


class Epoch(NamedTuple):
    """What one pass over the digits gave."""

    number: int
    loss: float
    """Mean over the pass, of distorted digits and with label smoothing."""
    accuracy: float
    """Share of the held-out digits that is read right, 0 to 1."""
    rate: float
    """Digits learnt from in a second."""


def learning_rate(progress: float, highest: float, warmup: float = 0.15) -> float:
    """Return the rate at a point of the training: a linear rise, then half a cosine down to 0.

    Parameters
    ----------
    progress : float
        Part of the training that is done, 0 to 1.
    highest : float
        The rate at the end of the rise.
    warmup : float
        Part of the training that the rise takes.
    """
    if progress < warmup:
        return highest * max(progress / warmup, 1e-2)
    return highest * 0.5 * (1.0 + math.cos(math.pi * (progress - warmup) / (1.0 - warmup)))


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
    """Return images with ink of 1 on a background of 0."""
    return images.astype(np.float32) / np.float32(255.0)


def predict(model: nn.Module, images: Images, batch_size: int = 500) -> Images:
    """Return a model's logits for ``(N, H, W)`` images, in evaluation mode."""
    model.eval()
    return np.concatenate([model(images[i : i + batch_size, None]) for i in range(0, len(images), batch_size)])


def train(
    model: nn.Module,
    digits: DigitSplit,
    recipe: Recipe,
    rng: np.random.Generator,
    progress: Callable[[Iterable[Any], int], Iterable[Any]],
) -> Iterator[Epoch]:
    """Teach a model and yield what each epoch gave.

    Parameters
    ----------
    model : Module
        Maps ``(N, 1, H, W)`` to logits.
    digits : DigitSplit
        What to learn from and what to test on.
    recipe : Recipe
        Settings.
    rng : numpy.random.Generator
        Source of the order of the digits and of their distortions.
    progress : callable
        ``progress(iterable, epoch)`` wraps the batches of an epoch, to show how far it is.
    """
    images, test_images = as_input(digits.train_images), as_input(digits.test_images)
    optimizer = optim.Adam(model.parameters(), lr=recipe.lr)
    loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    starts = range(0, len(images), recipe.batch_size)
    done, steps = 0, recipe.epochs * len(starts)
    for epoch in range(1, recipe.epochs + 1):
        model.train()
        order = rng.permutation(len(images))
        total, began = 0.0, time.perf_counter()
        for start in progress(starts, epoch):
            chosen = order[start : start + recipe.batch_size]
            optimizer.lr = learning_rate(done / steps, recipe.lr)
            optimizer.zero_grad()
            total += loss(model(distort(images[chosen], rng)[:, None]), digits.train_labels[chosen]) * len(chosen)
            model.backward(loss.backward())
            optimizer.step()
            done += 1
        seconds = time.perf_counter() - began
        right = predict(model, test_images).argmax(1) == digits.test_labels
        yield Epoch(epoch, total / len(images), float(right.mean()), len(images) / seconds)
