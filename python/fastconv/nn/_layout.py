"""Where the channels are: the two data formats, and the base of the layers that read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from .module import Module

__all__ = ["Layer", "channel_axis", "check_data_format", "check_dtype", "tuple_of"]

_CHANNELS_FIRST = ("channels_first", "NCW", "NCL", "NCHW", "NCDHW")
_CHANNELS_LAST = ("channels_last", "NWC", "NLC", "NHWC", "NDHWC")


def check_data_format(data_format: str) -> str:
    """Return ``"channels_first"`` or ``"channels_last"`` for any accepted name.

    Raises
    ------
    ValueError
        For any other name.
    """
    if data_format in _CHANNELS_FIRST:
        return "channels_first"
    if data_format in _CHANNELS_LAST:
        return "channels_last"
    raise ValueError(f"data_format: expected 'channels_first' or 'channels_last', got {data_format!r}")


def channel_axis(data_format: str) -> int:
    """Return the axis of the channels in a batched array."""
    return -1 if data_format == "channels_last" else 1


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


def check_positive(name: str, value: int) -> int:
    """Return a positive integer.

    Raises
    ------
    TypeError, ValueError
        If it is not an integer, or not positive.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected a positive integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name}: expected a positive integer, got {value}")
    return int(value)


def tuple_of(name: str, value: Any, n: int) -> tuple[int, ...]:
    """Return ``n`` positive integers for an int or a sequence of ``n`` ints.

    Raises
    ------
    TypeError, ValueError
        If it is neither.
    """
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return (check_positive(name, int(value)),) * n
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name}: expected an int or a tuple of {n} ints, got {value!r}")
    if len(value) != n:
        raise ValueError(f"{name}: expected an int or a tuple of {n} ints, got {value!r}")
    return tuple(check_positive(name, item) for item in value)


class Layer(Module):
    """A module that knows its data format.

    Element-wise layers take ``data_format`` too, though it changes nothing for them: one dictionary of options fits
    every layer of a network.
    """

    def __init__(self, *, data_format: str = "channels_first") -> None:
        self.data_format = check_data_format(data_format)
