"""PyTorch's calls for the worker."""

from __future__ import annotations

import math
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from bench.protocol import Array, gradient_for

_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def _padded(x: Tensor, padding: Any, value: float = 0.0) -> tuple[Tensor, Any]:
    """The input and the padding left for the call: PyTorch pads both sides alike, so one-sided pads come before."""
    if isinstance(padding, str):
        return x, padding
    if all(before == after for before, after in padding):
        return x, tuple(before for before, _ in padding)
    flat = [side for pair in reversed(padding) for side in pair]
    return functional.pad(x, flat, value=value), (0,) * len(padding)


def _forward(p: Any, t: dict[str, Tensor]) -> Any:
    """The problem's output as a function of the tensors ``t``."""
    x, n = t["x"], len(p.size)
    if p.op == "conv":
        x, padding = _padded(x, p.padding)
        conv = getattr(functional, f"conv{n}d")
        return conv(x, t["weight"], t["bias"], p.stride, padding, p.dilation, p.groups)
    if p.op == "conv_transpose":
        _, padding = _padded(x, p.padding)
        conv = getattr(functional, f"conv_transpose{n}d")
        return conv(x, t["weight"], t["bias"], p.stride, padding, p.output_padding, p.groups, p.dilation)
    if p.op == "separable_conv":
        x, padding = _padded(x, p.padding)
        conv = getattr(functional, f"conv{n}d")
        middle = conv(x, t["weight"], None, p.stride, padding, p.dilation, p.c)
        return conv(middle, t["pointwise_weight"], t["bias"])
    if p.op in ("max_pool", "min_pool"):
        pool = getattr(functional, f"max_pool{n}d")
        sign = 1 if p.op == "max_pool" else -1
        x, padding = _padded(x if sign > 0 else -x, p.padding, -torch.inf)
        y = pool(x, p.kernel, p.stride, padding, p.dilation, p.ceil_mode)
        return y if sign > 0 else -y
    if p.op == "avg_pool":
        x, padding = _padded(x, p.padding)
        return getattr(functional, f"avg_pool{n}d")(x, p.kernel, p.stride, padding, p.ceil_mode)
    if p.op in ("rms_pool", "lp_pool"):
        powers, padding = _padded(x**p.norm, p.padding)
        y = getattr(functional, f"avg_pool{n}d")(powers, p.kernel, p.stride, padding, p.ceil_mode)
        return (y if p.op == "rms_pool" else y * math.prod(p.kernel)) ** (1 / p.norm)
    if p.op in ("adaptive_avg_pool", "adaptive_max_pool"):
        return getattr(functional, f"{p.op}{n}d")(x, p.output if n > 1 else p.output[0])
    if p.op == "max_unpool":
        padding = tuple(before for before, _ in p.padding)
        return getattr(functional, f"max_unpool{n}d")(x, t["indices"], p.kernel, p.stride, padding)
    if p.op == "global_avg_pool":
        return x.mean(dim=tuple(range(2, x.ndim)))
    if p.op == "global_max_pool":
        return x.amax(dim=tuple(range(2, x.ndim)))
    if p.op == "batch_norm":
        return functional.batch_norm(x, t["running_mean"], t["running_var"], t["weight"], t["bias"], training=True)
    if p.op == "instance_norm":
        return functional.instance_norm(x, t["running_mean"], t["running_var"], t["weight"], t["bias"])
    if p.op == "group_norm":
        return functional.group_norm(x, p.groups, t["weight"], t["bias"])
    if p.op == "layer_norm":
        return functional.layer_norm(x, x.shape[1:], t["weight"], t["bias"])
    if p.op == "linear":
        return functional.linear(x, t["weight"], t["bias"])
    if p.op in ("softmax", "log_softmax"):
        return getattr(functional, p.op)(x, dim=1)
    if p.op == "dropout":
        return functional.dropout(x, 0.5, training=True)
    if p.op in ("cross_entropy", "mse_loss", "binary_cross_entropy_with_logits"):
        return getattr(functional, p.op)(x, t["target"])
    if p.op in ("sigmoid", "tanh"):
        return getattr(torch, p.op)(x)
    return getattr(functional, p.op)(x)


def prepare(request: dict[str, Any], arrays: dict[str, Array]) -> tuple[Callable[[], Any], Callable[[Any], Array]]:
    """``(call, to_first)``: the pass as a function of nothing, and its result as a NumPy array."""
    if request["threads"]:
        torch.set_num_threads(request["threads"])
    problem, name = types.SimpleNamespace(**request["problem"]), request["pass"]
    dtype = getattr(torch, request["dtype"])
    last = request["data_format"] == "channels_last"

    def arranged(tensor: Tensor) -> Tensor:
        return tensor.to(memory_format=_LAST[tensor.ndim]) if last and tensor.ndim in _LAST else tensor

    tensors = {}
    for key, array in arrays.items():
        tensor = torch.from_numpy(array)
        tensors[key] = arranged(tensor.to(dtype) if tensor.is_floating_point() else tensor)

    through = getattr(torch, request["through"]) if "through" in request and dtype == torch.float32 else None

    def to_first(result: Tensor) -> Array:
        return result.detach().to(torch.promote_types(dtype, torch.float32)).contiguous().numpy()

    def compute() -> Any:
        if through is None:
            return _forward(problem, tensors)
        # What a user does for speed: narrower operands, the same arrays before and after.
        narrow = {key: t.to(through) if t.is_floating_point() else t for key, t in tensors.items()}
        return _forward(problem, narrow).to(dtype)

    def forward() -> Any:
        with torch.inference_mode():
            return compute()

    if name == "forward":
        return forward, to_first
    wanted = [tensors["x"]]
    if name == "backward_weight":
        wanted = [tensors["weight"]]
    elif name == "backward":
        wanted = [tensors[key] for key in ("x", "weight", "pointwise_weight", "bias") if key in tensors]
    for tensor in wanted:
        tensor.requires_grad_()
    output = compute()
    gradient = arranged(torch.as_tensor(gradient_for(tuple(output.shape))).to(dtype))
    return lambda: torch.autograd.grad(output, wanted, gradient, retain_graph=True)[0], to_first
