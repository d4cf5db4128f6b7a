"""Pooling over windows and over whole images: maximum, minimum and mean, forward and backward.

Windows clip at the input's border: padding never contributes to a maximum or a minimum, and adds zero to a sum. A
window that lies wholly in padding (only explicit pairs allow it) gives minus infinity for a maximum, infinity for a
minimum, with the index of the input nearest to its start, and zero for a mean.

A NaN wins a maximum and a minimum (the last one where there are several), and of equal values the first in row-major
order; so it is in PyTorch. Results keep the memory order of their argument: pooling the channels-first view of an
array with channels last in memory gives such a view again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastconv import _engine
from fastconv._check import Array, as_arrays, channels_last, flag
from fastconv.functional._pool_window import (
    Padding,
    Size,
    as_indices,
    average,
    average_backward,
    extreme,
    extreme_backward,
    global_input,
    global_shape,
)

__all__ = [
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool3d",
    "avg_pool3d_backward",
    "global_avg_pool",
    "global_avg_pool_backward",
    "global_max_pool",
    "global_max_pool_backward",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool3d",
    "max_pool3d_backward",
    "min_pool1d",
    "min_pool1d_backward",
    "min_pool2d",
    "min_pool2d_backward",
    "min_pool3d",
    "min_pool3d_backward",
]


def max_pool1d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """Maximum of each window, over one spatial axis: ``(N, C, W)``; arguments and errors as `max_pool2d`."""
    return extreme("max", 1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, data_format)


def max_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """Maximum of each window, over two spatial axes.

    Parameters
    ----------
    x : ndarray
        ``(N, C, H, W)`` or ``(N, H, W, C)``, or the same without ``N``; float32, float64, float16 or bfloat16.
    kernel_size, stride, dilation : int or tuple of int
        The window's size, the distance between windows (the size unless given) and between a window's positions.
    padding : int, tuple of int, pairs of int or str
        Positions added on both sides of an axis, at most half of the window; pairs ``(before, after)``, which may be
        larger; ``"valid"``, or ``"same"`` for ``ceil(in / stride)`` outputs. Padding is never chosen.
    ceil_mode : bool
        Whether a last window counts that starts inside the input (or the padding before it) and is not filled.
    return_indices : bool
        Whether to return the places of the extremes as well.
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
        A wrong number of axes or sizes, or a window that does not fit the padded input.
    """
    return extreme("max", 2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, data_format)


def max_pool3d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """Maximum of each window, over three spatial axes: ``(N, C, D, H, W)``; arguments and errors as `max_pool2d`."""
    return extreme("max", 3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, data_format)


def max_pool1d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `max_pool1d`; arguments and errors as `max_pool2d_backward`."""
    return extreme_backward(1, grad_output, indices, input_shape, data_format)


def max_pool2d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `max_pool2d`: each window's goes to the position that was chosen; meetings add up.

    Parameters
    ----------
    grad_output, indices : ndarray
        The output's gradient, and the int64 positions that `max_pool2d` returned.
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
        Shapes that do not go together, or an index outside the input.
    """
    return extreme_backward(2, grad_output, indices, input_shape, data_format)


def max_pool3d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `max_pool3d`; arguments and errors as `max_pool2d_backward`."""
    return extreme_backward(3, grad_output, indices, input_shape, data_format)


def min_pool1d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """Minimum of each window, over one spatial axis: ``(N, C, W)``; arguments and errors as `max_pool2d`."""
    return extreme("min", 1, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, data_format)


def min_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """Minimum of each window, over two spatial axes: ``(N, C, H, W)``; arguments and errors as `max_pool2d`."""
    return extreme("min", 2, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, data_format)


def min_pool3d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    data_format: str = "channels_first",
) -> Any:
    """Minimum of each window, over three spatial axes: ``(N, C, D, H, W)``; arguments and errors as `max_pool2d`."""
    return extreme("min", 3, x, kernel_size, stride, padding, dilation, ceil_mode, return_indices, data_format)


def min_pool1d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `min_pool1d`; arguments and errors as `max_pool2d_backward`."""
    return extreme_backward(1, grad_output, indices, input_shape, data_format)


def min_pool2d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `min_pool2d`; arguments and errors as `max_pool2d_backward`."""
    return extreme_backward(2, grad_output, indices, input_shape, data_format)


def min_pool3d_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `min_pool3d`; arguments and errors as `max_pool2d_backward`."""
    return extreme_backward(3, grad_output, indices, input_shape, data_format)


def avg_pool1d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Mean of each window, over one spatial axis: ``(N, C, W)``; arguments and errors as `avg_pool2d`."""
    return average(
        1,
        x,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        dilation,
        data_format,
    )


def avg_pool2d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Mean of each window, over two spatial axes.

    Parameters
    ----------
    x : ndarray
        ``(N, C, H, W)`` or ``(N, H, W, C)``, or the same without ``N``; float32, float64, float16 or bfloat16.
    kernel_size, stride, padding, ceil_mode, dilation
        As for `max_pool2d`; padding adds zeros.
    count_include_pad : bool
        Whether the divisor counts a window's positions in the padding (those that ``ceil_mode`` adds beyond it never
        count), or only those in the input.
    divisor_override : int, optional
        What each window's sum is divided by instead.
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
    return average(
        2,
        x,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        dilation,
        data_format,
    )


def avg_pool3d(
    x: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Mean of each window, over three spatial axes: ``(N, C, D, H, W)``; arguments and errors as `avg_pool2d`."""
    return average(
        3,
        x,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        dilation,
        data_format,
    )


def avg_pool1d_backward(
    grad_output: Array,
    input_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `avg_pool1d`; arguments and errors as `avg_pool2d_backward`."""
    return average_backward(
        1,
        grad_output,
        input_shape,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        dilation,
        data_format,
    )


def avg_pool2d_backward(
    grad_output: Array,
    input_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `avg_pool2d`: each window's, over its divisor, goes to every position of the window.

    Parameters
    ----------
    grad_output : ndarray
        The output's gradient.
    input_shape : tuple of int
        The input's shape, in the data format.
    kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, dilation, data_format
        As `avg_pool2d` was given them.

    Returns
    -------
    ndarray
        Of `input_shape`.

    Raises
    ------
    TypeError
        An argument of the wrong type, or an unsupported dtype.
    ValueError
        Shapes that do not go together, or a window that does not fit the padded input.
    """
    return average_backward(
        2,
        grad_output,
        input_shape,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        dilation,
        data_format,
    )


def avg_pool3d_backward(
    grad_output: Array,
    input_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Size = 1,
    data_format: str = "channels_first",
) -> Array:
    """Gradient of `avg_pool3d`; arguments and errors as `avg_pool2d_backward`."""
    return average_backward(
        3,
        grad_output,
        input_shape,
        kernel_size,
        stride,
        padding,
        ceil_mode,
        count_include_pad,
        divisor_override,
        dilation,
        data_format,
    )


def global_avg_pool(x: Array, *, data_format: str = "channels_first") -> Array:
    """Mean over all spatial positions.

    Parameters
    ----------
    x : ndarray
        ``(N, C, *spatial)`` or ``(N, *spatial, C)`` of one to three spatial axes; float32, float64, float16 or
        bfloat16.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    ndarray
        ``(N, C)``.

    Raises
    ------
    TypeError
        Not an array, or an unsupported dtype.
    ValueError
        A wrong number of axes, or no spatial positions.
    """
    array, last, restore = global_input(x, data_format)
    result: Array = restore(_engine.global_pool("avg", array, last, False))
    return result


def global_avg_pool_backward(
    grad_output: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `global_avg_pool`: each channel's, shared alike among its positions.

    Parameters
    ----------
    grad_output : ndarray
        ``(N, C)``.
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
        Not an array, or an unsupported dtype.
    ValueError
        Shapes that do not go together.
    """
    gradient, restore = as_arrays(grad_output=grad_output)
    last = channels_last(data_format)
    shape = global_shape(gradient, input_shape, last)
    result: Array = restore(_engine.global_avg_pool_backward(gradient, shape, last))
    return result


def global_max_pool(x: Array, *, return_indices: bool = False, data_format: str = "channels_first") -> Any:
    """Maximum over all spatial positions.

    Parameters
    ----------
    x : ndarray
        ``(N, C, *spatial)`` or ``(N, *spatial, C)`` of one to three spatial axes; float32, float64, float16 or
        bfloat16.
    return_indices : bool
        Whether to return the places of the maxima as well.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    ndarray or tuple of ndarray
        ``(N, C)``, and int64 positions ``(N, C)``, flat over the input's spatial axes.

    Raises
    ------
    TypeError
        Not an array, or an unsupported dtype.
    ValueError
        A wrong number of axes, or no spatial positions.
    """
    array, last, restore = global_input(x, data_format)
    result = _engine.global_pool("max", array, last, flag(return_indices, "return_indices"))
    return tuple(restore(part) for part in result) if return_indices else restore(result)


def global_max_pool_backward(
    grad_output: Array, indices: Array, input_shape: Sequence[int], *, data_format: str = "channels_first"
) -> Array:
    """Gradient of `global_max_pool`: each channel's goes to the position of its maximum.

    Parameters
    ----------
    grad_output, indices : ndarray
        ``(N, C)``, and the int64 positions that `global_max_pool` returned.
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
        Not an array, or an unsupported dtype.
    ValueError
        Shapes that do not go together, or an index outside the input.
    """
    gradient, restore = as_arrays(grad_output=grad_output)
    last = channels_last(data_format)
    shape = global_shape(gradient, input_shape, last)
    places = as_indices(indices, gradient.shape, grad_output=gradient)
    result: Array = restore(_engine.global_max_pool_backward(gradient, places, shape, last))
    return result
