"""Losses and their gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np

from fastconv import _engine
from fastconv._check import (
    Array,
    as_arrays,
    as_ndarray,
    channels_last,
    is_sixteen_bit,
    number,
    require,
    same_place,
    same_shape,
)
from fastconv._device import on_device

__all__ = [
    "binary_cross_entropy_with_logits",
    "binary_cross_entropy_with_logits_backward",
    "cross_entropy",
    "cross_entropy_backward",
    "mse_loss",
    "mse_loss_backward",
]

_REDUCTIONS = ("mean", "sum", "none")


def _check_reduction(reduction: object) -> None:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction: got {reduction!r}, expected one of {_REDUCTIONS}")


def _scalar(loss: Array, restore: Any) -> Any:
    """An array without axes as a NumPy scalar, or as a tensor where one came in."""
    result = restore(loss)
    return loss[()] if result is loss else result


def _reduced(total: Any, output: Array, reduction: str, restore: Any) -> Any:
    """The sum of the losses, or their mean, in the dtype of `output`."""
    if reduction == "mean":
        total = total / output.size if output.size else total * np.nan
    if on_device(total):
        return restore(total.astype(output.dtype))
    with np.errstate(over="ignore"):
        return _scalar(np.asarray(total, output.dtype), restore)


def _gradient_of(grad_output: Any, dtype: Any, shape: tuple[int, ...]) -> Array:
    """The loss's gradient as an array of the loss's shape; a plain number serves where the loss is one."""
    if isinstance(grad_output, int | float | np.number):
        grad_output = np.asarray(grad_output, dtype)
    gradient, _ = as_arrays(grad_output=grad_output)
    require(gradient is not None, "grad_output: got None, expected an array")
    if gradient.dtype != dtype:
        raise TypeError(f"grad_output: dtype {gradient.dtype} differs from the input's {dtype}")
    same_shape(gradient, shape, "grad_output")
    checked: Array = gradient
    return checked


def mse_loss(y: Any, target: Any, reduction: str = "mean", *, data_format: str = "channels_first") -> Any:
    """Squared difference from a target.

    Parameters
    ----------
    y, target : array
        Of one shape and dtype, float32, float64, float16 or bfloat16.
    reduction : {"mean", "sum", "none"}
        The mean or the sum over all elements (added in float64), or no reduction.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    NumPy scalar or array
        ``(y - target)**2``, reduced.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        The shapes differ, or the reduction is unknown.
    """
    channels_last(data_format)
    _check_reduction(reduction)
    output, wanted, restore = as_arrays(y=y, target=target)
    same_shape(wanted, output.shape, "target")
    if reduction == "none":
        loss = np.empty_like(output)
        _engine.eltwise("squared_difference", output, wanted, loss)
        return restore(loss)
    return _reduced(_engine.squared_error(output, wanted), output, reduction, restore)


def mse_loss_backward(
    grad_output: Any, y: Any, target: Any, reduction: str = "mean", *, data_format: str = "channels_first"
) -> Any:
    """Gradient of `mse_loss` with respect to `y`: ``2 * (y - target) * grad_output``, over the count for ``"mean"``.

    Parameters
    ----------
    grad_output : array or number
        The gradient of the loss, of its shape.
    y, target, reduction
        As in `mse_loss`.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        Of `y`'s shape and dtype.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        The shapes do not fit, or the reduction is unknown.
    """
    channels_last(data_format)
    _check_reduction(reduction)
    output, wanted, restore = as_arrays(y=y, target=target)
    same_shape(wanted, output.shape, "target")
    gradient = _gradient_of(grad_output, output.dtype, output.shape if reduction == "none" else ())
    if reduction == "none":
        return restore(_times(_scaled_difference, gradient, output, wanted))
    count = max(output.size, 1) if reduction == "mean" else 1
    if on_device(gradient):
        return restore(_times(functools.partial(_scaled_difference, factor=2 / count), gradient, output, wanted))
    return restore(_scaled_difference(output, wanted, 2.0 * float(gradient) / count))


def _scaled_difference(output: Array, wanted: Array, factor: float = 2.0) -> Array:
    result = np.empty_like(output)
    _engine.eltwise("scaled_difference", output, wanted, result, factor)
    return result


def _times(function: Callable[..., Array], gradient: Array, *arrays: Array | None) -> Array:
    """``function(*arrays) * gradient``; of 16-bit arrays in float32, so that the result is rounded once."""
    dtype = gradient.dtype
    if is_sixteen_bit(dtype):
        wide = (None if array is None else array.astype(np.float32) for array in arrays)
        product = function(*wide)
        product *= gradient.astype(np.float32)
        with np.errstate(over="ignore"):
            return product.astype(dtype)
    result = function(*arrays)
    result *= gradient
    return result


def _broadcast(array: Array | None, shape: tuple[int, ...], name: str) -> Array | None:
    if array is None or array.shape == shape:
        return array
    extra = len(shape) - array.ndim
    fits = extra >= 0 and all(own in (1, size) for own, size in zip(array.shape, shape[extra:], strict=True))
    require(fits, lambda: f"{name}: got shape {array.shape}, expected one that broadcasts to y's {shape}")
    return np.broadcast_to(array, shape)


def _binary_arrays(
    y: Any, target: Any, weight: Any, pos_weight: Any
) -> tuple[tuple[Array, Array, Array | None, Array | None], Any]:
    """The checked arrays of a binary cross entropy, weights broadcast to `y`'s shape, and what restores results."""
    output, wanted, factor, positive, restore = as_arrays(y=y, target=target, weight=weight, pos_weight=pos_weight)
    same_shape(wanted, output.shape, "target")
    weights = _broadcast(factor, output.shape, "weight"), _broadcast(positive, output.shape, "pos_weight")
    return (output, wanted, *weights), restore


def binary_cross_entropy_with_logits(
    y: Any,
    target: Any,
    weight: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
    *,
    data_format: str = "channels_first",
) -> Any:
    """Cross entropy of probabilities ``sigmoid(y)`` of a yes, by PyTorch's rules, computed without overflow.

    ``loss = -weight * (pos_weight * target * log(sigmoid(y)) + (1 - target) * log(1 - sigmoid(y)))``.

    Parameters
    ----------
    y, target : array
        Logits and the wanted probabilities, of one shape and dtype, float32, float64, float16 or bfloat16.
    weight : array, optional
        A factor for each element; any shape that broadcasts to `y`'s.
    reduction : {"mean", "sum", "none"}
        The mean or the sum over all elements (added in float64), or no reduction.
    pos_weight : array, optional
        A factor for the positive part of each element; any shape that broadcasts to `y`'s.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    NumPy scalar or array
        The loss; with ``"none"`` one for each element.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        A shape that does not fit, or an unknown reduction.
    """
    channels_last(data_format)
    _check_reduction(reduction)
    arrays, restore = _binary_arrays(y, target, weight, pos_weight)
    output = arrays[0]
    if reduction == "none":
        loss = np.empty_like(output)
        _engine.binary_cross_entropy(*arrays, loss, False, 1.0)
        return restore(loss)
    return _reduced(_engine.binary_cross_entropy(*arrays, None, False, 1.0), output, reduction, restore)


def binary_cross_entropy_with_logits_backward(
    grad_output: Any,
    y: Any,
    target: Any,
    weight: Any = None,
    reduction: str = "mean",
    pos_weight: Any = None,
    *,
    data_format: str = "channels_first",
) -> Any:
    """Gradient of `binary_cross_entropy_with_logits` with respect to `y`.

    ``weight * ((1 - target) * sigmoid(y) - pos_weight * target * sigmoid(-y)) * grad_output``, over the count for
    ``"mean"``.

    Parameters
    ----------
    grad_output : array or number
        The gradient of the loss, of its shape.
    y, target, weight, reduction, pos_weight
        As in `binary_cross_entropy_with_logits`.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        Of `y`'s shape and dtype.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        A shape that does not fit, or an unknown reduction.
    """
    channels_last(data_format)
    _check_reduction(reduction)
    arrays, restore = _binary_arrays(y, target, weight, pos_weight)
    output = arrays[0]
    gradient = _gradient_of(grad_output, output.dtype, output.shape if reduction == "none" else ())
    if reduction == "none":
        return restore(_times(_binary_derivative, gradient, *arrays))
    count = max(output.size, 1) if reduction == "mean" else 1
    if on_device(gradient):
        return restore(_times(functools.partial(_binary_derivative, factor=1 / count), gradient, *arrays))
    return restore(_binary_derivative(*arrays, float(gradient) / count))


def _binary_derivative(
    output: Array, wanted: Array, weight: Array | None, pos_weight: Array | None, factor: float = 1.0
) -> Array:
    result = np.empty_like(output)
    _engine.binary_cross_entropy(output, wanted, weight, pos_weight, result, True, factor)
    return result


def _last(result: Array) -> Array:
    """The classes moved to the last axis."""
    moved = np.moveaxis(result, 1, -1)
    return np.ascontiguousarray(moved, like=moved)


class _CrossEntropy:
    """One call's checked arguments, as dense arrays of samples, classes and positions."""

    def __init__(
        self,
        logits: Any,
        target: Any,
        weight: Any,
        ignore_index: object,
        reduction: object,
        label_smoothing: object,
        data_format: object,
    ) -> None:
        _check_reduction(reduction)
        if type(ignore_index) is not int and (isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral)):
            raise TypeError(f"ignore_index: expected an int, got {ignore_index!r}")
        ignored = int(ignore_index)
        if not -(2**63) <= ignored < 2**63:
            raise ValueError(f"ignore_index: got {ignore_index}, expected a 64-bit int")
        smoothing = number(label_smoothing, "label_smoothing")
        if not 0 <= smoothing <= 1:
            raise ValueError(f"label_smoothing: got {label_smoothing!r}, expected a number between 0 and 1")
        values, weights, self.restore = as_arrays(logits=logits, weight=weight)
        if values.ndim == 0:
            raise ValueError(f"logits: expected (C,), (N, C) or (N, C, *spatial), got shape {values.shape}")
        given = as_ndarray(np.asarray(target) if isinstance(target, np.generic) else target, "target")
        same_place(logits=values, target=given)
        expected = values.shape
        self.moves_classes = channels_last(data_format) and values.ndim > 2
        if self.moves_classes:
            values = np.moveaxis(values, -1, 1)
        self.input_shape: tuple[int, ...] = values.shape
        # One sample without a batch axis has its classes first.
        batch = values if values.ndim > 1 else values[None]
        samples, classes, positions = batch.shape[0], batch.shape[1], math.prod(batch.shape[2:])
        if classes == 0:
            raise ValueError(f"logits: expected at least one class, got shape {values.shape}")
        if weights is not None:
            same_shape(weights, (classes,), "weight")
        self.shape: tuple[int, ...] = (*values.shape[:1], *values.shape[2:]) if values.ndim > 1 else ()
        self.matrix = (samples, positions)
        self.dtype = values.dtype
        if given.dtype.kind == "f" or is_sixteen_bit(given.dtype):
            same_shape(given, expected, "target")
            if ignored >= 0:
                raise ValueError(f"ignore_index: got {ignored}, but a target of class probabilities has no index")
            if given.dtype != values.dtype:
                raise TypeError(f"target: dtype {given.dtype} differs from logits' {values.dtype}; cast it")
            moved = np.moveaxis(given, -1, 1) if self.moves_classes else given
            dense = np.ascontiguousarray(moved, like=moved).reshape(samples, classes, positions)
        elif given.dtype.kind in "iu":
            same_shape(given, self.shape, "target")
            if given.dtype.kind == "u" and not on_device(given):  # one beyond int64 is no class either
                given = np.minimum(given, np.uint64(2**63 - 1))
            dense = np.ascontiguousarray(given, np.int64, like=given).reshape(self.matrix)
        else:
            raise TypeError(f"target: dtype {given.dtype}, expected integer class indices or class probabilities")
        self.arguments = (
            np.ascontiguousarray(values, like=values).reshape(samples, classes, positions),
            dense,
            weights,
            ignored,
            smoothing,
        )


def cross_entropy(
    logits: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    data_format: str = "channels_first",
) -> Any:
    """Softmax cross entropy by PyTorch's rules.

    Parameters
    ----------
    logits : array
        ``(N, C)``, ``(N, C, *spatial)`` or, for one sample, ``(C,)``; float32, float64, float16 or bfloat16, classes on
        axis 1 (``(N, *spatial, C)`` channels last).
    target : array
        Class indices, any integer dtype, of the shape of `logits` without the classes; or class probabilities of
        `logits`' shape and dtype.
    weight : array, optional
        ``(C,)``, a factor for each class.
    ignore_index : int
        A class index that does not count, neither in the loss nor in the mean.
    reduction : {"mean", "sum", "none"}
        The mean is over the weights of the target classes; for probabilities over the positions.
    label_smoothing : float
        The part of the target's probability, from 0 to 1, that is spread evenly over all classes.
    data_format : {"channels_first", "channels_last"}
        Where the classes are.

    Returns
    -------
    NumPy scalar or array
        The loss; with ``"none"`` one for each position.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, of two dtypes, or a target of neither kind.
    ValueError
        A shape that does not fit, a class out of range, or an unknown reduction.
    """
    call = _CrossEntropy(logits, target, weight, ignore_index, reduction, label_smoothing, data_format)
    loss = _engine.cross_entropy(*call.arguments, reduction)
    if reduction == "none" and call.shape:
        return call.restore(loss.reshape(call.shape))
    return _scalar(loss.reshape(()), call.restore)


def cross_entropy_backward(
    grad_output: Any,
    logits: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
    *,
    data_format: str = "channels_first",
) -> Any:
    """Gradient of `cross_entropy` with respect to `logits`.

    Parameters
    ----------
    grad_output : array or number
        The gradient of the loss, of its shape.
    logits, target, weight, ignore_index, reduction, label_smoothing, data_format
        As in `cross_entropy`.

    Returns
    -------
    array
        Of `logits`' shape and dtype; 0 where the target is ignored.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, of two dtypes, or a target of neither kind.
    ValueError
        A shape that does not fit, a class out of range, or an unknown reduction.
    """
    call = _CrossEntropy(logits, target, weight, ignore_index, reduction, label_smoothing, data_format)
    gradient = _gradient_of(grad_output, call.dtype, call.shape if reduction == "none" else ())
    if gradient.ndim:
        gradient = np.ascontiguousarray(gradient, like=gradient).reshape(call.matrix)
    result = _engine.cross_entropy_backward(gradient, *call.arguments, reduction == "mean").reshape(call.input_shape)
    return call.restore(_last(result) if call.moves_classes else result)
