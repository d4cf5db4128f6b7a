"""Separable convolution, a depthwise and then a pointwise one, in 1, 2 and 3 dimensions and its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastconv import _check
from fastconv.functional._conv_arguments import named
from fastconv.functional.conv import Norm, convolve, make_conv, make_conv_backward

__all__ = ["SeparableConvGradients", "separable_conv1d", "separable_conv2d", "separable_conv3d"]
__all__ += ["separable_conv1d_backward", "separable_conv2d_backward", "separable_conv3d_backward"]


class SeparableConvGradients(NamedTuple):
    """Gradients of a separable convolution."""

    input: Any
    depthwise_weight: Any
    pointwise_weight: Any
    bias: Any


def _separable_shapes(n: int, x: Any, depthwise_weight: Any, pointwise_weight: Any, data_format: str) -> int:
    """Check the two weights against each other; the number of groups of the depthwise step."""
    x, depthwise, pointwise, _ = _check.as_arrays(
        x=x, depthwise_weight=depthwise_weight, pointwise_weight=pointwise_weight
    )
    last = _check.channels_last(data_format)
    channels = _check.channels(x if x.ndim == n + 2 else x[np.newaxis], last) if x.ndim in (n + 1, n + 2) else 0
    _check.require(
        channels > 0, lambda: f"x: expected {n + 2} dimensions with at least one channel, got shape {x.shape}"
    )
    _check.require(
        depthwise.ndim == n + 2
        and depthwise.shape[1] == 1
        and depthwise.shape[0] > 0
        and depthwise.shape[0] % channels == 0,
        lambda: f"depthwise_weight: got shape {depthwise.shape}, expected ({channels} * multiplier, 1, *kernel)",
    )
    _check.require(
        pointwise.ndim == n + 2 and pointwise.shape[1:] == (depthwise.shape[0],) + (1,) * n,
        lambda: f"pointwise_weight: got shape {pointwise.shape}, expected (C_out, {depthwise.shape[0]}{', 1' * n})",
    )
    return channels


def _wide(**named: Any) -> tuple[Any, ...]:
    """16-bit arrays as float32, so that what lies between the steps is not rounded; then what rounds a result."""
    *arrays, restore = _check.as_arrays(**named)
    dtype = arrays[0].dtype
    if not _check.is_sixteen_bit(dtype):
        return *named.values(), lambda result: result
    wide = (None if array is None else restore(array.astype(np.float32)) for array in arrays)
    return *wide, lambda result: restore(_check.as_ndarray(result, "y").astype(dtype))


def separable_convolve(
    n: int,
    x: Any,
    depthwise_weight: Any,
    pointwise_weight: Any,
    bias: Any,
    window: tuple[Any, Any, Any, str],
    data_format: str,
    precision: str | None,
    activation: str | None = None,
    norm: Norm | None = None,
) -> Any:
    """The separable convolution; norm and activation are applied in the pointwise step, as `convolve` does.

    The window: stride, padding, dilation and padding mode.
    """
    groups = _separable_shapes(n, x, depthwise_weight, pointwise_weight, data_format)
    x, depthwise_weight, pointwise_weight, bias, narrow = _wide(
        x=x, depthwise_weight=depthwise_weight, pointwise_weight=pointwise_weight, bias=bias
    )
    *places, padding_mode = window
    middle = convolve(n, x, depthwise_weight, None, (*places, groups, data_format, padding_mode), None, precision)
    point = (1, 0, 1, 1, data_format, "zeros")
    return narrow(convolve(n, middle, pointwise_weight, bias, point, activation, precision, norm=norm))


def _separable_forward(n: int) -> Callable[..., Any]:
    def separable_conv(
        x: Any,
        depthwise_weight: Any,
        pointwise_weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        *,
        padding_mode: str = "zeros",
        data_format: str = "channels_first",
        precision: str | None = None,
    ) -> Any:
        window = (stride, padding, dilation, padding_mode)
        return separable_convolve(n, x, depthwise_weight, pointwise_weight, bias, window, data_format, precision)

    separable_conv.__doc__ = f"""{n}-dimensional separable convolution: a filter for each channel, then a mix of them.

    Parameters
    ----------
    x : array (N, C, *spatial) or (N, *spatial, C), float32, float64, float16 or bfloat16
    depthwise_weight : array (C * multiplier, 1, *kernel)
    pointwise_weight : array (C_out, C * multiplier, 1, ...)
    bias : array (C_out,), optional
    stride, padding, dilation, padding_mode
        Of the depthwise step, as in :func:`conv{n}d`.
    data_format, precision
        As in :func:`conv{n}d`.

    Returns
    -------
    array
        (N, C_out, *output) or (N, *output, C_out).

    Raises
    ------
    TypeError, ValueError
        As :func:`conv{n}d`.

    References
    ----------
    F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017.
    """
    return separable_conv


def _separable_backward(n: int) -> Callable[..., Any]:
    conv, conv_backward = make_conv(n), make_conv_backward(n)

    def separable_conv_backward(
        grad_output: Any,
        x: Any,
        depthwise_weight: Any,
        pointwise_weight: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        *,
        padding_mode: str = "zeros",
        data_format: str = "channels_first",
        precision: str | None = None,
    ) -> SeparableConvGradients:
        groups = _separable_shapes(n, x, depthwise_weight, pointwise_weight, data_format)
        grad_output, x, depthwise_weight, pointwise_weight, narrow = _wide(
            grad_output=grad_output, x=x, depthwise_weight=depthwise_weight, pointwise_weight=pointwise_weight
        )
        keywords: Any = {"data_format": data_format, "precision": precision}
        depthwise: Any = {"padding_mode": padding_mode, **keywords}
        middle = conv(x, depthwise_weight, None, stride, padding, dilation, groups, **depthwise)
        second = conv_backward(grad_output, middle, pointwise_weight, **keywords)
        first = conv_backward(
            second.input,
            x,
            depthwise_weight,
            stride,
            padding,
            dilation,
            groups,
            output_mask=(True, True, False),
            **depthwise,
        )
        return SeparableConvGradients(*map(narrow, (first.input, first.weight, second.weight, second.bias)))

    separable_conv_backward.__doc__ = f"""Gradients of :func:`separable_conv{n}d`.

    The depthwise step is computed again rather than kept.

    Parameters
    ----------
    grad_output : array
        The gradient of the output, of the output's shape.
    x, depthwise_weight, pointwise_weight, stride, padding, dilation, padding_mode, data_format
        As in the forward call.

    Returns
    -------
    SeparableConvGradients
        A named tuple (input, depthwise_weight, pointwise_weight, bias).

    Raises
    ------
    TypeError, ValueError
        As the forward call; also where grad_output has not the output's shape.
    """
    return separable_conv_backward


separable_conv1d, separable_conv2d, separable_conv3d = (
    named(_separable_forward(n), f"separable_conv{n}d") for n in (1, 2, 3)
)
separable_conv1d_backward, separable_conv2d_backward, separable_conv3d_backward = (
    named(_separable_backward(n), f"separable_conv{n}d_backward") for n in (1, 2, 3)
)
