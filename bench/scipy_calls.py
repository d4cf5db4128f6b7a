"""SciPy's calls for the worker: what it has of ours, forward and channels first."""

from __future__ import annotations

import math
import time
import types
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import ndimage, signal, special

from bench.protocol import Array, UnsupportedError

MOST_WORK, MOST_CALLS = 2e7, 256
"""Multiply-adds and calls of the largest convolution that is asked of it: a call has one channel of one sample."""


def _padded(problem: Any, x: Array, value: float = 0.0) -> Array:
    """The input with its padding around it."""
    if isinstance(problem.padding, str):
        pads = [(0, 0)] * len(problem.kernel)
        if problem.padding == "same":
            pads = [((k - 1) // 2, k // 2) for k in problem.kernel]
    else:
        pads = problem.padding
    return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=value)


def _plain(problem: Any) -> None:
    """Refuse what the filters cannot do without computing more than is asked."""
    if any(s != 1 for s in problem.stride) or any(d != 1 for d in problem.dilation):
        raise UnsupportedError("SciPy's filters have no stride and no dilation")


def _convolution(problem: Any, x: Array, weight: Array, bias: Array) -> Callable[[], Array]:
    """The faster one of SciPy's two methods, a call for each output channel of each sample."""
    _plain(problem)
    width = problem.c // problem.groups
    per_group = problem.k // problem.groups
    calls = problem.n * problem.k
    if calls > MOST_CALLS or calls * width * math.prod(problem.kernel) * math.prod(problem.size) > MOST_WORK:
        raise UnsupportedError("too many channels to be called one by one")

    def call(method: str) -> Array:
        padded = _padded(problem, x)
        planes = [
            [
                signal.correlate(sample[k // per_group * width :][:width], weight[k], "valid", method)[0] + bias[k]
                for k in range(problem.k)
            ]
            for sample in padded
        ]
        return np.asarray(planes)

    seconds = {}
    for method in ("direct", "fft"):
        began = time.perf_counter()
        call(method)
        seconds[method] = time.perf_counter() - began
    method = min(seconds, key=lambda each: seconds[each])
    return lambda: call(method)


def _pool(problem: Any, x: Array) -> Callable[[], Array]:
    """Windows side by side of stride 1, as filters of the whole array."""
    _plain(problem)
    window = (1, 1, *problem.kernel)
    value = {"max_pool": -np.inf, "min_pool": np.inf, "avg_pool": 0.0}[problem.op]
    function = {
        "max_pool": ndimage.maximum_filter,
        "min_pool": ndimage.minimum_filter,
        "avg_pool": ndimage.uniform_filter,
    }
    # A filter's window is centred: these are the outputs whose window lies inside the padded array.
    inside = tuple(slice(k // 2, -((k - 1) // 2) or None) for k in problem.kernel)

    def call() -> Array:
        y: Array = function[problem.op](_padded(problem, x, value), size=window)[:, :, *inside]
        return y

    return call


_MAPS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": special.expit,
    "softmax": lambda x: np.asarray(special.softmax(x, axis=1)),
    "log_softmax": lambda x: np.asarray(special.log_softmax(x, axis=1)),
}


def prepare(request: dict[str, Any], arrays: dict[str, Array]) -> tuple[Callable[[], Any], Callable[[Any], Array]]:
    """``(call, to_first)``: the pass as a function of nothing, and its result as a NumPy array."""
    problem = types.SimpleNamespace(**request["problem"])
    if request["pass"] != "forward" or request["dtype"] not in ("float32", "float64"):
        raise UnsupportedError("the forward pass only, in float32 and float64")
    arrays = {key: a.astype(request["dtype"]) if a.dtype.kind == "f" else a for key, a in arrays.items()}
    x = arrays["x"]
    if problem.op == "conv":
        call = _convolution(problem, x, arrays["weight"], arrays["bias"])
    elif problem.op in ("max_pool", "min_pool", "avg_pool"):
        call = _pool(problem, x)
    elif problem.op in _MAPS:
        function = _MAPS[problem.op]

        def call() -> Array:
            return function(x)

    else:
        raise UnsupportedError(f"SciPy has no {problem.op}")
    return call, np.asarray
