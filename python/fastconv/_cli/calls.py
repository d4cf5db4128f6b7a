"""From a problem to arrays and to the calls of ``fastconv.functional`` that solve it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._check import bfloat16
from .problem import ADAPTIVE_POOLS, CONVOLUTIONS, GLOBAL_POOLS, LOSSES, NORMS, WINDOW_POOLS, Problem

Array = NDArray[Any]

WEIGHTS = ("weight", "pointwise_weight", "bias", "running_mean", "running_var", "mean_weight", "var_weight")
"""Names of arrays that have one layout whatever the data format."""

IMAGES = ("x", "indices")
"""Names of arrays that follow the data format."""

_NORM_ARGUMENTS = {
    "batch_norm": ("running_mean", "running_var", "weight", "bias"),
    "layer_norm": ("weight", "bias"),
    "group_norm": ("weight", "bias"),
    "instance_norm": ("running_mean", "running_var", "weight", "bias"),
    "switch_norm": ("mean_weight", "var_weight", "weight", "bias", "running_mean", "running_var"),
}


def dtype_by_name(name: str) -> np.dtype[Any]:
    """Return a dtype; bfloat16 needs the package ml_dtypes."""
    return bfloat16("dtype") if name == "bfloat16" else np.dtype(name)


def make_arrays(problem: Problem, dtype: DTypeLike, rng: np.random.Generator) -> dict[str, Array]:
    """Return the problem's arrays, channels first and contiguous: ``x`` and what else the op takes.

    Standard normal values, with weights scaled so that outputs have about unit variance; a running variance is
    positive, and so is the input of an odd or broken power; a cross entropy's ``target`` is class indices, and the
    ``indices`` of an unpooling are any places of its output.
    """

    def normal(shape: tuple[int, ...], fan_in: int = 1) -> Array:
        return np.asarray(rng.standard_normal(shape) / np.sqrt(fan_in), dtype)

    arrays = {"x": normal(problem.x_shape)}
    if problem.op == "lp_pool" and problem.norm % 2:
        arrays["x"] = np.abs(arrays["x"])
    if problem.op == "max_unpool":
        arrays["indices"] = rng.integers(0, max(math.prod(unpooled_size(problem)), 1), problem.x_shape)
    if problem.op in CONVOLUTIONS or problem.op == "linear":
        shape = problem.weight_shape
        arrays["weight"] = normal(shape, int(np.prod(shape[1:])))
        arrays["bias"] = normal((problem.k,))
    if problem.op == "separable_conv":
        arrays["pointwise_weight"] = normal(problem.pointwise_shape, problem.pointwise_shape[1])
    for name in _NORM_ARGUMENTS.get(problem.op, ()):
        shape = problem.x_shape[1:] if problem.op == "layer_norm" else (problem.c,)
        arrays[name] = normal((3,) if name in ("mean_weight", "var_weight") else shape)
        if name == "running_var":
            arrays[name] = np.asarray(rng.uniform(0.5, 2.0, problem.c), dtype)
    if problem.op == "mse_loss":
        arrays["target"] = normal(problem.x_shape)
    if problem.op == "binary_cross_entropy_with_logits":
        arrays["target"] = np.asarray(rng.uniform(0.0, 1.0, problem.x_shape), dtype)
    if problem.op == "cross_entropy":
        arrays["target"] = rng.integers(0, problem.c, (problem.n, *problem.size))
    return arrays


def unpooled_size(problem: Problem) -> tuple[int, ...]:
    """Return the spatial size of an unpooling's output."""
    pads = ((0, 0),) * problem.spatial if isinstance(problem.padding, str) else problem.padding
    return tuple(
        (size - 1) * s + k - before - after
        for size, s, k, (before, after) in zip(problem.size, problem.stride, problem.kernel, pads, strict=True)
    )


def to_format(array: Array, data_format: str) -> Array:
    """Return a channels-first array in the data format, contiguous."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1) if data_format == "channels_last" else array)


def passes_of(problem: Problem) -> tuple[str, ...]:
    """Return the names of the passes that are timed apart."""
    if problem.op in ("conv", "conv_transpose", "linear"):
        return ("forward", "backward_input", "backward_weight")
    return ("forward",) if problem.op in ("dropout", "step") else ("forward", "backward")


def _flat(grad_output: Array, x: Array) -> Array:
    """The gradient of an op that is constant wherever it has a derivative."""
    return np.zeros_like(grad_output)


class Call:
    """One problem on arrays of one data format, ready to run its passes.

    Parameters
    ----------
    problem : Problem
        What to compute.
    arrays : dict of arrays
        As `make_arrays` returns them, but ``x`` (and a loss's ``target``) already in the data format.
    data_format : {"channels_first", "channels_last"}
        Layout of ``x``.
    options : dict, optional
        More keyword arguments for forward and backward alike (``count_include_pad``, ``alpha``, ...).
    """

    def __init__(
        self,
        problem: Problem,
        arrays: dict[str, Array],
        data_format: str = "channels_first",
        options: dict[str, Any] | None = None,
    ) -> None:
        from .. import functional

        self.problem, self.arrays, self.data_format = problem, arrays, data_format
        self.options = options or {}
        self._forward = getattr(functional, problem.function)
        self._backward: Any = getattr(functional, f"{problem.function}_backward", None) or _flat
        self._saved: tuple[Any, ...] = ()

    @property
    def passes(self) -> tuple[str, ...]:
        """Names of the passes that `run` takes."""
        return passes_of(self.problem)

    def _keywords(self) -> dict[str, Any]:
        problem = self.problem
        keywords: dict[str, Any] = dict(self.options)
        if problem.windowed:
            keywords |= {"stride": problem.stride, "padding": problem.padding}
        if problem.windowed or problem.op in (*ADAPTIVE_POOLS, *GLOBAL_POOLS, *NORMS):
            keywords["data_format"] = self.data_format
        if problem.windowed and problem.op != "max_unpool":
            keywords["dilation"] = problem.dilation
        if problem.op in ("conv", "conv_transpose"):
            keywords["groups"] = problem.groups
        if problem.op == "conv_transpose":
            keywords["output_padding"] = problem.output_padding or 0
        if problem.op in WINDOW_POOLS:
            keywords["ceil_mode"] = problem.ceil_mode
        if problem.op in ("softmax", "log_softmax"):
            keywords["axis"] = 1 if self.data_format == "channels_first" else -1
        return keywords

    def _get(self, *names: str) -> tuple[Array | None, ...]:
        return tuple(self.arrays.get(name) for name in names)

    def _window(self) -> tuple[Any, ...]:
        """What a pool takes after its input."""
        problem = self.problem
        if problem.op in ADAPTIVE_POOLS:
            return (problem.output,)
        first = {"lp_pool": (problem.norm,), "max_unpool": self._get("indices")}.get(problem.op, ())
        return (*first, problem.kernel)

    def _layer_weight(self, name: str) -> Array | None:
        """An array of a layer norm, whose channels lie where the input's do."""
        array = self.arrays.get(name)
        last = self.data_format == "channels_last"
        return array if array is None or not last else np.moveaxis(array, 0, -1)

    def _normalise(self, **more: Any) -> Any:
        """A norm of the input, in training mode unless the options say otherwise."""
        problem, x, keywords = self.problem, self.arrays["x"], self._keywords() | more
        arrays = self._get(*_NORM_ARGUMENTS[problem.op])
        if more:  # this call is for its statistics only: the running ones stay
            arrays = tuple(array.copy() if isinstance(array, np.ndarray) else array for array in arrays)
        if problem.op == "layer_norm":
            return self._forward(x, np.shape(x)[1:], *map(self._layer_weight, ("weight", "bias")), **keywords)
        if problem.op == "group_norm":
            return self._forward(x, keywords.pop("num_groups", problem.groups), *arrays, **keywords)
        if problem.op == "switch_norm":
            keywords = {"momentum": 0.1, "eps": 1e-5, **keywords}
        if problem.op in ("batch_norm", "switch_norm"):
            keywords.setdefault("training", True)
        return self._forward(x, *arrays, **keywords)

    def _normalise_backward(self, grad_output: Array, keywords: dict[str, Any]) -> Any:
        problem, x, weight = self.problem, self.arrays["x"], self.arrays.get("weight")
        for name in ("momentum", "num_groups"):
            keywords.pop(name, None)
        eps = keywords.pop("eps", 1e-5)
        if problem.op == "switch_norm":
            shared = self._get("mean_weight", "var_weight", "weight", "running_mean", "running_var")
            keywords = {"training": True, **keywords}
            return self._backward(grad_output, x, *self._saved, *shared, eps=eps, **keywords)
        if problem.op == "layer_norm":
            gradients = self._backward(grad_output, x, *self._saved, self._layer_weight("weight"), **keywords)
            if self.data_format == "channels_last":
                moved = (None if g is None else np.moveaxis(g, -1, 0) for g in gradients[1:])
                gradients = gradients._make((gradients[0], *moved))
            return gradients
        return self._backward(grad_output, x, *self._saved, weight, **keywords)

    def forward(self) -> Array:
        """Return the op's output (a dropout's without its mask; a norm's in training mode)."""
        problem, x, keywords = self.problem, self.arrays["x"], self._keywords()
        if problem.op == "separable_conv":
            return self._forward(x, *self._get("weight", "pointwise_weight", "bias"), **keywords)  # type: ignore[no-any-return]
        if problem.op in CONVOLUTIONS or problem.op == "linear":
            return self._forward(x, *self._get("weight", "bias"), **keywords)  # type: ignore[no-any-return]
        if problem.op in (*WINDOW_POOLS, *ADAPTIVE_POOLS, "max_unpool"):
            return self._forward(x, *self._window(), **keywords)  # type: ignore[no-any-return]
        if problem.op in NORMS:
            return self._normalise()  # type: ignore[no-any-return]
        if problem.op in LOSSES:
            return np.asarray(self._forward(x, self.arrays["target"], **keywords))
        if problem.op == "dropout":
            return self._forward(x, seed=0, **keywords)[0]  # type: ignore[no-any-return]
        return self._forward(x, **keywords)  # type: ignore[no-any-return]

    def save(self) -> None:
        """Keep what `backward` needs of the forward pass."""
        problem, x, keywords = self.problem, self.arrays["x"], self._keywords()
        if problem.op in ("max_pool", "min_pool"):
            self._saved = (self._forward(x, problem.kernel, return_indices=True, **keywords)[1],)
        elif problem.op == "adaptive_max_pool":
            self._saved = (self._forward(x, problem.output, return_indices=True, **keywords)[1],)
        elif problem.op in ("rms_pool", "lp_pool"):
            self._saved = (self._forward(x, *self._window(), **keywords),)
        elif problem.op == "global_max_pool":
            self._saved = (self._forward(x, return_indices=True, **keywords)[1],)
        elif problem.op in NORMS:
            self._saved = self._normalise(return_stats=True)[1:]
        elif problem.op == "dropout":
            self._saved = (self._forward(x, seed=0, **keywords)[1],)
        elif problem.op in ("relu", "sigmoid", "tanh", "softmax", "log_softmax"):
            self._saved = (self._forward(x, **keywords),)

    def backward(self, grad_output: Array, mask: tuple[bool, ...] | None = None) -> Any:
        """Return what the backward function returns; `save` comes first.

        ``mask`` is an ``output_mask``, for the ops that have one.
        """
        problem, x, keywords = self.problem, self.arrays["x"], self._keywords()
        if mask is not None:
            keywords["output_mask"] = mask
        if problem.op == "separable_conv":
            return self._backward(grad_output, x, *self._get("weight", "pointwise_weight"), **keywords)
        if problem.op in CONVOLUTIONS or problem.op == "linear":
            return self._backward(grad_output, x, self.arrays["weight"], **keywords)
        layout = {"data_format": self.data_format}
        if problem.op in ("max_pool", "min_pool", "adaptive_max_pool", "global_max_pool"):
            return self._backward(grad_output, *self._saved, x.shape, **layout)
        if problem.op == "max_unpool":
            return self._backward(grad_output, self.arrays["indices"], **layout)
        if problem.op in ("rms_pool", "lp_pool"):
            return self._backward(grad_output, x, *self._saved, *self._window(), **keywords)
        if problem.op == "avg_pool":
            return self._backward(grad_output, x.shape, problem.kernel, **keywords)
        if problem.op in ("adaptive_avg_pool", "global_avg_pool"):
            return self._backward(grad_output, x.shape, **keywords)
        if problem.op in NORMS:
            return self._normalise_backward(grad_output, keywords)
        if problem.op in LOSSES:
            return self._backward(grad_output, x, self.arrays["target"], **keywords)
        if problem.op == "dropout":
            return self._backward(grad_output, *self._saved, **keywords)
        saved = self._saved or (x,)
        return self._backward(grad_output, *saved, **keywords)

    def run(self, name: str, grad_output: Array | None = None) -> Array:
        """Run one of `passes` and return its first array."""
        if name == "forward":
            return self.forward()
        assert grad_output is not None
        if name == "backward":
            result = self.backward(grad_output)
            return result[0] if isinstance(result, tuple) else result  # type: ignore[no-any-return]
        first = name == "backward_input"
        gradients = self.backward(grad_output, (first, not first, False))
        return gradients[0] if first else gradients[1]  # type: ignore[no-any-return]
