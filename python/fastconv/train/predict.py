"""What a trained network says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import integer
from ..nn.module import Module

__all__ = ["accuracy", "predict"]


def predict(model: Module, x: NDArray[Any], batch_size: int = 256) -> NDArray[Any]:
    """Return a network's outputs in evaluation mode, computed a batch at a time.

    Parameters
    ----------
    model : Module
        The network. It is left in the mode in which it was.
    x : numpy.ndarray
        Samples along the first axis, at least one.
    batch_size : int
        Samples at a time: memory and speed depend on it, the result does not.
    """
    integer(batch_size, "batch_size", 1)
    if not len(x):
        raise ValueError("x: expected at least one sample, got none")
    with model.evaluating():
        return np.concatenate([model(x[i : i + batch_size]) for i in range(0, len(x), batch_size)])


def accuracy(outputs: NDArray[Any], targets: NDArray[Any]) -> float:
    """Return the share of samples whose largest output is that of their class.

    Parameters
    ----------
    outputs : numpy.ndarray
        ``(N, classes, ...)``, logits or probabilities.
    targets : numpy.ndarray
        ``(N, ...)`` class indices.
    """
    return float(np.mean(outputs.argmax(1) == targets))
