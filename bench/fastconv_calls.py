"""fastconv's calls for the worker."""

from __future__ import annotations

import fastconv
import numpy as np
from fastconv._cli.calls import IMAGES, Call, dtype_by_name, to_format
from fastconv._cli.problem import Problem

from bench.worker import gradient_for

VERSION = f"fastconv {fastconv.__version__} ({fastconv.get_isa()})"


def prepare(request, arrays):
    """``(call, to_first)``: the pass as a function of nothing, and its result as a channels-first array."""
    if request["threads"]:
        fastconv.set_num_threads(request["threads"])
    fields = dict(request["problem"])
    for name, value in fields.items():
        if isinstance(value, list):
            fields[name] = tuple(tuple(v) if isinstance(v, list) else v for v in value)
    problem, data_format, name = Problem(**fields), request["data_format"], request["pass"]
    dtype = dtype_by_name(request["dtype"])
    arrays = {k: a.astype(dtype) if a.dtype.kind == "f" else a for k, a in arrays.items()}
    arrays |= {name: to_format(arrays[name], data_format) for name in IMAGES if name in arrays}
    call = Call(problem, arrays, data_format)
    spatial_result = name in ("forward", "backward", "backward_input")

    def to_first(result):
        spatial = spatial_result and data_format == "channels_last" and result.ndim == 2 + problem.spatial
        result = np.asarray(result, np.result_type(dtype, np.float32))  # NumPy's files do not know bfloat16
        return np.moveaxis(result, -1, 1) if spatial else result

    if name == "forward":
        return call.forward, to_first
    output = call.forward()
    call.save()
    first = np.moveaxis(output, -1, 1) if data_format == "channels_last" and output.ndim > 2 else output
    gradient = gradient_for(first).astype(dtype)
    gradient = to_format(gradient, data_format) if output.ndim > 2 else gradient
    return lambda: call.run(name, gradient), to_first
