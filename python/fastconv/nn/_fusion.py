"""Layers that are one pass over memory where they follow each other.

In evaluation a convolution applies the batch norm and the activation behind it to its sums before it stores them, and
gives the bits of the three one after the other; everywhere a batch norm applies the ReLU behind it, and takes the
ReLU's gradient back with its own. No weight is kept from one call to the next, so none can be stale.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
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

__all__ = ["apply_in_order", "backward_in_order", "rectified_sum"]

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
        if observed:
            pass
        elif _is_one_of(_CONVOLUTIONS, layer) and not layer.remembers:
            followers = _followers(layer, layers[at + 1 : at + 3], x)
        elif _is_one_of(_NORMS, layer):
            followers = _rectifier(layers[at + 1 : at + 2], x)
        x = _fused(layer, followers, x) if followers else layer(x)
        done = at + 1 + len(followers)
    return x


def backward_in_order(layers: Sequence[Any], grad_output: NDArray[Any]) -> NDArray[Any]:
    """Propagate a gradient through layers from the last to the first, through a norm and its ReLU in one pass."""
    at = len(layers) - 1
    while at >= 0:
        layer = layers[at]
        if at > 0 and _were_one_pass(layers[at - 1], layer):
            (y,) = layer._recall()
            at -= 1
            grad_output = layers[at]._propagate(grad_output, y)
        else:
            grad_output = layer.backward(grad_output)
        at -= 1
    return grad_output


def rectified_sum(block: Any, relu: ReLU, x: NDArray[Any]) -> NDArray[Any]:
    """Return what ``relu`` gives for a `Residual`'s sum."""
    if active_observer() is not None or not _is_one_of({ReLU}, relu):
        return relu(block(x))
    a, b = block.terms(x)
    if not _sums.fits(a, b):
        return relu(a + b)
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
    if rest and _is_one_of(_ACTIVATIONS, rest[0]) and not rest[0].remembers:
        chosen.append(rest[0])
    return chosen


def _rectifier(after: Sequence[Any], x: NDArray[Any]) -> list[Any]:
    """Return the ReLU behind a norm, if the norm can apply it."""
    fits = isinstance(x, np.ndarray) and x.dtype in _sums.REAL
    return [each for each in after if fits and _is_one_of({ReLU}, each)]


def _is_one_of(types: Container[type], layer: Module) -> bool:
    """Whether a layer is of one of the types and does what they do."""
    own = vars(layer)
    return type(layer) in types and "forward" not in own and "backward" not in own


def _were_one_pass(norm: Any, relu: Any) -> bool:
    """Whether they are a norm and a ReLU that both remember the result that the norm rectified."""
    if not (_is_one_of(_NORMS, norm) and _is_one_of({ReLU}, relu)):
        return False
    if norm._remembered is None or relu._remembered is None:
        return False
    *_, rectified = norm._remembered
    (y,) = relu._remembered
    return rectified is y


def _norm_fits(layer: Any, norm: Any, x: NDArray[Any]) -> bool:
    """Whether the norm is one of known statistics and of the convolution's output."""
    if not _is_one_of(_NORMS, norm) or norm.remembers or norm.running_mean is None or norm.running_var is None:
        return False
    arrays = [norm.running_mean, norm.running_var, *(p.data for p in (norm.weight, norm.bias) if p is not None)]
    return (
        norm.num_features == layer.out_channels
        and norm.data_format == layer.data_format
        and x.ndim in norm._input_axes
        and all(array.dtype == x.dtype for array in arrays)
    )


def _fused(layer: Any, followers: Sequence[Any], x: NDArray[Any]) -> NDArray[Any]:
    for each in (layer, *followers):
        each._refresh()
    if type(layer) in _NORMS:
        rectified: NDArray[Any] = layer._normalise(x, True)
        followers[0]._remember(rectified)
        return rectified
    norm: Norm | None = None
    activation: str | None = None
    for each in followers:
        if type(each) in _NORMS:
            norm = running_norm(each.running_mean, each.running_var, each._scale, each._shift, each.eps)
        else:
            activation = _ACTIVATIONS[type(each)]
    y: NDArray[Any] = layer._convolve(x, activation, norm)
    for each in (layer, *followers):
        each._remember()  # which in evaluation forgets
    return y
