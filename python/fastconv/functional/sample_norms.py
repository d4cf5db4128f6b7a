"""Normalisation with each sample's own statistics: layer, group and instance norm, and their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastconv import _engine
from fastconv._check import Array, as_arrays, channels, channels_last, flag, integer, mask, number, require, same_shape
from fastconv.functional.norm import (
    NormGradients,
    batch_norm,
    batch_norm_backward,
    check_channels,
    check_running,
    result_like,
    statistics,
    update_running,
)

__all__ = [
    "group_norm",
    "group_norm_backward",
    "instance_norm",
    "instance_norm_backward",
    "layer_norm",
    "layer_norm_backward",
]


def _with_stats(y: Array, mean: Array, invstd: Array, dtype: Any, restore: Any, wanted: object) -> Any:
    """``y``, or with the statistics."""
    if not flag(wanted, "return_stats"):
        return restore(y)
    return (restore(y), *map(restore, statistics(dtype, mean, invstd)))


# --- rows: layer norm, and group norm without positions --------------------------------------------------------------


def _normalise_rows(
    x: Array, groups: int, length: int, shape: tuple[int, ...], eps: float, weight: Any, bias: Any
) -> tuple[Array, Array, Array]:
    """``(y, mean, invstd)`` of the rows of `x`, `length` values each; `shape` is that of the statistics."""
    y = _engine.empty(x.shape, x)
    contiguous = (None if a is None else np.ascontiguousarray(a, like=a) for a in (weight, bias))
    mean, var = _engine.layer_norm(x, y, groups, length, math.prod(shape), eps, *contiguous)
    return y, mean.reshape(shape), _engine.inverse_deviation(var, eps).reshape(shape)


def _rows_backward(
    g: Array, x: Array, groups: int, length: int, mean: Array, invstd: Array, weight: Any, wanted: Sequence[bool]
) -> tuple[Array | None, Array, Array]:
    result = _engine.empty(x.shape, x) if wanted[0] else None
    factor = None if weight is None else np.ascontiguousarray(weight, like=weight)
    sums = _engine.layer_norm_backward(
        g, x, result, groups, length, mean.reshape(-1), invstd.reshape(-1), factor, wanted[1] or wanted[2]
    )
    return (result, *sums)


def _normalized_shape(value: object, x: Array) -> tuple[int, ...]:
    items = list(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else [value]
    shape = tuple(integer(item, "normalized_shape", 0) for item in items)
    require(len(shape) > 0, "normalized_shape: got (), expected at least one axis")
    require(
        len(shape) <= x.ndim and x.shape[x.ndim - len(shape) :] == shape,
        lambda: f"normalized_shape: got {shape}, expected the last axes of x's shape {x.shape}",
    )
    return shape


def layer_norm(
    x: Any,
    normalized_shape: int | Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    return_stats: bool = False,
    data_format: str = "channels_first",
) -> Any:
    """Normalise the last axes: ``y = (x - mean) / sqrt(var + eps) * weight + bias``.

    Mean and (biased) variance are over the axes that `normalized_shape` names, each index of the others for itself.
    Deviations from a block's centre are summed a few at a time, and these sums in float64.

    Parameters
    ----------
    x : array
        ``(*leading, *normalized_shape)``; float32, float64, float16 or bfloat16.
    normalized_shape : int or sequence of ints
        The sizes of the last axes.
    weight, bias : array, optional
        Of the shape `normalized_shape`; 1 and 0 where absent.
    eps : float
        Added to the variance.
    return_stats : bool
        Whether to return the statistics, which `layer_norm_backward` needs.
    data_format : {"channels_first", "channels_last"}
        Changes nothing, the axes are the last ones in both: one dictionary of options fits every op.

    Returns
    -------
    array, or (array, array, array)
        ``y`` of `x`'s shape and dtype; with `return_stats` also the ``mean`` and ``invstd = 1 / sqrt(var + eps)`` that
        were used, of the leading shape.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        A shape that does not fit.

    References
    ----------
    J. Ba, J. Kiros, G. Hinton, "Layer normalization", arXiv:1607.06450, 2016.
    """
    channels_last(data_format)
    eps = number(eps, "eps")
    array, scale, shift, restore = as_arrays(x=x, weight=weight, bias=bias)
    shape = _normalized_shape(normalized_shape, array)
    for name, each in {"weight": scale, "bias": shift}.items():
        if each is not None:
            same_shape(each, shape, name)
    leading = array.shape[: array.ndim - len(shape)]
    y, mean, invstd = _normalise_rows(array, 1, math.prod(shape), leading, eps, scale, shift)
    return _with_stats(y, mean, invstd, array.dtype, restore, return_stats)


def layer_norm_backward(
    grad_output: Any,
    x: Any,
    mean: Any,
    invstd: Any,
    weight: Any = None,
    *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
    data_format: str = "channels_first",
) -> NormGradients:
    """Gradients of `layer_norm`.

    With ``xhat = (x - mean) * invstd`` and ``g = grad_output * weight``, the input's gradient is
    ``invstd * (g - mean(g) - xhat * mean(g * xhat))``, the weight's ``sum(grad_output * xhat)`` and the bias's
    ``sum(grad_output)`` over the leading axes.

    Parameters
    ----------
    grad_output, x : array
        The gradient of the output, and the input, of one shape.
    mean, invstd : array
        Of the leading shape, as `layer_norm` returned them with ``return_stats=True``; their rank says which axes
        were normalised.
    weight : array, optional
        Of the shape of the normalised axes.
    output_mask : tuple of three bools
        Which of the gradients of input, weight and bias to compute.
    data_format : {"channels_first", "channels_last"}
        As in `layer_norm`.

    Returns
    -------
    NormGradients
        ``(input, weight, bias)``, ``None`` where masked. Those of weight and bias are there also where the forward
        pass had none.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        A shape that does not fit.
    """
    channels_last(data_format)
    wanted = mask(output_mask)
    array, gradient, center, scale, factor, restore = as_arrays(
        x=x, grad_output=grad_output, mean=mean, invstd=invstd, weight=weight
    )
    same_shape(gradient, array.shape, "grad_output")
    require(
        center.ndim < array.ndim and center.shape == array.shape[: center.ndim],
        lambda: f"mean: got shape {center.shape}, expected the first axes of x's shape {array.shape}",
    )
    same_shape(scale, center.shape, "invstd")
    shape = array.shape[center.ndim :]
    if factor is not None:
        same_shape(factor, shape, "weight")
    result, *sums = _rows_backward(gradient, array, 1, math.prod(shape), center, scale, factor, wanted)
    gradients = (result, *(s.reshape(shape) if s.size == math.prod(shape) else s for s in sums))
    return NormGradients(*(restore(g) if w else None for g, w in zip(gradients, wanted, strict=True)))


# --- groups of channels ----------------------------------------------------------------------------------------------


def _as_image(x: Array, last: bool) -> Array:
    """`x` with at most three spatial axes."""
    if x.ndim <= 5:
        return x
    return x.reshape(x.shape[0], -1, x.shape[-1]) if last else x.reshape(*x.shape[:2], -1)


def _normalise_groups(
    x: Array, last: bool, groups: int, eps: float, weight: Any, bias: Any
) -> tuple[Array, Array, Array]:
    """``(y, mean, var)``, the statistics float64 ``(N, groups)``."""
    image = _as_image(x, last)
    y, rows = result_like(image, last, per_sample=True)
    mean, var = _engine.group_norm(image, y, last, rows, groups, eps, weight, bias)
    return y.reshape(x.shape), mean, var


def _groups_backward(
    g: Array, x: Array, last: bool, groups: int, mean: Array, invstd: Array, weight: Any, wanted: Sequence[bool]
) -> tuple[Array | None, Array, Array]:
    image = _as_image(x, last)
    result, rows = result_like(image, last, per_sample=True)
    written = result if wanted[0] else None
    sums = _engine.group_norm_backward(_as_image(g, last), image, written, last, rows, groups, mean, invstd, weight)
    return (result.reshape(x.shape), *sums)


def _groups(x: Array, last: bool, num_groups: object) -> tuple[int, int]:
    """The numbers of channels and of groups."""
    require(x.ndim >= 2, lambda: f"x: expected (N, C) or spatial dimensions more, got shape {x.shape}")
    count, groups = channels(x, last), integer(num_groups, "num_groups", 1)
    require(count % groups == 0, lambda: f"num_groups: got {groups}, expected a divisor of the {count} channels")
    return count, groups


def group_norm(
    x: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *,
    return_stats: bool = False,
    data_format: str = "channels_first",
) -> Any:
    """Normalise groups of channels of each sample: ``y = (x - mean) / sqrt(var + eps) * weight + bias``.

    Mean and (biased) variance are over the positions and the channels of a group, which are neighbours. They are
    summed in float64 from sums of a few deviations, and do not depend on the other samples.

    Parameters
    ----------
    x : array
        ``(N, C, *spatial)`` (channels first) or ``(N, *spatial, C)`` (channels last), any number of spatial
        dimensions, also none; float32, float64, float16 or bfloat16.
    num_groups : int
        Divides the number of channels.
    weight, bias : array, optional
        ``(C,)``; 1 and 0 where absent.
    eps : float
        Added to the variance.
    return_stats : bool
        Whether to return the statistics, which `group_norm_backward` needs.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    array, or (array, array, array)
        ``y`` of `x`'s shape and dtype; with `return_stats` also the ``mean`` and ``invstd = 1 / sqrt(var + eps)`` that
        were used, ``(N, num_groups)``.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        A shape that does not fit, or one value in all.

    References
    ----------
    Y. Wu, K. He, "Group normalization", ECCV 2018.
    """
    last = channels_last(data_format)
    eps = number(eps, "eps")
    array, scale, shift, restore = as_arrays(x=x, weight=weight, bias=bias)
    count, groups = _groups(array, last, num_groups)
    check_channels(count, weight=scale, bias=shift)
    require(
        array.size != groups,
        lambda: f"x: expected more than 1 value per channel, got shape {array.shape} and {groups} groups",
    )
    if array.ndim == 2:
        y, mean, invstd = _normalise_rows(array, groups, count // groups, (array.shape[0], groups), eps, scale, shift)
    else:
        y, mean, var = _normalise_groups(array, last, groups, eps, scale, shift)
        invstd = _engine.inverse_deviation(var, eps)
    return _with_stats(y, mean, invstd, array.dtype, restore, return_stats)


def group_norm_backward(
    grad_output: Any,
    x: Any,
    mean: Any,
    invstd: Any,
    weight: Any = None,
    *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
    data_format: str = "channels_first",
) -> NormGradients:
    """Gradients of `group_norm`.

    With ``xhat = (x - mean) * invstd`` and ``g = grad_output * weight``, the input's gradient is
    ``invstd * (g - mean(g) - xhat * mean(g * xhat))`` with means over a group, the weight's
    ``sum(grad_output * xhat)`` and the bias's ``sum(grad_output)`` over samples and positions.

    Parameters
    ----------
    grad_output, x : array
        The gradient of the output, and the input, of one shape.
    mean, invstd : array
        ``(N, num_groups)``, as `group_norm` returned them with ``return_stats=True``.
    weight : array, optional
        ``(C,)``.
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
    last = channels_last(data_format)
    wanted = mask(output_mask)
    array, gradient, center, scale, factor, restore = as_arrays(
        x=x, grad_output=grad_output, mean=mean, invstd=invstd, weight=weight
    )
    require(
        center.ndim == 2 and center.shape[1] > 0, lambda: f"mean: got shape {center.shape}, expected (N, num_groups)"
    )
    count, groups = _groups(array, last, center.shape[1])
    same_shape(gradient, array.shape, "grad_output")
    same_shape(center, (array.shape[0], groups), "mean")
    same_shape(scale, center.shape, "invstd")
    check_channels(count, weight=factor)
    if array.ndim == 2:
        gradients = _rows_backward(gradient, array, groups, count // groups, center, scale, factor, wanted)
    else:
        gradients = _groups_backward(gradient, array, last, groups, center, scale, factor, wanted)
    return NormGradients(*(restore(g) if w else None for g, w in zip(gradients, wanted, strict=True)))


# --- single channels -------------------------------------------------------------------------------------------------


def instance_norm(
    x: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    return_stats: bool = False,
    data_format: str = "channels_first",
) -> Any:
    """Normalise each channel of each sample: ``y = (x - mean) / sqrt(var + eps) * weight + bias``.

    With `use_input_stats` the mean and the (biased) variance are the input's, over the positions, and the running
    arrays, if given, are updated in place by ``new = (1 - momentum) * old + momentum * m``, where ``m`` is the mean
    over the samples of their means, or of their unbiased variances. Otherwise the running arrays are used, as
    `batch_norm` does.

    Parameters
    ----------
    x : array
        ``(N, C, *spatial)`` (channels first) or ``(N, *spatial, C)`` (channels last) with one to three spatial
        dimensions; float32, float64, float16 or bfloat16.
    running_mean, running_var : array or None
        ``(C,)``; needed without `use_input_stats`.
    weight, bias : array, optional
        ``(C,)``; 1 and 0 where absent.
    use_input_stats : bool
        Whether to use the input's statistics.
    momentum : float
        Weight of the batch in the running arrays.
    eps : float
        Added to the variance.
    return_stats : bool
        Whether to return the statistics, which `instance_norm_backward` needs.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    array, or (array, array, array)
        ``y`` of `x`'s shape and dtype; with `return_stats` also the ``mean`` and ``invstd = 1 / sqrt(var + eps)`` that
        were used, ``(N, C)``, or ``(C,)`` without `use_input_stats`.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        A shape that does not fit, one position with `use_input_stats`, or no running statistics otherwise.

    References
    ----------
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance normalization: the missing ingredient for fast stylization",
    arXiv:1607.08022, 2016.
    """
    if not flag(use_input_stats, "use_input_stats"):
        keywords: dict[str, Any] = {"return_stats": return_stats, "data_format": data_format}
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps, **keywords)
    last = channels_last(data_format)
    momentum, eps = number(momentum, "momentum"), number(eps, "eps")
    array, mean, var, scale, shift, restore = as_arrays(
        x=x, running_mean=running_mean, running_var=running_var, weight=weight, bias=bias
    )
    require(3 <= array.ndim <= 5, lambda: f"x: expected (N, C) and 1 to 3 spatial dimensions, got shape {array.shape}")
    count = channels(array, last)
    check_channels(count, running_mean=mean, running_var=var, weight=scale, bias=shift)
    check_running(mean, var, None, True)
    samples = array.shape[0]
    positions = math.prod(array.shape[1:-1] if last else array.shape[2:])
    require(positions != 1, lambda: f"x: expected more than 1 spatial element, got shape {array.shape}")
    if count == 0:
        y = _engine.empty(array.shape, array)
        own_mean, own_var = (np.empty((samples, 0), np.float64, like=array) for _ in range(2))
    else:
        y, own_mean, own_var = _normalise_groups(array, last, count, eps, scale, shift)
    if mean is not None and samples * positions > 0:
        unbiased = own_var.mean(axis=0) * (positions / (positions - 1))
        update_running((mean, var), (own_mean.mean(axis=0), unbiased), momentum)
    return _with_stats(y, own_mean, _engine.inverse_deviation(own_var, eps), array.dtype, restore, return_stats)


def instance_norm_backward(
    grad_output: Any,
    x: Any,
    mean: Any,
    invstd: Any,
    weight: Any = None,
    use_input_stats: bool = True,
    *,
    output_mask: tuple[bool, bool, bool] = (True, True, True),
    data_format: str = "channels_first",
) -> NormGradients:
    """Gradients of `instance_norm`.

    As `group_norm_backward`'s, with one channel a group; without `use_input_stats` as `batch_norm_backward`'s, where
    the statistics are constants.

    Parameters
    ----------
    grad_output, x : array
        The gradient of the output, and the input, of one shape.
    mean, invstd : array
        As `instance_norm` returned them with ``return_stats=True``.
    weight : array, optional
        ``(C,)``.
    use_input_stats : bool
        Whether the forward pass used the input's statistics.
    output_mask : tuple of three bools
        Which of the gradients of input, weight and bias to compute.
    data_format : {"channels_first", "channels_last"}
        Where the channels are.

    Returns
    -------
    NormGradients
        ``(input, weight, bias)``, ``None`` where masked.

    Raises
    ------
    TypeError
        Not arrays of float32, float64, float16 or bfloat16, or of two dtypes.
    ValueError
        A shape that does not fit.
    """
    keywords: dict[str, Any] = {"output_mask": output_mask, "data_format": data_format}
    if not flag(use_input_stats, "use_input_stats"):
        return batch_norm_backward(grad_output, x, mean, invstd, weight, False, **keywords)
    last = channels_last(data_format)
    array, center, _ = as_arrays(x=x, mean=mean)
    require(3 <= array.ndim <= 5, lambda: f"x: expected (N, C) and 1 to 3 spatial dimensions, got shape {array.shape}")
    same_shape(center, (array.shape[0], channels(array, last)), "mean")
    return group_norm_backward(grad_output, x, mean, invstd, weight, **keywords)
