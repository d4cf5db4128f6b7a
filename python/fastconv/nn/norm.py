"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import functional as F
from .._check import integer
from ..functional.norm import normalised, normalised_backward
from ._layout import Layer, channel_axis, check_dtype
from .parameter import Parameter

__all__ = [
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "GroupNorm",
    "InstanceNorm1d",
    "InstanceNorm2d",
    "InstanceNorm3d",
    "LayerNorm",
    "SwitchNorm1d",
    "SwitchNorm2d",
    "SwitchNorm3d",
]


class _Norm(Layer):
    """A norm with a learned scale and shift, or without."""

    weight: Parameter | None
    bias: Parameter | None

    def _make_affine(self, shape: Sequence[int], affine: bool, bias: bool, dtype: DTypeLike) -> None:
        real = check_dtype(dtype)
        self.weight = Parameter(np.ones(shape, real)) if affine else None
        self.bias = Parameter(np.zeros(shape, real)) if affine and bias else None

    @property
    def _scale(self) -> NDArray[Any] | None:
        return None if self.weight is None else self.weight.data

    @property
    def _shift(self) -> NDArray[Any] | None:
        return None if self.bias is None else self.bias.data

    def _mask(self) -> tuple[bool, bool, bool]:
        return True, self.weight is not None, self.bias is not None

    def _accumulate(self, gradients: Any) -> NDArray[Any]:
        """Add to the parameters' gradients and return the input's."""
        if self.weight is not None:
            self.weight.accumulate(gradients.weight)
        if self.bias is not None:
            self.bias.accumulate(gradients.bias)
        grad_input: NDArray[Any] = gradients.input
        return grad_input


class _ChannelNorm(_Norm):
    """A norm of channels with running statistics, or without."""

    _input_axes: ClassVar[tuple[int, ...]]
    running_mean: NDArray[Any] | None
    running_var: NDArray[Any] | None

    def __init__(
        self,
        num_features: int,
        eps: float,
        momentum: float | None,
        affine: bool,
        track_running_stats: bool,
        bias: bool,
        data_format: str,
        dtype: DTypeLike,
    ) -> None:
        super().__init__(data_format=data_format)
        self.num_features = integer(num_features, "num_features", 1)
        self.eps = eps
        self.momentum = momentum
        wide = np.result_type(check_dtype(dtype), np.float32)  # in 16 bits a mean would stand still
        self._make_affine((num_features,), affine, bias, dtype)
        self.register_buffer("running_mean", np.zeros(num_features, wide) if track_running_stats else None)
        self.register_buffer("running_var", np.ones(num_features, wide) if track_running_stats else None)

    def _check(self, x: NDArray[Any], batched: bool = True) -> None:
        axis = channel_axis(self.data_format)
        axis = axis if batched or axis < 0 else 0
        if x.ndim not in self._input_axes or x.shape[axis] != self.num_features:
            raise ValueError(
                f"x: {type(self).__name__}({self.num_features}, data_format={self.data_format!r}) expects "
                f"{' or '.join(map(str, self._input_axes))} axes and {self.num_features} channels, got shape {x.shape}"
            )

    def _options(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class _BatchNorm(_ChannelNorm):
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
        If false there are no running statistics, and evaluation too uses the batch's.
    bias : bool
        Whether, if affine, there is a shift.
    data_format : {"channels_first", "channels_last"}
        Input ``(N, C, *spatial)`` or ``(N, *spatial, C)``.
    dtype : dtype
        Type of the parameters; running statistics are at least float32.

    Attributes
    ----------
    weight, bias : Parameter or None
        ``(num_features,)``, at first 1 and 0.
    running_mean, running_var : numpy.ndarray or None
        ``(num_features,)``, at first 0 and 1; the variance is the unbiased one.
    num_batches_tracked : numpy.ndarray or None
        Number of training forwards, an int64 scalar array.
    """

    num_batches_tracked: NDArray[np.int64] | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        data_format: str = "channels_first",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, data_format, dtype)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track_running_stats else None)

    def _factor(self) -> float:
        """Return the newest batch's weight in the running statistics."""
        if self.momentum is not None:
            return self.momentum
        return 0.0 if self.num_batches_tracked is None else 1.0 / max(float(self.num_batches_tracked), 1.0)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Normalise."""
        return self._normalise(x, False)

    def _normalise(self, x: NDArray[Any], rectify: bool) -> NDArray[Any]:
        """Normalise, and leave what is positive of it."""
        self._check(x)
        batch_statistics = self.training or self.running_mean is None
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked += 1
        y, mean, invstd = normalised(
            *(x, self.running_mean, self.running_var, self._scale, self._shift),
            *(batch_statistics, self._factor(), self.eps, self.data_format, rectify),
        )
        self._remember(x, mean, invstd, batch_statistics, y if rectify else None)
        return y  # type: ignore[no-any-return]

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient; add to those of weight and bias."""
        return self._propagate(grad_output, None)

    def _propagate(self, grad_output: NDArray[Any], rectified: NDArray[Any] | None) -> NDArray[Any]:
        """Do so; with the output of the ReLU behind the norm, for the gradient of that."""
        x, mean, invstd, batch_statistics, _ = self._recall()
        gradients = normalised_backward(
            *(grad_output, x, mean, invstd, self._scale, batch_statistics, self._mask(), self.data_format, rectified)
        )
        return self._accumulate(gradients)


class BatchNorm1d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    _input_axes = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    _input_axes = (4,)


class BatchNorm3d(_BatchNorm):
    __doc__ = _BatchNorm.__doc__
    _input_axes = (5,)


class _InstanceNorm(_ChannelNorm):
    """Instance normalisation (Ulyanov, Vedaldi and Lempitsky, 2016).

    Each channel of each sample is shifted and scaled to mean 0 and variance 1 over its positions; in evaluation with
    running statistics, by those.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float
        Weight of the newest batch in the running statistics.
    affine : bool
        Whether each channel has a learned scale and shift.
    track_running_stats : bool
        Whether to keep running statistics, means over the samples, and to use them in evaluation.
    bias : bool
        Whether, if affine, there is a shift.
    data_format : {"channels_first", "channels_last"}
        Input ``(N, C, *spatial)`` or ``(N, *spatial, C)``, or one sample without its first axis.
    dtype : dtype
        Type of the parameters; running statistics are at least float32.

    Attributes
    ----------
    weight, bias : Parameter or None
        ``(num_features,)``, at first 1 and 0.
    running_mean, running_var : numpy.ndarray or None
        ``(num_features,)``, at first 0 and 1; the variance is the unbiased one.
    num_batches_tracked : numpy.ndarray or None
        Part of PyTorch's state, which leaves it at 0.
    """

    num_batches_tracked: NDArray[np.int64] | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        *,
        bias: bool = True,
        data_format: str = "channels_first",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, data_format, dtype)
        self.register_buffer("num_batches_tracked", np.zeros((), np.int64) if track_running_stats else None)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Normalise."""
        batched = x.ndim == self._input_axes[-1]
        self._check(x, batched)
        x = x if batched else x[None]
        own_statistics = self.training or self.running_mean is None
        y, mean, invstd = F.instance_norm(
            x,
            self.running_mean,
            self.running_var,
            self._scale,
            self._shift,
            use_input_stats=own_statistics,
            momentum=0.0 if self.momentum is None else self.momentum,
            eps=self.eps,
            return_stats=True,
            data_format=self.data_format,
        )
        self._remember(x, mean, invstd, own_statistics, batched)
        return y if batched else y[0]  # type: ignore[no-any-return]

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient; add to those of weight and bias."""
        x, mean, invstd, own_statistics, batched = self._recall()
        grad = grad_output if batched else grad_output[None]
        keywords: dict[str, Any] = {"output_mask": self._mask(), "data_format": self.data_format}
        gradients = F.instance_norm_backward(grad, x, mean, invstd, self._scale, own_statistics, **keywords)
        grad_input = self._accumulate(gradients)
        return grad_input if batched else grad_input[0]


class InstanceNorm1d(_InstanceNorm):
    __doc__ = _InstanceNorm.__doc__
    _input_axes = (2, 3)


class InstanceNorm2d(_InstanceNorm):
    __doc__ = _InstanceNorm.__doc__
    _input_axes = (3, 4)


class InstanceNorm3d(_InstanceNorm):
    __doc__ = _InstanceNorm.__doc__
    _input_axes = (4, 5)


class _SwitchNorm(_ChannelNorm):
    """Switchable normalisation (Luo, Ren and Peng, 2018).

    Mean and variance are learned mixtures of those of the instance (each channel of each sample), the layer (each
    sample) and the batch (each channel); `fastconv.functional.switch_norm` has the formula. In evaluation the running
    statistics stand for the batch's.

    Parameters
    ----------
    num_features : int
        Channels.
    eps : float
        Added to the variance.
    momentum : float
        Weight of the newest batch in the running statistics.
    affine : bool
        Whether each channel has a learned scale and shift.
    track_running_stats : bool
        If false there are no running statistics, and evaluation too uses the batch's.
    bias : bool
        Whether, if affine, there is a shift.
    data_format : {"channels_first", "channels_last"}
        Input ``(N, C, *spatial)`` or ``(N, *spatial, C)``.
    dtype : dtype
        Type of the parameters; running statistics are at least float32.

    Attributes
    ----------
    weight, bias : Parameter or None
        ``(num_features,)``, at first 1 and 0.
    mean_weight, var_weight : Parameter
        ``(3,)``, at first 1: of instance, layer and batch, before their softmax.
    running_mean, running_var : numpy.ndarray or None
        ``(num_features,)``, at first 0 and 1; the variance is the unbiased one.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        bias: bool = True,
        data_format: str = "channels_first",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, bias, data_format, dtype)
        self.mean_weight = Parameter(np.ones(3, check_dtype(dtype)))
        self.var_weight = Parameter(np.ones(3, check_dtype(dtype)))

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Normalise."""
        self._check(x)
        batch_statistics = self.training or self.running_mean is None
        shared = (self.mean_weight.data, self.var_weight.data, self._scale)
        running = (self.running_mean, self.running_var, batch_statistics)
        options: dict[str, Any] = {"return_stats": True, "data_format": self.data_format}
        y, mean, var = F.switch_norm(x, *shared, self._shift, *running, self.momentum or 0.0, self.eps, **options)
        self._remember(x, mean, var, *shared, *running)
        return y  # type: ignore[no-any-return]

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient; add to those of the parameters."""
        keywords: dict[str, Any] = {"output_mask": (*self._mask(), True, True), "data_format": self.data_format}
        remembered: Any = (*self._recall(), self.eps)
        gradients = F.switch_norm_backward(grad_output, *remembered, **keywords)
        self.mean_weight.accumulate(gradients.mean_weight)
        self.var_weight.accumulate(gradients.var_weight)
        return self._accumulate(gradients)


class SwitchNorm1d(_SwitchNorm):
    __doc__ = _SwitchNorm.__doc__
    _input_axes = (3,)


class SwitchNorm2d(_SwitchNorm):
    __doc__ = _SwitchNorm.__doc__
    _input_axes = (4,)


class SwitchNorm3d(_SwitchNorm):
    __doc__ = _SwitchNorm.__doc__
    _input_axes = (5,)


class GroupNorm(_Norm):
    """Group normalisation (Wu and He, 2018).

    Each group of neighbouring channels of each sample is shifted and scaled to mean 0 and variance 1 over the group and
    all positions.

    Parameters
    ----------
    num_groups : int
        Divides `num_channels`.
    num_channels : int
        Channels.
    eps : float
        Added to the variance.
    affine : bool
        Whether each channel has a learned scale and shift.
    bias : bool
        Whether, if affine, there is a shift.
    data_format : {"channels_first", "channels_last"}
        Input ``(N, C, *spatial)`` or ``(N, *spatial, C)``.
    dtype : dtype
        Type of the parameters.

    Attributes
    ----------
    weight, bias : Parameter or None
        ``(num_channels,)``, at first 1 and 0.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        bias: bool = True,
        data_format: str = "channels_first",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(data_format=data_format)
        self.num_groups = integer(num_groups, "num_groups", 1)
        self.num_channels = integer(num_channels, "num_channels", 1)
        if self.num_channels % self.num_groups != 0:
            raise ValueError(f"num_groups: got {num_groups}, expected a divisor of num_channels = {num_channels}")
        self.eps = eps
        self._make_affine((self.num_channels,), affine, bias, dtype)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Normalise."""
        if x.ndim < 2 or x.shape[channel_axis(self.data_format)] != self.num_channels:
            raise ValueError(
                f"x: GroupNorm({self.num_groups}, {self.num_channels}, data_format={self.data_format!r}) expects "
                f"{self.num_channels} channels, got shape {x.shape}"
            )
        options: dict[str, Any] = {"return_stats": True, "data_format": self.data_format}
        y, mean, invstd = F.group_norm(x, self.num_groups, self._scale, self._shift, self.eps, **options)
        self._remember(x, mean, invstd)
        return y  # type: ignore[no-any-return]

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient; add to those of weight and bias."""
        x, mean, invstd = self._recall()
        keywords: dict[str, Any] = {"output_mask": self._mask(), "data_format": self.data_format}
        return self._accumulate(F.group_norm_backward(grad_output, x, mean, invstd, self._scale, **keywords))

    def _options(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}"


class LayerNorm(_Norm):
    """Layer normalisation (Ba, Kiros and Hinton, 2016).

    The last axes are shifted and scaled to mean 0 and variance 1, each index of the others for itself.

    Parameters
    ----------
    normalized_shape : int or sequence of ints
        Sizes of the axes to normalise, the last of the input.
    eps : float
        Added to the variance.
    elementwise_affine : bool
        Whether each element has a learned scale and shift.
    bias : bool
        Whether, if affine, there is a shift.
    data_format : {"channels_first", "channels_last"}
        Changes nothing: the axes are the last ones in both.
    dtype : dtype
        Type of the parameters.

    Attributes
    ----------
    weight, bias : Parameter or None
        Of the shape `normalized_shape`, at first 1 and 0.
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        data_format: str = "channels_first",
        dtype: DTypeLike = np.float32,
    ) -> None:
        super().__init__(data_format=data_format)
        sizes = normalized_shape if isinstance(normalized_shape, Sequence | np.ndarray) else (normalized_shape,)
        self.normalized_shape = tuple(integer(size, "normalized_shape", 1) for size in sizes)
        if not self.normalized_shape:
            raise ValueError("normalized_shape: got (), expected at least one axis")
        self.eps = eps
        self._make_affine(self.normalized_shape, elementwise_affine, bias, dtype)

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Normalise."""
        y, mean, invstd = F.layer_norm(x, self.normalized_shape, self._scale, self._shift, self.eps, return_stats=True)
        self._remember(x, mean, invstd)
        return y  # type: ignore[no-any-return]

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient; add to those of weight and bias."""
        x, mean, invstd = self._recall()
        gradients = F.layer_norm_backward(grad_output, x, mean, invstd, self._scale, output_mask=self._mask())
        return self._accumulate(gradients)

    def _options(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"
