"""The arrays that training changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Parameter"]


class Parameter:
    """A trainable array and the gradient gathered for it.

    Parameters
    ----------
    data : array_like
        The initial values, a floating-point array. It is kept, not copied: optimizers and
        ``load_state_dict`` write into it in place.

    Attributes
    ----------
    data : numpy.ndarray
        The values.
    grad : numpy.ndarray or None
        Sum of the gradients that ``backward`` has added since the last ``zero_grad``; ``None`` before the first.
    """

    __slots__ = ("data", "grad")

    def __init__(self, data: Any) -> None:
        array = np.asarray(data)
        if array.dtype.kind in "iubcOSUMm":
            raise TypeError(f"data: a parameter must be a floating-point array, got dtype {array.dtype}")
        self.data: NDArray[Any] = array
        self.grad: NDArray[Any] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self.data.shape

    @property
    def size(self) -> int:
        """Number of values."""
        return self.data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return self.data.dtype

    def accumulate(self, grad: Any) -> None:
        """Add a gradient to ``grad``.

        Parameters
        ----------
        grad : numpy.ndarray
            Array of this parameter's shape.

        Raises
        ------
        ValueError
            If the shapes differ.
        """
        grad = np.asarray(grad)
        if grad.shape != self.data.shape:
            raise ValueError(f"grad: shape {grad.shape} does not match the parameter's shape {self.data.shape}")
        # Not in place: the first gradient may still be held by whoever computed it.
        self.grad = grad if self.grad is None else self.grad + grad

    def zero_grad(self) -> None:
        """Forget the gathered gradient (``grad`` becomes ``None``)."""
        self.grad = None

    def __repr__(self) -> str:
        return f"Parameter(shape={self.data.shape}, dtype={self.data.dtype})"
