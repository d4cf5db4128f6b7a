"""The pools of the engine on device arrays. Results follow the memory order of their argument, as the CPU's do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import _core
from fastconv._device.array import DeviceArray
from fastconv._device.engine import run
from fastconv._device.norms import batch_statistics
from fastconv.functional._pool_window import spatial_sizes


def _window(window: Any) -> tuple[Any, ...]:
    return (
        window.kernel_size,
        window.stride,
        window.dilation,
        window.padding,
        window.ceil_mode,
        window.count_include_pad,
        window.divisor_override,
    )


def _in_lanes(x: DeviceArray, last: bool) -> bool:
    """Whether the channels lie densest in memory."""
    channel = x.ndim - 1 if last else 1
    if x.shape[channel] == 1:
        return last
    strides = [abs(stride) for stride in x.strides]
    others = [strides[axis] for axis in range(1, x.ndim) if axis != channel and x.shape[axis] > 1]
    return last if not others else strides[channel] < min(others)


def _like(x: DeviceArray, spatial: Sequence[int], last: bool, dtype: Any = None) -> DeviceArray:
    """A fresh array with other spatial sizes, in the memory order of `x`, seen in the data format."""
    samples, channels, lanes = x.shape[0], x.shape[-1 if last else 1], _in_lanes(x, last)
    memory = x.new((samples, *spatial, channels) if lanes else (samples, channels, *spatial), dtype)
    n = len(spatial)
    if lanes == last:
        return memory
    return memory.permuted((0, *range(2, n + 2), 1) if last else (0, n + 1, *range(1, n + 1)))


def pool(op: str, x: DeviceArray, window: Any, last: bool, return_indices: bool) -> Any:
    out = _core.pool_output_shape(window, spatial_sizes(x.shape, last))
    y = _like(x, out, last)
    indices = _like(x, out, last, np.int64) if return_indices and op != "avg" else None
    run("pool", x, op, x, _window(window), last, y, indices)
    return y if indices is None else (y, indices)


def avg_pool_backward(grad_output: DeviceArray, input_shape: Sequence[int], window: Any, last: bool) -> DeviceArray:
    result = _like(grad_output, spatial_sizes(input_shape, last), last)
    run("avg_pool_backward", grad_output, grad_output, _window(window), last, result)
    return result


def power_pool(x: DeviceArray, exponent: float, mean: bool, window: Any, last: bool) -> DeviceArray:
    y = _like(x, _core.pool_output_shape(window, spatial_sizes(x.shape, last)), last)
    run("power_pool", x, x, exponent, mean, _window(window), last, y)
    return y


def power_pool_backward(
    grad_output: DeviceArray, x: DeviceArray, y: DeviceArray, exponent: float, mean: bool, window: Any, last: bool
) -> DeviceArray:
    result = _like(grad_output, spatial_sizes(x.shape, last), last)
    run("power_pool_backward", x, grad_output, x, y, exponent, mean, _window(window), last, result)
    return result


def pool_backward_from_indices(
    grad_output: DeviceArray, indices: DeviceArray, input_shape: Sequence[int], last: bool
) -> DeviceArray:
    result = _like(grad_output, spatial_sizes(input_shape, last), last)
    run("scatter", grad_output, True, grad_output, indices, last, result)
    return result


def _as_image(pairs: DeviceArray, n: int, last: bool) -> DeviceArray:
    """``(N, C)`` as images of one position."""
    ones = (1,) * n
    return pairs.reshape((pairs.shape[0], *ones, pairs.shape[1]) if last else (*pairs.shape, *ones))


def _mean(x: DeviceArray, last: bool) -> DeviceArray:
    """Of each image's channel: many threads for each, as a norm's statistics have."""
    mean, _ = batch_statistics(x, last, last, True)
    return mean.astype(x.dtype)


def global_pool(op: str, x: DeviceArray, last: bool, return_indices: bool) -> Any:
    pair, n = (x.shape[0], x.shape[-1 if last else 1]), x.ndim - 2
    if op == "avg":
        return _mean(x, last)
    y = x.new(pair)
    indices = x.new(pair, np.int64) if return_indices else None
    places = None if indices is None else _as_image(indices, n, last)
    run("adaptive_pool", x, op, x, last, _as_image(y, n, last), places)
    return y if indices is None else (y, indices)


def global_avg_pool_backward(grad_output: DeviceArray, input_shape: Sequence[int], last: bool) -> DeviceArray:
    result = grad_output.new(tuple(input_shape))
    gradient = _as_image(grad_output, len(input_shape) - 2, last)
    run("adaptive_avg_pool_backward", grad_output, gradient, last, result)
    return result


def global_max_pool_backward(
    grad_output: DeviceArray, indices: DeviceArray, input_shape: Sequence[int], last: bool
) -> DeviceArray:
    n = len(input_shape) - 2
    result = grad_output.new(tuple(input_shape))
    run("scatter", grad_output, True, _as_image(grad_output, n, last), _as_image(indices, n, last), last, result)
    return result


def adaptive_pool(x: DeviceArray, output_size: Sequence[int], maximum: bool, last: bool, return_indices: bool) -> Any:
    if not maximum and all(size == 1 for size in output_size):
        return _as_image(_mean(x, last), len(output_size), last)
    y = _like(x, output_size, last)
    indices = _like(x, output_size, last, np.int64) if return_indices and maximum else None
    run("adaptive_pool", x, "max" if maximum else "avg", x, last, y, indices)
    return y if indices is None else (y, indices)


def adaptive_avg_pool_backward(grad_output: DeviceArray, input_shape: Sequence[int], last: bool) -> DeviceArray:
    result = _like(grad_output, spatial_sizes(input_shape, last), last)
    run("adaptive_avg_pool_backward", grad_output, grad_output, last, result)
    return result


def max_unpool(x: DeviceArray, indices: DeviceArray, output_shape: Sequence[int], last: bool) -> DeviceArray:
    result = _like(x, spatial_sizes(output_shape, last), last)
    run("scatter", x, False, x, indices, last, result)
    return result


def max_unpool_backward(grad_output: DeviceArray, indices: DeviceArray, last: bool) -> DeviceArray:
    result = _like(grad_output, spatial_sizes(indices.shape, last), last)
    run("gather", grad_output, grad_output, indices, last, result)
    return result
