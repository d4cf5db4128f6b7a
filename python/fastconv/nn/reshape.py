"""Layers that rearrange or rescale, with nothing to learn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ._layout import Layer, channel_axis, check_array, check_dtype

__all__ = ["Flatten", "Rescaling"]


class Flatten(Layer):
    """Join axes into one.

    Parameters
    ----------
    start_dim, end_dim : int
        First and last axis to join; by default all but the batch axis.
    data_format : {"channels_first", "channels_last"}
        With ``"channels_last"`` and the default axes the channels are moved to the front first, so that the features
        come in the same order in both formats and a following `Linear` means the same in both.
    """

    def __init__(self, start_dim: int = 1, end_dim: int = -1, *, data_format: str = "channels_first") -> None:
        super().__init__(data_format=data_format)
        self.start_dim = start_dim
        self.end_dim = end_dim

    def _moves_channels(self, ndim: int) -> bool:
        return self.data_format == "channels_last" and (self.start_dim, self.end_dim) == (1, -1) and ndim > 2

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Join the axes."""
        start, end = (axis + x.ndim if axis < 0 else axis for axis in (self.start_dim, self.end_dim))
        if not 0 <= start <= end < x.ndim:
            raise ValueError(
                f"x: Flatten(start_dim={self.start_dim}, end_dim={self.end_dim}) does not fit shape {x.shape}"
            )
        if self._moves_channels(x.ndim):
            x = np.moveaxis(x, -1, 1)
        self._remember(x.shape)
        return x.reshape(*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :])

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the gradient in the input's shape."""
        (shape,) = self._recall()
        grad: NDArray[Any] = np.reshape(grad_output, shape)
        return np.moveaxis(grad, 1, -1) if self._moves_channels(grad.ndim) else grad


class Rescaling(Layer):
    """``x * scale + offset``, with numbers that are not learned.

    Parameters
    ----------
    scale : float or sequence of float
        One number, or one for each channel.
    offset : float or sequence of float
        Likewise. ``Rescaling(1/255)`` maps 8-bit images to 0..1; ``Rescaling(1/std, -mean/std)`` standardises.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.
    dtype : dtype
        Type of the result for an integer input; a floating-point input keeps its own.
    """

    def __init__(
        self,
        scale: float | Sequence[float],
        offset: float | Sequence[float] = 0.0,
        *,
        data_format: str = "channels_first",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(data_format=data_format)
        self.scale = self._numbers("scale", scale)
        self.offset = self._numbers("offset", offset)
        self.dtype = check_dtype(dtype)

    @staticmethod
    def _numbers(name: str, value: float | Sequence[float]) -> NDArray[np.float64]:
        numbers = np.asarray(value, np.float64)
        if numbers.ndim > 1:
            raise ValueError(f"{name}: expected a number or one for each channel, got shape {numbers.shape}")
        return numbers

    def _along_channels(self, numbers: NDArray[np.float64], x: NDArray[Any]) -> NDArray[Any]:
        """Return the numbers in the dtype of ``x`` and broadcastable along its channels."""
        if numbers.ndim == 0 or self.data_format == "channels_last":
            return numbers.astype(x.dtype)
        return numbers.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 2))

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Scale and shift."""
        if x.dtype.kind in "iub":
            x = x.astype(self.dtype)
        for name, numbers in (("scale", self.scale), ("offset", self.offset)):
            if numbers.ndim and x.shape[channel_axis(self.data_format)] != numbers.size:
                raise ValueError(f"x: {name} has {numbers.size} channels, got shape {x.shape} ({self.data_format})")
        self._remember()
        return x * self._along_channels(self.scale, x) + self._along_channels(self.offset, x)  # type: ignore[no-any-return]

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient."""
        self._recall()
        check_array(grad_output, "grad_output")
        return grad_output * self._along_channels(self.scale, grad_output)  # type: ignore[no-any-return]

    def _options(self) -> str:
        return f"{self.scale.tolist()}, {self.offset.tolist()}"
