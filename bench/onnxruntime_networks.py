"""ONNX Runtime's networks for the worker: the graph that PyTorch exported, forward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bench.onnxruntime_calls import bound_call, session_of
from bench.protocol import Array


def prepare(request: dict[str, Any]) -> tuple[Callable[[], Any], Array]:
    """Return the pass as a function of nothing, and its outputs."""
    call = bound_call(session_of(request["model"], request["threads"]), np.load(request["x"]))
    return call, np.asarray(call().numpy())
