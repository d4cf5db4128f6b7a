"""Normalisation layers."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import functional as F
from .._check import integer
from ._layout import Layer, channel_axis, check_dtype
from .parameter import Parameter

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]


class _BatchNorm(Layer):
    """Batch normalisation (Ioffe and Szegedy, 2015).

    In training each channel is shifted and scaled to mean 0 and variance 1 over the batch and all positions, and the
    running statistics follow by ``new = (1 - momentum) * old + momentum * batch``; in evaluation the running
    statistics are used.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float or None
        Weight of the newest batch in the running statistics; ``None`` makes them plain means over all batches.
    affine : bool
        Whether each channel has a learned scale and shift.
    track_running_stats : bool
        If false there are none, and evaluation too uses the batch's statistics.
    data_format : {"channels_first", "channels_last"}
        Input ``(N, C, *spatial)`` or ``(N, *spatial, C)``.
    dtype : dtype
        Type of the parameters and running statistics.

    Attributes
    ----------
    weight, bias : Parameter or None
        ``(num_features,)``, at first 1 and 0.
    running_mean, running_var : numpy.ndarray or None
        ``(num_features,)``, at first 0 and 1; the variance is the unbiased one.
    num_batches_tracked : numpy.ndarray or None
        Number of training forwards, an int64 scalar array.
    """

    _input_axes: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        data_format: str = "channels_first",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(data_format=data_format)
        self.num_features = integer(num_features, "num_features", 1)
        self.eps = eps
        self.momentum = momentum
        real = check_dtype(dtype)
        self.weight = Parameter(np.ones(num_features, real)) if affine else None
        self.bias = Parameter(np.zeros(num_features, real)) if affine else None
        self.running_mean: NDArray[Any] | None
        self.running_var: NDArray[Any] | None
        self.num_batches_tracked: NDArray[np.int64] | None
        self.register_buffer("running_mean", np.zeros(num_features, real) if track_running_stats else None)
        self.register_buffer("running_var", np.ones(num_features, real) if track_running_stats else None)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track_running_stats else None)

    def _factor(self) -> float:
        """Return the newest batch's weight in the running statistics."""
        if self.momentum is not None:
            return self.momentum
        return 0.0 if self.num_batches_tracked is None else 1.0 / max(float(self.num_batches_tracked), 1.0)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Normalise."""
        if x.ndim not in self._input_axes or x.shape[channel_axis(self.data_format)] != self.num_features:
            raise ValueError(
                f"x: {type(self).__name__}({self.num_features}, data_format={self.data_format!r}) expects "
                f"{' or '.join(map(str, self._input_axes))} axes and {self.num_features} channels, got shape {x.shape}"
            )
        batch_statistics = self.training or self.running_mean is None
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
        y, mean, invstd = F.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight.data if self.weight is not None else None,
            self.bias.data if self.bias is not None else None,
            training=batch_statistics,
            momentum=self._factor(),
            eps=self.eps,
            return_stats=True,
            data_format=self.data_format,
        )
        self._remember(x, mean, invstd, batch_statistics)
        return y  # type: ignore[no-any-return]

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient; add to those of weight and bias."""
        x, mean, invstd, batch_statistics = self._recall()
        grads = F.batch_norm_backward(
            grad_output,
            x,
            mean,
            invstd,
            self.weight.data if self.weight is not None else None,
            training=batch_statistics,
            data_format=self.data_format,
        )
        if self.weight is not None and self.bias is not None:
            self.weight.accumulate(grads.weight)
            self.bias.accumulate(grads.bias)
        grad_input: NDArray[Any] = grads.input
        return grad_input

    def _options(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class BatchNorm1d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    _input_axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    _input_axes = (4,)


class BatchNorm3d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    _input_axes = (5,)
