"""ONNX's own node cases of the ops that both have: an adapter from each node to a call of ours.

`ADAPTERS` maps a node's operator to a function of its attributes and inputs that returns our outputs in the node's
order.  `cases` are those of these operators, which the package ``onnx`` makes.
"""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import fastconv.functional as F
import numpy as np
from onnx.backend.test.case.node import collect_testcases
from onnx.helper import get_attribute_value


def _attributes(node: Any) -> dict[str, Any]:
    values = {attribute.name: get_attribute_value(attribute) for attribute in node.attribute}
    return {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}


def _pairs(pads: Any) -> tuple[tuple[int, int], ...]:
    """ONNX gives all pads before, then all after."""
    half = len(pads) // 2
    return tuple(zip(pads[:half], pads[half:], strict=True))


def _same(sizes: Any, window: dict[str, Any], upper: bool) -> tuple[tuple[int, int], ...]:
    """Pads that make the output ``ceil(size / stride)``, the odd one after (``upper``) or before."""
    pairs = []
    for size, k, s, d in zip(sizes, window["kernel"], window["stride"], window["dilation"], strict=True):
        total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
        pairs.append((total // 2, total - total // 2) if upper else (total - total // 2, total // 2))
    return tuple(pairs)


def _window(x: np.ndarray, attributes: dict[str, Any], kernel: Any = None) -> dict[str, Any]:
    """Kernel, stride, dilation and pads of a node."""
    kernel = tuple(attributes.get("kernel_shape", kernel))
    unit = (1,) * len(kernel)
    window = {
        "kernel": kernel,
        "stride": tuple(attributes.get("strides", unit)),
        "dilation": tuple(attributes.get("dilations", unit)),
    }
    auto = attributes.get("auto_pad", "NOTSET")
    if auto.startswith("SAME"):
        window["padding"] = _same(x.shape[2:], window, auto == "SAME_UPPER")
    elif auto == "VALID":
        window["padding"] = "valid"
    else:
        window["padding"] = _pairs(attributes.get("pads", (0, 0) * len(kernel)))
    return window


def _spatial(x: np.ndarray) -> int:
    return x.ndim - 2


def _conv(attributes, x, weight, bias=None):
    window = _window(x, attributes, weight.shape[2:])
    stride, padding, dilation = window["stride"], window["padding"], window["dilation"]
    conv = getattr(F, f"conv{_spatial(x)}d")
    return (conv(x, weight, bias, stride, padding, dilation, attributes.get("group", 1)),)


def _conv_transpose(attributes, x, weight, bias=None):
    window = _window(x, attributes | {"auto_pad": "NOTSET"}, weight.shape[2:])
    stride, dilation, padding = window["stride"], window["dilation"], window["padding"]
    extra = tuple(attributes.get("output_padding", (0,) * _spatial(x)))
    auto, wanted = attributes.get("auto_pad", "NOTSET"), attributes.get("output_shape")
    if wanted is None and auto.startswith("SAME"):
        wanted = [size * s for size, s in zip(x.shape[2:], stride, strict=True)]
    if wanted is not None:  # the pads follow from the size; where they would be negative, the output is padded
        reach = [
            (size - 1) * s + (k - 1) * d + 1 + e
            for size, s, k, d, e in zip(x.shape[2:], stride, window["kernel"], dilation, extra, strict=True)
        ]
        totals = [full - size for full, size in zip(reach, wanted, strict=True)]
        extra = tuple(e - min(total, 0) for e, total in zip(extra, totals, strict=True))
        halves = [(max(total, 0) // 2, max(total, 0) - max(total, 0) // 2) for total in totals]
        padding = tuple(halves if auto == "SAME_UPPER" else [pair[::-1] for pair in halves])
    conv = getattr(F, f"conv_transpose{_spatial(x)}d")
    return (conv(x, weight, bias, stride, padding, extra, attributes.get("group", 1), dilation),)


def _max_pool(attributes, x):
    window = _window(x, attributes)
    y, indices = getattr(F, f"max_pool{_spatial(x)}d")(
        x,
        window["kernel"],
        window["stride"],
        window["padding"],
        window["dilation"],
        bool(attributes.get("ceil_mode", 0)),
        return_indices=True,
    )
    positions = math.prod(x.shape[2:])
    first = np.arange(math.prod(x.shape[:2])).reshape(*x.shape[:2], *(1,) * _spatial(x)) * positions
    if attributes.get("storage_order", 0):  # the position counted with the first spatial axis fastest
        places = np.unravel_index(indices, x.shape[2:])
        indices = np.ravel_multi_index(places[::-1], x.shape[:1:-1])
    return y, indices + first  # ONNX counts through samples and channels


def _avg_pool(attributes, x):
    window = _window(x, attributes)
    return (
        getattr(F, f"avg_pool{_spatial(x)}d")(
            x,
            window["kernel"],
            window["stride"],
            window["padding"],
            bool(attributes.get("ceil_mode", 0)),
            bool(attributes.get("count_include_pad", 0)),
            dilation=window["dilation"],
        ),
    )


def _lp_pool(attributes, x):
    window = _window(x, attributes)
    return (
        getattr(F, f"lp_pool{_spatial(x)}d")(
            np.abs(x),  # ONNX takes the magnitudes, PyTorch and we the powers as they are
            float(attributes.get("p", 2)),
            window["kernel"],
            window["stride"],
            bool(attributes.get("ceil_mode", 0)),
            padding=window["padding"],
            dilation=window["dilation"],
        ),
    )


def _max_unpool(attributes, x, indices, output_shape=None):
    window = _window(x, attributes)
    pairs = window["padding"]
    sizes = [
        (size - 1) * s - before - after + k
        for size, s, k, (before, after) in zip(x.shape[2:], window["stride"], window["kernel"], pairs, strict=True)
    ]
    # ONNX's indices count through samples and channels of an output of the natural size, also where a larger is asked
    # for: the places are then the same in the larger one's corner.
    places = np.unravel_index(indices % math.prod(sizes), sizes)
    target = sizes if output_shape is None else [int(size) for size in output_shape[2:]]
    flat = np.ravel_multi_index(places, target)
    unpool = getattr(F, f"max_unpool{_spatial(x)}d")
    return (unpool(x, flat, window["kernel"], window["stride"], 0, output_size=tuple(target)),)


def _batch_norm(attributes, x, scale, bias, mean, var):
    eps, momentum = attributes.get("epsilon", 1e-5), attributes.get("momentum", 0.9)
    if not attributes.get("training_mode", 0):
        return (F.batch_norm(x, mean, var, scale, bias, eps=eps),)
    mean, var, count = mean.copy(), var.copy(), x.size // x.shape[1]
    before = var.copy()
    y = F.batch_norm(x, mean, var, scale, bias, True, 1 - momentum, eps)
    # ONNX keeps the biased variance, and the mean is the same.
    batch = (var - momentum * before) / (1 - momentum) * (count - 1) / count
    return y, mean, (momentum * before + (1 - momentum) * batch).astype(var.dtype)


def _layer_norm(attributes, x, scale, bias=None):
    axis = attributes.get("axis", -1) % x.ndim
    y, mean, invstd = F.layer_norm(x, x.shape[axis:], scale, bias, attributes.get("epsilon", 1e-5), return_stats=True)
    shape = (*x.shape[:axis], *(1,) * (x.ndim - axis))
    return y, mean.reshape(shape), invstd.reshape(shape)


def _group_norm(attributes, x, scale, bias):
    return (F.group_norm(x, attributes["num_groups"], scale, bias, attributes.get("epsilon", 1e-5)),)


def _instance_norm(attributes, x, scale, bias):
    return (F.instance_norm(x, None, None, scale, bias, eps=attributes.get("epsilon", 1e-5)),)


def _dropout(attributes, x, ratio=None, training=None, *, expected):
    if training is None or not training:
        return F.dropout(x, 0.5, False), np.ones(x.shape, bool)
    # Which entries are dropped is each library's own choice: with the case's mask, the rest is ours.
    p = 0.5 if ratio is None else float(ratio)
    kept = expected[1] if len(expected) > 1 else (expected[0] != 0) | (x == 0)
    return F.dropout_backward(x, kept, p), kept


def _cross_entropy(attributes, x, target, weight=None):
    ignored = attributes.get("ignore_index", -100)
    loss = F.cross_entropy(x, target, weight, ignored, attributes.get("reduction", "mean"))
    return np.asarray(loss), F.log_softmax(x, 1)


def _linear(attributes, a, b, c=None):
    a = a.T if attributes.get("transA", 0) else a
    b = b if attributes.get("transB", 0) else b.T
    alpha, beta = np.float32(attributes.get("alpha", 1.0)), np.float32(attributes.get("beta", 1.0))
    y = F.linear(a, alpha * b)
    return (y if c is None else y + beta * c,)


def _alone(function, **defaults):
    def call(attributes, x):
        return (function(x, **{ours: attributes.get(theirs, value) for ours, (theirs, value) in defaults.items()}),)

    return call


ADAPTERS = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _max_pool,
    "AveragePool": _avg_pool,
    "LpPool": _lp_pool,
    "MaxUnpool": _max_unpool,
    "GlobalAveragePool": lambda attributes, x: (np.expand_dims(F.global_avg_pool(x), tuple(range(2, x.ndim))),),
    "GlobalMaxPool": lambda attributes, x: (np.expand_dims(F.global_max_pool(x), tuple(range(2, x.ndim))),),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "Relu": _alone(F.relu),
    "LeakyRelu": _alone(F.leaky_relu, negative_slope=("alpha", 0.01)),
    "Elu": _alone(F.elu, alpha=("alpha", 1.0)),
    "Sigmoid": _alone(F.sigmoid),
    "Tanh": _alone(F.tanh),
    "Softmax": _alone(F.softmax, axis=("axis", -1)),
    "LogSoftmax": _alone(F.log_softmax, axis=("axis", -1)),
    "Dropout": _dropout,
    "SoftmaxCrossEntropyLoss": _cross_entropy,
    "Gemm": _linear,
}


@functools.cache
def cases() -> dict[str, list[Any]]:
    """The cases of one node by its operator, for those in `ADAPTERS`."""
    with warnings.catch_warnings():  # the package makes the cases of all operators, some of them noisily
        warnings.simplefilter("ignore")
        made = collect_testcases(None)
    chosen: dict[str, list[Any]] = {name: [] for name in ADAPTERS}
    for case in made:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in chosen:
            chosen[nodes[0].op_type].append(case)
    return chosen


def solve(case: Any, inputs: Any, expected: Any) -> tuple[Any, ...]:
    """Our outputs for a case's inputs; ``expected`` are the case's own."""
    node = case.model.graph.node[0]
    given = iter(inputs)
    arguments = [next(given) if name else None for name in node.input]
    more = {"expected": expected} if node.op_type == "Dropout" else {}
    return tuple(ADAPTERS[node.op_type](_attributes(node), *arguments, **more))
