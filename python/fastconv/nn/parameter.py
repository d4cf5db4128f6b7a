"""The arrays that training changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DerivedWeight", "Parameter"]


class _Values:
    """Values that a layer computes with."""

    __slots__ = ("data",)

    data: NDArray[Any]

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

    def _checked(self, grad: Any) -> NDArray[Any]:
        """Return a gradient of these values as an array."""
        grad = np.asarray(grad)
        if grad.shape != self.data.shape:
            raise ValueError(f"grad: shape {grad.shape} does not match the parameter's shape {self.data.shape}")
        return grad  # type: ignore[no-any-return]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.data.shape}, dtype={self.data.dtype})"


class Parameter(_Values):
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

    __slots__ = ("grad",)

    def __init__(self, data: Any) -> None:
        array = np.asarray(data)
        if array.dtype.kind in "iubcOSUMm":
            raise TypeError(f"data: a parameter must be a floating-point array, got dtype {array.dtype}")
        self.data = array
        self.grad: NDArray[Any] | None = None

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
        grad = self._checked(grad)
        # Not in place: the first gradient may still be held by whoever computed it.
        self.grad = grad if self.grad is None else self.grad + grad

    def zero_grad(self) -> None:
        """Forget the gathered gradient (``grad`` becomes ``None``)."""
        self.grad = None


class DerivedWeight(_Values):
    """What stands in a parameter's place when a layer's weight is computed from another one before each forward.

    The layer reads ``data`` and calls ``accumulate`` as it would of a `Parameter`; the gradient goes on to the
    parameter that the weight is computed from. A subclass defines ``_forward`` and ``_backward``.

    Parameters
    ----------
    module : Module
        The layer. Its parameter ``NAME`` becomes ``NAME_orig``, as in PyTorch.
    name : str
        Which parameter.
    """

    __slots__ = ("name", "source")

    def __init__(self, module: Any, name: str) -> None:
        self.name = name
        self.source: Parameter = getattr(module, name)
        self.data = self.source.data

    def refresh(self, module: Any) -> None:
        """Compute the values anew."""
        self.source = getattr(module, f"{self.name}_orig")
        weight = self.source.data
        # 16-bit weights are worked on in float32.
        wide = weight.astype(np.result_type(weight.dtype, np.float32), copy=False)
        self.data = self._forward(module, wide).astype(weight.dtype, copy=False)

    def accumulate(self, grad: Any) -> None:
        """Turn a gradient of these values into one of the source, and add it there."""
        grad = self._checked(grad)
        wide = grad.astype(np.result_type(grad.dtype, np.float32), copy=False)
        self.source.accumulate(self._backward(wide).astype(grad.dtype, copy=False))

    def _forward(self, module: Any, weight: NDArray[Any]) -> NDArray[Any]:
        """Return the values, and keep what ``_backward`` needs."""
        raise TypeError(f"{type(self).__name__} does not define its rule")

    def _backward(self, grad: NDArray[Any]) -> NDArray[Any]:
        """Return the source's gradient."""
        raise TypeError(f"{type(self).__name__} does not define its gradient")
