"""The norms' definitions in float64, as `reference` has the other ops': written to be read, never to be fast."""

from __future__ import annotations

import numpy as np
from reference import f64

# --- batch norm ------------------------------------------------------------------------------------------------------


def _channel(a, ndim):
    return f64(a).reshape(1, -1, *(1,) * (ndim - 2))


def batch_statistics(x):
    """Mean and biased variance of each channel over samples and positions: two arrays ``(C,)``."""
    x = f64(x)
    axes = (0, *range(2, x.ndim))
    mean = x.mean(axis=axes)
    return mean, ((x - _channel(mean, x.ndim)) ** 2).mean(axis=axes)


def batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5):
    """``(y, mean, invstd, new_running_mean, new_running_var)`` with ``y = (x - mean) * invstd * weight + bias``.

    In training the statistics are the batch's, and the running ones move by ``momentum`` towards them (the variance
    unbiased); else they are the running ones, returned unchanged.
    """
    x, running_mean, running_var, weight, bias = f64(x, running_mean, running_var, weight, bias)
    if training:
        mean, var = batch_statistics(x)
        count = x.size // x.shape[1]
        if running_mean is not None:
            running_mean = (1 - momentum) * running_mean + momentum * mean
            running_var = (1 - momentum) * running_var + momentum * var * count / (count - 1)
    else:
        mean, var = running_mean, running_var
    invstd = 1 / np.sqrt(var + eps)
    y = (x - _channel(mean, x.ndim)) * _channel(invstd, x.ndim)
    if weight is not None:
        y = y * _channel(weight, x.ndim)
    if bias is not None:
        y = y + _channel(bias, x.ndim)
    return y, mean, invstd, running_mean, running_var


def batch_norm_backward(grad_output, x, mean, invstd, weight=None, training=True):
    """``(grad_input, grad_weight, grad_bias)``.

    With ``xhat = (x - mean) * invstd`` and ``g = grad_output * weight``: in training
    ``gx = invstd * (g - mean(g) - xhat * mean(g * xhat))``, else the statistics are constants and ``gx = invstd * g``.
    """
    grad_output, x, weight = f64(grad_output, x, weight)
    axes = (0, *range(2, x.ndim))
    scale = _channel(invstd, x.ndim)
    xhat = (x - _channel(mean, x.ndim)) * scale
    g = grad_output if weight is None else grad_output * _channel(weight, x.ndim)
    if training:
        gx = scale * (g - g.mean(axis=axes, keepdims=True) - xhat * (g * xhat).mean(axis=axes, keepdims=True))
    else:
        gx = scale * g
    return gx, (grad_output * xhat).sum(axis=axes), grad_output.sum(axis=axes)


# --- norms of single samples -----------------------------------------------------------------------------------------


def _normalise(x, mean, var, weight, bias, eps):
    y = (x - mean) / np.sqrt(var + eps)
    return y * (1 if weight is None else weight) + (0 if bias is None else bias)


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """``(y, mean, invstd)`` over the last axes."""
    x, weight, bias = f64(x, weight, bias)
    axes = tuple(range(x.ndim - len(normalized_shape), x.ndim))
    mean, var = x.mean(axis=axes, keepdims=True), x.var(axis=axes, keepdims=True)
    leading = x.shape[: axes[0]]
    return _normalise(x, mean, var, weight, bias, eps), mean.reshape(leading), 1 / np.sqrt(var + eps).reshape(leading)


def group_norm(x, num_groups, weight=None, bias=None, eps=1e-5):
    """``(y, mean, invstd)``, the statistics of the groups of neighbouring channels of each sample: ``(N, groups)``."""
    x, weight, bias = f64(x, weight, bias)
    grouped = x.reshape(x.shape[0], num_groups, -1)
    mean, var = grouped.mean(axis=2), grouped.var(axis=2)
    y = ((grouped - mean[:, :, None]) / np.sqrt(var + eps)[:, :, None]).reshape(x.shape)
    weight, bias = (None if a is None else _channel(a, x.ndim) for a in (weight, bias))
    return y * (1 if weight is None else weight) + (0 if bias is None else bias), mean, 1 / np.sqrt(var + eps)


def _back_through(grad_output, x, mean, invstd, weight, axes):
    """The gradient through the normalisation over ``axes``; statistics and weight broadcast to ``x``."""
    xhat = (x - mean) * invstd
    g = grad_output * (1 if weight is None else weight)
    inner = g - g.mean(axis=axes, keepdims=True) - xhat * (g * xhat).mean(axis=axes, keepdims=True)
    return invstd * inner, grad_output * xhat


def layer_norm_backward(grad_output, x, mean, invstd, weight=None):
    """``(grad_input, grad_weight, grad_bias)``; the statistics' rank says how many axes lead."""
    grad_output, x, mean, invstd, weight = f64(grad_output, x, mean, invstd, weight)
    leading = tuple(range(mean.ndim))
    axes = tuple(range(mean.ndim, x.ndim))
    spread = (*mean.shape, *(1,) * len(axes))
    gx, terms = _back_through(grad_output, x, mean.reshape(spread), invstd.reshape(spread), weight, axes)
    return gx, terms.sum(axis=leading), grad_output.sum(axis=leading)


def group_norm_backward(grad_output, x, mean, invstd, weight=None):
    """``(grad_input, grad_weight, grad_bias)`` from statistics ``(N, groups)``."""
    grad_output, x, mean, invstd, weight = f64(grad_output, x, mean, invstd, weight)
    shape = (*mean.shape, x.shape[1] // mean.shape[1], -1)
    own = None if weight is None else weight.reshape(1, mean.shape[1], -1, 1)
    statistics = (a[:, :, None, None] for a in (mean, invstd))
    gx, terms = _back_through(grad_output.reshape(shape), x.reshape(shape), *statistics, own, (2, 3))
    positions = (0, *range(2, x.ndim))
    return gx.reshape(x.shape), terms.reshape(x.shape).sum(axis=positions), grad_output.sum(axis=positions)


def softmax3(weights):
    """The shares of instance, layer and batch."""
    e = np.exp(f64(weights) - np.max(f64(weights)))
    return e / e.sum()


def switch_norm(x, mean_weight, var_weight, weight, bias, running_mean, running_var, training, momentum=0.1, eps=1e-5):
    """``(y, instance mean, instance variance, new_running_mean, new_running_var)`` (Luo and others, 2018)."""
    x, weight, bias, running_mean, running_var = f64(x, weight, bias, running_mean, running_var)
    positions = tuple(range(2, x.ndim))
    kinds = [positions, (1, *positions), (0, *positions)]
    means = [x.mean(axis=axes, keepdims=True) for axes in kinds]
    variances = [x.var(axis=axes, keepdims=True) for axes in kinds]
    if training:
        count = x.size // x.shape[1]
        if running_mean is not None:
            running_mean = (1 - momentum) * running_mean + momentum * means[2].ravel()
            running_var = (1 - momentum) * running_var + momentum * variances[2].ravel() * count / (count - 1)
    else:
        means[2], variances[2] = _channel(running_mean, x.ndim), _channel(running_var, x.ndim)
    mean = sum(share * each for share, each in zip(softmax3(mean_weight), means, strict=True))
    var = sum(share * each for share, each in zip(softmax3(var_weight), variances, strict=True))
    weight, bias = (None if a is None else _channel(a, x.ndim) for a in (weight, bias))
    own = (a.reshape(x.shape[:2]) for a in (means[0], variances[0]))
    return _normalise(x, mean, var, weight, bias, eps), *own, running_mean, running_var
