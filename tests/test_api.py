"""The public API as it is promised: every name, signature and default, written down once more, independently.

A signature here must be that of the function, except that the function may take more: keyword-only arguments, and
arguments with defaults after those written here. ``{n}`` stands for 1, 2 and 3.
"""

from __future__ import annotations

import ast
import importlib
import inspect

import fastconv
import fastconv.functional as F
import numpy as np
import pytest
import torch
from fastconv import nn, optim, testing

PACKAGE = """
set_float32_precision(p)
get_float32_precision()
float32_precision(p)
set_num_threads(n)
get_num_threads()
get_isa()
set_isa(name)
available_isas()
show_config()
"""

CUDA = """
is_available()
device_count()
arch_list()
"""

FORWARD = """
conv{n}d(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, *, activation=None, out=None)
conv_transpose{n}d(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, out=None)
separable_conv{n}d(x, depthwise_weight, pointwise_weight, bias=None, stride=1, padding=0, dilation=1)
max_pool{n}d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False)
min_pool{n}d(x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False)
avg_pool{n}d(x, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None, \
*, dilation=1)
rms_pool{n}d(x, kernel_size, stride=None, padding=0, ceil_mode=False, *, dilation=1)
lp_pool{n}d(x, norm_type, kernel_size, stride=None, ceil_mode=False, *, padding=0, dilation=1)
adaptive_avg_pool{n}d(x, output_size)
adaptive_max_pool{n}d(x, output_size, return_indices=False)
max_unpool{n}d(x, indices, kernel_size, stride=None, padding=0, output_size=None)
global_avg_pool(x)
global_max_pool(x)
batch_norm(x, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1, eps=1e-5, \
*, return_stats=False)
layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5, *, return_stats=False)
group_norm(x, num_groups, weight=None, bias=None, eps=1e-5, *, return_stats=False)
instance_norm(x, running_mean=None, running_var=None, weight=None, bias=None, use_input_stats=True, momentum=0.1, \
eps=1e-5, *, return_stats=False)
switch_norm(x, mean_weight, var_weight, weight, bias, running_mean, running_var, training, momentum, eps)
relu(x)
leaky_relu(x, negative_slope=0.01)
elu(x, alpha=1.0)
sigmoid(x)
tanh(x)
step(x)
softmax(x, axis)
log_softmax(x, axis)
linear(x, weight, bias=None)
dropout(x, p=0.5, training=True, *, noise_shape=None, seed=None)
dropout{n}d(x, p=0.5, training=True, *, seed=None)
cross_entropy(logits, target, weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0)
mse_loss(y, target, reduction="mean")
binary_cross_entropy_with_logits(y, target, weight=None, reduction="mean", pos_weight=None)
"""

BACKWARD = """
conv{n}d_backward(grad_output, x, weight, stride=1, padding=0, dilation=1, groups=1, *, output_mask=(True, True, True))
conv_transpose{n}d_backward(grad_output, x, weight, stride=1, padding=0, output_padding=0, groups=1, dilation=1, \
*, output_mask=(True, True, True))
max_pool{n}d_backward(grad_output, indices, input_shape)
min_pool{n}d_backward(grad_output, indices, input_shape)
adaptive_max_pool{n}d_backward(grad_output, indices, input_shape)
adaptive_avg_pool{n}d_backward(grad_output, input_shape)
rms_pool{n}d_backward(grad_output, x, y, kernel_size, stride=None, padding=0, ceil_mode=False, *, dilation=1)
lp_pool{n}d_backward(grad_output, x, y, norm_type, kernel_size, stride=None, ceil_mode=False, *, padding=0, dilation=1)
max_unpool{n}d_backward(grad_output, indices)
avg_pool{n}d_backward(grad_output, input_shape, kernel_size, stride=None, padding=0, ceil_mode=False, \
count_include_pad=True, divisor_override=None, *, dilation=1)
cross_entropy_backward(grad_output, logits, target, weight=None, ignore_index=-100, reduction="mean", \
label_smoothing=0.0)
mse_loss_backward(grad_output, y, target, reduction="mean")
binary_cross_entropy_with_logits_backward(grad_output, y, target, weight=None, reduction="mean", pos_weight=None)
batch_norm_backward(grad_output, x, mean, invstd, weight=None, training=True, *, output_mask=(True, True, True))
layer_norm_backward(grad_output, x, mean, invstd, weight=None, *, output_mask=(True, True, True))
group_norm_backward(grad_output, x, mean, invstd, weight=None, *, output_mask=(True, True, True))
instance_norm_backward(grad_output, x, mean, invstd, weight=None, use_input_stats=True, \
*, output_mask=(True, True, True))
relu_backward(grad_output, y)
sigmoid_backward(grad_output, y)
tanh_backward(grad_output, y)
softmax_backward(grad_output, y, axis)
log_softmax_backward(grad_output, y, axis)
leaky_relu_backward(grad_output, x, negative_slope=0.01)
elu_backward(grad_output, x, alpha=1.0)
"""

MODULE = """
backward(self, grad_output)
parameters(self)
named_parameters(self)
state_dict(self)
load_state_dict(self, mapping, strict=True)
zero_grad(self)
train(self)
eval(self)
summary(self, input_shape)
"""

LAYERS = """
Conv{n}d(in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1, groups=1, bias=True, \
padding_mode="zeros", *, activation=None)
ConvTranspose{n}d(in_channels, out_channels, kernel_size, stride=1, padding=0, output_padding=0, groups=1, bias=True, \
dilation=1, padding_mode="zeros")
SeparableConv{n}d(in_channels, out_channels, kernel_size, stride=1, padding=0, dilation=1)
MaxPool(kernel_size, stride=None, padding=0, dilation=1)
MinPool(kernel_size, stride=None, padding=0, dilation=1)
AvgPool(kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None)
RMSPool(kernel_size, stride=None, padding=0, ceil_mode=False)
LPPool(norm_type, kernel_size, stride=None, ceil_mode=False)
AdaptiveAvgPool(output_size)
AdaptiveMaxPool(output_size, return_indices=False)
MaxUnpool(kernel_size, stride=None, padding=0)
GlobalAvgPool()
BatchNorm{n}d(num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True)
LayerNorm(normalized_shape, eps=1e-5, elementwise_affine=True, bias=True)
GroupNorm(num_groups, num_channels, eps=1e-5, affine=True)
InstanceNorm{n}d(num_features, eps=1e-5, momentum=0.1, affine=False, track_running_stats=False)
SwitchNorm{n}d(num_features, eps=1e-5, momentum=0.1, affine=True, track_running_stats=True)
ReLU()
LeakyReLU(negative_slope=0.01)
ELU(alpha=1.0)
Sigmoid()
Tanh()
Step()
Softmax()
Dropout(p=0.5)
Dropout{n}d(p=0.5)
Linear(in_features, out_features, bias=True)
Flatten(start_dim=1, end_dim=-1)
Rescaling(scale, offset=0)
Upsample(size=None, scale_factor=None, mode="nearest", align_corners=None)
Sequential(*layers)
Residual(branch, shortcut=None)
Concat(*branches)
CrossEntropyLoss(weight=None, ignore_index=-100, reduction="mean", label_smoothing=0.0)
MSELoss(reduction="mean")
BCEWithLogitsLoss(weight=None, reduction="mean", pos_weight=None)
"""

RULES = """
uniform_(target, a=0.0, b=1.0)
normal_(target, mean=0.0, std=1.0)
constant_(target, val)
zeros_(target)
ones_(target)
xavier_uniform_(target, gain=1.0)
xavier_normal_(target, gain=1.0)
kaiming_uniform_(target, a=0, mode="fan_in", nonlinearity="leaky_relu")
kaiming_normal_(target, a=0, mode="fan_in", nonlinearity="leaky_relu")
"""

UTILS = """
spectral_norm(layer, name="weight")
weight_standardization(layer, mode="zscore")
"""

OPTIM = """
SGD(params, lr, momentum=0, nesterov=False, weight_decay=0, l1=0)
RMSprop(params, lr=0.01, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0, centered=False)
Adam(params, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0)
AdamW(params, lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
Rprop(params, lr=0.01, etas=(0.5, 1.2), step_sizes=(1e-6, 50))
"""

TESTING = """
gradcheck(fn_or_module, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)
"""


def _rows(table):
    """The signatures of a table, each once for every number of dimensions."""
    for line in table.strip().splitlines():
        yield from [line.replace("{n}", str(n)) for n in (1, 2, 3)] if "{n}" in line else [line]


SIGNATURES = [
    pytest.param(owner, row, id=f"{owner.__name__.removeprefix('fastconv.')}.{row.split('(')[0]}")
    for owner, table in (
        (fastconv, PACKAGE),
        (fastconv.cuda, CUDA),
        (F, FORWARD),
        (F, BACKWARD),
        (nn.Module, MODULE),
        (nn, LAYERS),
        (nn.init, RULES),
        (nn.utils, UTILS),
        (optim, OPTIM),
        (testing, TESTING),
    )
    for row in _rows(table)
]


def _expected(row):
    """Name, and parameters as (name, kind, default)."""
    name, arguments = row.split("(", 1)
    parsed = ast.parse(f"def f({arguments}: pass").body[0].args
    empty = inspect.Parameter.empty
    defaults = [empty] * (len(parsed.args) - len(parsed.defaults)) + [ast.literal_eval(d) for d in parsed.defaults]
    named = list(zip([each.arg for each in parsed.args], defaults, strict=True))
    keywords = [
        (each.arg, ast.literal_eval(default))
        for each, default in zip(parsed.kwonlyargs, parsed.kw_defaults, strict=True)
    ]
    return name, named, parsed.vararg and parsed.vararg.arg, keywords


@pytest.mark.parametrize(("owner", "row"), SIGNATURES)
def test_signature(owner, row):
    name, named, rest, keywords = _expected(row)
    function = getattr(owner, name)
    parameters = inspect.signature(function).parameters
    kinds = inspect.Parameter
    positional = [p for p in parameters.values() if p.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.POSITIONAL_ONLY)]
    assert [(p.name, p.default) for p in positional[: len(named)]] == named
    assert all(p.default is not kinds.empty for p in positional[len(named) :]), "what is not written must be optional"
    assert [p.name for p in parameters.values() if p.kind is kinds.VAR_POSITIONAL] == ([rest] if rest else [])
    for keyword, default in keywords:
        assert parameters[keyword].kind is kinds.KEYWORD_ONLY, keyword
        assert parameters[keyword].default == default, keyword
    assert all(p.default is not kinds.empty for p in parameters.values() if p.kind is kinds.KEYWORD_ONLY)
    assert function.__doc__, "public names are documented"


def test_precision_is_a_context_manager():
    assert fastconv.get_float32_precision() == "highest"
    with fastconv.float32_precision("medium"):
        assert fastconv.get_float32_precision() == "medium"
    assert fastconv.get_float32_precision() == "highest"


def test_cuda_never_raises():
    assert fastconv.cuda.is_available() == (fastconv.cuda.device_count() > 0)
    assert all(name.startswith("sm_") for name in fastconv.cuda.arch_list())


def test_version():
    assert isinstance(fastconv.__version__, str)
    assert fastconv.__version__[0].isdigit()


def _functions():
    return {
        name: value
        for name, value in vars(F).items()
        if inspect.isfunction(value) and value.__module__.startswith("fastconv.functional") and not name.startswith("_")
    }


def test_every_op_takes_the_data_format():
    for name, function in _functions().items():
        parameter = inspect.signature(function).parameters["data_format"]
        assert parameter.default == "channels_first", name
        assert parameter.kind is inspect.Parameter.KEYWORD_ONLY, name


def test_convolutions_take_precision_and_padding_mode():
    for name, function in _functions().items():
        if name.startswith(("conv", "separable_conv")):
            parameters = inspect.signature(function).parameters
            assert parameters["precision"].default is None, name
            assert parameters["padding_mode"].default == "zeros", name


def test_an_unknown_data_format_is_refused_where_it_makes_no_difference():
    x = np.ones((2, 3))
    mask = np.ones((2, 3, 1), bool)
    for call in (
        lambda **kw: F.linear(x, x, **kw),
        lambda **kw: F.linear_backward(np.ones((2, 2)), x, x, **kw),
        lambda **kw: F.dropout(x, **kw),
        lambda **kw: F.dropout_backward(x, x > 0, **kw),
        lambda **kw: F.dropout1d_backward(np.ones((2, 3, 4)), mask, **kw),
        lambda **kw: F.relu(x, **kw),
        lambda **kw: F.elu_backward(x, x, **kw),
        lambda **kw: F.softmax(x, 1, **kw),
        lambda **kw: F.log_softmax_backward(x, x, 1, **kw),
        lambda **kw: F.step(x, **kw),
        lambda **kw: F.mse_loss(x, x, **kw),
        lambda **kw: F.mse_loss_backward(1.0, x, x, **kw),
        lambda **kw: F.binary_cross_entropy_with_logits(x, x, **kw),
        lambda **kw: F.binary_cross_entropy_with_logits_backward(1.0, x, x, **kw),
    ):
        with pytest.raises(ValueError, match="data_format: got 'NXC', expected"):
            call(data_format="NXC")


def test_every_forward_has_a_backward():
    names = _functions()
    flat = {"step"}  # its derivative is 0 wherever it has one
    forward = {name for name in names if not name.endswith("_backward")} - flat
    assert {name for name in names if name.endswith("_backward")} == {f"{name}_backward" for name in forward}
    for name in names:
        if name.endswith("_backward"):
            assert next(iter(inspect.signature(names[name]).parameters)) == "grad_output", name


def test_every_op_is_written_here():
    written = {row.split("(")[0] for table in (FORWARD, BACKWARD) for row in _rows(table)}
    implied = {
        "linear_backward", "dropout_backward", "switch_norm_backward",
        "global_avg_pool_backward", "global_max_pool_backward",
        *(f"{kind}{n}d_backward" for kind in ("dropout", "separable_conv") for n in (1, 2, 3)),
    }  # fmt: skip
    assert set(_functions()) == written | implied


def test_every_layer_is_written_here():
    """The pools with a number are shorthands of the one that goes by the input."""
    written = {row.split("(")[0] for row in _rows(LAYERS)}
    pools = ("MaxPool", "MinPool", "AvgPool", "RMSPool", "LPPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "MaxUnpool")
    shorthands = {f"{pool}{n}d" for pool in pools for n in (1, 2, 3)}
    others = {"Module", "Parameter", "Loss", "Summary", "IncompatibleKeys", "GlobalMaxPool", "LogSoftmax"}
    classes = {name for name in nn.__all__ if isinstance(getattr(nn, name), type)}
    assert classes == written | shorthands | others
    for name in shorthands:
        ours = inspect.signature(getattr(nn, name)).parameters
        assert ours == inspect.signature(getattr(nn, name[:-2])).parameters


def test_gradients_of_weights_come_as_named_tuples():
    x, w = np.ones((1, 2, 4)), np.ones((3, 2, 2))
    calls = {
        "conv": lambda mask: F.conv1d_backward(np.ones((1, 3, 3)), x, w, output_mask=mask),
        "transposed": lambda mask: F.conv_transpose1d_backward(
            np.ones((1, 2, 4)), np.ones((1, 3, 3)), w, output_mask=mask
        ),
        "linear": lambda mask: F.linear_backward(np.ones((1, 3)), x[0, :1, :2], w[:, 0], output_mask=mask),
        "batch_norm": lambda mask: F.batch_norm_backward(x, x, np.ones(2), np.ones(2), np.ones(2), output_mask=mask),
        "layer_norm": lambda mask: F.layer_norm_backward(x, x, x[..., 0], x[..., 0], np.ones(4), output_mask=mask),
        "group_norm": lambda mask: F.group_norm_backward(x, x, x[..., 0], x[..., 0], np.ones(2), output_mask=mask),
        "instance_norm": lambda mask: F.instance_norm_backward(x, x, x[..., 0], x[..., 0], output_mask=mask),
    }
    for name, call in calls.items():
        grads = call((True, True, True))
        assert grads._fields == ("input", "weight", "bias"), name
        assert all(isinstance(grad, np.ndarray) for grad in grads), name
        for mask in ((True, False, True), (False, True, False), (False, False, False)):
            assert [grad is not None for grad in call(mask)] == list(mask), name


def test_a_parameter_has_data_and_a_gradient():
    parameter = nn.Parameter(np.ones(3))
    assert isinstance(parameter.data, np.ndarray)
    assert parameter.grad is None


@pytest.mark.parametrize("name", ["RMSprop", "Adam", "AdamW", "Rprop"])
def test_rules_take_pytorchs_arguments(name):
    """In its order and with its defaults, as far as ours go."""
    ours = [(p.name, p.default) for p in inspect.signature(getattr(optim, name)).parameters.values()]
    theirs = [(p.name, p.default) for p in inspect.signature(getattr(torch.optim, name)).parameters.values()]
    assert ours == theirs[: len(ours)]


@pytest.mark.parametrize(
    "name",
    [
        "cuda",
        "functional",
        "nn",
        "optim",
        "models",
        "testing",
        "train",
        "visualize",
        "datasets",
        "sklearn",
        "kernels",
        "analysis",
    ],
)
def test_submodules_come_with_the_package(name):
    assert getattr(fastconv, name) is importlib.import_module(f"fastconv.{name}")
    assert name in dir(fastconv)
