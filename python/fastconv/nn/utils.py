"""Rules that compute a layer's weight from another one before each forward.

`spectral_norm` and `weight_standardization` put the trained values aside as the parameter ``weight_orig``; the layer's
``weight`` is then computed from it whenever the layer is called, and gradients go through the rule to ``weight_orig``.
"""

from __future__ import annotations

import math
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .._check import integer
from . import init
from .conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from .module import Module
from .parameter import DerivedWeight, Parameter

__all__ = ["remove_weight_rule", "spectral_norm", "weight_standardization"]

M = TypeVar("M", bound=Module)

_TRANSPOSED = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)


def spectral_norm(
    layer: M,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
    *,
    rng: np.random.Generator | None = None,
) -> M:
    """Divide a layer's weight by its largest singular value (Miyato and others, 2018).

    The weight is seen as a matrix with a row for each output. The singular value is ``u @ W @ v`` with unit vectors
    from power iteration, a step of which is made at each forward in training mode. The vectors are the buffers
    ``weight_u`` and ``weight_v``, which count as constants in the gradient: all as ``torch.nn.utils.spectral_norm``.

    Parameters
    ----------
    layer : Module
        With a parameter of that name. It is changed.
    name : str
        The parameter.
    n_power_iterations : int
        Steps at each forward.
    eps : float
        Smallest length by which a vector is divided.
    dim : int, optional
        Axis of the outputs: 0 unless given, and 1 for transposed convolutions.
    rng : numpy.random.Generator, optional
        Source of the first vectors; `fastconv.nn.init.seed` governs them otherwise.

    Returns
    -------
    Module
        The layer.

    Raises
    ------
    ValueError
        If the layer has no such parameter, or a rule computes it already.
    """
    weight = _parameter(layer, name)
    n_power_iterations = integer(n_power_iterations, "n_power_iterations", 1)
    axis = integer((1 if isinstance(layer, _TRANSPOSED) else 0) if dim is None else dim, "dim", 0)
    if axis >= len(weight.shape):
        raise ValueError(f"dim: got {axis}, expected an axis of {name}, which has shape {weight.shape}")
    rows = weight.shape[axis]
    rule = _SpectralNorm(layer, name, axis, n_power_iterations, eps)
    _install(layer, name, rule)
    for suffix, size in (("u", rows), ("v", weight.size // rows)):
        vector = init.normal_(np.empty(size, weight.dtype), rng=rng)
        layer.register_buffer(f"{name}_{suffix}", _unit(vector, eps).astype(weight.dtype, copy=False))
    return layer


def weight_standardization(layer: M, mode: str = "zscore", name: str = "weight", eps: float = 1e-5) -> M:
    """Bring each filter of a layer (the weights of one output) to one range.

    Parameters
    ----------
    layer : Module
        With a parameter of that name. It is changed.
    mode : {"zscore", "minmax"}
        ``"zscore"``: ``(w - mean(w)) / sqrt(var(w) + eps)``, the weight standardization of Qiao and others, 2019.
        ``"minmax"``: ``(w - min(w)) / (max(w) - min(w))``, between 0 and 1; a filter whose values are all equal
        becomes 0. The gradients of minimum and maximum go to the first of equal values.
    name : str
        The parameter.
    eps : float
        Added to the variance.

    Returns
    -------
    Module
        The layer.

    Raises
    ------
    ValueError
        If the mode is neither of the two, the layer has no such parameter, or a rule computes it already.
    """
    if mode not in ("zscore", "minmax"):
        raise ValueError(f"mode: expected 'zscore' or 'minmax', got {mode!r}")
    shape = _parameter(layer, name).shape
    if isinstance(layer, _TRANSPOSED):
        # (groups, inputs of a group, outputs of a group, *kernel)
        shape, axes = (layer.groups, shape[0] // layer.groups, *shape[1:]), (1, *range(3, len(shape) + 1))
    else:
        axes = tuple(range(1, len(shape)))
    _install(layer, name, (_ZScore if mode == "zscore" else _MinMax)(layer, name, shape, axes, eps))
    return layer


def remove_weight_rule(layer: M, name: str = "weight") -> M:
    """Make a computed weight a plain parameter again, with the values that it has now.

    Parameters
    ----------
    layer : Module
        That `spectral_norm` or `weight_standardization` was applied to. It is changed.
    name : str
        The parameter.

    Returns
    -------
    Module
        The layer.

    Raises
    ------
    ValueError
        If no rule computes the parameter.
    """
    if name not in layer._derived_names:
        raise ValueError(f"name: no rule computes {name!r} of this {type(layer).__name__}")
    training, layer.training = layer.training, False
    getattr(layer, name).refresh(layer)
    layer.training = training
    values = np.array(getattr(layer, name).data)
    for attribute in (name, f"{name}_orig", f"{name}_u", f"{name}_v"):
        if attribute in vars(layer):
            delattr(layer, attribute)
    layer._derived_names = tuple(other for other in layer._derived_names if other != name)
    layer._buffer_names = tuple(other for other in layer._buffer_names if other not in (f"{name}_u", f"{name}_v"))
    setattr(layer, name, Parameter(values))
    return layer


def _parameter(layer: Module, name: str) -> Parameter:
    value = getattr(layer, name, None)
    if isinstance(value, DerivedWeight):
        raise ValueError(f"name: a rule computes {name!r} of this {type(layer).__name__} already")
    if not isinstance(value, Parameter):
        raise ValueError(f"name: this {type(layer).__name__} has no parameter {name!r}")
    return value


def _install(layer: Module, name: str, rule: DerivedWeight) -> None:
    delattr(layer, name)
    setattr(layer, f"{name}_orig", rule.source)
    setattr(layer, name, rule)
    layer._derived_names = (*layer._derived_names, name)


def _unit(vector: NDArray[Any], eps: float) -> NDArray[Any]:
    return vector / max(float(np.sqrt(vector @ vector)), eps)


class _SpectralNorm(DerivedWeight):
    """``W / (u @ W @ v)``."""

    __slots__ = ("axis", "eps", "iterations", "sigma", "u", "v")

    def __init__(self, layer: Module, name: str, axis: int, iterations: int, eps: float) -> None:
        super().__init__(layer, name)
        self.axis, self.iterations, self.eps = axis, iterations, eps

    def _forward(self, module: Any, weight: NDArray[Any]) -> NDArray[Any]:
        matrix = np.moveaxis(weight, self.axis, 0).reshape(weight.shape[self.axis], -1)
        # Copies: backward belongs to this forward, and the buffers go on.
        u, v = (np.array(getattr(module, f"{self.name}_{end}"), weight.dtype) for end in "uv")
        if module.training:
            for _ in range(self.iterations):
                v = _unit(matrix.T @ u, self.eps)
                u = _unit(matrix @ v, self.eps)
            np.copyto(getattr(module, f"{self.name}_u"), u, casting="same_kind")
            np.copyto(getattr(module, f"{self.name}_v"), v, casting="same_kind")
        self.u, self.v = u, v
        self.sigma = u @ (matrix @ v)
        return weight / self.sigma  # type: ignore[no-any-return]

    def _backward(self, grad: NDArray[Any]) -> NDArray[Any]:
        """Return ``(G - sum(G * W / sigma) * u v^T) / sigma``, as ``u v^T`` is the gradient of sigma."""
        moved = np.moveaxis(grad, self.axis, 0)
        slope = np.moveaxis(np.outer(self.u, self.v).reshape(moved.shape), 0, self.axis)
        along = np.sum(grad * self.data.astype(grad.dtype, copy=False))
        return (grad - along * slope) / self.sigma  # type: ignore[no-any-return]


class _Standardization(DerivedWeight):
    """A rule for each filter, the weights of one output.

    ``view`` is the weight's shape with the filters' own ``axes`` apart from the others.
    """

    __slots__ = ("eps", "order", "split", "view")

    def __init__(self, layer: Module, name: str, view: tuple[int, ...], axes: tuple[int, ...], eps: float) -> None:
        super().__init__(layer, name)
        self.view, self.eps = view, eps
        self.order = [axis for axis in range(len(view)) if axis not in axes] + list(axes)
        self.split = len(view) - len(axes)

    def _rows(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the filters as the rows of a matrix."""
        return array.reshape(self.view).transpose(self.order).reshape(self._filters(), -1)

    def _filters(self) -> int:
        return math.prod(self.view[axis] for axis in self.order[: self.split])

    def _shaped(self, rows: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Undo ``_rows``."""
        return rows.reshape([self.view[axis] for axis in self.order]).transpose(np.argsort(self.order)).reshape(shape)

    def _forward(self, module: Any, weight: NDArray[Any]) -> NDArray[Any]:
        return self._shaped(self._standardized(self._rows(weight)), weight.shape)

    def _backward(self, grad: NDArray[Any]) -> NDArray[Any]:
        result = self.data.astype(grad.dtype, copy=False)
        return self._shaped(self._gradient(self._rows(grad), self._rows(result)), grad.shape)

    def _standardized(self, rows: NDArray[Any]) -> NDArray[Any]:
        raise TypeError(f"{type(self).__name__} does not define its rule")

    def _gradient(self, g: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        raise TypeError(f"{type(self).__name__} does not define its gradient")


class _ZScore(_Standardization):
    """``(w - mean) / sqrt(var + eps)``."""

    __slots__ = ("invstd",)

    def _standardized(self, rows: NDArray[Any]) -> NDArray[Any]:
        centred = rows - rows.mean(1, keepdims=True)
        self.invstd = 1.0 / np.sqrt(np.mean(centred * centred, 1, keepdims=True) + self.eps)
        return centred * self.invstd  # type: ignore[no-any-return]

    def _gradient(self, g: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        inner = g - g.mean(1, keepdims=True) - y * np.mean(g * y, 1, keepdims=True)
        return inner * self.invstd  # type: ignore[no-any-return]


class _MinMax(_Standardization):
    """``(w - min) / (max - min)``."""

    __slots__ = ("ends", "span")

    def _standardized(self, rows: NDArray[Any]) -> NDArray[Any]:
        each = np.arange(len(rows))
        self.ends = rows.argmin(1), rows.argmax(1)
        low, high = (rows[each, end] for end in self.ends)
        # A filter of equal values becomes 0, and no value of it has a gradient.
        self.span = np.where(high == low, np.inf, high - low)
        return (rows - low[:, None]) / self.span[:, None]  # type: ignore[no-any-return]

    def _gradient(self, g: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
        result = g / self.span[:, None]
        each, along = np.arange(len(g)), np.sum(g * y, 1)
        result[each, self.ends[0]] -= (g.sum(1) - along) / self.span
        result[each, self.ends[1]] -= along / self.span
        return result
