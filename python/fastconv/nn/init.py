"""Rules for the first values of weights, PyTorch's names and formulas.

Every rule fills a `Parameter` or an array in place and returns it. Random numbers come from ``rng``, or, where that is
``None``, from one package-wide NumPy generator that `seed` restarts: ``seed(0)`` before a network is built makes its
weights the same each time. The generator starts from operating-system entropy.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .parameter import Parameter

__all__ = [
    "calculate_gain",
    "constant_",
    "default_generator",
    "dirac_",
    "eye_",
    "fan_in_and_fan_out",
    "kaiming_normal_",
    "kaiming_uniform_",
    "normal_",
    "ones_",
    "orthogonal_",
    "seed",
    "sparse_",
    "trunc_normal_",
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


def source_of(rng: np.random.Generator | None) -> np.random.Generator:
    """Return the generator that was given, or else the one that `seed` restarts.

    Raises
    ------
    TypeError
        If what was given is no generator.
    """
    if rng is None:
        return _generator
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator or None, got {rng!r}")
    return rng


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """Return the factor by which weights grow to keep a signal's size through a nonlinearity.

    Parameters
    ----------
    nonlinearity : {"linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"}
        What follows the layer. The names of layers (``"conv2d"``, ``"conv_transpose1d"`` and so on) mean ``"linear"``.
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
    } | {f"{kind}{n}d": 1.0 for kind in ("conv", "conv_transpose") for n in (1, 2, 3)}
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


def uniform_(target: T, a: float = 0.0, b: float = 1.0, *, rng: np.random.Generator | None = None) -> T:
    """Fill with numbers uniform on ``[a, b)``."""
    array = _values(target)
    array[...] = source_of(rng).uniform(a, b, array.shape)
    return target


def normal_(target: T, mean: float = 0.0, std: float = 1.0, *, rng: np.random.Generator | None = None) -> T:
    """Fill with normal numbers of the given mean and standard deviation."""
    array = _values(target)
    array[...] = source_of(rng).normal(mean, std, array.shape)
    return target


def trunc_normal_(
    target: T,
    mean: float = 0.0,
    std: float = 1.0,
    a: float = -2.0,
    b: float = 2.0,
    *,
    rng: np.random.Generator | None = None,
) -> T:
    """Fill with normal numbers of which those outside ``[a, b]`` are drawn anew.

    Computed by the inverse of the distribution function, so no number is in fact drawn twice. The bounds are values,
    not multiples of ``std``.

    Raises
    ------
    ValueError
        If the bounds leave nothing to draw from.
    """
    array = _values(target)
    if not (std > 0 and a < b):
        raise ValueError(f"std, a, b: expected std > 0 and a < b, got {std!r}, {a!r} and {b!r}")
    normal = NormalDist()
    # Of the two tails the lower is the one that floating point resolves finely: work in that of the nearer bound.
    sign = -1.0 if a > mean else 1.0
    low, high = sorted((sign * (a - mean) / std, sign * (b - mean) / std))
    from_p, to_p = normal.cdf(low), normal.cdf(high)
    if not from_p < to_p:
        raise ValueError(
            f"a, b: a normal number of mean {mean!r} and deviation {std!r} is never between {a!r} and {b!r}"
        )
    p = np.clip(source_of(rng).uniform(from_p, to_p, array.shape), np.finfo(np.float64).tiny, 1.0 - 2.0**-53)
    values = mean + sign * std * np.asarray(np.vectorize(normal.inv_cdf, otypes=[np.float64])(p))
    array[...] = np.clip(values, a, b)
    return target


def constant_(target: T, val: float) -> T:
    """Fill with one value."""
    _values(target)[...] = val
    return target


def zeros_(target: T) -> T:
    """Fill with 0."""
    return constant_(target, 0.0)


def ones_(target: T) -> T:
    """Fill with 1."""
    return constant_(target, 1.0)


def eye_(target: T) -> T:
    """Fill a matrix with the identity: as many inputs as possible go through unchanged.

    Raises
    ------
    ValueError
        If the target has other than two axes.
    """
    array = _values(target)
    if array.ndim != 2:
        raise ValueError(f"target: expected 2 axes, got shape {array.shape}")
    array[...] = np.eye(*array.shape)
    return target


def dirac_(target: T, groups: int = 1) -> T:
    """Fill a convolution's weight so that as many channels as possible go through unchanged.

    Each group's first output channels take its first input channels, at the middle of the kernel (with ``"same"``
    padding; of an even kernel the middle is after the centre).

    Parameters
    ----------
    target : Parameter or numpy.ndarray
        Outputs, inputs of a group, kernel of 1 to 3 axes.
    groups : int
        The convolution's groups.

    Raises
    ------
    ValueError
        If the shape is not such a weight's, or the groups do not divide its outputs.
    """
    array = _values(target)
    if array.ndim not in (3, 4, 5):
        raise ValueError(f"target: expected 3, 4 or 5 axes (outputs, inputs, *kernel), got shape {array.shape}")
    if groups < 1 or array.shape[0] % groups:
        raise ValueError(f"groups: expected a divisor of {array.shape[0]} outputs, got {groups!r}")
    array[...] = 0
    centre = _centre(array)
    outputs = array.shape[0] // groups
    for channel in range(min(outputs, array.shape[1])):
        centre[channel::outputs, channel] = 1
    return target


def _centre(weight: NDArray[Any]) -> NDArray[Any]:
    """Return a view of the taps at the kernel's middle."""
    middle: tuple[Any, ...] = (..., *(size // 2 for size in weight.shape[2:]))
    return weight[middle]  # type: ignore[no-any-return]


def orthogonal_(target: T, gain: float = 1.0, *, rng: np.random.Generator | None = None) -> T:
    """Fill so that rows (or columns, whichever are fewer) are orthogonal, of length ``gain``.

    The weight is seen as a matrix with a row for each output. It is drawn from all such matrices alike: the Q factor
    of a normal matrix, with the signs that make R's diagonal positive (Saxe and others, 2014; Mezzadri, 2007).

    Raises
    ------
    ValueError
        If the target has fewer than two axes.
    """
    array = _values(target)
    if array.ndim < 2:
        raise ValueError(f"target: expected at least 2 axes, got shape {array.shape}")
    if array.size:
        rows = array.shape[0]
        matrix = source_of(rng).normal(size=(rows, array.size // rows))
        tall = matrix.shape[0] >= matrix.shape[1]
        q, r = np.linalg.qr(matrix if tall else matrix.T)
        q *= np.sign(np.diag(r))
        array[...] = gain * (q if tall else q.T).reshape(array.shape)
    return target


def sparse_(target: T, sparsity: float, std: float = 0.01, *, rng: np.random.Generator | None = None) -> T:
    """Fill a matrix with normal numbers, of which a share in each column is then set to 0 (Martens, 2010).

    Parameters
    ----------
    target : Parameter or numpy.ndarray
        Two axes.
    sparsity : float
        Share of zeros, between 0 and 1; their number is rounded up.
    std : float
        Standard deviation of the others.
    rng : numpy.random.Generator, optional
        Source of the numbers; the package's generator unless given.

    Raises
    ------
    ValueError
        If the target has other than two axes, or the sparsity is no share.
    """
    array = _values(target)
    if array.ndim != 2:
        raise ValueError(f"target: expected 2 axes, got shape {array.shape}")
    if not 0.0 <= sparsity <= 1.0:
        raise ValueError(f"sparsity: expected a number between 0 and 1, got {sparsity!r}")
    source = source_of(rng)
    normal_(target, 0.0, std, rng=source)
    rows, columns = array.shape
    order = source.permuted(np.tile(np.arange(rows)[:, None], (1, columns)), axis=0)
    np.put_along_axis(array, order[: math.ceil(sparsity * rows)], 0, axis=0)
    return target


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
