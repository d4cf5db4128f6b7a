"""The classical kernels of image processing, as weights of a convolution.

Each function returns a depthwise weight ``(channels, 1, k, k)``, for ``F.conv2d(images, weight, padding="same",
groups=channels)``; `apply` does that to one picture. Blurs and sharpeners keep the mean of a picture (their entries
sum to 1), edge finders take it away (they sum to 0). Neither `functional.conv2d` nor these turn the kernel around, so
what is written here is what slides over the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import functional as F
from ._check import integer

__all__ = ["apply", "box_blur", "edge", "gaussian_blur", "identity", "sharpen", "sobel", "unsharp_mask"]

Weight = NDArray[Any]

_EDGES = (
    ((1, 0, -1), (0, 0, 0), (-1, 0, 1)),
    ((0, 1, 0), (1, -4, 1), (0, 1, 0)),
    ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1)),
)
_PASCAL = {3: (1, 2, 1), 5: (1, 4, 6, 4, 1)}


def _weight(kernel: ArrayLike, channels: int, dtype: DTypeLike) -> Weight:
    """Return one kernel for each channel."""
    square = np.asarray(kernel, np.float64).astype(dtype)
    return np.tile(square, (integer(channels, "channels", 1), 1, 1, 1))


def identity(channels: int = 1, dtype: DTypeLike = np.float32) -> Weight:
    """Return the kernel that changes nothing: 1 in the middle of 3 x 3."""
    return _weight(((0, 0, 0), (0, 1, 0), (0, 0, 0)), channels, dtype)


def edge(form: int = 3, channels: int = 1, dtype: DTypeLike = np.float32) -> Weight:
    """Return an edge finder.

    Parameters
    ----------
    form : {1, 2, 3}
        1: differences across the diagonals (the mixed second derivative). 2: the Laplacian of the four neighbours. 3:
        that of all eight, with its sign turned, so that bright points stay bright.
    channels : int
        Channels of the pictures.
    dtype : dtype
        Type of the weight.

    Raises
    ------
    ValueError
        If the form is none of the three.
    """
    if form not in (1, 2, 3):
        raise ValueError(f"form: expected 1, 2 or 3, got {form!r}")
    return _weight(_EDGES[form - 1], channels, dtype)


def sharpen(channels: int = 1, dtype: DTypeLike = np.float32) -> Weight:
    """Return the sharpener: the picture minus its Laplacian."""
    return _weight(((0, -1, 0), (-1, 5, -1), (0, -1, 0)), channels, dtype)


def box_blur(size: int = 3, channels: int = 1, dtype: DTypeLike = np.float32) -> Weight:
    """Return the mean of ``size`` x ``size`` pixels."""
    size = integer(size, "size", 1)
    return _weight(np.full((size, size), 1 / size**2), channels, dtype)


def gaussian_blur(size: int = 3, channels: int = 1, dtype: DTypeLike = np.float32) -> Weight:
    """Return a Gaussian in whole numbers: the outer product of a row of Pascal's triangle with itself, over its sum.

    Parameters
    ----------
    size : {3, 5}
        3: ``1 2 1``, a variance of 1/2 along each axis. 5: ``1 4 6 4 1``, a variance of 1.
    channels : int
        Channels of the pictures.
    dtype : dtype
        Type of the weight.

    Raises
    ------
    ValueError
        If the size is neither of the two.
    """
    if size not in _PASCAL:
        raise ValueError(f"size: expected 3 or 5, got {size!r}")
    row = np.array(_PASCAL[size], np.float64)
    return _weight(np.outer(row, row) / row.sum() ** 2, channels, dtype)


def unsharp_mask(channels: int = 1, dtype: DTypeLike = np.float32) -> Weight:
    """Return the unsharp mask: the picture plus what a Gaussian blur of 5 x 5 takes away from it."""
    return 2 * np.pad(identity(channels, dtype), ((0, 0), (0, 0), (1, 1), (1, 1))) - gaussian_blur(5, channels, dtype)


def sobel(axis: str = "x", channels: int = 1, dtype: DTypeLike = np.float32) -> Weight:
    """Return Sobel's derivative: a difference along one axis, smoothed along the other.

    Parameters
    ----------
    axis : {"x", "y"}
        ``"x"``: positive where the picture becomes brighter to the right. ``"y"``: downwards. A slope of 1 a pixel
        gives 8.
    channels : int
        Channels of the pictures.
    dtype : dtype
        Type of the weight.

    Raises
    ------
    ValueError
        If the axis is neither of the two.
    """
    if axis not in ("x", "y"):
        raise ValueError(f"axis: expected 'x' or 'y', got {axis!r}")
    kernel = np.outer((1, 2, 1), (-1, 0, 1))
    return _weight(kernel if axis == "x" else kernel.T, channels, dtype)


def apply(image: ArrayLike, weight: Weight) -> NDArray[Any]:
    """Return a picture convolved with a kernel, each channel by itself; beyond the border the border goes on.

    Parameters
    ----------
    image : array_like
        ``(H, W)`` or ``(H, W, C)``, any numbers.
    weight : numpy.ndarray
        From a function of this module, for one channel or for C.

    Returns
    -------
    numpy.ndarray
        Of the image's shape and the weight's dtype.

    Raises
    ------
    ValueError
        If the shapes do not belong together.
    """
    picture = np.asarray(image)
    if picture.ndim not in (2, 3):
        raise ValueError(f"image: expected shape (H, W) or (H, W, C), got {picture.shape}")
    channels = 1 if picture.ndim == 2 else picture.shape[2]
    if weight.ndim != 4 or weight.shape[1] != 1 or weight.shape[0] not in (1, channels):
        raise ValueError(f"weight: expected shape (1, 1, k, k) or ({channels}, 1, k, k), got {weight.shape}")
    batch = picture.reshape(1, *picture.shape[:2], channels).astype(weight.dtype)
    weight = np.broadcast_to(weight, (channels, *weight.shape[1:]))
    y = F.conv2d(batch, weight, padding="same", padding_mode="replicate", groups=channels, data_format="channels_last")
    result: NDArray[Any] = y.reshape(picture.shape)
    return result
