"""Convolution, transposed convolution and separable convolution in 1, 2 and 3 dimensions, with their gradients.

The functions of one, two and three dimensions are one function each, made for `n` spatial dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastconv import _check, _core
from fastconv._check import Array, Pads

__all__ = ["ConvGradients", "SeparableConvGradients"]
__all__ += ["conv1d", "conv2d", "conv3d"]
__all__ += ["conv1d_backward", "conv2d_backward", "conv3d_backward"]
__all__ += ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
__all__ += ["conv_transpose1d_backward", "conv_transpose2d_backward", "conv_transpose3d_backward"]
__all__ += ["separable_conv1d", "separable_conv2d", "separable_conv3d"]
__all__ += ["separable_conv1d_backward", "separable_conv2d_backward", "separable_conv3d_backward"]

_ACTIVATIONS = ("relu", "leaky_relu", "elu", "sigmoid", "tanh")
_PRECISIONS = ("highest", "high", "medium")


class ConvGradients(NamedTuple):
    """Gradients of a (transposed) convolution; ``None`` where `output_mask` left one out."""

    input: Any
    weight: Any
    bias: Any


class SeparableConvGradients(NamedTuple):
    """Gradients of a separable convolution."""

    input: Any
    depthwise_weight: Any
    pointwise_weight: Any
    bias: Any


@dataclass(frozen=True)
class _Geometry:
    """The checked arguments of one call, in the words of the convolution (not its transpose)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]
    groups: int
    last: bool

    @property
    def window(self) -> tuple[tuple[int, ...], Pads, tuple[int, ...], int, bool]:
        return self.stride, self.padding, self.dilation, self.groups, self.last


def _batched(x: Array, n: int, name: str) -> tuple[Array, bool]:
    """An unbatched image gets a batch axis; the flag says that it did."""
    if x.ndim == n + 1:
        return x[np.newaxis], True
    return x, False


def _geometry(
    n: int,
    x: Array,
    weight: Array,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    data_format: object,
    *,
    transposed: bool,
) -> _Geometry:
    """What forward and backward, plain and transposed, check alike."""
    if not isinstance(data_format, str):
        raise TypeError(f"data_format: expected a str, got {data_format!r}")
    last = _check.channels_last(data_format)
    sizes = _check.spatial_shape(x, n, "x", last)
    layout = "(C_in, C_out/groups, *kernel)" if transposed else "(C_out, C_in/groups, *kernel)"
    _check.require(weight.ndim == n + 2, f"weight: expected {n + 2} dimensions {layout}, got shape {weight.shape}")
    kernel = tuple(weight.shape[2:])
    _check.require(min(kernel) > 0, f"weight: got shape {weight.shape}, expected at least one tap in each dimension")
    strides = _check.tuple_of_ints(stride, n, "stride", 1)
    dilations = _check.tuple_of_ints(dilation, n, "dilation", 1)
    pads = _check.pads(padding, n, sizes, kernel, strides, dilations)
    count = _check.integer(groups, "groups", 1)
    channels = _check.channels(x, last)
    _check.require(channels % count == 0, f"groups: {count} does not divide the {channels} input channels")
    expected = channels if transposed else channels // count
    hint = ""
    if not last and x.shape[-1] == expected * (1 if transposed else count) != channels:
        hint = '; the last axis fits: is this data_format="channels_last"?'
    _check.require(
        weight.shape[0 if transposed else 1] == expected,
        f"weight: got shape {weight.shape} {layout} for x with {channels} channels and groups={count}, expected "
        f"{expected} on axis {0 if transposed else 1}{hint}",
    )
    if not transposed:
        _check.require(
            weight.shape[0] % count == 0, f"groups: {count} does not divide the {weight.shape[0]} output channels"
        )
    return _Geometry(kernel, strides, pads, dilations, count, last)


def _bias(bias: Array | None, length: int) -> Array | None:
    if bias is None:
        return None
    _check.require(bias.shape == (length,), f"bias: got shape {bias.shape}, expected ({length},)")
    return np.ascontiguousarray(bias)


def _image_shape(samples: int, channels: int, spatial: tuple[int, ...], last: bool) -> tuple[int, ...]:
    return (samples, *spatial, channels) if last else (samples, channels, *spatial)


def _out(out: Array | None, shape: tuple[int, ...], unbatched: bool, *inputs: Array | None) -> Array | None:
    """A caller's result array, checked; a fresh one where it overlaps an input."""
    if out is None:
        return None
    _check.require(out.shape == (shape[1:] if unbatched else shape), f"out: got shape {out.shape}, expected {shape}")
    _check.require(out.flags.writeable, "out: is read-only")
    _check.require(
        all(stride != 0 or size < 2 for stride, size in zip(out.strides, out.shape, strict=True)),
        "out: is a broadcast view, expected an array with an element for each result",
    )
    if any(i is not None and np.may_share_memory(out, i) for i in inputs):
        return None
    return out[np.newaxis] if unbatched else out


def _check_activation(activation: object) -> None:
    if activation is None:
        return
    if not isinstance(activation, str):
        raise TypeError(f"activation: expected None or a str, got {activation!r}")
    _check.require(activation in _ACTIVATIONS, f"activation: got {activation!r}, expected one of {_ACTIVATIONS}")


def _activate(y: Array, activation: str | None) -> Array:
    if activation is None:
        return y
    from fastconv.functional import activation as activations

    result: Array = getattr(activations, activation)(y)
    return result


def _precision(precision: object) -> None:
    """Every level is served by the kernels of the highest."""
    _check.require(
        precision is None or precision in _PRECISIONS, f"precision: got {precision!r}, expected one of {_PRECISIONS}"
    )


def _finish(y: Array, unbatched: bool, out: Array | None, activation: str | None) -> Array:
    y = _activate(y, activation)
    if unbatched:
        y = y[0]
    if out is None:
        return y
    if not np.may_share_memory(out, y):
        np.copyto(out, y)
    return out


def _forward(n: int) -> Callable[..., Any]:
    def conv(
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        *,
        data_format: str = "channels_first",
        activation: str | None = None,
        precision: str | None = None,
        out: Any = None,
    ) -> Any:
        given = out
        _check.present(weight=weight)
        x, weight, bias, out, restore = _check.as_arrays(x=x, weight=weight, bias=bias, out=out)
        x, unbatched = _batched(x, n, "x")
        _precision(precision)
        g = _geometry(n, x, weight, stride, padding, dilation, groups, data_format, transposed=False)
        spatial = x.shape[1:-1] if g.last else x.shape[2:]
        size = _check.output_sizes(spatial, g.kernel, g.stride, g.dilation, g.padding, name="weight")
        _check_activation(activation)
        target = _out(out, _image_shape(x.shape[0], weight.shape[0], size, g.last), unbatched, x, weight, bias)
        y = _core.conv_forward(x, weight, _bias(bias, weight.shape[0]), *g.window, target)
        y = _finish(y, unbatched, out, activation)
        return given if given is not None else restore(y)

    conv.__doc__ = f"""{n}-dimensional convolution (cross-correlation, as in every deep-learning library).

    ``y[n, k, o] = bias[k] + sum over c, t of x[n, c, o * stride + t * dilation - pad] * weight[k, c, t]``;
    taps in the padding are skipped.

    Parameters
    ----------
    x : array (N, C_in, *spatial) or (N, *spatial, C_in), float32 or float64
        An unbatched ``(C_in, *spatial)`` is accepted.
    weight : array (C_out, C_in / groups, *kernel)
        The same layout for both data formats.
    bias : array (C_out,), optional
    stride, dilation : int or tuple of {n} ints
    padding : int, tuple of {n} ints, {n} pairs (before, after) or str
        "valid", "same", "full"{' or "causal"' if n == 1 else ""}
    groups : int
        Groups of channels that are convolved apart from each other.
    data_format : str
        "channels_first" or "channels_last" (or a name such as "NCHW", "NHWC").
    activation : str, optional
        "relu", "leaky_relu", "elu", "sigmoid" or "tanh", applied to the result.
    precision : str, optional
        "highest" (default), "high" or "medium": the accuracy that is needed at least.
    out : array, optional
        Receives the result.

    Returns
    -------
    array
        (N, C_out, *output) or (N, *output, C_out), of x's dtype.

    Raises
    ------
    TypeError
        Arrays of integers or of mixed dtypes.
    ValueError
        Shapes that do not fit, or an argument out of range; the message names it.

    References
    ----------
    V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285.
    """
    return conv


def _backward(n: int) -> Callable[..., Any]:
    def conv_backward(
        grad_output: Any,
        x: Any,
        weight: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        *,
        output_mask: tuple[bool, bool, bool] = (True, True, True),
        data_format: str = "channels_first",
        precision: str | None = None,
    ) -> ConvGradients:
        _check.present(weight=weight)
        grad_output, x, weight, restore = _check.as_arrays(grad_output=grad_output, x=x, weight=weight)
        x, unbatched = _batched(x, n, "x")
        if unbatched:
            grad_output = grad_output[np.newaxis]
        wanted = _check.mask(output_mask)
        _precision(precision)
        g = _geometry(n, x, weight, stride, padding, dilation, groups, data_format, transposed=False)
        spatial = x.shape[1:-1] if g.last else x.shape[2:]
        size = _check.output_sizes(spatial, g.kernel, g.stride, g.dilation, g.padding, name="weight")
        _check.same_shape(grad_output, _image_shape(x.shape[0], weight.shape[0], size, g.last), "grad_output")
        grads = ConvGradients(
            _core.conv_backward_input(grad_output, weight, None, spatial, *g.window, None) if wanted[0] else None,
            _core.conv_backward_weight(grad_output, x, g.kernel, *g.window) if wanted[1] else None,
            _core.conv_backward_bias(grad_output, g.last) if wanted[2] else None,
        )
        return _restore_gradients(grads, restore, unbatched)

    conv_backward.__doc__ = f"""Gradients of :func:`conv{n}d`.

    Parameters
    ----------
    grad_output : array
        The gradient of the output, of the output's shape.
    x, weight, stride, padding, dilation, groups, data_format
        As in the forward call.
    output_mask : three bools
        Which of the gradients of x, weight and bias to compute.

    Returns
    -------
    ConvGradients
        A named tuple (input, weight, bias), ``None`` where masked.

    Raises
    ------
    TypeError, ValueError
        As the forward call; also where grad_output has not the output's shape.
    """
    return conv_backward


def _restore_gradients(grads: ConvGradients, restore: Callable[[Any], Any], unbatched: bool) -> ConvGradients:
    first = grads.input[0] if unbatched and grads.input is not None else grads.input
    return ConvGradients(*(None if g is None else restore(g) for g in (first, grads.weight, grads.bias)))


def _transposed_geometry(
    n: int, x: Array, weight: Array, stride: object, padding: object, output_padding: object, *rest: object
) -> tuple[_Geometry, tuple[int, ...]]:
    """The convolution whose transpose is meant, and the output size.

    Elements of output padding are inputs of that convolution that lie past its last window: its padding after shrinks.
    """
    dilation, groups, data_format = rest
    if isinstance(padding, str):
        _check.require(
            padding == "valid",
            f'padding: got {padding!r}, expected ints, pairs or "valid" for a transposed convolution',
        )
    g = _geometry(n, x, weight, stride, padding, dilation, groups, data_format, transposed=True)
    extra = _check.tuple_of_ints(output_padding, n, "output_padding", 0)
    for e, s, d in zip(extra, g.stride, g.dilation, strict=True):
        _check.require(e < max(s, d), f"output_padding: got {extra}, expected less than stride or dilation {max(s, d)}")
    spatial = x.shape[1:-1] if g.last else x.shape[2:]
    size = tuple(
        int(_core.transposed_output_size(i, k, s, d, before, after, e))
        for i, k, s, d, (before, after), e in zip(
            spatial, g.kernel, g.stride, g.dilation, g.padding, extra, strict=True
        )
    )
    _check.require(min(size) > 0, f"padding: {g.padding} leaves no output, the output size would be {size}")
    pads = tuple((before, after - e) for (before, after), e in zip(g.padding, extra, strict=True))
    return _Geometry(g.kernel, g.stride, pads, g.dilation, g.groups, g.last), size


def _transposed_forward(n: int) -> Callable[..., Any]:
    def conv_transpose(
        x: Any,
        weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
        *,
        data_format: str = "channels_first",
        precision: str | None = None,
        out: Any = None,
    ) -> Any:
        given = out
        _check.present(weight=weight)
        x, weight, bias, out, restore = _check.as_arrays(x=x, weight=weight, bias=bias, out=out)
        x, unbatched = _batched(x, n, "x")
        _precision(precision)
        g, size = _transposed_geometry(n, x, weight, stride, padding, output_padding, dilation, groups, data_format)
        channels = weight.shape[1] * g.groups
        target = _out(out, _image_shape(x.shape[0], channels, size, g.last), unbatched, x, weight, bias)
        y = _core.conv_backward_input(x, weight, _bias(bias, channels), size, *g.window, target)
        y = _finish(y, unbatched, out, None)
        return given if given is not None else restore(y)

    conv_transpose.__doc__ = f"""{n}-dimensional transposed convolution: a convolution's input gradient, as a layer.

    Parameters
    ----------
    x : array (N, C_in, *spatial) or (N, *spatial, C_in), float32 or float64
    weight : array (C_in, C_out / groups, *kernel)
    bias : array (C_out,), optional
    stride, dilation : int or tuple of {n} ints
    padding : int, tuple of {n} ints or {n} pairs (before, after)
        Of the convolution that is transposed: it makes the output smaller.
    output_padding : int or tuple of {n} ints
        Added to the output size at the end; less than stride or dilation.
    groups, data_format, precision, out
        As in :func:`conv{n}d`.

    Returns
    -------
    array
        ``(in - 1) * stride - pad_before - pad_after + (kernel - 1) * dilation + 1 + output_padding`` per dimension.

    Raises
    ------
    TypeError, ValueError
        As :func:`conv{n}d`.

    References
    ----------
    V. Dumoulin and F. Visin, "A guide to convolution arithmetic for deep learning", arXiv:1603.07285, chapter 4.
    """
    return conv_transpose


def _transposed_backward(n: int) -> Callable[..., Any]:
    def conv_transpose_backward(
        grad_output: Any,
        x: Any,
        weight: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        dilation: Any = 1,
        *,
        output_mask: tuple[bool, bool, bool] = (True, True, True),
        data_format: str = "channels_first",
        precision: str | None = None,
    ) -> ConvGradients:
        _check.present(weight=weight)
        grad_output, x, weight, restore = _check.as_arrays(grad_output=grad_output, x=x, weight=weight)
        x, unbatched = _batched(x, n, "x")
        if unbatched:
            grad_output = grad_output[np.newaxis]
        wanted = _check.mask(output_mask)
        _precision(precision)
        g, size = _transposed_geometry(n, x, weight, stride, padding, output_padding, dilation, groups, data_format)
        _check.same_shape(
            grad_output, _image_shape(x.shape[0], weight.shape[1] * g.groups, size, g.last), "grad_output"
        )
        grads = ConvGradients(
            _core.conv_forward(grad_output, weight, None, *g.window, None) if wanted[0] else None,
            _core.conv_backward_weight(x, grad_output, g.kernel, *g.window) if wanted[1] else None,
            _core.conv_backward_bias(grad_output, g.last) if wanted[2] else None,
        )
        return _restore_gradients(grads, restore, unbatched)

    conv_transpose_backward.__doc__ = f"""Gradients of :func:`conv_transpose{n}d`.

    Parameters
    ----------
    grad_output : array
        The gradient of the output, of the output's shape.
    x, weight, stride, padding, output_padding, groups, dilation, data_format
        As in the forward call.
    output_mask : three bools
        Which of the gradients of x, weight and bias to compute.

    Returns
    -------
    ConvGradients
        A named tuple (input, weight, bias), ``None`` where masked.

    Raises
    ------
    TypeError, ValueError
        As the forward call; also where grad_output has not the output's shape.
    """
    return conv_transpose_backward


def _separable_shapes(n: int, x: Any, depthwise_weight: Any, pointwise_weight: Any, data_format: str) -> int:
    """Check the two weights against each other; the number of groups of the depthwise step."""
    x, depthwise, pointwise, _ = _check.as_arrays(
        x=x, depthwise_weight=depthwise_weight, pointwise_weight=pointwise_weight
    )
    last = _check.channels_last(data_format)
    channels = _check.channels(x if x.ndim == n + 2 else x[np.newaxis], last) if x.ndim in (n + 1, n + 2) else 0
    _check.require(channels > 0, f"x: expected {n + 2} dimensions with at least one channel, got shape {x.shape}")
    _check.require(
        depthwise.ndim == n + 2
        and depthwise.shape[1] == 1
        and depthwise.shape[0] > 0
        and depthwise.shape[0] % channels == 0,
        f"depthwise_weight: got shape {depthwise.shape}, expected ({channels} * multiplier, 1, *kernel)",
    )
    _check.require(
        pointwise.ndim == n + 2 and pointwise.shape[1:] == (depthwise.shape[0],) + (1,) * n,
        f"pointwise_weight: got shape {pointwise.shape}, expected (C_out, {depthwise.shape[0]}{', 1' * n})",
    )
    return channels


def _separable_forward(n: int) -> Callable[..., Any]:
    conv = _forward(n)

    def separable_conv(
        x: Any,
        depthwise_weight: Any,
        pointwise_weight: Any,
        bias: Any = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        *,
        data_format: str = "channels_first",
        precision: str | None = None,
    ) -> Any:
        groups = _separable_shapes(n, x, depthwise_weight, pointwise_weight, data_format)
        middle = conv(
            x, depthwise_weight, None, stride, padding, dilation, groups, data_format=data_format, precision=precision
        )
        return conv(middle, pointwise_weight, bias, data_format=data_format, precision=precision)

    separable_conv.__doc__ = f"""{n}-dimensional separable convolution: a filter for each channel, then a mix of them.

    Parameters
    ----------
    x : array (N, C, *spatial) or (N, *spatial, C), float32 or float64
    depthwise_weight : array (C * multiplier, 1, *kernel)
    pointwise_weight : array (C_out, C * multiplier, 1, ...)
    bias : array (C_out,), optional
    stride, padding, dilation
        Of the depthwise step, as in :func:`conv{n}d`.
    data_format, precision
        As in :func:`conv{n}d`.

    Returns
    -------
    array
        (N, C_out, *output) or (N, *output, C_out).

    Raises
    ------
    TypeError, ValueError
        As :func:`conv{n}d`.

    References
    ----------
    F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017.
    """
    return separable_conv


def _separable_backward(n: int) -> Callable[..., Any]:
    conv, conv_backward = _forward(n), _backward(n)

    def separable_conv_backward(
        grad_output: Any,
        x: Any,
        depthwise_weight: Any,
        pointwise_weight: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        *,
        data_format: str = "channels_first",
        precision: str | None = None,
    ) -> SeparableConvGradients:
        groups = _separable_shapes(n, x, depthwise_weight, pointwise_weight, data_format)
        keywords: Any = {"data_format": data_format, "precision": precision}
        middle = conv(x, depthwise_weight, None, stride, padding, dilation, groups, **keywords)
        second = conv_backward(grad_output, middle, pointwise_weight, **keywords)
        first = conv_backward(
            second.input,
            x,
            depthwise_weight,
            stride,
            padding,
            dilation,
            groups,
            output_mask=(True, True, False),
            **keywords,
        )
        return SeparableConvGradients(first.input, first.weight, second.weight, second.bias)

    separable_conv_backward.__doc__ = f"""Gradients of :func:`separable_conv{n}d`.

    The depthwise step is computed again rather than kept.

    Parameters
    ----------
    grad_output : array
        The gradient of the output, of the output's shape.
    x, depthwise_weight, pointwise_weight, stride, padding, dilation, data_format
        As in the forward call.

    Returns
    -------
    SeparableConvGradients
        A named tuple (input, depthwise_weight, pointwise_weight, bias).

    Raises
    ------
    TypeError, ValueError
        As the forward call; also where grad_output has not the output's shape.
    """
    return separable_conv_backward


def _named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    return function


conv1d, conv2d, conv3d = (_named(_forward(n), f"conv{n}d") for n in (1, 2, 3))
conv1d_backward, conv2d_backward, conv3d_backward = (_named(_backward(n), f"conv{n}d_backward") for n in (1, 2, 3))
conv_transpose1d, conv_transpose2d, conv_transpose3d = (
    _named(_transposed_forward(n), f"conv_transpose{n}d") for n in (1, 2, 3)
)
conv_transpose1d_backward, conv_transpose2d_backward, conv_transpose3d_backward = (
    _named(_transposed_backward(n), f"conv_transpose{n}d_backward") for n in (1, 2, 3)
)
separable_conv1d, separable_conv2d, separable_conv3d = (
    _named(_separable_forward(n), f"separable_conv{n}d") for n in (1, 2, 3)
)
separable_conv1d_backward, separable_conv2d_backward, separable_conv3d_backward = (
    _named(_separable_backward(n), f"separable_conv{n}d_backward") for n in (1, 2, 3)
)
