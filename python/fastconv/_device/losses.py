"""Softmax and the losses of the engine on device arrays; a loss stays on the device."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv._device.array import DeviceArray, contiguous
from fastconv._device.engine import run


def softmax(x: DeviceArray, y: DeviceArray, axis: int, logarithm: bool) -> None:
    run("softmax", x, x, y, axis, logarithm)


def softmax_backward(
    grad_output: DeviceArray, y: DeviceArray, grad_input: DeviceArray, axis: int, logarithm: bool
) -> None:
    run("softmax_backward", y, grad_output, y, grad_input, axis, logarithm)


def squared_error(a: DeviceArray, b: DeviceArray) -> DeviceArray:
    """The sum, float64 and without axes."""
    total = a.new((), np.float64)
    run("squared_error", a, a, b, total)
    return total


def binary_cross_entropy(
    x: DeviceArray,
    target: DeviceArray,
    weight: DeviceArray | None,
    pos_weight: DeviceArray | None,
    y: DeviceArray | None,
    derivative: bool,
    factor: float,
) -> DeviceArray | None:
    """Each loss, or its derivative, times `factor`, into `y`; without it the sum of the losses, float64."""
    total = x.new((), np.float64) if y is None else None
    run("binary_cross_entropy", x, x, target, weight, pos_weight, y, total, derivative, factor)
    return total


def cross_entropy(
    logits: DeviceArray,
    target: DeviceArray,
    weight: DeviceArray | None,
    ignore_index: int,
    label_smoothing: float,
    reduction: str,
) -> DeviceArray:
    result = logits.new((logits.shape[0], logits.shape[2]) if reduction == "none" else ())
    run("cross_entropy", logits, logits, target, contiguous(weight), ignore_index, label_smoothing, reduction, result)
    return result


def cross_entropy_backward(
    grad_output: Any,
    logits: DeviceArray,
    target: DeviceArray,
    weight: DeviceArray | None,
    ignore_index: int,
    label_smoothing: float,
    mean: bool,
) -> DeviceArray:
    result = logits.new(logits.shape)
    gradient = grad_output if isinstance(grad_output, DeviceArray) else float(grad_output)
    run(
        "cross_entropy_backward",
        logits,
        gradient,
        logits,
        target,
        contiguous(weight),
        ignore_index,
        label_smoothing,
        mean,
        result,
    )
    return result
