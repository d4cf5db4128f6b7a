"""fastconv's calls for the worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fastconv
import numpy as np
from fastconv._cli.calls import IMAGES, Call, dtype_by_name, to_format
from fastconv._cli.problem import Problem

from bench.protocol import Array, gradient_for


def problem_of(request: dict[str, Any]) -> Problem:
    """The problem of a request, whose sizes JSON has made lists of."""
    fields = dict(request["problem"])
    for name, value in fields.items():
        if isinstance(value, list):
            fields[name] = tuple(tuple(v) if isinstance(v, list) else v for v in value)
    return Problem(**fields)


def prepare(request: dict[str, Any], arrays: dict[str, Array]) -> tuple[Callable[[], Any], Callable[[Any], Array]]:
    """``(call, to_first)``: the pass as a function of nothing, and its result as a channels-first array."""
    if request["threads"]:
        fastconv.set_num_threads(request["threads"])
    fastconv.set_float32_precision(request["precision"])
    problem, data_format, name = problem_of(request), request["data_format"], request["pass"]
    dtype = dtype_by_name(request["dtype"])
    arrays = {k: a.astype(dtype) if a.dtype.kind == "f" else a for k, a in arrays.items()}
    arrays |= {name: to_format(arrays[name], data_format) for name in IMAGES if name in arrays}
    call = Call(problem, arrays, data_format)
    spatial_result = name in ("forward", "backward", "backward_input")

    def to_first(result: Array) -> Array:
        spatial = spatial_result and data_format == "channels_last" and result.ndim == 2 + problem.spatial
        result = np.asarray(result, np.result_type(dtype, np.float32))  # NumPy's files do not know bfloat16
        return np.moveaxis(result, -1, 1) if spatial else result

    if name == "forward":
        return call.forward, to_first
    output = call.forward()
    call.save()
    first = np.moveaxis(output, -1, 1) if data_format == "channels_last" and output.ndim > 2 else output
    gradient = gradient_for(first.shape).astype(dtype)
    gradient = to_format(gradient, data_format) if output.ndim > 2 else gradient
    return lambda: call.run(name, gradient), to_first
