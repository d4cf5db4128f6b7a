"""The norms of the engine on device arrays, made of the kernels' two steps.

Sets are groups of channels, of each sample or of the batch; their statistics are float64 arrays on the device. How a
result lies in memory (``rows``) is read from the result itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv._check import channels
from fastconv._device.array import DeviceArray, contiguous
from fastconv._device.engine import run

Pair = tuple[DeviceArray, DeviceArray]


def _numbers(values: Any) -> DeviceArray:
    """Statistics as contiguous float64."""
    wide: DeviceArray = values.astype(np.float64, copy=False)
    return wide if wide.flags.c_contiguous else wide.copy()


def _pair(like: DeviceArray, *shape: int) -> Pair:
    return like.new(shape, np.float64), like.new(shape, np.float64)


def _moments(x: DeviceArray, last: bool, groups: int, per_sample: bool) -> Pair:
    mean, var = _pair(x, x.shape[0], groups) if per_sample else _pair(x, groups)
    run("moments", x, x, last, groups, per_sample, mean, var)
    return mean, var


def inverse_deviation(var: DeviceArray, eps: float) -> DeviceArray:
    """``1 / sqrt(var + eps)``, float64."""
    result: DeviceArray = 1 / np.sqrt(var + eps)
    return result


def batch_statistics(x: DeviceArray, last: bool, rows: bool, per_sample: bool) -> Pair:
    return _moments(x, last, channels(x, last), per_sample)


def update_running(running: DeviceArray, batch: DeviceArray, momentum: float) -> None:
    """``running = (1 - momentum) * running + momentum * batch``, in float64 and in place."""
    running[...] = (1 - momentum) * running.astype(np.float64) + momentum * batch.astype(np.float64, copy=False)


def batch_norm(
    x: DeviceArray,
    y: DeviceArray,
    last: bool,
    rows: bool,
    mean: DeviceArray,
    invstd: DeviceArray,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
) -> None:
    per_sample = mean.ndim == 2
    scale, factor, offset = _numbers(invstd), contiguous(weight), contiguous(bias)
    run("normalise", x, x, y, last, channels(x, last), per_sample, _numbers(mean), scale, factor, offset)


def batch_norm_backward(
    grad_output: DeviceArray,
    x: DeviceArray,
    grad_input: DeviceArray | None,
    last: bool,
    rows: bool,
    mean: DeviceArray,
    invstd: DeviceArray,
    weight: DeviceArray | None,
    training: bool,
    sums: bool,
) -> Pair:
    count = channels(x, last)
    center, inverse, factor = _numbers(mean), _numbers(invstd), contiguous(weight)
    sum_, dot = _pair(x, count)
    if sums or training:
        run("products", x, grad_output, x, last, count, False, count, False, center, None, None, sum_, dot)
    if grad_input is not None:
        slope = shift = None
        if training:
            slope, shift = _pair(x, count)
            values = float(x.size // count) if count else 0.0
            run("coefficients", x, values, sum_, dot, inverse, factor, slope, shift)
        run(
            "normalise_backward",
            x,
            grad_output,
            x,
            grad_input,
            last,
            count,
            False,
            center,
            inverse,
            slope,
            shift,
            factor,
        )
    return (dot * inverse).astype(x.dtype), sum_.astype(x.dtype)


def sample_products(grad_output: DeviceArray, x: DeviceArray, last: bool, rows: bool, mean: DeviceArray) -> Pair:
    count = channels(x, last)
    sum_, dot = _pair(x, x.shape[0], count)
    run("products", x, grad_output, x, last, count, True, count, True, _numbers(mean), None, None, sum_, dot)
    return sum_, dot


def sample_backward(
    grad_output: DeviceArray,
    x: DeviceArray,
    grad_input: DeviceArray,
    last: bool,
    rows: bool,
    mean: DeviceArray,
    scale: DeviceArray,
    slope: DeviceArray,
    shift: DeviceArray,
) -> None:
    numbers = [_numbers(each) for each in (mean, scale, slope, shift)]
    run("normalise_backward", x, grad_output, x, grad_input, last, channels(x, last), True, *numbers, None)


def group_norm(
    x: DeviceArray,
    y: DeviceArray,
    last: bool,
    rows: bool,
    groups: int,
    eps: float,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
) -> Pair:
    mean, var = _moments(x, last, groups, True)
    run(
        "normalise",
        x,
        x,
        y,
        last,
        groups,
        True,
        mean,
        inverse_deviation(var, eps),
        contiguous(weight),
        contiguous(bias),
    )
    return mean, var


def group_norm_backward(
    grad_output: DeviceArray,
    x: DeviceArray,
    grad_input: DeviceArray | None,
    last: bool,
    rows: bool,
    groups: int,
    mean: DeviceArray,
    invstd: DeviceArray,
    weight: DeviceArray | None,
) -> Pair:
    samples, count = x.shape[0], channels(x, last)
    center, inverse, factor = _numbers(mean), _numbers(invstd), contiguous(weight)
    if grad_input is not None:
        sum_, dot = _pair(x, samples, groups)
        run("products", x, grad_output, x, last, groups, True, groups, True, center, None, factor, sum_, dot)
        slope, shift = _pair(x, samples, groups)
        sets = samples * groups
        run("coefficients", x, float(x.size // sets) if sets else 0.0, sum_, dot, inverse, None, slope, shift)
        run(
            "normalise_backward",
            x,
            grad_output,
            x,
            grad_input,
            last,
            groups,
            True,
            center,
            inverse,
            slope,
            shift,
            factor,
        )
    grad_bias, grad_weight = _pair(x, count)
    run("products", x, grad_output, x, last, count, False, groups, True, center, inverse, None, grad_bias, grad_weight)
    return grad_weight.astype(x.dtype), grad_bias.astype(x.dtype)


def layer_norm(
    x: DeviceArray,
    y: DeviceArray,
    groups: int,
    length: int,
    rows: int,
    eps: float,
    weight: DeviceArray | None,
    bias: DeviceArray | None,
) -> Pair:
    """Rows of ``groups * length`` values, which are channels without positions."""
    row = groups * length
    count = rows // groups
    matrix = x.reshape(count, row) if x.size else x.new((count, row))
    flat = [None if each is None else each.reshape(row) for each in (weight, bias)]
    mean, var = group_norm(matrix, y.reshape(count, row), False, True, groups, eps, *flat)
    if length == 0:  # a row without values has no mean
        mean[...] = var[...] = np.nan
    return mean.reshape(-1), var.reshape(-1)


def layer_norm_backward(
    grad_output: DeviceArray,
    x: DeviceArray,
    grad_input: DeviceArray | None,
    groups: int,
    length: int,
    mean: DeviceArray,
    invstd: DeviceArray,
    weight: DeviceArray | None,
    sums: bool,
) -> Pair:
    row = groups * length
    count = mean.size // groups
    matrix, gradient = (each.reshape(count, row) if each.size else each.new((count, row)) for each in (x, grad_output))
    result = None if grad_input is None else grad_input.reshape(count, row)
    center, inverse = mean.reshape(count, groups), invstd.reshape(count, groups)
    factor = None if weight is None else weight.reshape(row)
    return group_norm_backward(gradient, matrix, result, False, True, groups, center, inverse, factor)
