"""Arrays of what a network has learnt and sees."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..nn._layout import channel_axis
from ..nn._trace import observe
from ..nn.module import Module

__all__ = ["feature_maps", "filters"]


def filters(layer: Module) -> NDArray[Any]:
    """Return a convolution's filters, each scaled to lie between -1 and 1.

    Parameters
    ----------
    layer : Module
        One with a ``weight`` of at least three axes (or, separable, a ``depthwise_weight``).

    Returns
    -------
    numpy.ndarray
        ``(C_out, C_in/groups, *kernel)``: positive entries look for ink, negative ones for its absence; every output
        channel's filter is divided by its largest magnitude.

    Raises
    ------
    TypeError
        If the layer has no such weight.
    """
    parameter = getattr(layer, "depthwise_weight", None) or getattr(layer, "weight", None)
    if parameter is None or parameter.data.ndim < 3:
        raise TypeError(f"layer: expected a convolution, got {type(layer).__name__}")
    weight: NDArray[Any] = parameter.data
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)), keepdims=True)
    scaled: NDArray[Any] = weight / np.where(largest == 0, 1, largest)
    return scaled


class _Maps:
    """Keeps the outputs of the layers that have no layers in them."""

    def __init__(self, module: Module) -> None:
        self._names = {id(each): name for name, each in module.named_modules()}
        self.maps: dict[str, NDArray[Any]] = {}

    def enter(self, module: Module, x: NDArray[Any]) -> None:
        pass

    def leave(self, module: Module, x: NDArray[Any], y: NDArray[Any]) -> None:
        if next(module.children(), None) is None:
            name = self._names.get(id(module), type(module).__name__)
            channels = channel_axis(getattr(module, "data_format", "channels_first"))
            self.maps[name] = np.moveaxis(y, channels, 1) if y.ndim > 2 else y


def feature_maps(module: Module, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return what every layer makes of an input, in evaluation mode.

    Parameters
    ----------
    module : Module
        A network. Its mode, and what it remembers of its latest forward, stay as they are.
    x : numpy.ndarray
        An input batch.

    Returns
    -------
    dict of str to numpy.ndarray
        Outputs by the layers' dotted names, in the order of computation; ``(N, C, *spatial)`` whatever the data
        format, or ``(N, features)``.
    """
    maps = _Maps(module)
    with module.evaluating(), observe(maps):
        module(x)
    return maps.maps
