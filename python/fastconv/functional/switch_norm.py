"""Switchable normalisation, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fastconv import _engine
from fastconv._check import Array, as_arrays, channels, channels_last, flag, number, require, same_shape
from fastconv.functional.norm import (
    check_channels,
    check_running,
    checked_eps,
    plain,
    result_like,
    rounded,
    statistics,
    update_running,
)

__all__ = ["SwitchNormGradients", "switch_norm", "switch_norm_backward"]


class SwitchNormGradients(NamedTuple):
    """Gradients of `switch_norm`'s arrays; ``None`` where masked."""

    input: Any
    weight: Any
    bias: Any
    mean_weight: Any
    var_weight: Any


def _shares(logits: Array) -> Array:
    wide = logits.astype(np.float64)
    exponentials = np.exp(wide - wide.max(axis=0, keepdims=True))
    return plain(exponentials / exponentials.sum(axis=0, keepdims=True))


def _shares_backward(gradient: Array, shares: Array) -> Array:
    return plain(shares * (gradient - (shares * gradient).sum(axis=0, keepdims=True)))


class _Mixture:
    """The statistics of one call, float64: of instances ``(N, C)``, layers ``(N, 1)`` and the batch ``(1, C)``.

    A layer's mean is the mean of its instances' means; its variance the mean of their variances plus the variance of
    their means. So is the batch's, which are the running arrays instead where those are given.
    """

    def __init__(
        self, mean: Array, var: Array, mean_weight: Array, var_weight: Array, running: tuple[Array, Array] | None
    ) -> None:
        mean, var = mean.astype(np.float64), var.astype(np.float64)
        self.mean_shares, self.var_shares = _shares(mean_weight), _shares(var_weight)
        self.means, self.vars = [mean], [var]
        for axis in (1, 0):
            if axis == 0 and running is not None:
                self.means.append(running[0].astype(np.float64)[None])
                self.vars.append(running[1].astype(np.float64)[None])
            else:
                self.means.append(mean.mean(axis=axis, keepdims=True))
                self.vars.append(var.mean(axis=axis, keepdims=True) + mean.var(axis=axis, keepdims=True))
        self.mean = self.mix(self.means, self.mean_shares)
        self.var = self.mix(self.vars, self.var_shares)

    def mix(self, statistics: list[Array], shares: Array) -> Array:
        """The three kinds of a statistic, weighted: ``(N, C)``."""
        return plain(sum(share * each for share, each in zip(shares, statistics, strict=True)))

    def invstd(self, eps: float) -> Array:
        """``1 / sqrt(var + eps)``."""
        return plain(1 / np.sqrt(self.var + eps))


def _check(x: Array, last: bool, training: bool, **named: Array | None) -> None:
    require(3 <= x.ndim <= 5, lambda: f"x: expected (N, C) and 1 to 3 spatial dimensions, got shape {x.shape}")
    for name in ("mean_weight", "var_weight"):
        weights = named.pop(name)
        assert weights is not None
        same_shape(weights, (3,), name)
    check_channels(channels(x, last), **named)
    values = x.size // max(channels(x, last), 1)
    require(
        not training or values != 1 or x.size == 0,
        lambda: f"x: expected more than 1 value per channel when training, got shape {x.shape}",
    )


def switch_norm(
    x: Any,
    mean_weight: Any,
    var_weight: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    *,
    return_stats: bool = False,
    data_format: str = "channels_first",
) -> Any:
    """Normalise with a learned mixture of instance, layer and batch statistics.

    ``y = (x - mean) / sqrt(var + eps) * weight + bias`` with ``mean = sum of softmax(mean_weight)[k] * mean_k`` and
    ``var = sum of softmax(var_weight)[k] * var_k`` over ``k`` = 0 (instance: each channel of each sample), 1 (layer:
    each sample) and 2 (batch: each channel). Variances are biased. In training the batch's statistics are the batch's,
    and the running arrays are updated in place by ``new = (1 - momentum) * old + momentum * batch``, the variance
    unbiased, as `batch_norm` does; otherwise the running arrays stand for them.

    Parameters
    ----------
    x : array
        ``(N, C, *spatial)`` (channels first) or ``(N, *spatial, C)`` (channels last) with one to three spatial
        dimensions; float32, float64, float16 or bfloat16.
    mean_weight, var_weight : array
        ``(3,)``, for instance, layer and batch.
    weight, bias : array or None
        ``(C,)``; 1 and 0 where ``None``.
    running_mean, running_var : array or None
        ``(C,)``; may be ``None`` in training.
    training : bool
        Whether to use the batch's statistics.
    momentum : float
        Weight of the batch in the running arrays.
    eps : float
        Added to the variance, at least 0.
    return_stats : bool
        Whether to return the statistics, which `switch_norm_backward` needs.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    array, or (array, array, array)
        ``y`` of `x`'s shape and dtype; with `return_stats` also the ``mean`` and ``var`` of the instances, ``(N, C)``,
        from which all others follow.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        A shape that does not fit, one value a channel in training, or no running statistics otherwise.

    References
    ----------
    P. Luo, J. Ren, Z. Peng, "Differentiable learning-to-normalize via switchable normalization", arXiv:1806.10779,
    2018.
    """
    last = channels_last(data_format)
    training = flag(training, "training")
    momentum, eps = number(momentum, "momentum"), checked_eps(eps)
    array, of_mean, of_var, scale, shift, mean, var, restore = as_arrays(
        x=x,
        mean_weight=mean_weight,
        var_weight=var_weight,
        weight=weight,
        bias=bias,
        running_mean=running_mean,
        running_var=running_var,
    )
    named = {"running_mean": mean, "running_var": var, "weight": scale, "bias": shift}
    _check(array, last, training, mean_weight=of_mean, var_weight=of_var, **named)
    check_running(mean, var, None if training else "not training", training)
    y, rows = result_like(array, last, per_sample=True)
    own_mean, own_var = _engine.batch_statistics(array, last, rows, True)
    if array.size > 0:
        with np.errstate(all="ignore"):
            mixture = _Mixture(own_mean, own_var, of_mean, of_var, None if training else (mean, var))
            invstd = mixture.invstd(eps)
        _engine.batch_norm(array, y, last, rows, mixture.mean, invstd, scale, shift)
        if training and mean is not None:
            values = array.size // len(mean)
            unbiased = mixture.vars[2][0] * (values / (values - 1))
            update_running((mean, var), (mixture.means[2][0], unbiased), momentum)
    if not flag(return_stats, "return_stats"):
        return restore(y)
    return (restore(y), *map(restore, statistics(array.dtype, own_mean, own_var)))


def _mask(output_mask: object) -> tuple[bool, ...]:
    if not isinstance(output_mask, Sequence) or len(output_mask) != 5:
        raise ValueError(
            f"output_mask: got {output_mask!r}, expected five bools (input, weight, bias, mean_weight, var_weight)"
        )
    return tuple(flag(item, "output_mask") for item in output_mask)


def switch_norm_backward(
    grad_output: Any,
    x: Any,
    mean: Any,
    var: Any,
    mean_weight: Any,
    var_weight: Any,
    weight: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    eps: float,
    *,
    output_mask: tuple[bool, bool, bool, bool, bool] = (True, True, True, True, True),
    data_format: str = "channels_first",
) -> SwitchNormGradients:
    """Gradients of `switch_norm`.

    The gradients of the mixed mean and variance of an instance, ``-invstd * sum(g)`` and
    ``-invstd**3 / 2 * sum(g * (x - mean))`` with ``g = grad_output * weight``, go to the three statistics by their
    shares, and from each to the values that it is made of.

    Parameters
    ----------
    grad_output, x : array
        The gradient of the output, and the input, of one shape.
    mean, var : array
        ``(N, C)``, as `switch_norm` returned them with ``return_stats=True``.
    mean_weight, var_weight, weight, running_mean, running_var, training, eps
        As `switch_norm` was given them; the running arrays are not read in training.
    output_mask : tuple of five bools
        Which of the gradients of input, weight, bias, mean_weight and var_weight to compute.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    SwitchNormGradients
        ``(input, weight, bias, mean_weight, var_weight)``, ``None`` where masked.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        A shape that does not fit, or no running statistics where they were used.
    """
    last = channels_last(data_format)
    training = flag(training, "training")
    eps = number(eps, "eps")
    wanted = _mask(output_mask)
    array, gradient, own_mean, own_var, of_mean, of_var, factor, run_mean, run_var, restore = as_arrays(
        x=x,
        grad_output=grad_output,
        mean=mean,
        var=var,
        mean_weight=mean_weight,
        var_weight=var_weight,
        weight=weight,
        running_mean=running_mean,
        running_var=running_var,
    )
    named = {"running_mean": run_mean, "running_var": run_var, "weight": factor}
    _check(array, last, training, mean_weight=of_mean, var_weight=of_var, **named)
    check_running(run_mean, run_var, None if training else "not training", False)
    same_shape(gradient, array.shape, "grad_output")
    for name, each in {"mean": own_mean, "var": own_var}.items():
        same_shape(each, (array.shape[0], channels(array, last)), name)
    result, rows = result_like(array, last, per_sample=True)
    if array.size == 0:
        counts = (channels(array, last), channels(array, last), 3, 3)
        gradients: tuple[Array, ...] = (result, *(np.zeros(count, array.dtype, like=array) for count in counts))
    else:
        with np.errstate(all="ignore"):
            mixture = _Mixture(own_mean, own_var, of_mean, of_var, None if training else (run_mean, run_var))
            center = own_mean.astype(np.float64)
            sums, dots = _engine.sample_products(gradient, array, last, rows, center)
            dots += (center - mixture.mean) * sums  # around the mixed mean
            own = _arithmetic(mixture, array.size // center.size, sums, dots, factor, eps, training)
        if wanted[0]:
            _engine.sample_backward(gradient, array, result, last, rows, center, *own[:3])
        gradients = (result, *(rounded(each, array.dtype) for each in own[3:]))
    return SwitchNormGradients(*(restore(g) if w else None for g, w in zip(gradients, wanted, strict=True)))


def _products(gradient: Array, statistics: list[Array]) -> Array:
    result = np.empty(len(statistics), like=gradient)
    for k, each in enumerate(statistics):
        result[k] = (gradient * each).sum()
    return result


def _arithmetic(
    mixture: _Mixture, positions: int, sums: Array, dots: Array, factor: Array | None, eps: float, training: bool
) -> tuple[Array, ...]:
    """What is left to do with one number a channel of a sample.

    `sums` and `dots` are those of grad_output, and of grad_output times x minus the mixed mean. Returns ``(scale,
    slope, shift)`` of ``grad_input = grad_output * scale + (x - instance mean) * slope + shift``, then the gradients of
    weight, bias, mean_weight and var_weight.
    """
    samples, count = sums.shape
    weight = np.ones(count, like=sums) if factor is None else factor.astype(np.float64)
    invstd = mixture.invstd(eps)
    of_mean, of_var = -invstd * weight * sums, -0.5 * invstd**3 * weight * dots
    sizes = (positions, positions * count, positions * samples)
    slope, shift = np.zeros_like(sums), np.zeros_like(sums)
    for k, axis in enumerate((None, 1, 0)):
        if axis == 0 and not training:
            break
        to_mean, to_var = mixture.mean_shares[k] * of_mean, mixture.var_shares[k] * of_var
        if axis is not None:
            to_mean, to_var = to_mean.sum(axis=axis, keepdims=True), to_var.sum(axis=axis, keepdims=True)
        own = 2 * to_var / sizes[k]  # the variance's derivative: 2 (x - mean_k) over the number of values
        slope += own
        shift += to_mean / sizes[k] + own * (mixture.means[0] - mixture.means[k])
    shares = [
        _shares_backward(_products(gradient, statistics), weights)
        for gradient, statistics, weights in (
            (of_mean, mixture.means, mixture.mean_shares),
            (of_var, mixture.vars, mixture.var_shares),
        )
    ]
    return (weight * invstd, slope, shift, (dots * invstd).sum(axis=0), sums.sum(axis=0), *shares)
