"""Unpooling: values back to the places that a maximum pooling took them from, and the gradient."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fastconv import _engine
from fastconv._check import Array, as_arrays, channels, channels_last, pads, require, tuple_of_ints
from fastconv.functional._pool_window import (
    Padding,
    Size,
    as_batch,
    as_indices,
    layout,
    spatial_sizes,
    unbatch,
)

__all__ = [
    "max_unpool1d",
    "max_unpool1d_backward",
    "max_unpool2d",
    "max_unpool2d_backward",
    "max_unpool3d",
    "max_unpool3d_backward",
]


def _spatial_output(
    n: int,
    sizes: tuple[int, ...],
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    output_size: object,
    last: bool,
) -> tuple[int, ...]:
    """The output's spatial sizes: those that pool to `sizes`, or the given ones less than a stride away from them."""
    kernel = tuple_of_ints(kernel_size, n, "kernel_size", 1)
    steps = kernel if stride is None else tuple_of_ints(stride, n, "stride", 1)
    require(
        not isinstance(padding, str) or padding == "valid",
        lambda: f'padding: got {padding!r}, expected ints, pairs or "valid"',
    )
    pairs = pads(padding, n, sizes, kernel, steps, (1,) * n)
    default = tuple(
        (size - 1) * s + k - before - after
        for size, s, k, (before, after) in zip(sizes, steps, kernel, pairs, strict=True)
    )
    if output_size is None:
        require(
            min(default) > 0,
            lambda: f"padding: got {padding!r}, which leaves an output of {default}, expected positive sizes",
        )
        return default
    if not isinstance(output_size, Sequence | np.ndarray) or isinstance(output_size, str):
        raise TypeError(f"output_size: expected a tuple of {n} or {n + 2} ints, got {output_size!r}")
    items = list(output_size)
    require(
        len(items) in (n, n + 2),
        lambda: f"output_size: got {output_size!r}, expected {n} spatial sizes, or {n + 2} {layout(n, last)}",
    )
    if len(items) == n + 2:
        items = items[1:-1] if last else items[2:]
    out = tuple_of_ints(items, n, "output_size", 1)
    require(
        all(d - s < size < d + s for size, d, s in zip(out, default, steps, strict=True)),
        lambda: f"output_size: got {out}, expected less than a stride {steps} away from {default}",
    )
    return out


def _forward(
    n: int,
    x: Array,
    indices: Array,
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    output_size: Sequence[int] | None,
    data_format: str,
) -> Array:
    array, restore = as_arrays(x=x)
    last = channels_last(data_format)
    batch, batched = as_batch(array, n, "x", last)
    places = as_indices(indices, array.shape, x=array)
    sizes = spatial_sizes(batch.shape, last)
    require(min(sizes) > 0, lambda: f"x: has no spatial positions, got shape {array.shape}")
    out = _spatial_output(n, sizes, kernel_size, stride, padding, output_size, last)
    samples, depth = batch.shape[0], channels(batch, last)
    shape = (samples, *out, depth) if last else (samples, depth, *out)
    result = _engine.max_unpool(batch, places if batched else places[None], shape, last)
    final: Array = unbatch(result, batched, restore)
    return final


def _backward(n: int, grad_output: Array, indices: Array, data_format: str) -> Array:
    gradient, restore = as_arrays(grad_output=grad_output)
    last = channels_last(data_format)
    batch, batched = as_batch(gradient, n, "grad_output", last)
    places = as_indices(indices, None, grad_output=gradient)
    require(
        places.ndim == gradient.ndim,
        lambda: f"indices: expected {gradient.ndim} dimensions, as many as grad_output has, got shape {places.shape}",
    )
    full = places if batched else places[None]
    require(
        full.shape[0] == batch.shape[0] and channels(full, last) == channels(batch, last),
        lambda: (
            f"indices: got shape {places.shape}, expected the batch and channels of grad_output, "
            f"whose shape is {gradient.shape}"
        ),
    )
    final: Array = unbatch(_engine.max_unpool_backward(batch, full, last), batched, restore)
    return final


def max_unpool1d(
    x: Array,
    indices: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    output_size: Sequence[int] | None = None,
    *,
    data_format: str = "channels_first",
) -> Array:
    """Partial inverse of `max_pool1d`: ``(N, C, W)``; arguments and errors as `max_unpool2d`."""
    return _forward(1, x, indices, kernel_size, stride, padding, output_size, data_format)


def max_unpool2d(
    x: Array,
    indices: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    output_size: Sequence[int] | None = None,
    *,
    data_format: str = "channels_first",
) -> Array:
    """Partial inverse of `max_pool2d`: each value goes to the place its index names, all others are zero.

    Where indices meet, the last value in row-major order stays.

    Parameters
    ----------
    x : ndarray
        Values ``(N, C, H, W)`` or ``(N, H, W, C)``, or the same without ``N``; float32, float64, float16 or bfloat16.
    indices : ndarray of int64
        The positions that `max_pool2d` returned, of `x`'s shape.
    kernel_size, stride, padding
        As `max_pool2d` was given them.
    output_size : tuple of int, optional
        The output's spatial size, or its whole shape in the data format; less than a stride away from
        ``(in - 1) * stride + kernel_size - padding``, which it is unless given (several sizes pool to one).
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    ndarray
        The unpooled array.

    Raises
    ------
    TypeError
        An argument of the wrong type, or an unsupported dtype.
    ValueError
        Shapes that do not go together, a size that does not pool to `x`'s, or an index outside the output.
    """
    return _forward(2, x, indices, kernel_size, stride, padding, output_size, data_format)


def max_unpool3d(
    x: Array,
    indices: Array,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Padding = 0,
    output_size: Sequence[int] | None = None,
    *,
    data_format: str = "channels_first",
) -> Array:
    """Partial inverse of `max_pool3d`: ``(N, C, D, H, W)``; arguments and errors as `max_unpool2d`."""
    return _forward(3, x, indices, kernel_size, stride, padding, output_size, data_format)


def max_unpool1d_backward(grad_output: Array, indices: Array, *, data_format: str = "channels_first") -> Array:
    """Gradient of `max_unpool1d`; arguments and errors as `max_unpool2d_backward`."""
    return _backward(1, grad_output, indices, data_format)


def max_unpool2d_backward(grad_output: Array, indices: Array, *, data_format: str = "channels_first") -> Array:
    """Gradient of `max_unpool2d`: what lies where each index points, also where several point (as in PyTorch).

    Parameters
    ----------
    grad_output : ndarray
        The output's gradient.
    indices : ndarray of int64
        As `max_unpool2d` was given them.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    ndarray
        Of the shape of `indices`.

    Raises
    ------
    TypeError
        An argument of the wrong type, or an unsupported dtype.
    ValueError
        Shapes that do not go together, or an index outside the output.
    """
    return _backward(2, grad_output, indices, data_format)


def max_unpool3d_backward(grad_output: Array, indices: Array, *, data_format: str = "channels_first") -> Array:
    """Gradient of `max_unpool3d`; arguments and errors as `max_unpool2d_backward`."""
    return _backward(3, grad_output, indices, data_format)
