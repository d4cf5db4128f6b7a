"""ONNX Runtime's calls for the worker: the forward pass, channels first."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

from bench.onnx_models import model_of
from bench.protocol import Array, UnsupportedError


def session_of(model: bytes | str, threads: int | None) -> onnxruntime.InferenceSession:
    """Return a session on the CPU whose threads sleep when a run is over."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    # Otherwise its threads would spin into the time of the next library.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def bound_call(session: onnxruntime.InferenceSession, x: Array) -> Callable[[], Any]:
    """Return a run whose input and output are not copied; it returns the output's `OrtValue`."""
    binding = session.io_binding()
    binding.bind_cpu_input(session.get_inputs()[0].name, x)
    output = session.get_outputs()[0].name

    def call() -> Any:
        binding.bind_output(output)  # a fresh output, as the other libraries have
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    return call


def prepare(request: dict[str, Any], arrays: dict[str, Array]) -> tuple[Callable[[], Any], Callable[[Any], Array]]:
    """``(call, to_first)``: the pass as a function of nothing, and its result as a NumPy array."""
    problem = types.SimpleNamespace(**request["problem"])
    if request["pass"] != "forward" or request["dtype"] not in ("float32", "float64", "float16"):
        raise UnsupportedError("the forward pass only, and no bfloat16")
    dtype = np.dtype(request["dtype"])
    arrays = {key: array.astype(dtype) if array.dtype.kind == "f" else array for key, array in arrays.items()}
    model = model_of(problem, arrays).SerializeToString()
    try:
        call = bound_call(session_of(model, request["threads"]), arrays["x"])
    except onnxruntime.capi.onnxruntime_pybind11_state.NotImplemented as error:
        raise UnsupportedError(str(error)) from None

    def to_first(result: Any) -> Array:
        y: Array = np.asarray(result.numpy(), np.result_type(dtype, np.float32))
        return y.reshape(y.shape[:2]) if problem.op.startswith("global") else y

    return call, to_first
