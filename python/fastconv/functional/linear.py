"""The linear layer's product: a convolution of length-1 windows over the batch, on the same kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastconv import _check, _engine
from fastconv._check import Array
from fastconv.functional._conv_arguments import ConvGradients

__all__ = ["linear", "linear_backward"]

# The batch is the image: (1, features, rows) without a copy, whatever the strides. No level of precision, ``None``,
# says so to the engine: a row's result must not depend on how many there are.
_WINDOW = ((1,), ((0, 0),), (1,), 1, "zeros", True)


def _as_image(x: Array) -> Array:
    rows = x.reshape(-1, x.shape[-1]) if x.ndim != 2 else x
    return rows[np.newaxis]


def _features(x: Array, weight: Array) -> None:
    _check.require(x.ndim >= 1, lambda: f"x: expected at least 1 dimension (..., in_features), got shape {x.shape}")
    _check.require(weight.ndim == 2, lambda: f"weight: expected shape (out_features, in_features), got {weight.shape}")
    _check.require(
        weight.shape[1] == x.shape[-1],
        lambda: (
            f"weight: got shape {weight.shape}, expected in_features {x.shape[-1]} on axis 1, "
            f"the last axis of x {x.shape}"
        ),
    )


def linear(x: Any, weight: Any, bias: Any = None, *, data_format: str = "channels_first") -> Any:
    """``x @ weight.T + bias``.

    Parameters
    ----------
    x : array (..., in_features), float32, float64, float16 or bfloat16
    weight : array (out_features, in_features)
    bias : array (out_features,), optional
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        (..., out_features), of x's dtype.

    Raises
    ------
    TypeError
        Arrays of integers or of mixed dtypes.
    ValueError
        Shapes that do not fit.
    """
    _check.channels_last(data_format)
    _check.present(weight=weight)
    x, weight, bias, restore = _check.as_arrays(x=x, weight=weight, bias=bias)
    _features(x, weight)
    outputs = weight.shape[0]
    if bias is not None:
        _check.require(bias.shape == (outputs,), lambda: f"bias: got shape {bias.shape}, expected ({outputs},)")
        bias = np.ascontiguousarray(bias, like=bias)
    if x.size == 0 or outputs == 0:
        y = np.zeros((*x.shape[:-1], outputs), x.dtype, like=x)
        return restore(y if bias is None else y + bias)
    y = _engine.conv_forward(_as_image(x), weight[:, :, np.newaxis], bias, *_WINDOW, None, None, 0.0, None)
    return restore(y.reshape(*x.shape[:-1], outputs))


def linear_backward(
    grad_output: Any,
    x: Any,
    weight: Any,
    *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
    data_format: str = "channels_first",
) -> ConvGradients:
    """Gradients of :func:`linear`.

    Parameters
    ----------
    grad_output : array (..., out_features)
    x, weight
        As in the forward call.
    output_mask : three bools
        Which of the gradients of x, weight and bias to compute.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    ConvGradients
        A named tuple (input, weight, bias), ``None`` where masked.

    Raises
    ------
    TypeError, ValueError
        As the forward call; also where grad_output has not the output's shape.
    """
    _check.channels_last(data_format)
    _check.present(weight=weight)
    grad_output, x, weight, restore = _check.as_arrays(grad_output=grad_output, x=x, weight=weight)
    _features(x, weight)
    _check.same_shape(grad_output, (*x.shape[:-1], weight.shape[0]), "grad_output")
    wanted = _check.mask(output_mask)
    if x.size == 0 or weight.size == 0:
        zeros = tuple(np.zeros(shape, x.dtype, like=x) for shape in (x.shape, weight.shape, weight.shape[:1]))
        if x.shape[-1] == 0 and x.ndim > 0:
            zeros[2][...] = grad_output.reshape(-1, weight.shape[0]).sum(0)
        return ConvGradients(*(restore(z) if w else None for z, w in zip(zeros, wanted, strict=True)))
    grad, image = _as_image(grad_output), _as_image(x)
    gradients = (
        _engine.conv_backward_input(grad, weight[:, :, np.newaxis], None, grad.shape[1:2], *_WINDOW, None, None)
        if wanted[0]
        else None,
        _engine.conv_backward_weight(grad, image, (1,), *_WINDOW, None) if wanted[1] else None,
        _engine.conv_backward_bias(grad, True) if wanted[2] else None,
    )
    return ConvGradients(
        None if gradients[0] is None else restore(gradients[0].reshape(x.shape)),
        None if gradients[1] is None else restore(gradients[1][:, :, 0]),
        None if gradients[2] is None else restore(gradients[2]),
    )
