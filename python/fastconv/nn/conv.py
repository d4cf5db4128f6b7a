"""Convolution, transposed convolution and depthwise-separable convolution layers."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import functional as F
from .._check import integer, tuple_of_ints
from ..functional._conv_arguments import PADDING_MODES
from ..functional.conv import Norm, convolve
from ..functional.separable_conv import separable_convolve
from . import init
from ._layout import Layer, check_dtype
from .parameter import Parameter
from .receptive_field import Geometry

__all__ = [
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "SeparableConv1d",
    "SeparableConv2d",
    "SeparableConv3d",
]

Size = int | Sequence[int]
Padding = int | str | Sequence[int] | Sequence[Sequence[int]]

# Activations whose gradient can be had from their output; the others keep the convolution's own result as well.
_GRADIENT_FROM_OUTPUT: dict[str, Callable[..., Any]] = {
    "relu": F.relu_backward,
    "sigmoid": F.sigmoid_backward,
    "tanh": F.tanh_backward,
}
_GRADIENT_FROM_INPUT: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "leaky_relu": (F.leaky_relu, F.leaky_relu_backward),
    "elu": (F.elu, F.elu_backward),
}


class _ConvBase(Layer):
    """What the convolutions share: geometry, checks and the bias."""

    _ndim: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size,
        padding: Padding,
        dilation: Size,
        data_format: str,
    ) -> None:
        super().__init__(data_format=data_format)
        self.in_channels = integer(in_channels, "in_channels", 1)
        self.out_channels = integer(out_channels, "out_channels", 1)
        self.kernel_size = tuple_of_ints(kernel_size, self._ndim, "kernel_size", 1)
        self.stride = tuple_of_ints(stride, self._ndim, "stride", 1)
        self.dilation = tuple_of_ints(dilation, self._ndim, "dilation", 1)
        self.padding = padding
        self.bias: Parameter | None  # set after the weight, which comes first in the state

    def _check_groups(self, groups: int) -> int:
        groups = integer(groups, "groups", 1)
        for name, channels in (("in_channels", self.in_channels), ("out_channels", self.out_channels)):
            if channels % groups:
                raise ValueError(f"groups: {groups} does not divide {name}={channels}")
        return groups

    def _output_mask(self, input_too: bool) -> tuple[bool, bool, bool]:
        return (input_too, True, self.bias is not None)

    def _propagate(self, grad_output: NDArray[Any], input_too: bool) -> NDArray[Any] | None:
        """Add to the gradients of weight and bias, and return the input's if it is wanted."""
        raise TypeError(f"{type(self).__name__} does not define its gradient")

    def backward(self, grad_output: NDArray[Any]) -> NDArray[Any]:
        """Return the input's gradient; add to those of weight and bias."""
        return self._propagate(grad_output, True)  # type: ignore[return-value]

    def backward_parameters(self, grad_output: NDArray[Any]) -> None:
        """Add to the gradients of weight and bias only."""
        self._propagate(grad_output, False)

    def _bias_data(self) -> NDArray[Any] | None:
        return None if self.bias is None else self.bias.data

    def _accumulate(self, weight: Parameter, grads: Any) -> None:
        weight.accumulate(grads.weight)
        if self.bias is not None:
            self.bias.accumulate(grads.bias)

    def _outputs(self, shape: tuple[int, ...]) -> int:
        """Return batch size times output positions for an output's shape."""
        return math.prod(shape) // self.out_channels

    def geometry(self) -> Geometry | None:
        """Return kernel, stride and dilation of each spatial axis."""
        return Geometry(self.kernel_size, self.stride, self.dilation)

    def _options(self) -> str:
        options = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        if math.prod(self.stride) != 1:
            options += f", stride={self.stride}"
        if self.padding != 0:
            options += f", padding={self.padding!r}"
        if math.prod(self.dilation) != 1:
            options += f", dilation={self.dilation}"
        if getattr(self, "groups", 1) != 1:
            options += f", groups={self.groups}"  # type: ignore[attr-defined]
        if self.bias is None:
            options += ", bias=False"
        return options


class _Conv(_ConvBase):
    """Convolution (cross-correlation, as everywhere in deep learning) with a learned kernel.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    kernel_size, stride, dilation : int or tuple of int
        One number for all spatial axes or one for each.
    padding : int, tuple of int, pairs of int or str
        As ``fastconv.functional.conv2d`` takes it: ``"same"`` and ``"valid"`` too.
    groups : int
        Number of independent channel groups; ``groups == in_channels`` is a depthwise convolution.
    bias : bool
        Whether a learned number per output channel is added.
    padding_mode : {"zeros", "reflect", "replicate", "circular"}
        What lies beyond the edge.
    activation : {None, "relu", "leaky_relu", "elu", "sigmoid", "tanh"}
        Applied to the result, in the convolution's last step.
    data_format : {"channels_first", "channels_last"}
        Input ``(N, C, *spatial)`` or ``(N, *spatial, C)``; the weight keeps one layout.
    dtype : dtype
        Type of the parameters, and so of the inputs.
    rng : numpy.random.Generator, optional
        Source of the first weights; `fastconv.nn.init.seed` governs them otherwise.

    Attributes
    ----------
    weight : Parameter
        ``(out_channels, in_channels/groups, *kernel_size)``, at first uniform on ``±1/sqrt(fan_in)``.
    bias : Parameter or None
        ``(out_channels,)``.
    """

    _backward: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        activation: str | None = None,
        data_format: str = "channels_first",
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, data_format)
        self.groups = self._check_groups(groups)
        if padding_mode not in PADDING_MODES:
            raise ValueError(f"padding_mode: got {padding_mode!r}, expected one of {PADDING_MODES}")
        known = (None, *_GRADIENT_FROM_OUTPUT, *_GRADIENT_FROM_INPUT)
        if activation not in known:
            raise ValueError(f"activation: expected one of {known}, got {activation!r}")
        self.padding_mode = padding_mode
        self.activation = activation
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        self.weight, self.bias = init.new_weight_and_bias(
            shape, self.out_channels if bias else None, check_dtype(dtype), rng
        )

    def _keywords(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "padding_mode": self.padding_mode,
            "data_format": self.data_format,
        }

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Convolve ``(N, C, *spatial)``, or one unbatched ``(C, *spatial)``."""
        two_steps = self.remembers and self.activation in _GRADIENT_FROM_INPUT
        fused = None if two_steps else self.activation
        y = self._convolve(x, fused)
        self._remember(x, y if self.activation else None)
        if two_steps and self.activation is not None:
            y = _GRADIENT_FROM_INPUT[self.activation][0](y)
        return y

    def _convolve(self, x: NDArray[Any], activation: str | None, norm: Norm | None = None) -> NDArray[Any]:
        """Convolve, normalise by known statistics and apply an activation, in one pass."""
        window = (self.stride, self.padding, self.dilation, self.groups, self.data_format, self.padding_mode)
        y: NDArray[Any] = convolve(
            self._ndim, x, self.weight.data, self._bias_data(), window, activation, None, norm=norm
        )
        return y

    def _propagate(self, grad_output: NDArray[Any], input_too: bool) -> NDArray[Any] | None:
        x, result = self._recall()
        if self.activation in _GRADIENT_FROM_OUTPUT:
            grad_output = _GRADIENT_FROM_OUTPUT[self.activation](grad_output, result)
        elif self.activation is not None:
            grad_output = _GRADIENT_FROM_INPUT[self.activation][1](grad_output, result)
        grads = type(self)._backward(
            grad_output, x, self.weight.data, output_mask=self._output_mask(input_too), **self._keywords()
        )
        self._accumulate(self.weight, grads)
        grad_input: NDArray[Any] | None = grads.input
        return grad_input

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return output elements times taps times input channels of a group."""
        return math.prod(output_shape) * math.prod(self.weight.shape[1:])


class Conv1d(_Conv):
    __doc__ = _Conv.__doc__
    _ndim = 1
    _backward = F.conv1d_backward


class Conv2d(_Conv):
    __doc__ = _Conv.__doc__
    _ndim = 2
    _backward = F.conv2d_backward


class Conv3d(_Conv):
    __doc__ = _Conv.__doc__
    _ndim = 3
    _backward = F.conv3d_backward


class _ConvTranspose(_ConvBase):
    """Transposed convolution: the input gradient of a convolution, used as a layer that enlarges.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    kernel_size, stride, dilation : int or tuple of int
        Of the convolution whose transpose this is.
    padding : int, tuple of int or pairs of int
        Of that convolution too: it shortens the output.
    output_padding : int or tuple of int
        Positions added at the end of the output, to choose among the sizes that the convolution maps to one.
    groups : int
        Number of independent channel groups.
    bias : bool
        Whether a learned number per output channel is added.
    padding_mode : {"zeros"}
        The only one that a transposed convolution has, as in PyTorch.
    data_format, dtype, rng
        As for `Conv2d`.

    Attributes
    ----------
    weight : Parameter
        ``(in_channels, out_channels/groups, *kernel_size)``.
    bias : Parameter or None
        ``(out_channels,)``.
    """

    _forward: ClassVar[Callable[..., NDArray[Any]]]
    _backward: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        *,
        data_format: str = "channels_first",
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, data_format)
        if padding_mode != "zeros":
            raise ValueError(
                f"padding_mode: got {padding_mode!r}, expected 'zeros', the only one of transposed convolutions"
            )
        self.padding_mode = padding_mode
        self.output_padding = output_padding
        self.groups = self._check_groups(groups)
        shape = (self.in_channels, self.out_channels // self.groups, *self.kernel_size)
        self.weight, self.bias = init.new_weight_and_bias(
            shape, self.out_channels if bias else None, check_dtype(dtype), rng
        )

    def _keywords(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "output_padding": self.output_padding,
            "groups": self.groups,
            "dilation": self.dilation,
            "data_format": self.data_format,
        }

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply to ``(N, C, *spatial)``, or one unbatched ``(C, *spatial)``."""
        self._remember(x)
        return type(self)._forward(x, self.weight.data, self._bias_data(), **self._keywords())

    def _propagate(self, grad_output: NDArray[Any], input_too: bool) -> NDArray[Any] | None:
        (x,) = self._recall()
        grads = type(self)._backward(
            grad_output, x, self.weight.data, output_mask=self._output_mask(input_too), **self._keywords()
        )
        self._accumulate(self.weight, grads)
        grad_input: NDArray[Any] | None = grads.input
        return grad_input

    def geometry(self) -> Geometry | None:
        """Return kernel, stride and dilation; the stride enlarges."""
        return Geometry(self.kernel_size, self.stride, self.dilation, transposed=True)

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return input elements times taps times output channels of a group (taps that padding cuts off included)."""
        return math.prod(input_shape) * math.prod(self.weight.shape[1:])


class ConvTranspose1d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    _ndim = 1
    _forward = F.conv_transpose1d
    _backward = F.conv_transpose1d_backward


class ConvTranspose2d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    _ndim = 2
    _forward = F.conv_transpose2d
    _backward = F.conv_transpose2d_backward


class ConvTranspose3d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    _ndim = 3
    _forward = F.conv_transpose3d
    _backward = F.conv_transpose3d_backward


class _SeparableConv(_ConvBase):
    """Depthwise convolution followed by a 1x1 convolution that mixes the channels.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input and of the output.
    kernel_size, stride, dilation : int or tuple of int
        Of the depthwise step.
    padding : int, tuple of int, pairs of int or str
        Of the depthwise step.
    depth_multiplier : int
        Depthwise kernels for each input channel.
    bias : bool
        Whether a learned number per output channel is added at the end.
    data_format, dtype, rng
        As for `Conv2d`.

    Attributes
    ----------
    depthwise_weight : Parameter
        ``(in_channels * depth_multiplier, 1, *kernel_size)``.
    pointwise_weight : Parameter
        ``(out_channels, in_channels * depth_multiplier, 1, ...)``.
    bias : Parameter or None
        ``(out_channels,)``.
    """

    _backward: ClassVar[Callable[..., Any]]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Padding = 0,
        dilation: Size = 1,
        depth_multiplier: int = 1,
        bias: bool = True,
        *,
        data_format: str = "channels_first",
        dtype: DTypeLike = np.float32,
        rng: np.random.Generator | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, data_format)
        self.depth_multiplier = integer(depth_multiplier, "depth_multiplier", 1)
        middle = self.in_channels * self.depth_multiplier
        real = check_dtype(dtype)
        self.depthwise_weight, _ = init.new_weight_and_bias((middle, 1, *self.kernel_size), None, real, rng)
        self.pointwise_weight, self.bias = init.new_weight_and_bias(
            (self.out_channels, middle, *(1,) * self._ndim), self.out_channels if bias else None, real, rng
        )

    def _keywords(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "data_format": self.data_format,
        }

    def forward(self, x: NDArray[Any]) -> NDArray[Any]:
        """Apply to ``(N, C, *spatial)``, or one unbatched ``(C, *spatial)``."""
        self._remember(x)
        return self._convolve(x, None)

    def _convolve(self, x: NDArray[Any], activation: str | None, norm: Norm | None = None) -> NDArray[Any]:
        """Convolve, normalise by known statistics and apply an activation in the pointwise step."""
        weights = self.depthwise_weight.data, self.pointwise_weight.data, self._bias_data()
        window = (self.stride, self.padding, self.dilation, "zeros")
        y: NDArray[Any] = separable_convolve(
            self._ndim, x, *weights, window, self.data_format, None, activation=activation, norm=norm
        )
        return y

    def _propagate(self, grad_output: NDArray[Any], input_too: bool) -> NDArray[Any] | None:
        # The gradient between the two steps is needed in any case, and the depthwise one's own is cheap.
        (x,) = self._recall()
        grads = type(self)._backward(
            grad_output, x, self.depthwise_weight.data, self.pointwise_weight.data, **self._keywords()
        )
        self.depthwise_weight.accumulate(grads.depthwise_weight)
        self.pointwise_weight.accumulate(grads.pointwise_weight)
        if self.bias is not None:
            self.bias.accumulate(grads.bias)
        grad_input: NDArray[Any] = grads.input
        return grad_input if input_too else None

    def multiply_adds(self, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
        """Return those of the depthwise and the pointwise step."""
        middle, positions = self.depthwise_weight.shape[0], self._outputs(output_shape)
        return positions * middle * (math.prod(self.kernel_size) + self.out_channels)


class SeparableConv1d(_SeparableConv):
    __doc__ = _SeparableConv.__doc__
    _ndim = 1
    _backward = F.separable_conv1d_backward


class SeparableConv2d(_SeparableConv):
    __doc__ = _SeparableConv.__doc__
    _ndim = 2
    _backward = F.separable_conv2d_backward


class SeparableConv3d(_SeparableConv):
    __doc__ = _SeparableConv.__doc__
    _ndim = 3
    _backward = F.separable_conv3d_backward
