"""Optimizers against PyTorch's, step by step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fastconv import nn, optim

RULES = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd nesterov": ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    "sgd decay": ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}),
    "sgd all": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    "adam": ("Adam", {}),
    "adam lr": ("Adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-4}),
    "adam decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
}


@pytest.mark.parametrize(("name", "keywords"), RULES.values(), ids=RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_are_pytorchs(name, keywords, dtype):
    rng = np.random.default_rng(0)
    shapes = [(4, 3), (5,), ()]
    ours = [nn.Parameter(np.asarray(rng.standard_normal(shape), dtype)) for shape in shapes]
    theirs = [torch.nn.Parameter(torch.from_numpy(parameter.data.copy())) for parameter in ours]
    arrays = [parameter.data for parameter in ours]
    optimizer = getattr(optim, name)(ours, **keywords)
    reference = getattr(torch.optim, name)(theirs, **keywords)
    steps = 40
    for step in range(steps):
        for i, (parameter, other) in enumerate(zip(ours, theirs, strict=True)):
            if i == 1 and step % 3 == 1:
                parameter.grad = other.grad = None  # a parameter that took no part is left alone
                continue
            grad = np.asarray(rng.standard_normal(parameter.shape) * 10.0 ** rng.integers(-3, 2), dtype)
            parameter.grad = grad
            other.grad = torch.from_numpy(grad.copy())
        if step == 20:
            optimizer.lr = 0.003
            reference.param_groups[0]["lr"] = 0.003
        optimizer.step()
        reference.step()
        for parameter, other in zip(ours, theirs, strict=True):
            assert parameter.data.dtype == dtype
            # A few roundings of the value at each step so far.
            bound = 8 * (step + 1) * np.finfo(dtype).eps
            np.testing.assert_allclose(parameter.data, other.detach().numpy(), rtol=bound, atol=bound)
    assert all(parameter.data is array for parameter, array in zip(ours, arrays, strict=True)), "updates are in place"


def test_l1_is_the_gradient_of_the_sum_of_magnitudes():
    start = np.array([1.0, -2.0, 0.0, 0.5])
    parameter = nn.Parameter(start.copy())
    parameter.grad = np.array([0.1, 0.2, 0.3, 0.4])
    optim.SGD([parameter], lr=0.5, l1=0.2).step()
    np.testing.assert_allclose(parameter.data, start - 0.5 * (np.array([0.1, 0.2, 0.3, 0.4]) + 0.2 * np.sign(start)))


def test_gradients_are_not_changed():
    for make in (lambda p: optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, l1=0.1), lambda p: optim.Adam(p, 0.1)):
        parameter = nn.Parameter(np.ones(3))
        grad = np.full(3, 0.5)
        parameter.grad = grad
        optimizer = make([parameter])
        optimizer.step()
        optimizer.step()
        np.testing.assert_array_equal(grad, np.full(3, 0.5))


def test_zero_grad():
    layer = nn.Linear(2, 2)
    layer.backward(np.ones_like(layer(np.ones((1, 2), np.float32))))
    optimizer = optim.SGD(layer.parameters())
    before = layer.weight.data.copy()
    optimizer.zero_grad()
    assert layer.weight.grad is None
    optimizer.step()
    np.testing.assert_array_equal(layer.weight.data, before)


@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, 0.05, momentum=0.9), lambda p: optim.Adam(p, 0.02)])
def test_training_finds_a_line(make):
    rng = np.random.default_rng(1)
    x = rng.standard_normal((64, 3))
    target = x @ np.array([[1.0, -2.0, 0.5]]).T + 0.3
    layer, loss = nn.Linear(3, 1, dtype=np.float64, rng=rng), nn.MSELoss()
    optimizer = make(layer.parameters())
    for _ in range(400):
        optimizer.zero_grad()
        loss(layer(x), target)
        layer.backward(loss.backward())
        optimizer.step()
    np.testing.assert_allclose(layer.weight.data, [[1.0, -2.0, 0.5]], atol=1e-3)
    np.testing.assert_allclose(layer.bias.data, [0.3], atol=1e-3)


MISUSE = {
    "nothing": (lambda p: optim.SGD([]), ValueError, "params: there is nothing to optimize"),
    "array": (lambda p: optim.SGD([p.data]), TypeError, "params: expected fastconv.nn.Parameter objects, got ndarray"),
    "twice": (lambda p: optim.Adam([p, p]), ValueError, "params: a parameter is there more than once"),
    "lr": (lambda p: optim.SGD([p], lr=-1), ValueError, "lr: expected a number that is not negative, got -1"),
    "nan": (lambda p: optim.Adam([p], lr=float("nan")), ValueError, "lr: expected a number that is not negative"),
    "momentum": (lambda p: optim.SGD([p], momentum=-0.1), ValueError, "momentum: expected"),
    "nesterov": (lambda p: optim.SGD([p], nesterov=True), ValueError, "nesterov: needs a momentum"),
    "decay": (lambda p: optim.Adam([p], weight_decay=-1), ValueError, "weight_decay: expected"),
    "l1": (lambda p: optim.SGD([p], l1=-1), ValueError, "l1: expected"),
    "betas": (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ValueError, "betas: expected two numbers in"),
    "eps": (lambda p: optim.Adam([p], eps=-1e-8), ValueError, "eps: expected"),
}


@pytest.mark.parametrize(("build", "error", "message"), MISUSE.values(), ids=MISUSE)
def test_misuse(build, error, message):
    with pytest.raises(error, match=message):
        build(nn.Parameter(np.ones(2)))


def test_the_base_has_no_rule():
    parameter = nn.Parameter(np.ones(2))
    parameter.grad = np.ones(2)
    with pytest.raises(TypeError, match="Optimizer does not define its rule"):
        optim.Optimizer([parameter], 0.1).step()
