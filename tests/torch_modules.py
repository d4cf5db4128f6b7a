"""PyTorch's own sample inputs of the layers and losses that both have: from each ``ModuleInfo`` to a layer of ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fastconv import nn
from torch_samples import assert_agree, detached, importing_pytorchs_tests, in_double

with importing_pytorchs_tests():
    from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

_SPATIAL = "AdaptiveAvgPool AdaptiveMaxPool AvgPool BatchNorm Conv ConvTranspose InstanceNorm LPPool MaxPool"
_OTHERS = "ELU GroupNorm LayerNorm LeakyReLU Linear LogSoftmax ReLU Sigmoid Softmax Tanh"
LOSSES = ("BCEWithLogitsLoss", "CrossEntropyLoss", "MSELoss")
LAYERS = (*(f"{name}{n}d" for name in _SPATIAL.split() for n in (1, 2, 3)), *_OTHERS.split())

MODULES = {info.name.removeprefix("nn."): info for info in module_db}


def inputs_of(name: str, dtype: torch.dtype) -> list[tuple[bool, Any]]:
    """``(training, ModuleInput)`` of every sample, in training and in evaluation."""
    info = MODULES[name]
    samples = []
    for training in (True, False):
        torch.manual_seed(0)
        made = info.module_inputs_func(info, "cpu", dtype, True, training)
        samples += [(training, sample) for sample in made]
    return samples


def errors_of(name: str) -> list[Any]:
    """The constructions and calls that PyTorch's layer refuses."""
    info = MODULES[name]
    if info.module_error_inputs_func is None:
        return []
    return list(info.module_error_inputs_func(info, "cpu", torch.float32, True, True))


def provoke(name: str, error: Any) -> None:
    """Construct, and where the constructor is not what PyTorch refuses, call."""
    sample = error.module_error_input
    layer = getattr(nn, name)(*sample.constructor_input.args, **as_arrays(sample.constructor_input.kwargs))
    if error.error_on is not ModuleErrorEnum.CONSTRUCTION_ERROR:
        layer(*map(detached, sample.forward_input.args), **sample.forward_input.kwargs)


def as_arrays(keywords: dict[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a constructor, whose tensors our layers take as arrays."""
    return {
        key: value.detach().numpy() if isinstance(value, torch.Tensor) else value for key, value in keywords.items()
    }


def describe(name: str, training: bool, sample: Any) -> str:
    """The sample in one line, of tensors their shapes."""

    def show(value: Any) -> str:
        return f"tensor{tuple(value.shape)}" if isinstance(value, torch.Tensor) else repr(value)

    made, called = sample.constructor_input, sample.forward_input
    parts = [show(a) for a in made.args] + [f"{k}={show(v)}" for k, v in made.kwargs.items()]
    inputs = [show(a) for a in (*called.args, *called.kwargs.values())]
    return f"{name}({', '.join(parts)})({', '.join(inputs)}) {'training' if training else 'evaluation'}"


def compare_layer(name: str, training: bool, sample: Any) -> int:
    """Hold a layer's output, gradients and buffers against PyTorch's in float64; returns how many arrays agreed."""
    what = describe(name, training, sample)
    made = sample.constructor_input
    (x,) = (*sample.forward_input.args, *sample.forward_input.kwargs.values())
    torch.manual_seed(1)
    theirs = getattr(torch.nn, name)(*made.args, **made.kwargs).train(training)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter)
    theirs = theirs.to(torch.float64)
    keywords = {"dtype": x.detach().numpy().dtype} if theirs.state_dict() else {}
    ours = getattr(nn, name)(*made.args, **made.kwargs, **keywords)
    ours.load_state_dict(
        {key: value.to(x.dtype) if value.is_floating_point() else value for key, value in theirs.state_dict().items()}
    )
    with torch.no_grad():  # both with the same, rounded weights
        for value in theirs.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.to(x.dtype))
    ours.train() if training else ours.eval(keep_for_backward=True)
    twin = in_double(x).requires_grad_()
    expected, output = theirs(twin), ours(x.detach())
    if isinstance(expected, tuple):
        np.testing.assert_array_equal(output[1], expected[1], err_msg=what)
        expected, output = expected[0], output[0]
    assert isinstance(output, torch.Tensor), what
    assert output.dtype == x.dtype, what
    terms = max(1, x.numel(), expected.numel(), *(p.numel() for p in theirs.parameters()))
    assert_agree(output, expected, terms, f"{what}: output")
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2), dtype=x.dtype)
    expected.backward(gradient.to(torch.float64))
    grad_input = ours.backward(gradient)
    assert grad_input.dtype == x.dtype, what
    assert_agree(grad_input, twin.grad, terms, f"{what}: gradient of the input")
    checked = 2
    parameters = dict(ours.named_parameters())
    for key, parameter in theirs.named_parameters():
        mine = torch.from_numpy(parameters.pop(key).grad)
        assert_agree(mine, parameter.grad, terms, f"{what}: gradient of {key}")
        checked += 1
    assert not parameters, what
    buffers = dict(ours.named_buffers())
    for key, buffer in theirs.named_buffers():
        assert_agree(torch.as_tensor(buffers.pop(key)), buffer, terms, f"{what}: {key}")
        checked += 1
    return checked


def compare_loss(name: str, sample: Any) -> int:
    """Hold a loss and its gradient against PyTorch's in float64; returns how many arrays agreed."""
    what = describe(name, True, sample)
    made = sample.constructor_input
    y, target = sample.forward_input.args
    exact = {key: in_double(value) for key, value in made.kwargs.items()}
    theirs = getattr(torch.nn, name)(*made.args, **exact)
    ours = getattr(nn, name)(*made.args, **as_arrays(made.kwargs))
    twin = in_double(y).requires_grad_()
    expected = theirs(twin, in_double(target).detach())
    value = torch.as_tensor(ours(y.detach(), target.detach()), dtype=y.dtype)  # a float is float64
    terms = max(y.numel(), 1)
    assert_agree(value, expected, terms, f"{what}: loss")
    expected.sum().backward()
    gradient = ours.backward()
    assert_agree(torch.as_tensor(gradient), twin.grad, terms, f"{what}: gradient")
    return 2
