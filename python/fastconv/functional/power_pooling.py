"""Pooling by powers: root mean square and the p-norm of each window, forward and backward.

Both raise the values of a window to a power, take the mean as `avg_pool2d` does with its defaults (padding counts as
zeros) and return to the first power: root mean square takes the square root of the mean, the p-norm the p-th root of
the mean times the number of the window's positions. That is the sum, except where ``ceil_mode`` lets a window reach
beyond the padded input: there PyTorch, and this module, scale the sum of what there is up to a whole window.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import _engine
from fastconv._check import Array, as_arrays, channels_last, number, require, same_shape
from fastconv._device import on_device
from fastconv.functional._pool_window import (
    Padding,
    Size,
    as_batch,
    make_window,
    output_shape,
    spatial_sizes,
)

__all__ = [
    "lp_pool1d",
    "lp_pool1d_backward",
    "lp_pool2d",
    "lp_pool2d_backward",
    "lp_pool3d",
    "lp_pool3d_backward",
    "rms_pool1d",
    "rms_pool1d_backward",
    "rms_pool2d",
    "rms_pool2d_backward",
    "rms_pool3d",
    "rms_pool3d_backward",
]

Norm = int | float


def _norm(norm_type: object) -> float:
    norm = number(norm_type, "norm_type")
    require(norm != 0 and not np.isnan(norm), lambda: f"norm_type: got {norm_type!r}, expected a number other than 0")
    return norm


def _where_nonzero(gradient: Any, output: Any) -> Any:
    """`gradient`, but zero where `output` is."""
    if on_device(gradient):
        return gradient.where_nonzero(output)
    return np.where(output == 0, np.zeros((), gradient.dtype), gradient)


def _forward(
    n: int,
    x: Array,
    norm: float,
    mean: bool,
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    dilation: Size,
    ceil_mode: bool,
    data_format: str,
) -> Array:
    array, restore = as_arrays(x=x)
    last = channels_last(data_format)
    batch, batched = as_batch(array, n, "x", last)
    window = make_window(n, spatial_sizes(batch.shape, last), kernel_size, stride, padding, dilation, ceil_mode)
    if np.isfinite(norm):
        result = _engine.power_pool(batch, norm, mean, window, last)
    else:
        result = _engine.pool("max" if norm > 0 else "min", np.abs(batch), window, last, False)
        if norm > 0:  # a window wholly in padding has the norm of nothing
            np.maximum(result, 0, out=result)
    final: Array = restore(result if batched else result[0])
    return final


def _backward(
    n: int,
    grad_output: Array,
    x: Array,
    y: Array,
    norm: float,
    mean: bool,
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    dilation: Size,
    ceil_mode: bool,
    data_format: str,
) -> Array:
    gradient, array, output, restore = as_arrays(grad_output=grad_output, x=x, y=y)
    last = channels_last(data_format)
    batch, batched = as_batch(array, n, "x", last)
    window = make_window(n, spatial_sizes(batch.shape, last), kernel_size, stride, padding, dilation, ceil_mode)
    expected = output_shape(window, batch.shape, last)[0 if batched else 1 :]
    same_shape(gradient, expected, "grad_output")
    same_shape(output, expected, "y")
    if not batched:
        gradient, output = gradient[None], output[None]
    if np.isfinite(norm):
        result = _engine.power_pool_backward(gradient, batch, output, norm, mean, window, last)
    else:
        # The distance from zero that was chosen: its gradient is a sign, and zero at zero.
        _, places = _engine.pool("max" if norm > 0 else "min", np.abs(batch), window, last, True)
        passed = _where_nonzero(gradient, output)
        result = _engine.pool_backward_from_indices(passed, places, batch.shape, last)
        with np.errstate(invalid="ignore"):
            np.multiply(result, np.sign(batch), out=result)
    final: Array = restore(result if batched else result[0])
    return final


def rms_pool1d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Root mean square of each window, over one spatial axis: ``(N, C, W)``; arguments and errors as `rms_pool2d`."""
    return _forward(1, x, 2.0, True, kernel_size, stride, padding, dilation, ceil_mode, data_format)


def rms_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Root mean square of each window, over two spatial axes: ``sqrt(avg_pool2d(x**2))``.

    Parameters
    ----------
    x : ndarray
        ``(N, C, H, W)`` or ``(N, H, W, C)``, or the same without ``N``; float32, float64, float16 or bfloat16.
    kernel_size, stride, padding, ceil_mode, dilation
        As for `avg_pool2d`; padded positions count as zeros.
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
        A wrong number of axes or sizes, or a window that does not fit the padded input.
    """
    return _forward(2, x, 2.0, True, kernel_size, stride, padding, dilation, ceil_mode, data_format)


def rms_pool3d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Root mean square of each window, over three spatial axes: ``(N, C, D, H, W)``; else as `rms_pool2d`."""
    return _forward(3, x, 2.0, True, kernel_size, stride, padding, dilation, ceil_mode, data_format)


def rms_pool1d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `rms_pool1d`; arguments and errors as `rms_pool2d_backward`."""
    return _backward(1, grad_output, x, y, 2.0, True, kernel_size, stride, padding, dilation, ceil_mode, data_format)


def rms_pool2d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `rms_pool2d`: a window of n positions hands ``grad_output * x / (n * y)`` to each, 0 where y is 0.

    Parameters
    ----------
    grad_output, x, y : ndarray
        The output's gradient, the input and the output.
    kernel_size, stride, padding, ceil_mode, dilation, data_format
        As `rms_pool2d` was given them.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    TypeError
        An argument of the wrong type, or an unsupported dtype.
    ValueError
        Shapes that do not go together, or a window that does not fit the padded input.
    """
    return _backward(2, grad_output, x, y, 2.0, True, kernel_size, stride, padding, dilation, ceil_mode, data_format)


def rms_pool3d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `rms_pool3d`; arguments and errors as `rms_pool2d_backward`."""
    return _backward(3, grad_output, x, y, 2.0, True, kernel_size, stride, padding, dilation, ceil_mode, data_format)


def lp_pool1d(
    x: Array,
    norm_type: Norm,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """p-norm of each window, over one spatial axis: ``(N, C, W)``; arguments and errors as `lp_pool2d`."""
    norm = _norm(norm_type)
    return _forward(1, x, norm, False, kernel_size, stride, padding, dilation, ceil_mode, data_format)


def lp_pool2d(
    x: Array,
    norm_type: Norm,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """p-norm of each window, over two spatial axes: the p-th root of the sum of ``x**p``.

    The powers are of ``x``, not of its absolute value, as in PyTorch: an odd power of negative values may have a
    negative sum, which has no root and gives NaN (but for p = 1). They are taken in the type of the sums, float32 or
    float64, also as in PyTorch: what is beyond its range is infinite or 0, here and in the gradient.

    Parameters
    ----------
    x : ndarray
        ``(N, C, H, W)`` or ``(N, H, W, C)``, or the same without ``N``; float32, float64, float16 or bfloat16.
    norm_type : float
        The power p, not 0. Infinity gives the largest absolute value, minus infinity the smallest one.
    kernel_size, stride, ceil_mode, padding, dilation
        As for `avg_pool2d`; padding adds zeros.
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
        A power of 0 or NaN, a wrong number of axes or sizes, or a window that does not fit the padded input.
    """
    norm = _norm(norm_type)
    return _forward(2, x, norm, False, kernel_size, stride, padding, dilation, ceil_mode, data_format)


def lp_pool3d(
    x: Array,
    norm_type: Norm,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """p-norm of each window, over three spatial axes: ``(N, C, D, H, W)``; arguments and errors as `lp_pool2d`."""
    norm = _norm(norm_type)
    return _forward(3, x, norm, False, kernel_size, stride, padding, dilation, ceil_mode, data_format)


def lp_pool1d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    norm_type: Norm,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `lp_pool1d`; arguments and errors as `lp_pool2d_backward`."""
    norm = _norm(norm_type)
    return _backward(1, grad_output, x, y, norm, False, kernel_size, stride, padding, dilation, ceil_mode, data_format)


def lp_pool2d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    norm_type: Norm,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `lp_pool2d`: a window hands ``grad_output * (x / y)**(p-1)`` down, 0 where its powers sum to 0.

    Parameters
    ----------
    grad_output, x, y : ndarray
        The output's gradient, the input and the output.
    norm_type, kernel_size, stride, ceil_mode, padding, dilation, data_format
        As `lp_pool2d` was given them.

    Returns
    -------
    ndarray
        Of the input's shape.

    Raises
    ------
    TypeError
        An argument of the wrong type, or an unsupported dtype.
    ValueError
        Shapes that do not go together, a power of 0 or NaN, or a window that does not fit the padded input.
    """
    norm = _norm(norm_type)
    return _backward(2, grad_output, x, y, norm, False, kernel_size, stride, padding, dilation, ceil_mode, data_format)


def lp_pool3d_backward(
    grad_output: Array,
    x: Array,
    y: Array,
    norm_type: Norm,
    kernel_size: Size,
    stride: Size | None = None,
    ceil_mode: bool = False,
    *,
    padding: Padding = 0,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `lp_pool3d`; arguments and errors as `lp_pool2d_backward`."""
    norm = _norm(norm_type)
    return _backward(3, grad_output, x, y, norm, False, kernel_size, stride, padding, dilation, ceil_mode, data_format)
