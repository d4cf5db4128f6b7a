"""Convolution in 1, 2 and 3 dimensions and its gradients: one function each, made for `n` spatial dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import _check, _engine
from fastconv._check import Array
from fastconv.functional._conv_arguments import (
    ConvGradients,
    Geometry,
    batched,
    checked_activation,
    checked_bias,
    checked_out,
    conv_geometry,
    finish,
    image_shape,
    level_of,
    named,
    restore_gradients,
)

Norm = tuple[Array, Array, Array | None, Array | None]
"""Mean, inverse deviation, weight and bias of the channels of a result."""

__all__ = ["ConvGradients", "conv1d", "conv2d", "conv3d"]
__all__ += ["conv1d_backward", "conv2d_backward", "conv3d_backward"]


def convolve(
    n: int,
    x: Any,
    weight: Any,
    bias: Any,
    window: tuple[Any, Any, Any, int, str, str],
    activation: str | None,
    precision: str | None,
    out: Any = None,
    norm: Norm | None = None,
) -> Any:
    """The convolution in `n` dimensions; with a norm, that of its result, with the same bits as one after the other.

    The window: stride, padding, dilation, groups, data format and padding mode.
    """
    given = out
    _check.present(weight=weight)
    x, weight, bias, out, restore = _check.as_arrays(x=x, weight=weight, bias=bias, out=out)
    x, unbatched = batched(x, n, "x")
    level = level_of(precision)
    g, _, size = conv_geometry(n, x.shape, weight.shape, *window)
    target = checked_out(out, image_shape(x.shape[0], weight.shape[0], size, g.last), unbatched, x, weight, bias)
    arguments = (
        *(x, weight, checked_bias(bias, weight.shape[0])),
        *(*g.window, target, *checked_activation(activation), level),
    )
    norms = () if norm is None else (norm,)  # which the engine of devices does not know
    y = finish(_engine.conv_forward(*arguments, *norms), unbatched, out)
    return given if given is not None else restore(y)


def make_conv(n: int) -> Callable[..., Any]:
    def conv(
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        *,
        padding_mode: str = "zeros",
        data_format: str = "channels_first",
        activation: str | None = None,
        precision: str | None = None,
        out: Any = None,
    ) -> Any:
        window = (stride, padding, dilation, groups, data_format, padding_mode)
        return convolve(n, x, weight, bias, window, activation, precision, out)

    conv.__doc__ = f"""{n}-dimensional convolution (cross-correlation, as in every deep-learning library).

    ``y[n, k, o] = bias[k] + sum over c, t of x[n, c, o * stride + t * dilation - pad] * weight[k, c, t]``;
    taps in the padding are skipped.

    Parameters
    ----------
    x : array (N, C_in, *spatial) or (N, *spatial, C_in), float32, float64, float16 or bfloat16
        An unbatched ``(C_in, *spatial)`` is accepted.
    weight : array (C_out, C_in / groups, *kernel)
        The same layout for both data formats.
    bias : array (C_out,), optional
    stride, dilation : int or tuple of {n} ints
    padding : int, tuple of {n} ints, {n} pairs (before, after) or str
        "valid", "same", "full"{' or "causal"' if n == 1 else ""}
    padding_mode : str
        What taps in the padding read: nothing ("zeros"), the input mirrored without its edge ("reflect"), its edge
        ("replicate") or its other end ("circular"). No padded copy of the input is made.
    groups : int
        Groups of channels that are convolved apart from each other.
    data_format : str
        "channels_first" or "channels_last" (or a name such as "NCHW", "NHWC").
    activation : str, optional
        "relu", "leaky_relu", "elu", "sigmoid" or "tanh", applied to the result.
    precision : str, optional
        "highest", "high" or "medium": the accuracy that float32 results need at least, see
        :func:`fastconv.set_float32_precision`, whose level is the default.
    out : array, optional
        Receives the result.

    Returns
    -------
    array
        (N, C_out, *output) or (N, *output, C_out), of x's dtype.

    Raises
    ------
    TypeError
        Arrays of integers or of mixed dtypes.
    ValueError
        Shapes that do not fit, or an argument out of range; the message names it.

    References
    ----------
    V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
    """
    return conv


def _input_gradient(grad_output: Array, weight: Array, size: tuple[int, ...], g: Geometry, level: str) -> Array:
    # Where the padding repeats the input several terms meet in one element: 16-bit ones are added before they are
    # rounded.
    gradient, wide = grad_output, weight
    rounds = g.mode != "zeros" and weight.dtype.itemsize == 2
    if rounds:
        gradient, wide, level = grad_output.astype(np.float32), weight.astype(np.float32), "highest"
    result: Array = _engine.conv_backward_input(gradient, wide, None, size, *g.window, None, level)
    return result.astype(weight.dtype) if rounds else result


def make_conv_backward(n: int) -> Callable[..., Any]:
    def conv_backward(
        grad_output: Any,
        x: Any,
        weight: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        *,
        output_mask: tuple[bool, bool, bool] = (True, True, True),
        padding_mode: str = "zeros",
        data_format: str = "channels_first",
        precision: str | None = None,
    ) -> ConvGradients:
        _check.present(weight=weight)
        grad_output, x, weight, restore = _check.as_arrays(grad_output=grad_output, x=x, weight=weight)
        x, unbatched = batched(x, n, "x")
        if unbatched:
            grad_output = grad_output[np.newaxis]
        wanted = _check.mask(output_mask)
        level = level_of(precision)
        g, spatial, size = conv_geometry(
            n, x.shape, weight.shape, stride, padding, dilation, groups, data_format, padding_mode
        )
        _check.same_shape(grad_output, image_shape(x.shape[0], weight.shape[0], size, g.last), "grad_output")
        grads = ConvGradients(
            _input_gradient(grad_output, weight, spatial, g, level) if wanted[0] else None,
            _engine.conv_backward_weight(grad_output, x, g.kernel, *g.window, level) if wanted[1] else None,
            _engine.conv_backward_bias(grad_output, g.last) if wanted[2] else None,
        )
        return restore_gradients(grads, restore, unbatched)

    conv_backward.__doc__ = f"""Gradients of :func:`conv{n}d`.

    Parameters
    ----------
    grad_output : array
        The gradient of the output, of the output's shape.
    x, weight, stride, padding, dilation, groups, padding_mode, data_format
        As in the forward call.
    output_mask : three bools
        Which of the gradients of x, weight and bias to compute.

    Returns
    -------
    ConvGradients
        A named tuple (input, weight, bias), ``None`` where masked.

    Raises
    ------
    TypeError, ValueError
        As the forward call; also where grad_output has not the output's shape.
    """
    return conv_backward


conv1d, conv2d, conv3d = (named(make_conv(n), f"conv{n}d") for n in (1, 2, 3))
conv1d_backward, conv2d_backward, conv3d_backward = (
    named(make_conv_backward(n), f"conv{n}d_backward") for n in (1, 2, 3)
)
