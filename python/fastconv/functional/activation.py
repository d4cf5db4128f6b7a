"""Activations, softmax, and their gradients."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

from fastconv import _engine
from fastconv._check import Array, as_arrays, channels_last, number, require, same_shape

__all__ = [
    "elu",
    "elu_backward",
    "leaky_relu",
    "leaky_relu_backward",
    "log_softmax",
    "log_softmax_backward",
    "relu",
    "relu_backward",
    "sigmoid",
    "sigmoid_backward",
    "softmax",
    "softmax_backward",
    "step",
    "tanh",
    "tanh_backward",
]


def _map(name: str, x: Any, data_format: object, parameter: float = 0.0) -> Any:
    channels_last(data_format)
    array, restore = as_arrays(x=x)
    result = _engine.empty_like(array)
    _engine.eltwise(name, array, None, result, parameter)
    return restore(result)


def _map_backward(
    name: str, grad_output: Any, saved: str, value: Any, data_format: object, parameter: float = 0.0
) -> Any:
    channels_last(data_format)
    array, gradient, restore = as_arrays(**{saved: value}, grad_output=grad_output)
    same_shape(gradient, array.shape, "grad_output")
    result = _engine.empty_like(gradient)
    _engine.eltwise(f"{name}_backward", gradient, array, result, parameter)
    return restore(result)


def relu(x: Any, *, data_format: str = "channels_first") -> Any:
    """Rectified linear unit, ``max(x, 0)``.

    Parameters
    ----------
    x : array
        Any shape, float32, float64, float16 or bfloat16.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        Of `x`'s shape and dtype; a NaN stays a NaN.

    Raises
    ------
    TypeError
        `x` is not an array of float32, float64, float16 or bfloat16.
    """
    return _map("relu", x, data_format)


def relu_backward(grad_output: Any, y: Any, *, data_format: str = "channels_first") -> Any:
    """Gradient of `relu`: `grad_output` where the output is positive (or NaN), else 0.

    Parameters
    ----------
    grad_output, y : array
        The gradient of the output, and the output (or the input, which has the same sign).
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        The gradient of the input.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        The shapes differ.
    """
    return _map_backward("relu", grad_output, "y", y, data_format)


def leaky_relu(x: Any, negative_slope: float = 0.01, *, data_format: str = "channels_first") -> Any:
    """``x`` where positive, else ``negative_slope * x``.

    Parameters
    ----------
    x : array
        Any shape, float32, float64, float16 or bfloat16.
    negative_slope : float
        The slope left of 0.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        Of `x`'s shape and dtype.

    Raises
    ------
    TypeError
        `x` is not an array of float32, float64, float16 or bfloat16, or `negative_slope` not a number.
    """
    return _map("leaky_relu", x, data_format, number(negative_slope, "negative_slope"))


def leaky_relu_backward(
    grad_output: Any, x: Any, negative_slope: float = 0.01, *, data_format: str = "channels_first"
) -> Any:
    """Gradient of `leaky_relu`: `grad_output`, times the slope where `x` is not positive.

    Parameters
    ----------
    grad_output, x : array
        The gradient of the output, and the input.
    negative_slope : float
        As in `leaky_relu`.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        The gradient of the input.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        The shapes differ.
    """
    return _map_backward("leaky_relu", grad_output, "x", x, data_format, number(negative_slope, "negative_slope"))


def elu(x: Any, alpha: float = 1.0, *, data_format: str = "channels_first") -> Any:
    """Exponential linear unit: ``x`` where positive, else ``alpha * (exp(x) - 1)``.

    Parameters
    ----------
    x : array
        Any shape, float32, float64, float16 or bfloat16.
    alpha : float
        Minus the limit at minus infinity.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        Of `x`'s shape and dtype.

    Raises
    ------
    TypeError
        `x` is not an array of float32, float64, float16 or bfloat16, or `alpha` not a number.

    References
    ----------
    D. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate deep network learning by exponential linear units",
    ICLR 2016.
    """
    return _map("elu", x, data_format, number(alpha, "alpha"))


def elu_backward(grad_output: Any, x: Any, alpha: float = 1.0, *, data_format: str = "channels_first") -> Any:
    """Gradient of `elu`: `grad_output`, times ``alpha * exp(x)`` where `x` is not positive.

    Parameters
    ----------
    grad_output, x : array
        The gradient of the output, and the input.
    alpha : float
        As in `elu`.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        The gradient of the input.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        The shapes differ.
    """
    return _map_backward("elu", grad_output, "x", x, data_format, number(alpha, "alpha"))


def sigmoid(x: Any, *, data_format: str = "channels_first") -> Any:
    """Logistic function, ``1 / (1 + exp(-x))``.

    Parameters
    ----------
    x : array
        Any shape, float32, float64, float16 or bfloat16.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        Of `x`'s shape and dtype.

    Raises
    ------
    TypeError
        `x` is not an array of float32, float64, float16 or bfloat16.
    """
    return _map("sigmoid", x, data_format)


def sigmoid_backward(grad_output: Any, y: Any, *, data_format: str = "channels_first") -> Any:
    """Gradient of `sigmoid`: ``grad_output * y * (1 - y)``.

    Parameters
    ----------
    grad_output, y : array
        The gradient of the output, and the output.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        The gradient of the input.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        The shapes differ.
    """
    return _map_backward("sigmoid", grad_output, "y", y, data_format)


def tanh(x: Any, *, data_format: str = "channels_first") -> Any:
    """Hyperbolic tangent.

    Parameters
    ----------
    x : array
        Any shape, float32, float64, float16 or bfloat16.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        Of `x`'s shape and dtype.

    Raises
    ------
    TypeError
        `x` is not an array of float32, float64, float16 or bfloat16.
    """
    return _map("tanh", x, data_format)


def tanh_backward(grad_output: Any, y: Any, *, data_format: str = "channels_first") -> Any:
    """Gradient of `tanh`: ``grad_output * (1 - y**2)``.

    Parameters
    ----------
    grad_output, y : array
        The gradient of the output, and the output.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        The gradient of the input.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        The shapes differ.
    """
    return _map_backward("tanh", grad_output, "y", y, data_format)


def step(x: Any, *, data_format: str = "channels_first") -> Any:
    """Heaviside step function: 1 where positive, else 0, also at 0 (``numpy.heaviside(x, 0)``).

    Its derivative is 0 wherever it has one, so there is no ``step_backward``.

    Parameters
    ----------
    x : array
        Any shape, float32, float64, float16 or bfloat16.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        Of `x`'s shape and dtype; a NaN stays a NaN.

    Raises
    ------
    TypeError
        `x` is not an array of float32, float64, float16 or bfloat16.
    """
    return _map("step", x, data_format)


def _axis(x: Array, name: str, axis: object) -> int:
    if isinstance(axis, bool) or not isinstance(axis, Integral):
        raise TypeError(f"axis: expected an int, got {axis!r}")
    axes = max(x.ndim, 1)  # a single number counts as an axis of one entry, as in PyTorch
    require(
        -axes <= int(axis) < axes,
        lambda: f"axis: got {axis}, expected -{axes} to {axes - 1} for {name}'s shape {x.shape}",
    )
    return int(axis) % axes


def _result(x: Array, axis: int) -> Array:
    """An array like `x`, with the axis densest in memory where it is so in `x`."""
    if x.flags.c_contiguous or x.strides[axis] != x.itemsize:
        result: Array = _engine.empty_like(x)
        return result
    shape = (*x.shape[:axis], *x.shape[axis + 1 :], x.shape[axis])
    return np.moveaxis(_engine.empty(shape, x), -1, axis)


def _softmax(x: Any, axis: object, data_format: object, logarithm: bool) -> Any:
    channels_last(data_format)
    array, restore = as_arrays(x=np.asarray(x) if isinstance(x, np.generic) else x)
    along = _axis(array, "x", axis)
    result = _result(array, along)
    _engine.softmax(np.atleast_1d(array), np.atleast_1d(result), along, logarithm)
    return restore(result)


def _softmax_backward(grad_output: Any, y: Any, axis: object, data_format: object, logarithm: bool) -> Any:
    channels_last(data_format)
    value, gradient, restore = as_arrays(y=y, grad_output=grad_output)
    along = _axis(value, "y", axis)
    same_shape(gradient, value.shape, "grad_output")
    result = _result(value, along)
    lines = [np.atleast_1d(each) for each in (gradient, value, result)]
    _engine.softmax_backward(lines[0], lines[1], lines[2], along, logarithm)
    return restore(result)


def softmax(x: Any, axis: int, *, data_format: str = "channels_first") -> Any:
    """``exp(x) / sum(exp(x))`` along an axis, computed without overflow.

    Parameters
    ----------
    x : array
        Any shape, float32, float64, float16 or bfloat16; a single number counts as an axis of one entry.
    axis : int
        The axis whose entries become the probabilities of one distribution.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        Of `x`'s shape and dtype.

    Raises
    ------
    TypeError
        `x` is not an array of float32, float64, float16 or bfloat16, or `axis` not an int.
    ValueError
        `x` has no axis `axis`.
    """
    return _softmax(x, axis, data_format, False)


def softmax_backward(grad_output: Any, y: Any, axis: int, *, data_format: str = "channels_first") -> Any:
    """Gradient of `softmax`: ``y * (grad_output - sum(grad_output * y))``.

    Parameters
    ----------
    grad_output, y : array
        The gradient of the output, and the output.
    axis : int
        As in `softmax`.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        The gradient of the input.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, of two dtypes, or `axis` not an int.
    ValueError
        The shapes differ, or have no axis `axis`.
    """
    return _softmax_backward(grad_output, y, axis, data_format, False)


def log_softmax(x: Any, axis: int, *, data_format: str = "channels_first") -> Any:
    """``x - log(sum(exp(x)))`` along an axis, computed without overflow.

    Parameters
    ----------
    x : array
        Any shape, float32, float64, float16 or bfloat16; a single number counts as an axis of one entry.
    axis : int
        The axis whose entries become the logarithms of one distribution's probabilities.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        Of `x`'s shape and dtype.

    Raises
    ------
    TypeError
        `x` is not an array of float32, float64, float16 or bfloat16, or `axis` not an int.
    ValueError
        `x` has no axis `axis`.
    """
    return _softmax(x, axis, data_format, True)


def log_softmax_backward(grad_output: Any, y: Any, axis: int, *, data_format: str = "channels_first") -> Any:
    """Gradient of `log_softmax`: ``grad_output - exp(y) * sum(grad_output)``.

    Parameters
    ----------
    grad_output, y : array
        The gradient of the output, and the output.
    axis : int
        As in `log_softmax`.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        The gradient of the input.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, of two dtypes, or `axis` not an int.
    ValueError
        The shapes differ, or have no axis `axis`.
    """
    return _softmax_backward(grad_output, y, axis, data_format, True)
