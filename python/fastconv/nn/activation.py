"""Activation layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import functional as F
from ._layout import Layer, channel_axis

__all__ = ["ELU", "LeakyReLU", "LogSoftmax", "ReLU", "Sigmoid", "Softmax", "Step", "Tanh"]


class ReLU(Layer):
    """``max(x, 0)``."""

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply."""
        y: NDArray[Any] = F.relu(x)
        self._remember(y)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient."""
        grad: NDArray[Any] = F.relu_backward(grad_output, *self._recall())
        return grad


class LeakyReLU(Layer):
    """``x`` where positive, ``negative_slope * x`` elsewhere."""

    def __init__(self, negative_slope: float = 0.01, *, data_format: str = "channels_first") -> None:
        super().__init__(data_format=data_format)
        self.negative_slope = negative_slope

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply."""
        self._remember(x)
        y: NDArray[Any] = F.leaky_relu(x, self.negative_slope)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient."""
        (x,) = self._recall()
        grad: NDArray[Any] = F.leaky_relu_backward(grad_output, x, self.negative_slope)
        return grad

    def _options(self) -> str:
        return f"negative_slope={self.negative_slope}"


class ELU(Layer):
    """``x`` where positive, ``alpha * (exp(x) - 1)`` elsewhere (Clevert and others, 2016)."""

    def __init__(self, alpha: float = 1.0, *, data_format: str = "channels_first") -> None:
        super().__init__(data_format=data_format)
        self.alpha = alpha

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply."""
        self._remember(x)
        y: NDArray[Any] = F.elu(x, self.alpha)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient."""
        (x,) = self._recall()
        grad: NDArray[Any] = F.elu_backward(grad_output, x, self.alpha)
        return grad

    def _options(self) -> str:
        return f"alpha={self.alpha}"


class Sigmoid(Layer):
    """``1 / (1 + exp(-x))``."""

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply."""
        y: NDArray[Any] = F.sigmoid(x)
        self._remember(y)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient."""
        grad: NDArray[Any] = F.sigmoid_backward(grad_output, *self._recall())
        return grad


class Tanh(Layer):
    """Hyperbolic tangent."""

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply."""
        y: NDArray[Any] = F.tanh(x)
        self._remember(y)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient."""
        grad: NDArray[Any] = F.tanh_backward(grad_output, *self._recall())
        return grad


class Step(Layer):
    """Heaviside step function: 1 where positive, else 0.

    It is flat wherever it has a derivative, so ``backward`` returns zeros, and nothing before it learns from what comes
    after it.
    """

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply."""
        self._remember(x.shape)
        y: NDArray[Any] = F.step(x)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient: zeros of its shape."""
        (shape,) = self._recall()
        grad = np.zeros_like(grad_output)
        if grad.shape != shape:
            raise ValueError(f"grad_output: got shape {grad.shape}, expected {shape}")
        return grad


class _SoftmaxBase(Layer):
    """Along an axis.

    Parameters
    ----------
    axis : int, optional
        The axis whose entries become the probabilities of one distribution; the channels unless given.
    data_format : {"channels_first", "channels_last"}
        Says where the channels are.
    """

    def __init__(self, axis: int | None = None, *, data_format: str = "channels_first") -> None:
        super().__init__(data_format=data_format)
        self.axis = channel_axis(self.data_format) if axis is None else axis

    def _options(self) -> str:
        return f"axis={self.axis}"


class Softmax(_SoftmaxBase):
    __doc__ = "``exp(x) / sum(exp(x))``. " + (_SoftmaxBase.__doc__ or "")

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply."""
        y: NDArray[Any] = F.softmax(x, self.axis)
        self._remember(y)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient."""
        (y,) = self._recall()
        grad: NDArray[Any] = F.softmax_backward(grad_output, y, self.axis)
        return grad


class LogSoftmax(_SoftmaxBase):
    __doc__ = "Logarithm of the softmax, computed without overflow. " + (_SoftmaxBase.__doc__ or "")

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply."""
        y: NDArray[Any] = F.log_softmax(x, self.axis)
        self._remember(y)
        return y

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient."""
        (y,) = self._recall()
        grad: NDArray[Any] = F.log_softmax_backward(grad_output, y, self.axis)
        return grad
