"""What convolution and transposed convolution, forward and backward, check and finish alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from fastconv import _check, _core, _runtime
from fastconv._check import Array, Pads

_ACTIVATIONS = {"relu": 0.0, "leaky_relu": 0.01, "elu": 1.0, "sigmoid": 0.0, "tanh": 0.0}  # with their parameter

PADDING_MODES = ("zeros", "reflect", "replicate", "circular")


class ConvGradients(NamedTuple):
    """Gradients of a (transposed) convolution; ``None`` where `output_mask` left one out."""

    input: Any
    weight: Any
    bias: Any


@dataclass(frozen=True)
class Geometry:
    """The checked arguments of one call, in the words of the convolution (not its transpose)."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]
    groups: int
    mode: str
    last: bool

    @property
    def window(self) -> tuple[tuple[int, ...], Pads, tuple[int, ...], int, str, bool]:
        return self.stride, self.padding, self.dilation, self.groups, self.mode, self.last


@dataclass(frozen=True)
class Shaped:
    """An array as the checks of its shape see it."""

    shape: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)


def batched(x: Array, n: int, name: str) -> tuple[Array, bool]:
    """An unbatched image gets a batch axis; the flag says that it did."""
    if x.ndim == n + 1:
        return x[np.newaxis], True
    return x, False


def geometry(
    n: int,
    x: Any,
    weight: Any,
    stride: object,
    padding: object,
    dilation: object,
    groups: object,
    data_format: object,
    padding_mode: object = "zeros",
    *,
    transposed: bool,
) -> Geometry:
    """What forward and backward, plain and transposed, check alike."""
    last = _check.channels_last(data_format)
    sizes = _check.spatial_shape(x, n, "x", last)
    layout = "(C_in, C_out/groups, *kernel)" if transposed else "(C_out, C_in/groups, *kernel)"
    _check.require(
        weight.ndim == n + 2, lambda: f"weight: expected {n + 2} dimensions {layout}, got shape {weight.shape}"
    )
    kernel = tuple(weight.shape[2:])
    _check.require(
        min(kernel) > 0, lambda: f"weight: got shape {weight.shape}, expected at least one tap in each dimension"
    )
    strides = _check.tuple_of_ints(stride, n, "stride", 1)
    dilations = _check.tuple_of_ints(dilation, n, "dilation", 1)
    pads = _check.pads(padding, n, sizes, kernel, strides, dilations)
    _check_mode(padding_mode, pads, sizes)
    count = _check.integer(groups, "groups", 1)
    channels = _check.channels(x, last)
    _check.require(channels % count == 0, lambda: f"groups: {count} does not divide the {channels} input channels")
    expected = channels if transposed else channels // count
    hint = ""
    if not last and x.shape[-1] == expected * (1 if transposed else count) != channels:
        hint = '; the last axis fits: is this data_format="channels_last"?'
    _check.require(
        weight.shape[0 if transposed else 1] == expected,
        lambda: (
            f"weight: got shape {weight.shape} {layout} for x with {channels} channels and groups={count}, expected "
            f"{expected} on axis {0 if transposed else 1}{hint}"
        ),
    )
    if not transposed:
        _check.require(
            weight.shape[0] % count == 0,
            lambda: f"groups: {count} does not divide the {weight.shape[0]} output channels",
        )
    return Geometry(kernel, strides, pads, dilations, count, str(padding_mode), last)


@_check.cached
def conv_geometry(
    n: int, x_shape: tuple[int, ...], weight_shape: tuple[int, ...], *arguments: Any
) -> tuple[Geometry, tuple[int, ...], tuple[int, ...]]:
    """The geometry of a convolution, its input's spatial size and its output's."""
    g = geometry(n, Shaped(x_shape), Shaped(weight_shape), *arguments, transposed=False)
    spatial = x_shape[1:-1] if g.last else x_shape[2:]
    return g, spatial, _check.output_sizes(spatial, g.kernel, g.stride, g.dilation, g.padding, name="weight")


def _check_mode(padding_mode: object, pads: Pads, sizes: tuple[int, ...]) -> None:
    _check.require(
        padding_mode in PADDING_MODES, lambda: f"padding_mode: got {padding_mode!r}, expected one of {PADDING_MODES}"
    )
    if padding_mode == "zeros":
        return
    for pair, size in zip(pads, sizes, strict=True):
        most = _core.most_padding(size, str(padding_mode))
        _check.require(
            max(pair) <= most,
            f"padding: got {pair} for a dimension of {size}, expected at most {most} with "
            f"padding_mode={padding_mode!r}",
        )


def checked_bias(bias: Array | None, length: int) -> Array | None:
    if bias is None:
        return None
    _check.require(bias.shape == (length,), lambda: f"bias: got shape {bias.shape}, expected ({length},)")
    return np.ascontiguousarray(bias, like=bias)


def image_shape(samples: int, channels: int, spatial: tuple[int, ...], last: bool) -> tuple[int, ...]:
    return (samples, *spatial, channels) if last else (samples, channels, *spatial)


def checked_out(out: Array | None, shape: tuple[int, ...], unbatched: bool, *inputs: Array | None) -> Array | None:
    """A caller's result array, checked; a fresh one where it overlaps an input or the engine cannot step through it."""
    if out is None:
        return None
    _check.require(
        out.shape == (shape[1:] if unbatched else shape), lambda: f"out: got shape {out.shape}, expected {shape}"
    )
    _check.require(out.flags.writeable, "out: is read-only")
    _check.require(
        all(stride != 0 or size < 2 for stride, size in zip(out.strides, out.shape, strict=True)),
        "out: is a broadcast view, expected an array with an element for each result",
    )
    if not _check.can_step(out) or any(i is not None and np.may_share_memory(out, i) for i in inputs):
        return None
    return out[np.newaxis] if unbatched else out


def checked_activation(activation: object) -> tuple[str | None, float]:
    """The activation's name and parameter, the defaults of `fastconv.functional`."""
    if activation is None:
        return None, 0.0
    if not isinstance(activation, str):
        raise TypeError(f"activation: expected None or a str, got {activation!r}")
    names = tuple(_ACTIVATIONS)
    _check.require(activation in names, lambda: f"activation: got {activation!r}, expected one of {names}")
    return activation, _ACTIVATIONS[activation]


def level_of(precision: object) -> str:
    """A call's own level, or the one that is set."""
    return _runtime.get_float32_precision() if precision is None else _runtime.check_precision(precision)


def finish(y: Array, unbatched: bool, out: Array | None) -> Array:
    if unbatched:
        y = y[0]
    if out is None:
        return y
    if not np.may_share_memory(out, y):
        np.copyto(out, y)
    return out


def restore_gradients(grads: ConvGradients, restore: Callable[[Any], Any], unbatched: bool) -> ConvGradients:
    first = grads.input[0] if unbatched and grads.input is not None else grads.input
    return ConvGradients(*(None if g is None else restore(g) for g in (first, grads.weight, grads.bias)))


def named(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    function.__name__ = function.__qualname__ = name
    return function
