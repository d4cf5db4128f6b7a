"""The engine's functions on device arrays: the same names, arguments and results as those of ``_core``.

Results and scratch memory come from the array library, and kernels run on its current stream.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv._check import Pads, output_sizes
from fastconv._device.array import DeviceArray
from fastconv._device.extension import extension
from fastconv.functional._conv_arguments import image_shape


def run(name: str, like: DeviceArray, *arguments: Any) -> None:
    """Call a function of the extension where `like` is; its arrays are `DeviceArray` objects, described on the way."""
    kept: list[DeviceArray] = []

    def allocate(count: int) -> int:
        kept.append(like.new((count,), "uint8"))
        return kept[-1].described[0]

    where = (like.device, like.library.stream(like.owner), allocate)
    if any(isinstance(each, np.ndarray) for each in arguments):
        raise TypeError(
            "x: an array of this call is on a CUDA device and another in the host's memory; move one of them"
        )
    plain = (each.described if type(each) is DeviceArray else each for each in arguments)
    getattr(extension(), name)(where, *plain)


# --- elementwise ------------------------------------------------------------------------------------------------------


def arithmetic(name: str, first: Any, second: Any, result: DeviceArray) -> None:
    """``result[...] = name(first, second)``, for arrays that broadcast to the result's shape, or numbers."""
    operands = [
        each.broadcast(result.shape) if isinstance(each, DeviceArray) else float(each) for each in (first, second)
    ]
    run("arithmetic", result, name, *operands, result)


def reduce(name: str, x: DeviceArray, axis: int, result: DeviceArray) -> None:
    run("reduce", x, name, x, axis, result)


def eltwise(name: str, a: DeviceArray, b: DeviceArray | None, y: DeviceArray, parameter: float = 0.0) -> None:
    run("eltwise", a, name, a, b, y, parameter)


def dropout_mask(like: DeviceArray, shape: tuple[int, ...], p: float, seed: int) -> DeviceArray:
    keep = like.new(shape, "bool")
    run("dropout_mask", like, keep, p, seed)
    return keep


def dropout_apply(x: DeviceArray, mask: DeviceArray, y: DeviceArray, scale: float) -> None:
    run("dropout_apply", x, x, mask, y, scale)


# --- convolution; every level of precision is served at full accuracy -------------------------------------------------


def conv_forward(
    x: DeviceArray,
    weight: DeviceArray,
    bias: DeviceArray | None,
    stride: Sequence[int],
    padding: Pads,
    dilation: Sequence[int],
    groups: int,
    mode: str,
    last: bool,
    out: DeviceArray | None,
    activation: str | None,
    parameter: float,
    precision: str | None,
) -> DeviceArray:
    sizes = x.shape[1:-1] if last else x.shape[2:]
    if out is None:
        spatial = output_sizes(sizes, weight.shape[2:], stride, dilation, padding)
        out = x.new(image_shape(x.shape[0], weight.shape[0], spatial, last))
    run("conv_forward", x, x, weight, bias, out, stride, padding, dilation, groups, mode, last, activation, parameter)
    return out


def conv_backward_input(
    grad_output: DeviceArray,
    weight: DeviceArray,
    bias: DeviceArray | None,
    size: Sequence[int],
    stride: Sequence[int],
    padding: Pads,
    dilation: Sequence[int],
    groups: int,
    mode: str,
    last: bool,
    out: DeviceArray | None,
    precision: str | None,
) -> DeviceArray:
    if out is None:
        out = grad_output.new(image_shape(grad_output.shape[0], weight.shape[1] * groups, tuple(size), last))
    run("conv_backward_input", weight, grad_output, weight, bias, out, stride, padding, dilation, groups, mode, last)
    return out


def conv_backward_weight(
    grad_output: DeviceArray,
    x: DeviceArray,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Pads,
    dilation: Sequence[int],
    groups: int,
    mode: str,
    last: bool,
    precision: str | None,
) -> DeviceArray:
    channel = -1 if last else 1
    result = x.new((grad_output.shape[channel], x.shape[channel] // groups, *kernel))
    run("conv_backward_weight", x, grad_output, x, result, stride, padding, dilation, groups, mode, last)
    return result


def conv_backward_bias(grad_output: DeviceArray, last: bool) -> DeviceArray:
    result = grad_output.new((grad_output.shape[-1 if last else 1],))
    run("conv_backward_bias", grad_output, grad_output, result, last)
    return result
