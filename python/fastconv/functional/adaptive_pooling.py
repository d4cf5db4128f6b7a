"""Adaptive pooling, forward and backward: windows chosen so that the output has a given size.

Output ``o`` of an axis takes the inputs from ``floor(o * in / out)`` to ``ceil((o + 1) * in / out)``, the last one
excluded, as in PyTorch: windows of nearly one size that cover the input, and overlap where it does not divide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import _engine
from fastconv._check import Array, as_arrays, channels_last, flag, integer, require, same_shape
from fastconv.functional._pool_window import (
    as_batch,
    extreme_backward,
    full_shape,
    spatial_sizes,
    unbatch,
)

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool1d_backward",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool2d_backward",
    "adaptive_avg_pool3d",
    "adaptive_avg_pool3d_backward",
    "adaptive_max_pool1d",
    "adaptive_max_pool1d_backward",
    "adaptive_max_pool2d",
    "adaptive_max_pool2d_backward",
    "adaptive_max_pool3d",
    "adaptive_max_pool3d_backward",
]

OutputSize = int | Sequence[int | None]


def _output_size(output_size: object, sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The output's spatial sizes: where none is asked for, the input's."""
    n = len(sizes)
    if not isinstance(output_size, Sequence | np.ndarray) or isinstance(output_size, str):
        return (integer(output_size, "output_size", 1),) * n
    items = list(output_size)
    require(
        len(items) == n, lambda: f"output_size: got {output_size!r}, expected an int or a tuple of {n} ints or None"
    )
    return tuple(
        size if item is None else integer(item, "output_size", 1) for item, size in zip(items, sizes, strict=True)
    )


def _forward(n: int, x: Array, output_size: OutputSize, maximum: bool, return_indices: bool, data_format: str) -> Any:
    array, restore = as_arrays(x=x)
    last = channels_last(data_format)
    batch, batched = as_batch(array, n, "x", last)
    sizes = spatial_sizes(batch.shape, last)
    require(min(sizes) > 0, lambda: f"x: has no spatial positions, got shape {array.shape}")
    out = _output_size(output_size, sizes)
    result = _engine.adaptive_pool(batch, out, maximum, last, flag(return_indices, "return_indices"))
    return unbatch(result, batched, restore)


def _avg_backward(n: int, grad_output: Array, input_shape: Sequence[int], data_format: str) -> Any:
    gradient, restore = as_arrays(grad_output=grad_output)
    last = channels_last(data_format)
    full, batched = full_shape(input_shape, n, last)
    require(
        min(spatial_sizes(full, last)) > 0, lambda: f"input_shape: has no spatial positions, got {tuple(input_shape)}"
    )
    require(
        gradient.ndim == n + 1 + batched,
        lambda: (
            f"grad_output: expected as many dimensions as input_shape {tuple(input_shape)}, got shape {gradient.shape}"
        ),
    )
    batch, _ = as_batch(gradient, n, "grad_output", last)
    out = spatial_sizes(batch.shape, last)
    require(min(out) > 0, lambda: f"grad_output: has no spatial positions, got shape {gradient.shape}")
    same_shape(batch, (full[0], *out, full[-1]) if last else (full[0], full[1], *out), "grad_output")
    return unbatch(_engine.adaptive_avg_pool_backward(batch, full, last), batched, restore)


def adaptive_avg_pool1d(x: Array, output_size: OutputSize, *, data_format: str = "channels_first") -> Array:
    """Mean of each bin, over one spatial axis: ``(N, C, W)``; arguments and errors as `adaptive_avg_pool2d`."""
    result: Array = _forward(1, x, output_size, False, False, data_format)
    return result


def adaptive_avg_pool2d(x: Array, output_size: OutputSize, *, data_format: str = "channels_first") -> Array:
    """Mean of each bin, over two spatial axes, of as many bins as the output has positions.

    Parameters
    ----------
    x : ndarray
        ``(N, C, H, W)`` or ``(N, H, W, C)``, or the same without ``N``; float32, float64, float16 or bfloat16.
    output_size : int or tuple of int or None
        The output's spatial size; one int serves all axes, ``None`` keeps an axis's size.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    ndarray
        The pooled array.

    Raises
    ------
    TypeError
        An argument of the wrong type, or an unsupported dtype.
    ValueError
        A wrong number of axes or sizes, or a size that is not positive.
    """
    result: Array = _forward(2, x, output_size, False, False, data_format)
    return result


def adaptive_avg_pool3d(x: Array, output_size: OutputSize, *, data_format: str = "channels_first") -> Array:
    """Mean of each bin, over three spatial axes: ``(N, C, D, H, W)``; arguments and errors as `adaptive_avg_pool2d`."""
    result: Array = _forward(3, x, output_size, False, False, data_format)
    return result


def adaptive_avg_pool1d_backward(
    grad_output: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `adaptive_avg_pool1d`; arguments and errors as `adaptive_avg_pool2d_backward`."""
    result: Array = _avg_backward(1, grad_output, input_shape, data_format)
    return result


def adaptive_avg_pool2d_backward(
    grad_output: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `adaptive_avg_pool2d`: each bin's, over its size, goes to every position of the bin.

    Parameters
    ----------
    grad_output : ndarray
        The output's gradient.
    input_shape : tuple of int
        The input's shape, in the data format.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    ndarray
        Of `input_shape`.

    Raises
    ------
    TypeError
        An argument of the wrong type, or an unsupported dtype.
    ValueError
        Shapes that do not go together.
    """
    result: Array = _avg_backward(2, grad_output, input_shape, data_format)
    return result


def adaptive_avg_pool3d_backward(
    grad_output: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `adaptive_avg_pool3d`; arguments and errors as `adaptive_avg_pool2d_backward`."""
    result: Array = _avg_backward(3, grad_output, input_shape, data_format)
    return result


def adaptive_max_pool1d(
    x: Array, output_size: OutputSize, return_indices: bool = False, *, data_format: str = "channels_first"
) -> Any:
    """Maximum of each bin, over one spatial axis: ``(N, C, W)``; arguments and errors as `adaptive_max_pool2d`."""
    return _forward(1, x, output_size, True, return_indices, data_format)


def adaptive_max_pool2d(
    x: Array, output_size: OutputSize, return_indices: bool = False, *, data_format: str = "channels_first"
) -> Any:
    """Maximum of each bin, over two spatial axes, of as many bins as the output has positions.

    A NaN wins (the last one where there are several), and of equal values the first in row-major order.

    Parameters
    ----------
    x : ndarray
        ``(N, C, H, W)`` or ``(N, H, W, C)``, or the same without ``N``; float32, float64, float16 or bfloat16.
    output_size : int or tuple of int or None
        The output's spatial size; one int serves all axes, ``None`` keeps an axis's size.
    return_indices : bool
        Whether to return the places of the maxima as well.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    ndarray or tuple of ndarray
        The pooled array and, if asked for, int64 positions of its shape, flat over the input's spatial axes.

    Raises
    ------
    TypeError
        An argument of the wrong type, or an unsupported dtype.
    ValueError
        A wrong number of axes or sizes, or a size that is not positive.
    """
    return _forward(2, x, output_size, True, return_indices, data_format)


def adaptive_max_pool3d(
    x: Array, output_size: OutputSize, return_indices: bool = False, *, data_format: str = "channels_first"
) -> Any:
    """Maximum of each bin, over three spatial axes: ``(N, C, D, H, W)``; else as `adaptive_max_pool2d`."""
    return _forward(3, x, output_size, True, return_indices, data_format)


def adaptive_max_pool1d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `adaptive_max_pool1d`; the same as `max_pool1d_backward`."""
    return extreme_backward(1, grad_output, indices, input_shape, data_format)


def adaptive_max_pool2d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `adaptive_max_pool2d`; the same as `max_pool2d_backward`."""
    return extreme_backward(2, grad_output, indices, input_shape, data_format)


def adaptive_max_pool3d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `adaptive_max_pool3d`; the same as `max_pool3d_backward`."""
    return extreme_backward(3, grad_output, indices, input_shape, data_format)
