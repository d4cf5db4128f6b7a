"""The definitions of the pools beyond maximum, minimum and mean, in float64 NumPy, as `reference` has them."""

from __future__ import annotations

import itertools

import numpy as np
import reference
from reference import f64

# --- powers ----------------------------------------------------------------------------------------------------------


def _taps_of(kernel):
    return float(np.prod(kernel))


def power_pool(x, norm, kernel, *, mean, **geometry):
    """``(scale * mean of x**norm)**(1 / norm)`` of each window, padding counting as zeros.

    ``scale`` is 1 for the root of a mean, the number of taps for that of a sum.
    """
    with np.errstate(all="ignore"):
        average = reference.avg_pool(f64(x) ** norm, kernel, **geometry)
        return (average * (1 if mean else _taps_of(kernel))) ** (1 / norm)


def power_pool_backward(grad_output, x, y, norm, kernel, *, mean, **geometry):
    """``x**(norm-1) * scale * sum of grad_output * y**(1-norm) / taps``; windows without a sum hand nothing down."""
    g, x, y = f64(grad_output, x, y)
    with np.errstate(all="ignore"):
        slope = np.where(y == (0 if norm > 0 else np.inf), 0, g * y ** (1 - norm))
        summed = reference.avg_pool_backward(slope, x.shape, kernel, **geometry)
        return summed * (1 if mean else _taps_of(kernel)) * x ** (norm - 1)


def rms_pool(x, kernel, **geometry):
    """The square root of each window's mean square."""
    return power_pool(x, 2, kernel, mean=True, **geometry)


def rms_pool_backward(grad_output, x, y, kernel, **geometry):
    """``grad_output * x / (taps * y)`` from every window, 0 where ``y`` is 0."""
    return power_pool_backward(grad_output, x, y, 2, kernel, mean=True, **geometry)


def lp_pool(x, norm, kernel, **geometry):
    """The root of each window's sum of powers."""
    return power_pool(x, norm, kernel, mean=False, **geometry)


def lp_pool_backward(grad_output, x, y, norm, kernel, **geometry):
    """``grad_output * (x / y)**(norm-1)`` from every window, 0 where the powers sum to 0."""
    return power_pool_backward(grad_output, x, y, norm, kernel, mean=False, **geometry)


# --- adaptive --------------------------------------------------------------------------------------------------------


def bins(size, out):
    """For each output of an axis the slice of its inputs: ``floor(o * in / out)`` to ``ceil((o + 1) * in / out)``."""
    return [slice(o * size // out, -(-(o + 1) * size // out)) for o in range(out)]


def _each_bin(size, out):
    """``(output position, input slices)`` of every output."""
    axes = [bins(s, o) for s, o in zip(size, out, strict=True)]
    for position in itertools.product(*(range(o) for o in out)):
        yield position, tuple(axis[o] for axis, o in zip(axes, position, strict=True))


def adaptive_avg_pool(x, out):
    """The mean of each bin."""
    x = f64(x)
    y = np.zeros((*x.shape[:2], *out))
    for o, i in _each_bin(x.shape[2:], out):
        with np.errstate(invalid="ignore"):
            y[..., *o] = x[..., *i].mean(axis=tuple(range(2, x.ndim)))
    return y


def adaptive_avg_pool_backward(grad_output, input_shape):
    """Each bin's gradient, over its size, to every position of the bin."""
    g = f64(grad_output)
    gx = np.zeros(input_shape)
    for o, i in _each_bin(input_shape[2:], g.shape[2:]):
        part = gx[..., *i]
        part += g[..., *o].reshape(*g.shape[:2], *(1,) * (g.ndim - 2)) / np.prod(part.shape[2:])
    return gx


def adaptive_max_pool(x, out):
    """``(y, indices)``: the largest value of each bin (the first of equals; the last NaN wins) and its flat place."""
    x = f64(x)
    size = x.shape[2:]
    places = np.arange(int(np.prod(size))).reshape(size)
    y, indices = np.zeros((*x.shape[:2], *out)), np.zeros((*x.shape[:2], *out), np.int64)
    for o, i in _each_bin(size, out):
        values = x[..., *i].reshape(*x.shape[:2], -1)
        nan = np.isnan(values)
        last_nan = values.shape[-1] - 1 - nan[..., ::-1].argmax(axis=-1)
        best = np.where(nan.any(axis=-1), last_nan, np.where(nan, -np.inf, values).argmax(axis=-1))
        y[..., *o] = np.take_along_axis(values, best[..., None], -1)[..., 0]
        indices[..., *o] = places[i].reshape(-1)[best]
    return y, indices


# --- unpooling -------------------------------------------------------------------------------------------------------


def max_unpool(x, indices, size):
    """Zeros of the spatial size, with each value at its flat index; the last of those that meet stays."""
    x = f64(x)
    y = np.zeros((*x.shape[:2], int(np.prod(size))))
    n, c = np.ogrid[: x.shape[0], : x.shape[1]]
    for o in itertools.product(*(range(s) for s in x.shape[2:])):
        y[n, c, indices[..., *o]] = x[..., *o]
    return y.reshape(*x.shape[:2], *size)


def max_unpool_backward(grad_output, indices):
    """The gradient at each index."""
    g = f64(grad_output)
    flat = g.reshape(*g.shape[:2], -1)
    return np.take_along_axis(flat, indices.reshape(*g.shape[:2], -1), -1).reshape(indices.shape)
