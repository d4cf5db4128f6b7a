"""Spectral norm against PyTorch's step by step, weight standardization against its formula, and what both share."""

from __future__ import annotations

import copy
import pickle
import re
import warnings

import numpy as np
import pytest
import torch
from fastconv import nn, optim
from fastconv.testing import gradcheck

LAYERS = {
    "Linear": (5, 4),
    "Conv1d": (4, 6, 3),
    "Conv2d": (4, 6, 3, 2, 1, 1, 2),
    "Conv3d": (4, 2, 2),
    "ConvTranspose1d": (4, 6, 3),
    "ConvTranspose2d": (4, 6, 3, 2, 1, 1, 2),
}
SHAPES = {"Linear": (3, 5), "Conv1d": (2, 4, 7), "Conv2d": (2, 4, 6, 5), "Conv3d": (2, 4, 3, 4, 3)}
SHAPES |= {"ConvTranspose1d": SHAPES["Conv1d"], "ConvTranspose2d": SHAPES["Conv2d"]}

each_layer = pytest.mark.parametrize("name", LAYERS)


def _near(actual, expected, dtype, what=""):
    expected = np.asarray(expected.detach() if isinstance(expected, torch.Tensor) else expected)
    assert actual.shape == expected.shape, what
    assert actual.dtype == dtype, what
    bound = 100 * np.finfo(dtype).eps * max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=bound, err_msg=what)


# ---- spectral norm -------------------------------------------------------------------------------------------------


def _torch_spectral_norm(module, **keywords):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated, and the one with these names in its state
        return torch.nn.utils.spectral_norm(module, **keywords)


@each_layer
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("keywords", [{}, {"n_power_iterations": 3}, {"dim": 1, "eps": 0.5}], ids=str)
def test_spectral_norm_is_pytorchs_step_by_step(name, dtype, keywords):
    theirs = _torch_spectral_norm(getattr(torch.nn, name)(*LAYERS[name]), **keywords)
    theirs = theirs.to(torch.float64 if dtype == np.float64 else torch.float32)
    ours = nn.utils.spectral_norm(getattr(nn, name)(*LAYERS[name], dtype=dtype), **keywords)
    names = ["bias", "weight_orig", "weight_u", "weight_v"]
    assert list(ours.state_dict()) == list(theirs.state_dict()) == names
    ours.load_state_dict(theirs.state_dict())
    rule, reference = optim.SGD(ours.parameters(), lr=0.01), torch.optim.SGD(theirs.parameters(), lr=0.01)
    rng = np.random.default_rng(0)
    for step in range(6):
        training = step != 3  # in evaluation the vectors stay
        ours.train(training)
        theirs.train(training)
        if not training:
            ours.eval(keep_for_backward=True)
        x = rng.standard_normal(SHAPES[name]).astype(dtype)
        t = torch.from_numpy(x).requires_grad_()
        expected = theirs(t)
        y = ours(x)
        _near(y, expected, dtype, "output")
        grad = rng.standard_normal(y.shape).astype(dtype)
        reference.zero_grad()
        rule.zero_grad()
        expected.backward(torch.from_numpy(grad))
        _near(ours.backward(grad), t.grad, dtype, "gradient of the input")
        _near(ours.weight.data, theirs.weight, dtype, "weight")
        _near(ours.weight_orig.grad, theirs.weight_orig.grad, dtype, "gradient of weight_orig")
        _near(ours.bias.grad, theirs.bias.grad, dtype, "gradient of the bias")
        reference.step()
        rule.step()
        for key, value in theirs.state_dict().items():
            _near(ours.state_dict()[key], value, dtype, key)
    other = _torch_spectral_norm(getattr(torch.nn, name)(*LAYERS[name]), **keywords)
    other.load_state_dict({key: torch.from_numpy(value) for key, value in ours.state_dict().items()}, strict=True)


def test_spectral_norm_finds_the_largest_singular_value():
    layer = nn.utils.spectral_norm(nn.Conv2d(3, 8, 3, dtype=np.float64, rng=np.random.default_rng(0)))
    for _ in range(200):
        layer(np.zeros((1, 3, 3, 3)))
    assert np.linalg.norm(layer.weight.data.reshape(8, -1), 2) == pytest.approx(1.0, rel=1e-9)
    before = layer.state_dict()
    layer.eval()(np.zeros((1, 3, 3, 3)))
    for key, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


def test_the_first_vectors_are_seedable_unit_vectors():
    nn.init.seed(3)
    first = nn.utils.spectral_norm(nn.Linear(6, 5)).state_dict()
    nn.init.seed(3)
    again = nn.utils.spectral_norm(nn.Linear(6, 5)).state_dict()
    for key in ("weight_u", "weight_v"):
        np.testing.assert_array_equal(first[key], again[key])
        assert np.linalg.norm(first[key]) == pytest.approx(1.0, rel=1e-6)
        assert first[key].dtype == np.float32
    assert (first["weight_u"].shape, first["weight_v"].shape) == ((5,), (6,))


# ---- weight standardization ----------------------------------------------------------------------------------------


def _standardized(weight, mode, axes):
    """The formula, in PyTorch, which then has its gradient."""
    if mode == "minmax":
        low, high = weight.amin(axes, keepdim=True), weight.amax(axes, keepdim=True)
        return (weight - low) / (high - low)
    var, mean = torch.var_mean(weight, axes, correction=0, keepdim=True)
    return (weight - mean) / torch.sqrt(var + 1e-5)


@each_layer
@pytest.mark.parametrize("mode", ["zscore", "minmax"])
def test_weight_standardization_is_its_formula(name, mode):
    layer = getattr(nn, name)(*LAYERS[name], dtype=np.float64)
    assert nn.utils.weight_standardization(layer, mode=mode) is layer
    assert list(layer.state_dict()) == ["bias", "weight_orig"]
    rng = np.random.default_rng(1)
    x = rng.standard_normal(SHAPES[name])
    y = layer(x)
    weight = torch.from_numpy(layer.weight_orig.data.copy()).requires_grad_()
    shape, groups = weight.shape, getattr(layer, "groups", 1)
    if name.startswith("ConvTranspose"):
        split = weight.reshape(groups, shape[0] // groups, *shape[1:])
        expected = _standardized(split, mode, (1, *range(3, split.ndim))).reshape(shape)
    else:
        expected = _standardized(weight, mode, tuple(range(1, weight.ndim)))
    _near(layer.weight.data, expected, np.float64, "weight")
    plain = getattr(nn, name)(*LAYERS[name], dtype=np.float64)
    plain.load_state_dict({"weight": expected, "bias": layer.bias.data})
    np.testing.assert_allclose(y, plain(x), rtol=1e-12, atol=1e-12)
    grad = rng.standard_normal(y.shape)
    layer.backward(grad)
    plain.backward(grad)
    (slope,) = torch.autograd.grad(expected, weight, torch.from_numpy(plain.weight.grad))
    _near(layer.weight_orig.grad, slope, np.float64, "gradient of weight_orig")


@each_layer
@pytest.mark.parametrize("mode", ["zscore", "minmax", "spectral"])
def test_gradcheck(name, mode):
    layer = getattr(nn, name)(*LAYERS[name], rng=np.random.default_rng(2))
    if mode == "spectral":
        # The step of power iteration is no part of the gradient, so it is checked where none is made.
        nn.utils.spectral_norm(layer, rng=np.random.default_rng(3)).eval()
    else:
        nn.utils.weight_standardization(layer, mode)
    assert gradcheck(layer, np.random.default_rng(4).standard_normal(SHAPES[name]), rtol=1e-4)


def test_a_filter_of_equal_values_becomes_zero():
    for mode in ("zscore", "minmax"):
        layer = nn.utils.weight_standardization(nn.Conv2d(2, 3, 3), mode)
        layer.weight_orig.data[1] = 0.25
        y = layer(np.ones((1, 2, 4, 4), np.float32))
        layer.backward(np.ones_like(y))
        assert not layer.weight.data[1].any()
        assert layer.weight.data[0].any()
        assert np.isfinite(layer.weight_orig.grad).all()


# ---- what both share -----------------------------------------------------------------------------------------------

RULES = {
    "spectral_norm": nn.utils.spectral_norm,
    "zscore": nn.utils.weight_standardization,
    "minmax": lambda layer: nn.utils.weight_standardization(layer, "minmax"),
}
each_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


@each_rule
def test_a_network_with_a_rule_trains(rule):
    """Inside containers, with copies and pickles that stand on their own, and a loss that falls."""
    rng = np.random.default_rng(5)
    net = nn.Sequential(
        rule(nn.Conv2d(1, 4, 3, padding=1, rng=rng)),
        nn.ReLU(),
        nn.Flatten(),
        rule(nn.Linear(64, 2, rng=rng)),
    )
    x, target = rng.standard_normal((16, 1, 4, 4)).astype(np.float32), rng.integers(0, 2, 16)
    assert [name for name, _ in net.named_parameters()] == ["0.bias", "0.weight_orig", "3.bias", "3.weight_orig"]
    loss, adam = nn.CrossEntropyLoss(), optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(40):
        adam.zero_grad()
        losses.append(loss(net(x), target))
        net.backward(loss.backward())
        adam.step()
    assert losses[-1] < 0.7 * losses[0]
    net.eval()
    expected = net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        np.testing.assert_array_equal(other(x), expected)
        other[0].weight_orig.data[0] *= -1
        assert not np.array_equal(other(x), expected)
    np.testing.assert_array_equal(net(x), expected)
    assert net.summary((2, 1, 4, 4)).rows[0][3:5] == (40, 2 * 16 * 4 * 9)


@each_rule
def test_a_rule_can_be_removed(rule):
    layer = rule(nn.Conv2d(2, 3, 3))
    x = np.random.default_rng(6).standard_normal((1, 2, 5, 5)).astype(np.float32)
    expected = layer.eval()(x)
    assert nn.utils.remove_weight_rule(layer) is layer
    assert list(layer.state_dict()) == ["bias", "weight"]
    np.testing.assert_array_equal(layer(x), expected)
    layer.train()(x)
    layer.backward(np.ones_like(expected))
    assert layer.weight.grad.shape == (3, 2, 3, 3)
    rule(layer)(x)


@each_rule
def test_every_weight_of_a_separable_convolution(rule):
    layer = nn.SeparableConv2d(3, 4, 3, depth_multiplier=2)
    for name in ("depthwise_weight", "pointwise_weight"):
        if rule is nn.utils.spectral_norm:
            rule(layer, name)
        else:
            nn.utils.weight_standardization(layer, "zscore", name)
    assert gradcheck(layer.eval(), np.random.default_rng(7).standard_normal((1, 3, 4, 4)), rtol=1e-4)


@each_rule
def test_a_shared_original(rule):
    """A weight that two layers share gets both gradients."""
    first, second = (rule(nn.Linear(3, 3, bias=False, dtype=np.float64)) for _ in range(2))
    second.weight_orig = first.weight_orig
    second.load_state_dict(first.state_dict())
    x = np.random.default_rng(8).standard_normal((2, 3))
    for layer in (first, second):
        layer.eval(keep_for_backward=True)(x)
        layer.backward(x)
        if layer is first:
            alone = first.weight_orig.grad.copy()
    np.testing.assert_allclose(first.weight_orig.grad, 2 * alone, rtol=1e-12)


MISUSE = {
    "nothing": (lambda: nn.utils.spectral_norm(nn.ReLU()), "name: this ReLU has no parameter 'weight'"),
    "no bias": (
        lambda: nn.utils.weight_standardization(nn.Linear(2, 2, bias=False), name="bias"),
        "name: this Linear has no parameter 'bias'",
    ),
    "twice": (
        lambda: nn.utils.spectral_norm(nn.utils.weight_standardization(nn.Linear(2, 2))),
        "name: a rule computes 'weight' of this Linear already",
    ),
    "mode": (
        lambda: nn.utils.weight_standardization(nn.Linear(2, 2), "max"),
        "mode: expected 'zscore' or 'minmax', got 'max'",
    ),
    "iterations": (
        lambda: nn.utils.spectral_norm(nn.Linear(2, 2), n_power_iterations=0),
        "n_power_iterations: got 0, expected at least 1",
    ),
    "dim": (
        lambda: nn.utils.spectral_norm(nn.Linear(2, 3), dim=2),
        "dim: got 2, expected an axis of weight, which has shape (3, 2)",
    ),
    "remove": (
        lambda: nn.utils.remove_weight_rule(nn.Linear(2, 2)),
        "name: no rule computes 'weight' of this Linear",
    ),
    "gradient": (
        lambda: nn.utils.weight_standardization(nn.Linear(2, 2)).weight.accumulate(np.zeros(3)),
        "grad: shape (3,) does not match the parameter's shape (2, 2)",
    ),
}


@pytest.mark.parametrize(("call", "message"), MISUSE.values(), ids=MISUSE)
def test_misuse(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
