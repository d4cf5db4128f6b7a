"""Layers that are one pass over memory where they follow each other.

In evaluation a convolution applies the batch norm and the activation behind it to its sums before it stores them, and
gives the bits of the three one after the other. Nothing is kept between calls, so no result can be stale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..functional import _sums
from ..functional.conv import Norm
from ..functional.norm import running_norm
from ._trace import active_observer
from .activation import ReLU, Sigmoid, Tanh
from .conv import Conv1d, Conv2d, Conv3d, SeparableConv1d, SeparableConv2d, SeparableConv3d
from .module import Module
from .norm import BatchNorm1d, BatchNorm2d, BatchNorm3d

__all__ = ["apply_in_order", "rectified_sum"]

# Exact types: a subclass may do something else.
_CONVOLUTIONS = {Conv1d, Conv2d, Conv3d, SeparableConv1d, SeparableConv2d, SeparableConv3d}
_NORMS = {BatchNorm1d, BatchNorm2d, BatchNorm3d}
_ACTIVATIONS: dict[type, str] = {ReLU: "relu", Sigmoid: "sigmoid", Tanh: "tanh"}


def apply_in_order(layers: Sequence[Module], x: NDArray[Any]) -> NDArray[Any]:
    """Apply layers one after another, those that can be one pass as one."""
    observed = active_observer() is not None
    done = 0  # layers before this one were applied
    for at, layer in enumerate(layers):
        if at < done:
            continue
        followers: list[Any] = []
        if type(layer) in _CONVOLUTIONS and not (observed or layer.remembers):
            followers = _followers(layer, layers[at + 1 : at + 3], x)
        x = _fused(layer, followers, x) if followers else layer(x)
        done = at + 1 + len(followers)
    return x


def rectified_sum(a: NDArray[Any], b: NDArray[Any], relu: ReLU) -> NDArray[Any]:
    """Return what ``relu`` gives for ``a + b``."""
    if active_observer() is not None or type(relu) is not ReLU or not _sums.fits(a, b):
        return relu(_sums.add(a, b))
    y = _sums.relu_of_sum(a, b)
    relu._remember(y)
    return y


def _followers(layer: Any, after: Sequence[Any], x: NDArray[Any]) -> list[Any]:
    """Return the norm and the activation, or one of them or none, that a convolution can apply to its sums."""
    if (
        getattr(layer, "activation", None) is not None
        or not isinstance(x, np.ndarray)
        or x.dtype not in _sums.REAL
        or x.ndim != layer._ndim + 2
    ):
        return []
    chosen, rest = [], list(after)
    if rest and _norm_fits(layer, rest[0], x):
        chosen.append(rest.pop(0))
    if rest and type(rest[0]) in _ACTIVATIONS and not rest[0].remembers:
        chosen.append(rest[0])
    return chosen


def _norm_fits(layer: Any, norm: Any, x: NDArray[Any]) -> bool:
    """Whether the norm is one of known statistics and of the convolution's output."""
    if type(norm) not in _NORMS or norm.remembers or norm.running_mean is None:
        return False
    arrays = [norm.running_mean, norm.running_var, *(p.data for p in (norm.weight, norm.bias) if p is not None)]
    return (
        norm.num_features == layer.out_channels
        and norm.data_format == layer.data_format
        and x.ndim in norm._input_axes
        and all(array.dtype == x.dtype for array in arrays)
    )


def _fused(layer: Any, followers: Sequence[Any], x: NDArray[Any]) -> NDArray[Any]:
    norm: Norm | None = None
    activation: str | None = None
    for each in (layer, *followers):
        each._refresh()
        if type(each) in _NORMS:
            norm = running_norm(each.running_mean, each.running_var, each._scale, each._shift, each.eps)
        elif type(each) in _ACTIVATIONS:
            activation = _ACTIVATIONS[type(each)]
        each._remember()  # which in evaluation forgets
    y: NDArray[Any] = layer._convolve(x, activation, norm)
    return y
