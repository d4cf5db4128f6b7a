"""Batch normalisation and its gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastconv import _core
from fastconv._check import Array, as_arrays, channels, channels_last, flag, mask, number, require, same_shape

__all__ = ["NormGradients", "batch_norm", "batch_norm_backward"]


class NormGradients(NamedTuple):
    """Gradients of a norm's input, weight and bias; ``None`` where masked."""

    input: Any
    weight: Any
    bias: Any


def _result(x: Array, last: bool) -> tuple[Array, bool]:
    """An array like `x`, dense, and whether the channels of a position lie together in it.

    The result follows `x`'s own order in memory, so that channels-last memory stays so whatever the data format says.
    """
    if x.ndim == 2:
        return np.empty(x.shape, x.dtype), True
    if not x.flags.c_contiguous:
        source, target = (-1, 1) if last else (1, -1)
        moved = np.moveaxis(x, source, target)
        if moved.flags.c_contiguous:
            return np.moveaxis(np.empty(moved.shape, x.dtype), target, source), not last
    return np.empty(x.shape, x.dtype), last


def _check_batch(x: Array, last: bool) -> int:
    require(2 <= x.ndim <= 5, f"x: expected (N, C) or 1 to 3 spatial dimensions more, got shape {x.shape}")
    return channels(x, last)


def _writable(array: Array | None, name: str) -> None:
    require(array is None or array.flags.writeable, f"{name}: got a read-only array, training updates it in place")


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
    they are the running arrays. Statistics are summed in float64 around block means.

    Parameters
    ----------
    x : array
        ``(N, C)``, or ``(N, C, *spatial)`` (channels first) or ``(N, *spatial, C)`` (channels last) with one to three
        spatial dimensions; float32 or float64.
    running_mean, running_var : array or None
        ``(C,)``; may be ``None`` in training.
    weight, bias : array, optional
        ``(C,)``; 1 and 0 where absent.
    training : bool
        Whether to use the batch's statistics.
    momentum : float
        Weight of the batch in the running arrays.
    eps : float
        Added to the variance, at least 0.
    return_stats : bool
        Whether to return the statistics, which `batch_norm_backward` needs.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    array, or (array, array, array)
        ``y`` of `x`'s shape and dtype; with `return_stats` also the ``mean`` and ``invstd = 1 / sqrt(var + eps)`` that
        were used, ``(C,)``.

    Raises
    ------
    TypeError
        Not arrays of float32 or float64, or of two dtypes.
    ValueError
        A shape that does not fit, one value a channel in training, or no running statistics otherwise.

    References
    ----------
    S. Ioffe, C. Szegedy, "Batch normalization: accelerating deep network training by reducing internal covariate
    shift", ICML 2015.
    """
    last = channels_last(data_format)
    training = flag(training, "training")
    momentum, eps = number(momentum, "momentum"), number(eps, "eps")
    require(eps >= 0, f"eps: got {eps}, expected at least 0")
    array, mean, var, scale, shift, restore = as_arrays(
        x=x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    count = _check_batch(array, last)
    named = {"running_mean": mean, "running_var": var, "weight": scale, "bias": shift}
    for name, each in named.items():
        if each is not None:
            same_shape(each, (count,), name)
    require(
        (mean is None) == (var is None),
        f"running_{'mean' if mean is None else 'var'}: got None, expected both running arrays or neither",
    )
    y, rows = _result(array, last)
    if training:
        values = array.size // count if count else 0
        require(
            values != 1 or count == 0,
            f"x: expected more than 1 value per channel when training, got shape {array.shape}",
        )
        _writable(mean, "running_mean")
        _writable(var, "running_var")
        batch_mean, batch_var = _core.batch_statistics(array, last, rows)
        if mean is not None and values > 1:
            unbiased = batch_var * (values / (values - 1))
            with np.errstate(invalid="ignore", over="ignore"):
                mean[...] = (1 - momentum) * mean.astype(np.float64) + momentum * batch_mean
                var[...] = (1 - momentum) * var.astype(np.float64) + momentum * unbiased
    else:
        require(mean is not None, "running_mean: got None, expected the statistics to use when not training")
        batch_mean, batch_var = mean, var.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        invstd = 1 / np.sqrt(batch_var + eps)
    _core.batch_norm(array, y, last, rows, batch_mean, invstd, scale, shift)
    if not flag(return_stats, "return_stats"):
        return restore(y)
    with np.errstate(over="ignore"):
        stats = [np.array(stat, array.dtype) for stat in (batch_mean, invstd)]
    return (restore(y), restore(stats[0]), restore(stats[1]))


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
        ``(C,)``, as `batch_norm` returned them with ``return_stats=True``.
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
        Not arrays of float32 or float64, or of two dtypes.
    ValueError
        A shape that does not fit.
    """
    last = channels_last(data_format)
    training = flag(training, "training")
    wanted = mask(output_mask)
    array, gradient, center, scale, factor, restore = as_arrays(
        x=x, grad_output=grad_output, mean=mean, invstd=invstd, weight=weight
    )
    require(center is not None, "mean: got None, expected an array")
    require(scale is not None, "invstd: got None, expected an array")
    count = _check_batch(array, last)
    same_shape(gradient, array.shape, "grad_output")
    for name, each in {"mean": center, "invstd": scale, "weight": factor}.items():
        if each is not None:
            same_shape(each, (count,), name)
    result, rows = _result(array, last)
    grad_weight, grad_bias = _core.batch_norm_backward(
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
    )
    gradients = (result, grad_weight, grad_bias)
    return NormGradients(*(restore(g) if w else None for g, w in zip(gradients, wanted, strict=True)))
