"""Dropout, of single values and of whole channels, and its gradient."""

from __future__ import annotations

import os
from collections.abc import Sequence
from numbers import Integral
from typing import Any

import numpy as np

from fastconv import _engine
from fastconv._check import Array, as_arrays, as_ndarray, channels_last, flag, number, require, same_place
from fastconv._device import is_device_array

__all__ = [
    "dropout",
    "dropout1d",
    "dropout1d_backward",
    "dropout2d",
    "dropout2d_backward",
    "dropout3d",
    "dropout3d_backward",
    "dropout_backward",
]


def _probability(p: object) -> float:
    value = number(p, "p")
    require(0 <= value <= 1, lambda: f"p: got {p!r}, expected a probability between 0 and 1")
    return value


def _seed(seed: object) -> int:
    if seed is None:
        return int.from_bytes(os.urandom(8), "little")
    if isinstance(seed, bool) or not isinstance(seed, Integral):
        raise TypeError(f"seed: expected an int or None, got {seed!r}")
    require(0 <= int(seed) < 2**64, lambda: f"seed: got {seed}, expected 0 to 2**64 - 1")
    return int(seed)


def _noise_shape(noise_shape: object, x: Array) -> tuple[int, ...]:
    if noise_shape is None:
        return x.shape
    if not isinstance(noise_shape, Sequence) or isinstance(noise_shape, str):
        raise TypeError(f"noise_shape: expected a tuple of ints or None, got {noise_shape!r}")
    for size in noise_shape:
        if size is not None and (isinstance(size, bool) or not isinstance(size, Integral)):
            raise TypeError(f"noise_shape: expected ints or None, got {size!r}")
    fits = len(noise_shape) == x.ndim and all(
        size in (None, 1, full) for size, full in zip(noise_shape, x.shape, strict=True)
    )
    require(fits, lambda: f"noise_shape: got {tuple(noise_shape)}, expected 1 or x's size on each axis of {x.shape}")
    return tuple(full if size is None else int(size) for size, full in zip(noise_shape, x.shape, strict=True))


def _apply(x: Array, keep: Array, p: float) -> Array:
    """``x / (1 - p)`` where `keep`, else 0."""
    y: Array = _engine.empty_like(x)
    _engine.dropout_apply(x, np.broadcast_to(keep, x.shape), y, 1 / (1 - p) if p < 1 else 0.0)
    return y


def _drop(x: Any, p: object, training: object, noise: Any, seed: object, n: int = 0, last: bool = False) -> Any:
    array, restore = as_arrays(x=x)
    probability, number_of_stream = _probability(p), _seed(seed)
    if n:
        layout = "(N, *spatial, C)" if last else "(N, C, *spatial)"
        require(
            array.ndim in (n + 1, n + 2),
            lambda: f"x: expected {n + 2} dimensions {layout}, or {n + 1} without N, got shape {array.shape}",
        )
        samples, unit = array.shape[: array.ndim - n - 1], (1,) * n
        noise = (*samples, *unit, array.shape[-1]) if last else (*samples, array.shape[len(samples)], *unit)
    shape = _noise_shape(noise, array)
    if not flag(training, "training"):
        return restore(array.copy())
    keep = _engine.dropout_mask(array, shape, probability, number_of_stream)
    return restore(_apply(array, keep, probability)), restore(keep)


def _drop_backward(grad_output: Any, mask: Any, p: object, data_format: object) -> Any:
    channels_last(data_format)
    gradient, restore = as_arrays(grad_output=grad_output)
    keep = as_ndarray(mask, "mask") if is_device_array(mask) else np.asarray(mask)
    same_place(grad_output=gradient, mask=keep)
    if keep.dtype != np.bool_:
        raise TypeError(f"mask: expected bool, got {keep.dtype}")
    fits = keep.ndim == gradient.ndim and all(m in (1, g) for m, g in zip(keep.shape, gradient.shape, strict=True))
    require(
        fits, lambda: f"mask: got shape {keep.shape}, expected 1 or grad_output's size on each axis of {gradient.shape}"
    )
    return restore(_apply(gradient, keep, _probability(p)))


def dropout(
    x: Any,
    p: float = 0.5,
    training: bool = True,
    *,
    noise_shape: Sequence[int | None] | None = None,
    seed: Any = None,
    data_format: str = "channels_first",
) -> Any:
    """Set values to zero with probability `p` in training; keep the others, scaled by ``1 / (1 - p)``.

    Word ``i`` of the seed's Philox stream decides on the mask's entry ``i`` in C order: one seed gives one mask, on
    every machine, with any number of threads, for any strides of `x`.

    Parameters
    ----------
    x : array
        Any shape, float32, float64, float16 or bfloat16.
    p : float
        Probability of a zero, from 0 to 1.
    training : bool
        Whether to drop; otherwise the result is a copy of `x`.
    noise_shape : tuple of ints, optional
        The mask's shape: on each axis `x`'s size (or ``None``) or 1, where the axis shares its entries.
    seed : int, optional
        From 0 to 2**64 - 1; by default a new one each time.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    (array, array), or array
        In training ``(y, mask)``, the mask bool, of the noise shape, true where kept; else ``y``.

    Raises
    ------
    TypeError
        `x` is not an array of float32, float64, float16 or bfloat16, or an argument is of the wrong kind.
    ValueError
        `p` or `seed` out of range, or a noise shape that does not fit.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple way to prevent neural
    networks from overfitting", JMLR 15, 2014. J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy
    as 1, 2, 3", SC 2011 (Philox 4x32-10).
    """
    return _drop(x, p, training, noise_shape, seed, 0, channels_last(data_format))


def dropout_backward(grad_output: Any, mask: Any, p: float = 0.5, *, data_format: str = "channels_first") -> Any:
    """Gradient of `dropout`: ``grad_output / (1 - p)`` where kept, else 0.

    Parameters
    ----------
    grad_output : array
        The gradient of the output, float32, float64, float16 or bfloat16.
    mask : array of bool
        As `dropout` returned it.
    p : float
        As in `dropout`.
    data_format : str
        Accepted as by every op; the result does not depend on it.

    Returns
    -------
    array
        The gradient of the input.

    Raises
    ------
    TypeError
        `grad_output` is not an array of float32, float64, float16 or bfloat16, or `mask` not of bool.
    ValueError
        A mask that does not fit, or `p` out of range.
    """
    return _drop_backward(grad_output, mask, p, data_format)


_CHANNELS = """Set whole channels of {n}-dimensional images to zero with probability `p` in training.

    Parameters
    ----------
    x : array
        ``(N, C, *spatial)`` (channels first) or ``(N, *spatial, C)`` (channels last) with {n} spatial dimension(s),
        or one sample without N; float32, float64, float16 or bfloat16.
    p : float
        Probability of a zero, from 0 to 1; kept channels are scaled by ``1 / (1 - p)``.
    training : bool
        Whether to drop; otherwise the result is a copy of `x`.
    seed : int, optional
        From 0 to 2**64 - 1; by default a new one each time. One seed gives one mask, as in `dropout`.
    data_format : {{"channels_first", "channels_last"}}
        Where the channels are; a channel's fate does not depend on it.

    Returns
    -------
    (array, array), or array
        In training ``(y, mask)``, the mask bool with spatial axes of size 1; else ``y``.

    Raises
    ------
    TypeError
        `x` is not an array of float32, float64, float16 or bfloat16, or an argument is of the wrong kind.
    ValueError
        `x` of another rank, or `p` or `seed` out of range.

    References
    ----------
    J. Tompson, R. Goroshin, A. Jain, Y. LeCun, C. Bregler, "Efficient object localization using convolutional
    networks", CVPR 2015.
    """


def dropout1d(
    x: Any, p: float = 0.5, training: bool = True, *, seed: Any = None, data_format: str = "channels_first"
) -> Any:
    return _drop(x, p, training, None, seed, 1, channels_last(data_format))


def dropout2d(
    x: Any, p: float = 0.5, training: bool = True, *, seed: Any = None, data_format: str = "channels_first"
) -> Any:
    return _drop(x, p, training, None, seed, 2, channels_last(data_format))


def dropout3d(
    x: Any, p: float = 0.5, training: bool = True, *, seed: Any = None, data_format: str = "channels_first"
) -> Any:
    return _drop(x, p, training, None, seed, 3, channels_last(data_format))


def _channels_backward(grad_output: Any, mask: Any, p: object, data_format: object, n: int) -> Any:
    gradient = _drop_backward(grad_output, mask, p, data_format)
    require(
        gradient.ndim in (n + 1, n + 2),
        lambda: (
            f"grad_output: expected {n + 2} dimensions, or {n + 1} of one sample, got shape {tuple(gradient.shape)}"
        ),
    )
    return gradient


def dropout1d_backward(grad_output: Any, mask: Any, p: float = 0.5, *, data_format: str = "channels_first") -> Any:
    """Gradient of `dropout1d`, as `dropout_backward`."""
    return _channels_backward(grad_output, mask, p, data_format, 1)


def dropout2d_backward(grad_output: Any, mask: Any, p: float = 0.5, *, data_format: str = "channels_first") -> Any:
    """Gradient of `dropout2d`, as `dropout_backward`."""
    return _channels_backward(grad_output, mask, p, data_format, 2)


def dropout3d_backward(grad_output: Any, mask: Any, p: float = 0.5, *, data_format: str = "channels_first") -> Any:
    """Gradient of `dropout3d`, as `dropout_backward`."""
    return _channels_backward(grad_output, mask, p, data_format, 3)


for _n, _function in enumerate((dropout1d, dropout2d, dropout3d), 1):
    _function.__doc__ = _CHANNELS.format(n=_n)
