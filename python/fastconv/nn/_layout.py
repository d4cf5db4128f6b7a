"""Where the channels are: the two data formats, and the base of the layers that read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._check import channels_last
from .module import Module

__all__ = ["Layer", "channel_axis", "check_array", "check_data_format", "check_dtype"]


def check_data_format(data_format: str) -> str:
    """Return ``"channels_first"`` or ``"channels_last"`` for any accepted name.

    Raises
    ------
    ValueError
        For any other name.
    """
    return "channels_last" if channels_last(data_format) else "channels_first"


def channel_axis(data_format: str) -> int:
    """Return the axis of the channels in a batched array."""
    return -1 if data_format == "channels_last" else 1


def check_array(x: object, name: str = "x") -> None:
    """Raise ``TypeError`` unless `x` is an array or a tensor, whose shape a layer may then read."""
    if not hasattr(x, "shape"):
        raise TypeError(f"{name}: expected a numpy.ndarray, got {type(x).__name__}; pass numpy.asarray({name})")


def check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return a floating-point dtype for a layer's parameters.

    Raises
    ------
    TypeError
        If it is not one.
    """
    result = np.dtype(dtype)
    if result.kind in "iubcOSUMm":
        raise TypeError(f"dtype: a layer's parameters are floating-point numbers, got {result}")
    return result


class Layer(Module):
    """A module that knows its data format.

    Element-wise layers take ``data_format`` too, though it changes nothing for them: one dictionary of options fits
    every layer of a network.
    """

    def __init__(self, *, data_format: str = "channels_first") -> None:
        self.data_format = check_data_format(data_format)

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        check_array(x)
        return super().__call__(x)
