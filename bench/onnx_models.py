"""A problem's forward pass as an ONNX model of one node, or of the few that the op takes.

The model's input is ``x``, its output ``y``; weights are constants of the model, which a runtime may rearrange once.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper, numpy_helper

from bench.protocol import Array, UnsupportedError

OPSET, IR_VERSION = 21, 10
"""Old enough for runtimes of 2024; group norm has its weights a channel since this operator set."""

_PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "relu": ("Relu", {}),
    "leaky_relu": ("LeakyRelu", {"alpha": 0.01}),
    "elu": ("Elu", {"alpha": 1.0}),
    "sigmoid": ("Sigmoid", {}),
    "tanh": ("Tanh", {}),
    "softmax": ("Softmax", {"axis": 1}),
    "log_softmax": ("LogSoftmax", {"axis": 1}),
    "global_avg_pool": ("GlobalAveragePool", {}),
    "global_max_pool": ("GlobalMaxPool", {}),
}
_POOLS = {"max_pool": "MaxPool", "min_pool": "MaxPool", "avg_pool": "AveragePool", "lp_pool": "LpPool"}


def _window(problem: Any) -> dict[str, Any]:
    """Attributes of everything that slides a window: ONNX lists all begins, then all ends."""
    attributes = {"kernel_shape": problem.kernel, "strides": problem.stride}
    if problem.padding == "same":
        attributes["auto_pad"] = "SAME_UPPER"
    elif problem.padding != "valid":
        attributes["pads"] = [before for before, _ in problem.padding] + [after for _, after in problem.padding]
    return attributes


def _nodes(problem: Any) -> list[onnx.NodeProto]:
    """The nodes from ``x`` to ``y``."""
    node, op = helper.make_node, problem.op
    if op == "conv":
        more = {"dilations": problem.dilation, "group": problem.groups}
        return [node("Conv", ["x", "weight", "bias"], ["y"], **_window(problem), **more)]
    if op == "conv_transpose":
        more = {"dilations": problem.dilation, "group": problem.groups, "output_padding": problem.output_padding}
        return [node("ConvTranspose", ["x", "weight", "bias"], ["y"], **_window(problem), **more)]
    if op == "separable_conv":
        more = {"dilations": problem.dilation, "group": problem.c}
        return [
            node("Conv", ["x", "weight"], ["middle"], **_window(problem), **more),
            node("Conv", ["middle", "pointwise_weight", "bias"], ["y"]),
        ]
    if op in _POOLS:
        attributes = _window(problem) | {"ceil_mode": int(problem.ceil_mode)}
        if op != "lp_pool" or problem.dilation != [1] * len(problem.kernel):
            attributes["dilations"] = problem.dilation
        if op == "avg_pool":
            attributes["count_include_pad"] = 1
        if op == "lp_pool":
            if problem.norm != int(problem.norm):
                raise UnsupportedError("ONNX has whole powers only")
            attributes["p"] = int(problem.norm)
        pool = node(_POOLS[op], ["x"], ["y"], **attributes)
        if op != "min_pool":
            return [pool]
        pool.input[0], pool.output[0] = "minus_x", "minus_y"
        return [node("Neg", ["x"], ["minus_x"]), pool, node("Neg", ["minus_y"], ["y"])]
    if op == "linear":
        return [node("Gemm", ["x", "weight", "bias"], ["y"], transB=1)]
    if op == "layer_norm":
        return [node("LayerNormalization", ["x", "weight", "bias"], ["y"], axis=1)]
    if op == "instance_norm":
        return [node("InstanceNormalization", ["x", "weight", "bias"], ["y"])]
    if op == "group_norm":
        return [node("GroupNormalization", ["x", "weight", "bias"], ["y"], num_groups=problem.groups)]
    if op in _PLAIN:
        kind, attributes = _PLAIN[op]
        return [node(kind, ["x"], ["y"], **attributes)]
    raise UnsupportedError(f"no ONNX model of {op}")


def model_of(problem: Any, arrays: dict[str, Array]) -> onnx.ModelProto:
    """Return the model of a problem's forward pass.

    Parameters
    ----------
    problem : Problem, or anything with its attributes
        What to compute.
    arrays : dict of arrays
        As ``fastconv._cli.calls.make_arrays`` gives them, all floating-point ones of one dtype.

    Raises
    ------
    UnsupportedError
        When ONNX has no operator for it.
    """
    nodes = _nodes(problem)
    used = {name for node in nodes for name in node.input}
    dtype = helper.np_dtype_to_tensor_dtype(arrays["x"].dtype)
    graph = helper.make_graph(
        nodes,
        problem.name,
        [helper.make_tensor_value_info("x", dtype, arrays["x"].shape)],
        [helper.make_tensor_value_info("y", dtype, [None] * arrays["x"].ndim)],  # every op keeps the rank
        [numpy_helper.from_array(array, name) for name, array in arrays.items() if name in used - {"x"}],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
