"""Central differences in float64 for every op that has a gradient, and that no op or layer is left out of them."""

from __future__ import annotations

import inspect

import expected
import fastconv.functional as F
import numpy as np
import problems
import pytest
from fastconv import nn
from fastconv._cli.problem import parse_problem
from fastconv.testing import gradcheck
from layer_cases import CASES

LINES = """
conv1d: n=2 c=4 k=6 in=7 kernel=3 stride=2 pad=1 groups=2
conv2d: n=2 c=3 k=2 in=5x4 kernel=3x2 pad=1:0x0:1 dilation=1x2
conv3d: n=1 c=2 k=2 in=3x4x3 kernel=2x3x2 stride=1x2x1 pad=1
depthwise: n=2 c=3 k=6 in=5x4 kernel=3x3 pad=1 groups=3
conv_transpose1d: op=conv_transpose n=2 c=4 k=6 in=4 kernel=3 stride=2 pad=1 groups=2 output_padding=1
conv_transpose2d: op=conv_transpose n=2 c=2 k=3 in=3x4 kernel=3x2 stride=2x1 dilation=1x2
conv_transpose3d: op=conv_transpose n=1 c=2 k=2 in=2x3x2 kernel=2x2x3 stride=2 pad=1
separable_conv1d: op=separable_conv n=2 c=3 k=2 in=6 kernel=3 pad=1 multiplier=2
separable_conv2d: op=separable_conv n=1 c=2 k=3 in=4x5 kernel=3x3 stride=2 pad=1
separable_conv3d: op=separable_conv n=1 c=2 k=2 in=3x3x3 kernel=2x2x2
max_pool1d: op=max_pool n=2 c=3 in=9 kernel=3 stride=2 pad=1
max_pool2d: op=max_pool n=2 c=3 in=5x6 kernel=3x2 stride=1 dilation=1x2
max_pool3d: op=max_pool n=1 c=2 in=4x3x4 kernel=2x2x2 stride=2 ceil_mode=1
min_pool1d: op=min_pool n=2 c=3 in=9 kernel=3 stride=2 pad=1
min_pool2d: op=min_pool n=2 c=3 in=5x6 kernel=3x2 stride=1 dilation=1x2
min_pool3d: op=min_pool n=1 c=2 in=4x3x4 kernel=2x2x2 stride=2 ceil_mode=1
avg_pool1d: op=avg_pool n=2 c=3 in=9 kernel=3 stride=2 pad=1
avg_pool2d: op=avg_pool n=2 c=3 in=5x6 kernel=3x2 stride=1 pad=1:0x0:1
avg_pool3d: op=avg_pool n=1 c=2 in=4x3x4 kernel=2x2x2 stride=2 ceil_mode=1
rms_pool1d: op=rms_pool n=2 c=3 in=9 kernel=3 stride=2 pad=1
rms_pool2d: op=rms_pool n=2 c=3 in=5x6 kernel=3x2 stride=1
rms_pool3d: op=rms_pool n=1 c=2 in=4x3x4 kernel=2x2x2 stride=2
lp_pool1d: op=lp_pool n=2 c=3 in=9 kernel=3 stride=2 norm=3.0
lp_pool2d: op=lp_pool n=2 c=3 in=5x6 kernel=3x2 stride=1 norm=2.0
lp_pool3d: op=lp_pool n=1 c=2 in=4x3x4 kernel=2x2x2 stride=2 norm=4.0
adaptive_avg_pool1d: op=adaptive_avg_pool n=2 c=3 in=7 out=3
adaptive_avg_pool2d: op=adaptive_avg_pool n=2 c=3 in=5x6 out=3x7
adaptive_avg_pool3d: op=adaptive_avg_pool n=1 c=2 in=4x3x5 out=2x3x3
adaptive_max_pool1d: op=adaptive_max_pool n=2 c=3 in=7 out=3
adaptive_max_pool2d: op=adaptive_max_pool n=2 c=3 in=5x6 out=3x7
adaptive_max_pool3d: op=adaptive_max_pool n=1 c=2 in=4x3x5 out=2x3x3
global_avg_pool: op=global_avg_pool n=2 c=3 in=5x6
global_max_pool: op=global_max_pool n=2 c=3 in=5x6
batch_norm: op=batch_norm n=3 c=4 in=3x2
layer_norm: op=layer_norm n=3 c=4 in=3x2
group_norm: op=group_norm n=3 c=4 in=3x2 groups=2
instance_norm: op=instance_norm n=3 c=4 in=3x2
switch_norm: op=switch_norm n=3 c=4 in=3x2
linear: op=linear n=4 c=5 k=3
relu: op=relu n=2 c=3 in=4x2
leaky_relu: op=leaky_relu n=2 c=3 in=4x2
elu: op=elu n=2 c=3 in=4x2
sigmoid: op=sigmoid n=2 c=3 in=4x2
tanh: op=tanh n=2 c=3 in=4x2
softmax: op=softmax n=3 c=5 in=2
log_softmax: op=log_softmax n=3 c=5 in=2
dropout: op=dropout n=2 c=3 in=4x2
cross_entropy: op=cross_entropy n=3 c=5 in=2
mse_loss: op=mse_loss n=3 c=5
binary_cross_entropy_with_logits: op=binary_cross_entropy_with_logits n=3 c=5
"""
PROBLEMS = [parse_problem(line) for line in LINES.strip().splitlines()]

GRADIENTS = {
    "separable_conv": ("x", "weight", "pointwise_weight", "bias"),
    "switch_norm": ("x", "weight", "bias", "mean_weight", "var_weight"),
}
"""The arrays whose gradients an op returns, in their order, where these are not the input, the weight and the bias."""

ELSEWHERE = {
    "max_unpool1d_backward": "with its indices' order, below",
    "max_unpool2d_backward": "with its indices' order, below",
    "max_unpool3d_backward": "with its indices' order, below",
    "dropout1d_backward": "below",
    "dropout2d_backward": "below",
    "dropout3d_backward": "below",
}


def distinct(shape):
    """Values far apart and away from zero: no ties and no kinks within a difference's step."""
    count = int(np.prod(shape))
    return (np.random.default_rng(0).permutation(count).reshape(shape) - count / 2 + 0.3) * (3 / max(count, 6))


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_op(problem, data_format):
    """The gradients of all the op's arrays."""
    call = expected.make_call(problem, np.float64, np.random.default_rng(1), data_format)
    x = distinct(call.arrays["x"].shape)
    call.arrays["x"] = np.abs(x) + 0.1 if problem.op in ("lp_pool", "rms_pool") else x
    names = [name for name in GRADIENTS.get(problem.op, ("x", "weight", "bias")) if name in call.arrays]
    running = {name: call.arrays[name] for name in ("running_mean", "running_var") if name in call.arrays}

    def fn(*arrays):
        call.arrays |= dict(zip(names, arrays, strict=True)) | {name: array.copy() for name, array in running.items()}
        output = call.forward()

        def backward(grad):
            call.arrays |= dict(zip(names, arrays, strict=True))
            call.save()
            result = call.backward(grad)
            return result if isinstance(result, tuple) else (result,)

        return output, backward

    assert gradcheck(fn, tuple(call.arrays[name] for name in names), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_channel_dropout_and_unpooling(n):
    """The two ops whose problem lines have no number of axes or no places of their own."""
    x = distinct((2, 3, *(4, 3, 2)[:n]))
    drop, back = getattr(F, f"dropout{n}d"), getattr(F, f"dropout{n}d_backward")

    def dropped(a):
        y, mask = drop(a, 0.4, seed=3)
        return y, lambda grad: back(grad, mask, 0.4)

    assert gradcheck(dropped, x)
    unpool, back_again = getattr(F, f"max_unpool{n}d"), getattr(F, f"max_unpool{n}d_backward")
    rng = np.random.default_rng(4)
    places = np.stack([rng.permutation(np.prod(x.shape[2:]) * 2**n)[: np.prod(x.shape[2:])] for _ in range(6)])
    indices = places.reshape(x.shape)
    assert gradcheck(lambda a: (unpool(a, indices, 2), lambda grad: back_again(grad, indices)), x)


def test_every_gradient_is_checked():
    """Each ``NAME_backward`` belongs to a problem here or is named in `ELSEWHERE`."""
    functions = {name for name, _ in inspect.getmembers(F, inspect.isfunction) if name.endswith("_backward")}
    checked = {f"{problem.function}_backward" for problem in PROBLEMS}
    assert functions == checked | set(ELSEWHERE)
    assert not checked & set(ELSEWHERE)


LAYERS_ELSEWHERE = {
    "Dropout": "random: tests/test_nn_layers.py with a mask that stays",
    "Dropout1d": "as Dropout; its function is checked above",
    "Dropout2d": "as Dropout; its function is checked above",
    "Dropout3d": "as Dropout; its function is checked above",
    "Module": "is no layer",
    "Rescaling": "tests/test_nn_layers.py",
    "Sequential": "every layer with an activation in CASES goes through one",
    "Step": "its derivative is 0",
}
"""Modules without a case in `layer_cases.CASES`, which `tests/test_nn_layers.py` differentiates, and why."""


def test_every_layer_is_checked():
    """Each layer of ``fastconv.nn`` has a case that is differentiated, or is named above."""
    modules = {name for name, kind in inspect.getmembers(nn, inspect.isclass) if issubclass(kind, nn.Module)}
    made = set()
    for case in CASES:
        made |= {type(module).__name__ for module in case.ours(data_format="channels_first").modules()}
    unpools = {"MaxUnpool", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"}  # two inputs: tests/test_unpooling.py
    assert modules - made - unpools == set(LAYERS_ELSEWHERE) - made
