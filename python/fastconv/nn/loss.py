"""Losses: what training makes small."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import functional as F
from .._check import as_ndarray
from ._layout import check_data_format

__all__ = ["BCEWithLogitsLoss", "CrossEntropyLoss", "Loss", "MSELoss"]

_REDUCTIONS = ("mean", "sum", "none")


def _dtype(y: Any) -> np.dtype[Any]:
    """NumPy's dtype of an array or a tensor."""
    return as_ndarray(y, "y").dtype


class Loss:
    """A number that says how far an output is from its target.

    ``loss(y, target)`` is a float (an array with ``reduction="none"``) and ``loss.backward()`` the gradient of the
    latest such call with respect to ``y``.
    """

    def __init__(self, reduction: str) -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(f"reduction: expected one of {_REDUCTIONS}, got {reduction!r}")
        self.reduction = reduction
        self._remembered: tuple[Any, Any, tuple[int, ...]] | None = None

    def _value(self, y: NDArray[Any], target: NDArray[Any]) -> Any:
        raise TypeError(f"{type(self).__name__} does not define its value")

    def _gradient(self, grad_output: Any, y: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
        raise TypeError(f"{type(self).__name__} does not define its gradient")

    def __call__(self, y: NDArray[Any], target: ArrayLike) -> Any:
        known: Any = target if hasattr(target, "dtype") else np.asarray(target)  # an array or a tensor, or a list
        value = self._value(y, known)
        self._remembered = (y, known, np.shape(value))
        return value if self.reduction == "none" else float(value)

    def backward(self, grad_output: ArrayLike = 1.0) -> NDArray[Any]:
        """Return the gradient of the latest loss.

        Parameters
        ----------
        grad_output : array_like
            Factor of the gradient; with ``reduction="none"`` one for each loss (the default gives that of their sum).

        Raises
        ------
        RuntimeError
            If no loss was computed before.
        """
        if self._remembered is None:
            raise RuntimeError(f"{type(self).__name__}.backward: there is no loss yet; call it on an output and target")
        y, target, shape = self._remembered
        given = np.asarray(grad_output, _dtype(y))
        return self._gradient(np.array(np.broadcast_to(given, shape)), y, target)


class CrossEntropyLoss(Loss):
    """Softmax cross entropy of logits, PyTorch's rules.

    Parameters
    ----------
    weight : array_like, optional
        A factor for each class.
    ignore_index : int
        Class index of targets that do not count.
    reduction : {"mean", "sum", "none"}
        What becomes of the samples' losses.
    label_smoothing : float
        Part of the target's probability that is spread over all classes, between 0 and 1.
    data_format : {"channels_first", "channels_last"}
        Where the classes are.

    Notes
    -----
    Called as ``loss(logits, target)`` with logits ``(N, C, ...)`` and integer class indices ``(N, ...)`` or class
    probabilities ``(N, C, ...)``; channels last, C is the last axis.
    """

    def __init__(
        self,
        weight: ArrayLike | None = None,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
        *,
        data_format: str = "channels_first",
    ) -> None:
        super().__init__(reduction)
        self.data_format = check_data_format(data_format)
        self.weight = None if weight is None else np.asarray(weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def _keywords(self, y: NDArray[Any]) -> dict[str, Any]:
        return {
            "weight": None if self.weight is None else self.weight.astype(_dtype(y)),
            "ignore_index": self.ignore_index,
            "reduction": self.reduction,
            "label_smoothing": self.label_smoothing,
            "data_format": self.data_format,
        }

    def _value(self, y: NDArray[Any], target: NDArray[Any]) -> Any:
        return F.cross_entropy(y, target, **self._keywords(y))

    def _gradient(self, grad_output: Any, y: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
        grad: NDArray[Any] = F.cross_entropy_backward(grad_output, y, target, **self._keywords(y))
        return grad


class MSELoss(Loss):
    """Squared difference from a target of the same shape and dtype.

    Parameters
    ----------
    reduction : {"mean", "sum", "none"}
        What becomes of the entries' losses; the mean is over all entries.
    """

    def __init__(self, reduction: str = "mean") -> None:
        super().__init__(reduction)

    def _value(self, y: NDArray[Any], target: NDArray[Any]) -> Any:
        return F.mse_loss(y, target, reduction=self.reduction)

    def _gradient(self, grad_output: Any, y: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
        grad: NDArray[Any] = F.mse_loss_backward(grad_output, y, target, reduction=self.reduction)
        return grad


class BCEWithLogitsLoss(Loss):
    """Binary cross entropy of logits, PyTorch's rules.

    Parameters
    ----------
    weight : array_like, optional
        A factor for each element, of a shape that broadcasts to the logits'.
    reduction : {"mean", "sum", "none"}
        What becomes of the elements' losses; the mean is over all elements.
    pos_weight : array_like, optional
        A factor for the positive part, of a shape that broadcasts to the logits'.

    Notes
    -----
    Called as ``loss(logits, target)`` with probabilities as targets, of the logits' shape and dtype.
    """

    def __init__(
        self, weight: ArrayLike | None = None, reduction: str = "mean", pos_weight: ArrayLike | None = None
    ) -> None:
        super().__init__(reduction)
        self.weight = None if weight is None else np.asarray(weight)
        self.pos_weight = None if pos_weight is None else np.asarray(pos_weight)

    def _keywords(self, y: NDArray[Any]) -> dict[str, Any]:
        return {
            "weight": None if self.weight is None else self.weight.astype(_dtype(y)),
            "reduction": self.reduction,
            "pos_weight": None if self.pos_weight is None else self.pos_weight.astype(_dtype(y)),
        }

    def _value(self, y: NDArray[Any], target: NDArray[Any]) -> Any:
        return F.binary_cross_entropy_with_logits(y, target, **self._keywords(y))

    def _gradient(self, grad_output: Any, y: NDArray[Any], target: NDArray[Any]) -> NDArray[Any]:
        keywords = self._keywords(y)
        grad: NDArray[Any] = F.binary_cross_entropy_with_logits_backward(grad_output, y, target, **keywords)
        return grad
