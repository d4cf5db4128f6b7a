"""Transposed convolution in 1, 2 and 3 dimensions and its gradients: a convolution with input and output swapped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastconv import _check, _core, _engine
from fastconv.functional._conv_arguments import (
    ConvGradients,
    Geometry,
    Shaped,
    batched,
    checked_bias,
    checked_out,
    finish,
    geometry,
    image_shape,
    level_of,
    named,
    restore_gradients,
)

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
__all__ += ["conv_transpose1d_backward", "conv_transpose2d_backward", "conv_transpose3d_backward"]


def _only_zeros(padding_mode: object) -> None:
    _check.require(
        padding_mode == "zeros",
        lambda: (
            f'padding_mode: got {padding_mode!r}, expected "zeros" for a transposed convolution: '
            "its padding is not read"
        ),
    )


@_check.cached
def _transposed_geometry(
    n: int,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: object,
    padding: object,
    output_padding: object,
    *rest: object,
) -> tuple[Geometry, tuple[int, ...]]:
    """The convolution whose transpose is meant, and the output size.

    Elements of output padding are inputs of that convolution that lie past its last window: its padding after shrinks.
    """
    dilation, groups, data_format = rest
    if isinstance(padding, str):
        _check.require(
            padding == "valid",
            lambda: f'padding: got {padding!r}, expected ints, pairs or "valid" for a transposed convolution',
        )
    g = geometry(
        n, Shaped(x_shape), Shaped(weight_shape), stride, padding, dilation, groups, data_format, transposed=True
    )
    extra = _check.tuple_of_ints(output_padding, n, "output_padding", 0)
    for e, s, d in zip(extra, g.stride, g.dilation, strict=True):
        _check.require(e < max(s, d), f"output_padding: got {extra}, expected less than stride or dilation {max(s, d)}")
    spatial = x_shape[1:-1] if g.last else x_shape[2:]
    size = tuple(
        int(_core.transposed_output_size(i, k, s, d, before, after, e))
        for i, k, s, d, (before, after), e in zip(
            spatial, g.kernel, g.stride, g.dilation, g.padding, extra, strict=True
        )
    )
    _check.require(min(size) > 0, lambda: f"padding: {g.padding} leaves no output, the output size would be {size}")
    pads = tuple((before, after - e) for (before, after), e in zip(g.padding, extra, strict=True))
    return Geometry(g.kernel, g.stride, pads, g.dilation, g.groups, g.mode, g.last), size


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
        padding_mode: str = "zeros",
        data_format: str = "channels_first",
        precision: str | None = None,
        out: Any = None,
    ) -> Any:
        given = out
        _check.present(weight=weight)
        x, weight, bias, out, restore = _check.as_arrays(x=x, weight=weight, bias=bias, out=out)
        x, unbatched = batched(x, n, "x")
        level = level_of(precision)
        _only_zeros(padding_mode)
        g, size = _transposed_geometry(
            n, x.shape, weight.shape, stride, padding, output_padding, dilation, groups, data_format
        )
        channels = weight.shape[1] * g.groups
        target = checked_out(out, image_shape(x.shape[0], channels, size, g.last), unbatched, x, weight, bias)
        y = _engine.conv_backward_input(x, weight, checked_bias(bias, channels), size, *g.window, target, level)
        y = finish(y, unbatched, out)
        return given if given is not None else restore(y)

    conv_transpose.__doc__ = f"""{n}-dimensional transposed convolution: a convolution's input gradient, as a layer.

    Parameters
    ----------
    x : array (N, C_in, *spatial) or (N, *spatial, C_in), float32, float64, float16 or bfloat16
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
        padding_mode: str = "zeros",
        data_format: str = "channels_first",
        precision: str | None = None,
    ) -> ConvGradients:
        _check.present(weight=weight)
        grad_output, x, weight, restore = _check.as_arrays(grad_output=grad_output, x=x, weight=weight)
        x, unbatched = batched(x, n, "x")
        if unbatched:
            grad_output = grad_output[np.newaxis]
        wanted = _check.mask(output_mask)
        level = level_of(precision)
        _only_zeros(padding_mode)
        g, size = _transposed_geometry(
            n, x.shape, weight.shape, stride, padding, output_padding, dilation, groups, data_format
        )
        _check.same_shape(grad_output, image_shape(x.shape[0], weight.shape[1] * g.groups, size, g.last), "grad_output")
        if x.size == 0:  # the output has positions all the same, where the kernel reaches beyond one
            empty = ConvGradients(
                np.zeros(x.shape, x.dtype, like=x) if wanted[0] else None,
                np.zeros(weight.shape, weight.dtype, like=weight) if wanted[1] else None,
                _engine.conv_backward_bias(grad_output, g.last) if wanted[2] else None,
            )
            return restore_gradients(empty, restore, unbatched)
        grads = ConvGradients(
            _engine.conv_forward(grad_output, weight, None, *g.window, None, None, 0.0, level) if wanted[0] else None,
            _engine.conv_backward_weight(x, grad_output, g.kernel, *g.window, level) if wanted[1] else None,
            _engine.conv_backward_bias(grad_output, g.last) if wanted[2] else None,
        )
        return restore_gradients(grads, restore, unbatched)

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


conv_transpose1d, conv_transpose2d, conv_transpose3d = (
    named(_transposed_forward(n), f"conv_transpose{n}d") for n in (1, 2, 3)
)
conv_transpose1d_backward, conv_transpose2d_backward, conv_transpose3d_backward = (
    named(_transposed_backward(n), f"conv_transpose{n}d_backward") for n in (1, 2, 3)
)
