"""Losses and their gradients."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np

from fastconv import _core
from fastconv._check import Array, _as_ndarray, as_arrays, number, require, same_shape
from fastconv.functional.activation import log_softmax, softmax

__all__ = ["cross_entropy", "cross_entropy_backward", "mse_loss", "mse_loss_backward"]

_REDUCTIONS = ("mean", "sum", "none")


def _check_reduction(reduction: object) -> None:
    require(reduction in _REDUCTIONS, f"reduction: got {reduction!r}, expected one of {_REDUCTIONS}")


def _scalar(value: Any, dtype: Any, restore: Any) -> Any:
    """A loss as a NumPy scalar of the dtype, or a tensor where one came in."""
    with np.errstate(over="ignore"):
        array = np.asarray(value, dtype)
    result = restore(array)
    return array[()] if result is array else result


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


def mse_loss(y: Any, target: Any, reduction: str = "mean") -> Any:
    """Squared difference from a target.

    Parameters
    ----------
    y, target : array
        Of one shape and dtype, float32 or float64.
    reduction : {"mean", "sum", "none"}
        The mean or the sum over all elements (added in float64), or no reduction.

    Returns
    -------
    NumPy scalar or array
        ``(y - target)**2``, reduced.

    Raises
    ------
    TypeError
        Not arrays of float32 or float64, or of two dtypes.
    ValueError
        The shapes differ, or the reduction is unknown.
    """
    _check_reduction(reduction)
    output, wanted, restore = as_arrays(y=y, target=target)
    same_shape(wanted, output.shape, "target")
    if reduction == "none":
        loss = np.empty_like(output)
        _core.eltwise("squared_difference", output, wanted, loss)
        return restore(loss)
    total = _core.squared_error(output, wanted)
    if reduction == "mean":
        total = total / output.size if output.size else np.nan
    return _scalar(total, output.dtype, restore)


def mse_loss_backward(grad_output: Any, y: Any, target: Any, reduction: str = "mean") -> Any:
    """Gradient of `mse_loss` with respect to `y`: ``2 * (y - target) * grad_output``, over the count for ``"mean"``.

    Parameters
    ----------
    grad_output : array or number
        The gradient of the loss, of its shape.
    y, target, reduction
        As in `mse_loss`.

    Returns
    -------
    array
        Of `y`'s shape and dtype.

    Raises
    ------
    TypeError
        Not arrays of float32 or float64, or of two dtypes.
    ValueError
        The shapes do not fit, or the reduction is unknown.
    """
    _check_reduction(reduction)
    output, wanted, restore = as_arrays(y=y, target=target)
    same_shape(wanted, output.shape, "target")
    gradient = _gradient_of(grad_output, output.dtype, output.shape if reduction == "none" else ())
    result = np.empty_like(output)
    factor = 2.0
    if reduction != "none":
        factor *= float(gradient) / (max(output.size, 1) if reduction == "mean" else 1)
    _core.eltwise("scaled_difference", output, wanted, result, factor)
    if reduction == "none":
        result *= gradient
    return restore(result)


class _CrossEntropy:
    """One call's checked arguments, with the classes on axis 1 and each position's share of the loss.

    ``loss = -sum over c of coefficient[c] * log_softmax[c]``; for class indices the coefficient is
    ``smooth * weight[c]``, plus ``hard`` at the target.
    """

    def __init__(
        self, logits: Any, target: Any, weight: Any, ignore_index: object, reduction: object, label_smoothing: object
    ) -> None:
        _check_reduction(reduction)
        if isinstance(ignore_index, bool) or not isinstance(ignore_index, Integral):
            raise TypeError(f"ignore_index: expected an int, got {ignore_index!r}")
        smoothing = number(label_smoothing, "label_smoothing")
        require(0 <= smoothing <= 1, f"label_smoothing: got {label_smoothing!r}, expected a number between 0 and 1")
        values, class_weight, self.restore = as_arrays(logits=logits, weight=weight)
        require(values is not None, "logits: got None, expected an array")
        require(values.ndim > 0, f"logits: expected (C,), (N, C) or (N, C, *spatial), got shape {values.shape}")
        self.single = values.ndim == 1
        given = _as_ndarray(np.asarray(target) if isinstance(target, np.generic) else target, "target")
        if self.single:
            values = values[None]
            given = given[None]
        self.logits: Array = values
        self.classes = values.shape[1]
        require(self.classes > 0, f"logits: expected at least one class, got shape {values.shape}")
        if class_weight is not None:
            same_shape(class_weight, (self.classes,), "weight")
        self.weight: Array | None = class_weight
        self.reduction = reduction
        self.smooth = values.dtype.type(smoothing / self.classes)
        self.shape = (values.shape[0], *values.shape[2:])
        if given.dtype.kind == "f":
            self._probabilities(given, smoothing)
        else:
            self._indices(given, int(ignore_index), smoothing)

    def _per_class(self) -> Array:
        """The weights, shaped to multiply the logits."""
        ones = np.ones(self.classes, self.logits.dtype)
        return (ones if self.weight is None else self.weight).reshape(-1, *(1,) * (self.logits.ndim - 2))

    def _probabilities(self, target: Array, smoothing: float) -> None:
        same_shape(target, self.logits.shape, "target")
        if target.dtype != self.logits.dtype:
            raise TypeError(f"target: dtype {target.dtype} differs from logits' {self.logits.dtype}; cast it")
        soft = target * self.logits.dtype.type(1 - smoothing) + self.smooth if smoothing else target
        self.soft: Array | None = soft if self.weight is None else soft * self._per_class()
        self.divisor = float(np.prod(self.shape))

    def _indices(self, target: Array, ignore_index: int, smoothing: float) -> None:
        if target.dtype.kind not in "iu":
            raise TypeError(f"target: dtype {target.dtype}, expected integer class indices or class probabilities")
        same_shape(target, self.shape, "target")
        kept = target != ignore_index
        bad = kept & ((target < 0) | (target >= self.classes))
        if bad.any():
            raise ValueError(f"target: got class {int(target[bad][0])}, expected 0 to {self.classes - 1}")
        self.soft = None
        self.kept = kept
        self.index = np.where(kept, target, 0).astype(np.intp)[:, None]
        dtype = self.logits.dtype
        counted = kept.astype(dtype) if self.weight is None else self.weight[self.index[:, 0]] * kept
        self.divisor = float(counted.sum(dtype=np.float64))
        self.hard = counted * dtype.type(1 - smoothing)

    def losses(self) -> Array:
        """The loss of each position."""
        logarithms: Array = log_softmax(self.logits, 1)
        if self.soft is not None:
            loss: Array = -np.multiply(self.soft, logarithms).sum(axis=1)
            return loss
        picked = np.take_along_axis(logarithms, self.index, 1)[:, 0]
        loss = -self.hard * picked
        if self.smooth:
            weighted = logarithms if self.weight is None else logarithms * self._per_class()
            loss -= self.smooth * weighted.sum(axis=1)
        return np.where(self.kept, loss, logarithms.dtype.type(0))

    def gradient(self, grad_output: Any) -> Array:
        """``(softmax * sum(coefficients) - coefficients) * grad_output``, over the divisor for the mean."""
        dtype = self.logits.dtype
        shape = () if self.reduction != "none" or self.single else self.shape
        given = _gradient_of(grad_output, dtype, shape)
        if self.reduction == "mean":
            given = np.asarray(given / dtype.type(self.divisor) if self.divisor else given * 0, dtype)
        each = np.broadcast_to(given, self.shape)
        result: Array = softmax(self.logits, 1)
        if self.soft is not None:
            result *= self.soft.sum(axis=1, keepdims=True)
            result -= self.soft
            result *= each[:, None]
            return result
        each = np.where(self.kept, each, dtype.type(0))
        hard = self.hard * each
        if self.smooth:
            per_class = self._per_class() * self.smooth
            result *= (hard + each * per_class.sum())[:, None]
            result -= each[:, None] * per_class
        else:
            result *= hard[:, None]
        np.put_along_axis(result, self.index, np.take_along_axis(result, self.index, 1) - hard[:, None], 1)
        return result


def cross_entropy(
    logits: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Softmax cross entropy by PyTorch's rules.

    Parameters
    ----------
    logits : array
        ``(N, C)``, ``(N, C, *spatial)`` or, for one sample, ``(C,)``; float32 or float64, classes on axis 1.
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

    Returns
    -------
    NumPy scalar or array
        The loss; with ``"none"`` one for each position.

    Raises
    ------
    TypeError
        Not arrays of float32 or float64, of two dtypes, or a target of neither kind.
    ValueError
        A shape that does not fit, a class out of range, or an unknown reduction.
    """
    call = _CrossEntropy(logits, target, weight, ignore_index, reduction, label_smoothing)
    loss = call.losses()
    if reduction == "none":
        return _scalar(loss[0], loss.dtype, call.restore) if call.single else call.restore(loss)
    total = loss.sum(dtype=np.float64)
    if reduction == "mean":
        total = total / call.divisor if call.divisor else np.nan
    return _scalar(total, loss.dtype, call.restore)


def cross_entropy_backward(
    grad_output: Any,
    logits: Any,
    target: Any,
    weight: Any = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Gradient of `cross_entropy` with respect to `logits`.

    Parameters
    ----------
    grad_output : array or number
        The gradient of the loss, of its shape.
    logits, target, weight, ignore_index, reduction, label_smoothing
        As in `cross_entropy`.

    Returns
    -------
    array
        Of `logits`' shape and dtype; 0 where the target is ignored.

    Raises
    ------
    TypeError
        Not arrays of float32 or float64, of two dtypes, or a target of neither kind.
    ValueError
        A shape that does not fit, a class out of range, or an unknown reduction.
    """
    call = _CrossEntropy(logits, target, weight, ignore_index, reduction, label_smoothing)
    result = call.gradient(grad_output)
    return call.restore(result[0] if call.single else result)
