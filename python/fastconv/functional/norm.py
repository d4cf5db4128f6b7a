"""Batch normalisation and its gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastconv import _engine
from fastconv._check import (
    Array,
    as_arrays,
    channels,
    channels_last,
    flag,
    in_steps,
    is_sixteen_bit,
    mask,
    number,
    require,
    same_shape,
)
from fastconv._device import on_device

__all__ = ["NormGradients", "batch_norm", "batch_norm_backward"]


class NormGradients(NamedTuple):
    """Gradients of a norm's input, weight and bias; ``None`` where masked."""

    input: Any
    weight: Any
    bias: Any


def result_like(x: Array, last: bool, per_sample: bool = False) -> tuple[Array, bool]:
    """An array like `x`, dense, and whether the channels of a position lie together in it.

    The result follows `x`'s own order in memory, so that channels-last memory stays so whatever the data format says.
    With `per_sample` one sample decides, not the batch around it.
    """
    if x.ndim == 2:
        return _engine.empty(x.shape, x), True
    probe = x[:1] if per_sample else x
    if not probe.flags.c_contiguous:
        source, target = (-1, 1) if last else (1, -1)
        if np.moveaxis(probe, source, target).flags.c_contiguous:
            moved = _engine.empty(np.moveaxis(x, source, target).shape, x)
            return np.moveaxis(moved, target, source), not last
    return _engine.empty(x.shape, x), last


def plain(values: Any) -> Array:
    """A result of arithmetic as an array, also where it has no axes."""
    array: Array = values if on_device(values) else np.asarray(values)
    return array


def rounded(stat: Array, dtype: Any) -> Array:
    """float64 numbers in the data's dtype; in a 16-bit one as those of float32 are rounded to it."""
    with np.errstate(over="ignore", invalid="ignore"):
        return stat.astype(statistics_dtype(dtype)).astype(dtype, copy=False)


def statistics_dtype(dtype: Any) -> Any:
    """The dtype of the statistics of data: float32 for 16-bit data, else the data's own."""
    return np.dtype(np.float32) if is_sixteen_bit(dtype) else dtype


def statistics(dtype: Any, *stats: Array) -> tuple[Array, ...]:
    """Statistics in the dtype that they have for data of `dtype`."""
    return tuple(rounded(stat, statistics_dtype(dtype)) for stat in stats)


def update_running(running: tuple[Array, Array], batch: tuple[Array, Array], momentum: float) -> None:
    """``new = (1 - momentum) * old + momentum * batch``, in place, of mean and variance."""
    for old, new in zip(running, batch, strict=True):
        own = in_steps(old)
        _engine.update_running(own, new, momentum)
        if own is not old:
            old[...] = own


def check_running(mean: Array | None, var: Array | None, needed: str | None, update: bool) -> None:
    """Both running arrays or neither; `needed` says when they must be there; writable where they are updated."""
    require(
        (mean is None) == (var is None),
        lambda: f"running_{'mean' if mean is None else 'var'}: got None, expected both running arrays or neither",
    )
    require(
        needed is None or mean is not None,
        lambda: f"running_mean: got None, expected the statistics to use when {needed}",
    )
    for array, name in ((mean, "running_mean"), (var, "running_var")):
        require(
            not update or array is None or array.flags.writeable,
            f"{name}: got a read-only array, training updates it in place",
        )


def check_channels(count: int, **named: Array | None) -> None:
    """``ValueError`` unless each array that is there has one number a channel."""
    for name, each in named.items():
        if each is not None:
            same_shape(each, (count,), name)


def _batch(x: Array) -> Array:
    """The array with its channel axis, if it may be one of images; ``(0,)`` counts as no samples of no channels."""
    if x.shape == (0,):
        return x.reshape(0, 0)
    require(2 <= x.ndim <= 5, lambda: f"x: expected (N, C) or 1 to 3 spatial dimensions more, got shape {x.shape}")
    return x


def checked_eps(value: Any) -> float:
    """What is added to a variance, as a float."""
    eps = number(value, "eps")
    require(eps >= 0, lambda: f"eps: got {eps}, expected at least 0")
    return eps


def running_statistics(mean: Array, var: Array) -> tuple[Array, Array]:
    """Running mean and variance as the engine takes a batch's."""
    return in_steps(mean), var.astype(np.float64)


def running_norm(mean: Any, var: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any, Any, Any]:
    """What `batch_norm` computes with in evaluation: mean, inverse deviation, weight and bias of the channels."""
    eps = checked_eps(eps)
    mean, var, weight, bias, _ = as_arrays(running_mean=mean, running_var=var, weight=weight, bias=bias)
    check_channels(mean.size, running_mean=mean, running_var=var, weight=weight, bias=bias)
    mean, var = running_statistics(mean, var)
    return mean, _engine.inverse_deviation(var, eps), weight, bias


def normalised(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any,
    bias: Any,
    training: bool,
    momentum: float,
    eps: float,
    data_format: str,
    rectify: bool = False,
) -> tuple[Any, Any, Any]:
    """`batch_norm` with its statistics; with `rectify` ``max(y, 0)``, of float32 or float64 in the host's memory."""
    last = channels_last(data_format)
    training = flag(training, "training")
    momentum, eps = number(momentum, "momentum"), checked_eps(eps)
    require(eps > 0 or not training, lambda: f"eps: got {eps}, expected more than 0 when training")
    array, mean, var, scale, shift, restore = as_arrays(
        x=x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    shape = array.shape
    array = _batch(array)
    count = channels(array, last)
    check_channels(count, running_mean=mean, running_var=var, weight=scale, bias=shift)
    check_running(mean, var, None if training else "not training", training)
    y, rows = result_like(array, last)
    if training:
        values = array.size // count if count else 0
        require(
            values != 1 or count == 0,
            lambda: f"x: expected more than 1 value per channel when training, got shape {array.shape}",
        )
        batch_mean, batch_var = _engine.batch_statistics(array, last, rows, False)
        if mean is not None and values > 1:
            update_running((mean, var), (batch_mean, batch_var * (values / (values - 1))), momentum)
    else:
        batch_mean, batch_var = running_statistics(mean, var)
    invstd = _engine.inverse_deviation(batch_var, eps)
    rectifying = (True,) if rectify else ()  # which the engine of devices does not know
    _engine.batch_norm(array, y, last, rows, batch_mean, invstd, scale, shift, *rectifying)
    y = y.reshape(shape)
    return (restore(y), *map(restore, statistics(array.dtype, batch_mean, invstd)))


def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    return_stats: bool = False,
    data_format: str = "channels_first",
) -> Any:
    """Normalise each channel: ``y = (x - mean) / sqrt(var + eps) * weight + bias``.

    In training the mean and the (biased) variance are the batch's, over all samples and positions, and the running
    arrays are updated in place by ``new = (1 - momentum) * old + momentum * batch``, the variance unbiased. Otherwise
    they are the running arrays. Deviations from a block's centre are summed a few at a time, and these sums in float64.

    Parameters
    ----------
    x : array
        ``(N, C)``, or ``(N, C, *spatial)`` (channels first) or ``(N, *spatial, C)`` (channels last) with one to three
        spatial dimensions; float32, float64, float16 or bfloat16.
    running_mean, running_var : array or None
        ``(C,)``; may be ``None`` in training, and float32 beside 16-bit data.
    weight, bias : array, optional
        ``(C,)``; 1 and 0 where absent.
    training : bool
        Whether to use the batch's statistics.
    momentum : float
        Weight of the batch in the running arrays.
    eps : float
        Added to the variance: at least 0, and in training more.
    return_stats : bool
        Whether to return the statistics, which `batch_norm_backward` needs.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    array, or (array, array, array)
        ``y`` of `x`'s shape and dtype; with `return_stats` also the ``mean`` and ``invstd = 1 / sqrt(var + eps)`` that
        were used, ``(C,)``, float32 for 16-bit data.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        A shape that does not fit, one value a channel in training, or no running statistics otherwise.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.
    """
    result = normalised(x, running_mean, running_var, weight, bias, training, momentum, eps, data_format)
    return result if flag(return_stats, "return_stats") else result[0]


def normalised_backward(
    grad_output: Any,
    x: Any,
    mean: Any,
    invstd: Any,
    weight: Any,
    training: bool,
    output_mask: tuple[bool, bool, bool],
    data_format: str,
    rectified: Array | None = None,
) -> NormGradients:
    """`batch_norm_backward`; with `rectified`, what `normalised` gave with `rectify`, of the gradient of that."""
    last = channels_last(data_format)
    training = flag(training, "training")
    wanted = mask(output_mask)
    array, gradient, center, scale, factor, restore = as_arrays(
        x=x, grad_output=grad_output, mean=mean, invstd=invstd, weight=weight
    )
    same_shape(gradient, array.shape, "grad_output")
    shape = array.shape
    array, gradient = _batch(array), _batch(gradient)
    count = channels(array, last)
    check_channels(count, mean=center, invstd=scale, weight=factor)
    result, rows = result_like(array, last)
    grad_weight, grad_bias = _engine.batch_norm_backward(
        gradient,
        array,
        result if wanted[0] else None,
        last,
        rows,
        center,
        scale,
        factor,
        training and wanted[0],
        wanted[1] or wanted[2],
        *(() if rectified is None else (_batch(rectified),)),
    )
    gradients = (result.reshape(shape), grad_weight, grad_bias)
    return NormGradients(*(restore(g) if w else None for g, w in zip(gradients, wanted, strict=True)))


def batch_norm_backward(
    grad_output: Any,
    x: Any,
    mean: Any,
    invstd: Any,
    weight: Any = None,
    training: bool = True,
    *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
    data_format: str = "channels_first",
) -> NormGradients:
    """Gradients of `batch_norm`.

    With ``xhat = (x - mean) * invstd`` and ``g = grad_output * weight``, the input's gradient is
    ``invstd * (g - mean(g) - xhat * mean(g * xhat))`` in training and ``invstd * g`` otherwise, where the statistics
    are constants; the weight's is ``sum(grad_output * xhat)``, the bias's ``sum(grad_output)``.

    Parameters
    ----------
    grad_output, x : array
        The gradient of the output, and the input, of one shape.
    mean, invstd : array
        ``(C,)``, as `batch_norm` returned them with ``return_stats=True``; float32 beside 16-bit data, or
        of its dtype.
    weight : array, optional
        ``(C,)``.
    training : bool
        Whether the forward pass used the batch's statistics.
    output_mask : tuple of three bools
        Which of the gradients of input, weight and bias to compute.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    NormGradients
        ``(input, weight, bias)``, ``None`` where masked. Those of weight and bias are ``(C,)`` also where the forward
        pass had none.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        A shape that does not fit.
    """
    return normalised_backward(grad_output, x, mean, invstd, weight, training, output_mask, data_format)
