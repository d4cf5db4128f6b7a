"""Rules for the first values of weights, PyTorch's names and formulas.

Every rule fills a `Parameter` or an array in place and returns it. Random numbers come from ``rng``, or, where that is
``None``, from one package-wide NumPy generator that `seed` restarts: ``seed(0)`` before a network is built makes its
weights the same each time. The generator starts from operating-system entropy.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .parameter import Parameter

__all__ = [
    "calculate_gain",
    "constant_",
    "default_generator",
    "fan_in_and_fan_out",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "seed",
    "uniform_",
    "xavier_normal_",
    "xavier_uniform_",
    "zeros_",
]

T = TypeVar("T", Parameter, NDArray[Any])

_generator = np.random.default_rng()


def seed(value: int | None) -> None:
    """Restart the generator that layers draw their weights and dropout seeds from.

    Parameters
    ----------
    value : int or None
        A non-negative seed; ``None`` takes fresh entropy.
    """
    global _generator
    _generator = np.random.default_rng(value)


def default_generator() -> np.random.Generator:
    """Return the generator that `seed` restarts."""
    return _generator


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which weights grow to keep a signal's size through a nonlinearity.

    Parameters
    ----------
    nonlinearity : {"linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"}
        What follows the layer.
    param : float, optional
        Negative slope of ``"leaky_relu"``; 0.01 unless given.

    Raises
    ------
    ValueError
        If the nonlinearity is not one of these.
    """
    slope = 0.01 if param is None else param
    gains = {
        "linear": 1.0,
        "sigmoid": 1.0,
        "tanh": 5.0 / 3.0,
        "relu": math.sqrt(2.0),
        "leaky_relu": math.sqrt(2.0 / (1.0 + slope**2)),
        "selu": 0.75,
    }
    if nonlinearity not in gains:
        raise ValueError(f"nonlinearity: expected one of {sorted(gains)}, got {nonlinearity!r}")
    return gains[nonlinearity]


def fan_in_and_fan_out(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many inputs an output sums and how many outputs an input feeds, for a weight's shape.

    The first axis counts as outputs and the second as inputs, whatever the layer, as in PyTorch (for a transposed
    convolution they are the other way round, and PyTorch does not look).

    Raises
    ------
    ValueError
        If the shape has fewer than two axes.
    """
    if len(shape) < 2:
        raise ValueError(f"shape: a fan needs at least 2 axes (outputs, inputs, *kernel), got {shape}")
    taps = math.prod(shape[2:])
    return shape[1] * taps, shape[0] * taps


def _values(target: Parameter | NDArray[Any]) -> NDArray[Any]:
    if isinstance(target, Parameter):
        return target.data
    if isinstance(target, np.ndarray):
        return target
    raise TypeError(f"target: expected a Parameter or a numpy.ndarray, got {type(target).__name__}")


def uniform_(target: T, low: float = 0.0, high: float = 1.0, *, rng: np.random.Generator | None = None) -> T:
    """Fill with numbers uniform on ``[low, high)``."""
    array = _values(target)
    array[...] = (rng or _generator).uniform(low, high, array.shape)
    return target


def normal_(target: T, mean: float = 0.0, std: float = 1.0, *, rng: np.random.Generator | None = None) -> T:
    """Fill with normal numbers of the given mean and standard deviation."""
    array = _values(target)
    array[...] = (rng or _generator).normal(mean, std, array.shape)
    return target


def constant_(target: T, value: float) -> T:
    """Fill with one value."""
    _values(target)[...] = value
    return target


def zeros_(target: T) -> T:
    """Fill with 0."""
    return constant_(target, 0.0)


def ones_(target: T) -> T:
    """Fill with 1."""
    return constant_(target, 1.0)


def xavier_uniform_(target: T, gain: float = 1.0, *, rng: np.random.Generator | None = None) -> T:
    """Fill uniformly with variance ``2 gain^2 / (fan_in + fan_out)`` (Glorot and Bengio, 2010)."""
    bound = math.sqrt(3.0) * _xavier_std(target, gain)
    return uniform_(target, -bound, bound, rng=rng)


def xavier_normal_(target: T, gain: float = 1.0, *, rng: np.random.Generator | None = None) -> T:
    """Fill normally with variance ``2 gain^2 / (fan_in + fan_out)`` (Glorot and Bengio, 2010)."""
    return normal_(target, 0.0, _xavier_std(target, gain), rng=rng)


def kaiming_uniform_(
    target: T,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: np.random.Generator | None = None,
) -> T:
    """Fill uniformly with variance ``gain^2 / fan`` (He and others, 2015).

    Parameters
    ----------
    target : Parameter or numpy.ndarray
        At least two axes: outputs, inputs, kernel.
    a : float
        Negative slope of the leaky ReLU that follows.
    mode : {"fan_in", "fan_out"}
        Which fan; the first keeps the size of the signal, the second that of the gradient.
    nonlinearity : str
        See `calculate_gain`.
    rng : numpy.random.Generator, optional
        Source of the numbers; the package's generator unless given.
    """
    bound = math.sqrt(3.0) * _kaiming_std(target, a, mode, nonlinearity)
    return uniform_(target, -bound, bound, rng=rng)


def kaiming_normal_(
    target: T,
    a: float = 0.0,
    mode: str = "fan_in",
    nonlinearity: str = "leaky_relu",
    *,
    rng: np.random.Generator | None = None,
) -> T:
    """Fill normally with variance ``gain^2 / fan`` (He and others, 2015); arguments as `kaiming_uniform_`."""
    return normal_(target, 0.0, _kaiming_std(target, a, mode, nonlinearity), rng=rng)


def _xavier_std(target: Parameter | NDArray[Any], gain: float) -> float:
    return gain * math.sqrt(2.0 / sum(fan_in_and_fan_out(_values(target).shape)))


def _kaiming_std(target: Parameter | NDArray[Any], a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ValueError(f"mode: expected 'fan_in' or 'fan_out', got {mode!r}")
    fan_in, fan_out = fan_in_and_fan_out(_values(target).shape)
    return calculate_gain(nonlinearity, a) / math.sqrt(fan_in if mode == "fan_in" else fan_out)


def new_weight_and_bias(
    weight_shape: tuple[int, ...],
    bias_size: int | None,
    dtype: np.dtype[Any],
    rng: np.random.Generator | None,
) -> tuple[Parameter, Parameter | None]:
    """Return a layer's parameters with PyTorch's default values.

    Kaiming uniform with ``a = sqrt(5)``, which makes both weight and bias uniform on ``±1/sqrt(fan_in)``.
    """
    weight = kaiming_uniform_(Parameter(np.empty(weight_shape, dtype)), a=math.sqrt(5.0), rng=rng)
    if bias_size is None:
        return weight, None
    bound = 1.0 / math.sqrt(fan_in_and_fan_out(weight_shape)[0])
    return weight, uniform_(Parameter(np.empty(bias_size, dtype)), -bound, bound, rng=rng)
