"""What the pooling ops share, whatever their number of spatial axes: checks of arguments and calls of the engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import _core, _engine
from fastconv._check import (
    Array,
    Restore,
    as_arrays,
    as_ndarray,
    cached,
    channels,
    channels_last,
    flag,
    integer,
    pads,
    require,
    same_place,
    same_shape,
    tuple_of_ints,
)

Size = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]


def spatial_sizes(shape: Sequence[int], last: bool) -> tuple[int, ...]:
    return tuple(shape[1:-1] if last else shape[2:])


def layout(n: int | None, last: bool) -> str:
    spatial = "*spatial" if n is None else ", ".join(("D", "H", "W")[-n:])
    return f"(N, {spatial}, C)" if last else f"(N, C, {spatial})"


def as_batch(x: Array, n: int, name: str, last: bool) -> tuple[Array, bool]:
    """`x` as a batch, and whether it was one already."""
    require(
        x.ndim in (n + 1, n + 2),
        lambda: (
            f"{name}: expected {n + 2} dimensions {layout(n, last)}, or {n + 1} without the batch, got shape {x.shape}"
        ),
    )
    batched = x.ndim == n + 2
    batch = x if batched else x[None]
    require(channels(batch, last) > 0, lambda: f"{name}: has no channels, got shape {x.shape}")
    return batch, batched


def unbatch(result: Any, batched: bool, restore: Restore) -> Any:
    """An engine's array, or pair of arrays, as the caller's kind and with as many axes as the input had."""
    if isinstance(result, tuple):
        return tuple(unbatch(part, batched, restore) for part in result)
    return restore(result if batched else result[0])


def output_shape(window: Any, shape: Sequence[int], last: bool) -> tuple[int, ...]:
    """The shape of a window's output, batch included."""
    out = tuple(_core.pool_output_shape(window, spatial_sizes(shape, last)))
    return (shape[0], *out, shape[-1]) if last else (shape[0], shape[1], *out)


def full_shape(input_shape: object, n: int, last: bool) -> tuple[tuple[int, ...], bool]:
    """An input's shape with its batch, and whether that was given."""
    shape = as_shape(input_shape)
    require(
        len(shape) in (n + 1, n + 2),
        lambda: f"input_shape: expected {n + 2} sizes {layout(n, last)}, or {n + 1} without the batch, got {shape}",
    )
    return (shape, True) if len(shape) == n + 2 else ((1, *shape), False)


def as_shape(input_shape: object, name: str = "input_shape") -> tuple[int, ...]:
    if not isinstance(input_shape, Sequence) or isinstance(input_shape, str):
        raise TypeError(f"{name}: expected a tuple of ints, got {input_shape!r}")
    return tuple(integer(size, name, 0) for size in input_shape)


def make_window(
    n: int,
    sizes: Sequence[int],
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    dilation: Size,
    ceil_mode: bool,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Any:
    """The checked window, as the engine takes it."""
    # Only a word of padding depends on the input's sizes.
    sizes = tuple(sizes) if isinstance(padding, str) else (0,) * n
    return _checked_window(
        n, sizes, kernel_size, stride, padding, dilation, divisor_override, ceil_mode, count_include_pad
    )


def _of_each_axis(value: Any) -> Any:
    """A tuple of one int as the int, which serves every axis: PyTorch takes both."""
    return value[0] if isinstance(value, tuple | list) and len(value) == 1 and isinstance(value[0], int) else value


@cached
def _checked_window(
    n: int,
    sizes: Sequence[int],
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    dilation: Size,
    divisor_override: int | None,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Any:
    kernel_size, stride, padding, dilation = (_of_each_axis(v) for v in (kernel_size, stride, padding, dilation))
    kernel = tuple_of_ints(kernel_size, n, "kernel_size", 1)
    # An empty stride is no stride, as in PyTorch.
    unset = stride is None or (isinstance(stride, tuple | list) and not stride)
    steps = kernel if unset else tuple_of_ints(stride, n, "stride", 1)
    gaps = tuple_of_ints(dilation, n, "dilation", 1)
    pairs = pads(padding, n, sizes, kernel, steps, gaps)
    explicit = isinstance(padding, str) or (
        isinstance(padding, Sequence | np.ndarray) and any(isinstance(p, Sequence | np.ndarray) for p in padding)
    )
    for (before, _), k, d in zip(pairs, kernel, gaps, strict=True):
        require(
            explicit or before <= ((k - 1) * d + 1) // 2,
            f"padding: got {before}, expected at most half of the window, {((k - 1) * d + 1) // 2}; "
            "pairs (before, after) may pad more",
        )
    divisor = 0 if divisor_override is None else integer(divisor_override, "divisor_override", -(2**40))
    require(divisor_override is None or divisor != 0, "divisor_override: got 0, expected an integer other than 0")
    return _core.PoolWindow(
        kernel,
        steps,
        gaps,
        pairs,
        flag(ceil_mode, "ceil_mode"),
        flag(count_include_pad, "count_include_pad"),
        divisor,
    )


def extreme(
    op: str,
    n: int,
    x: Array,
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    dilation: Size,
    ceil_mode: bool,
    return_indices: bool,
    data_format: str,
) -> Any:
    array, restore = as_arrays(x=x)
    last = channels_last(data_format)
    batch, batched = as_batch(array, n, "x", last)
    window = make_window(n, spatial_sizes(batch.shape, last), kernel_size, stride, padding, dilation, ceil_mode)
    result = _engine.pool(op, batch, window, last, flag(return_indices, "return_indices"))
    return unbatch(result, batched, restore)


def average(
    n: int,
    x: Array,
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    dilation: Size,
    data_format: str,
) -> Array:
    array, restore = as_arrays(x=x)
    last = channels_last(data_format)
    batch, batched = as_batch(array, n, "x", last)
    sizes = spatial_sizes(batch.shape, last)
    window = make_window(
        n, sizes, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override
    )
    result = _engine.pool("avg", batch, window, last, False)
    final: Array = restore(result if batched else result[0])
    return final


def average_backward(
    n: int,
    grad_output: Array,
    input_shape: Sequence[int],
    kernel_size: Size,
    stride: Size | None,
    padding: Padding,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
    dilation: Size,
    data_format: str,
) -> Array:
    gradient, restore = as_arrays(grad_output=grad_output)
    last = channels_last(data_format)
    full, batched = full_shape(input_shape, n, last)
    sizes = spatial_sizes(full, last)
    window = make_window(
        n, sizes, kernel_size, stride, padding, dilation, ceil_mode, count_include_pad, divisor_override
    )
    same_shape(gradient, output_shape(window, full, last)[0 if batched else 1 :], "grad_output")
    result = _engine.avg_pool_backward(gradient if batched else gradient[None], full, window, last)
    final: Array = restore(result if batched else result[0])
    return final


def as_indices(indices: object, shape: tuple[int, ...] | None, **values: Array) -> Array:
    """`indices` as an int64 array of a shape, any where that is ``None``, in the place of the `values`."""
    array = as_ndarray(indices, "indices")
    same_place(**values, indices=array)
    if array.dtype.kind not in "iu":
        raise TypeError(f"indices: dtype {array.dtype} is not supported, expected int64")
    if shape is not None:
        same_shape(array, shape, "indices")
    return array.astype(np.int64, copy=False)


def extreme_backward(n: int, grad_output: Array, indices: Array, input_shape: Sequence[int], data_format: str) -> Array:
    gradient, restore = as_arrays(grad_output=grad_output)
    last = channels_last(data_format)
    shape = as_shape(input_shape)
    batch, batched = as_batch(gradient, n, "grad_output", last)
    require(
        len(shape) == gradient.ndim,
        lambda: f"input_shape: expected {gradient.ndim} sizes, as many as grad_output has axes, got {shape}",
    )
    places = as_indices(indices, gradient.shape, grad_output=gradient)
    full = shape if batched else (1, *shape)
    channel = -1 if last else 1
    require(
        full[0] == batch.shape[0] and full[channel] == batch.shape[channel],
        lambda: (
            f"input_shape: got {shape}, expected the batch and channels of grad_output, whose shape is {gradient.shape}"
        ),
    )
    result = _engine.pool_backward_from_indices(batch, places if batched else places[None], full, last)
    final: Array = restore(result if batched else result[0])
    return final


def global_input(x: Array, data_format: str) -> tuple[Array, bool, Restore]:
    array, restore = as_arrays(x=x)
    last = channels_last(data_format)
    require(
        3 <= array.ndim <= 5, lambda: f"x: expected 3 to 5 dimensions {layout(None, last)}, got shape {array.shape}"
    )
    require(
        math.prod(spatial_sizes(array.shape, last)) > 0, lambda: f"x: has no spatial positions, got shape {array.shape}"
    )
    return array, last, restore


def global_shape(gradient: Array, input_shape: object, last: bool) -> tuple[int, ...]:
    shape = as_shape(input_shape)
    require(3 <= len(shape) <= 5, lambda: f"input_shape: expected 3 to 5 sizes {layout(None, last)}, got {shape}")
    same_shape(gradient, (shape[0], shape[-1 if last else 1]), "grad_output")
    return shape
