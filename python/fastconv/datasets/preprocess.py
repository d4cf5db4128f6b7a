"""Bringing values into shape before a network sees them: numbers are found on the training images and used on all."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Standardize", "Whitening", "to_network"]


def to_network(images: NDArray[Any], data_format: str = "channels_first") -> NDArray[np.float32]:
    """Return pictures as networks take them: float32 from 0 to 1, with an axis for the channels.

    Parameters
    ----------
    images : numpy.ndarray
        ``(N, H, W)`` or ``(N, H, W, C)``; integers of 8 bits are divided by 255, other numbers kept.
    data_format : {"channels_first", "channels_last"}
        Where the channels shall be.
    """
    if images.ndim not in (3, 4):
        raise ValueError(f"images: expected shape (N, H, W) or (N, H, W, C), got {images.shape}")
    scaled = images.astype(np.float32) / np.float32(255 if images.dtype == np.uint8 else 1)
    if scaled.ndim == 3:
        scaled = scaled[..., None]
    return np.ascontiguousarray(scaled if data_format == "channels_last" else np.moveaxis(scaled, -1, 1))


class Standardize:
    """Subtract each channel's mean and divide by its standard deviation.

    Parameters
    ----------
    axis : int
        Axis of the channels.

    Attributes
    ----------
    mean, deviation : numpy.ndarray
        One number a channel; a deviation of 0 counts as 1.
    """

    def __init__(self, axis: int = 1) -> None:
        self.axis = axis
        self.mean: NDArray[Any] | None = None
        self.deviation: NDArray[Any] | None = None

    def fit(self, x: NDArray[Any]) -> Self:
        """Find the numbers."""
        others = tuple(i for i in range(x.ndim) if i != self.axis % x.ndim)
        self.mean = x.mean(others, np.float64, keepdims=True)
        deviation = x.std(others, np.float64, keepdims=True)
        self.deviation = np.where(deviation == 0, 1.0, deviation)
        return self

    def transform(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return standardized values in the dtype of ``x``.

        Raises
        ------
        RuntimeError
            If `fit` has not been called.
        """
        if self.mean is None or self.deviation is None:
            raise RuntimeError("Standardize.transform: there is nothing to subtract yet; call fit first")
        return ((x - self.mean) / self.deviation).astype(x.dtype)  # type: ignore[no-any-return]


class Whitening:
    """Decorrelate: turn samples so that all their features are uncorrelated, with variance 1, and turn them back (ZCA).

    Of all such transformations this one changes the samples least, so that pictures stay pictures (Bell and Sejnowski,
    1997): edges are emphasised, flat areas become zero.

    Parameters
    ----------
    eps : float
        Added to the variances, as a part of the largest: directions with less than that are noise and not blown up.

    Attributes
    ----------
    mean : numpy.ndarray
        Mean sample.
    matrix : numpy.ndarray
        ``(features, features)``, symmetric.
    """

    def __init__(self, eps: float = 1e-3) -> None:
        self.eps = eps
        self.mean: NDArray[np.float64] | None = None
        self.matrix: NDArray[np.float64] | None = None

    def fit(self, x: NDArray[Any]) -> Self:
        """Find mean and matrix of ``(N, ...)`` samples; they need features squared numbers."""
        flat = x.reshape(len(x), -1).astype(np.float64)
        self.mean = flat.mean(0)
        centred = flat - self.mean
        variances, directions = np.linalg.eigh(centred.T @ centred / len(x))
        scale = 1 / np.sqrt(np.maximum(variances, 0) + self.eps * max(float(variances[-1]), np.finfo(np.float64).tiny))
        self.matrix = (directions * scale) @ directions.T
        return self

    def transform(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return whitened samples in the shape and dtype of ``x``.

        Raises
        ------
        RuntimeError
            If `fit` has not been called.
        """
        if self.mean is None or self.matrix is None:
            raise RuntimeError("Whitening.transform: there is no matrix yet; call fit first")
        flat = x.reshape(len(x), -1) - self.mean
        return (flat @ self.matrix).reshape(x.shape).astype(x.dtype)
