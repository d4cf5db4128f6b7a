"""The module machinery: backward and forward, state, containers, first weights, summaries, bad arguments."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from fastconv import nn
from fastconv.testing import gradcheck
from layer_cases import CASES


def _layers():
    """One of every layer, with an input for it."""
    image = np.ones((2, 4, 6, 6), np.float32)
    yield from ((case.ours(data_format="channels_first"), np.ones(case.shape, np.float32)) for case in CASES)
    yield nn.Dropout(), image
    yield nn.Dropout2d(), image
    yield nn.Rescaling(2.0), image


def test_backward_needs_a_forward_that_remembers():
    for layer, x in _layers():
        with pytest.raises(RuntimeError, match="there is no forward to go back through"):
            layer.backward(x)
        y = layer(x)
        layer.backward(np.ones_like(y))
        layer.eval()
        layer(x)
        with pytest.raises(RuntimeError, match="there is no forward to go back through"):
            layer.backward(np.ones_like(y))


def test_every_layer_is_tested():
    """A layer that is exported has a case above."""
    tested = {type(module).__name__ for layer, _ in _layers() for module in layer.modules()}
    exported = {
        name for name in nn.__all__ if isinstance(getattr(nn, name), type) and issubclass(getattr(nn, name), nn.Module)
    }
    # test_dropout, test_nn_layers and test_unpooling have those.
    elsewhere = {"Dropout1d", "Dropout3d", "Step", "MaxUnpool", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d"}
    assert exported - tested == {"Module"} | elsewhere


def test_backward_belongs_to_the_latest_forward_and_adds():
    layer = nn.Linear(3, 2, dtype=np.float64)
    rng = np.random.default_rng(12)
    first, second, grad = rng.standard_normal((5, 3)), rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    layer(first)
    layer(second)
    layer.backward(grad)
    np.testing.assert_allclose(layer.weight.grad, grad.T @ second, rtol=1e-12)
    held = layer.weight.grad
    before = held.copy()
    layer.backward(grad)
    np.testing.assert_allclose(layer.weight.grad, 2 * before, rtol=1e-12)
    np.testing.assert_array_equal(held, before, err_msg="a gradient that someone holds must not change")
    layer.zero_grad()
    assert layer.weight.grad is None
    assert layer.bias.grad is None


def test_evaluation_keeps_nothing():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool(2), nn.Concat(nn.ReLU(), nn.Tanh()))
    x = np.ones((1, 1, 8, 8), np.float32)
    net(x)
    assert all(module._remembered is not None for module in net.modules() if not list(module.children()))
    net.eval()(x)
    assert all(module._remembered is None for module in net.modules())
    assert not net[0].training
    assert net.train()[0].training


def test_frozen_batch_norm_in_a_training_network():
    norm = nn.BatchNorm2d(3)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), norm)
    norm.eval(keep_for_backward=True)
    x = np.random.default_rng(13).standard_normal((2, 2, 5, 5)).astype(np.float32)
    y = net(x)
    np.testing.assert_array_equal(norm.running_mean, np.zeros(3))
    assert norm.num_batches_tracked == 0
    assert net.backward(np.ones_like(y)).shape == x.shape


class Net(nn.Module):
    """A user's module: no super().__init__(), a parameter of its own, children, a buffer."""

    def __init__(self):
        self.scale = nn.Parameter(np.full(1, 2.0))
        self.first = nn.Linear(3, 3, dtype=np.float64)
        self.second = nn.Sequential(nn.Tanh(), nn.Linear(3, 2, dtype=np.float64))
        self.register_buffer("calls", np.zeros(1))

    def forward(self, x):
        self.calls += 1
        h = self.first(x)
        self._remember(h)
        return self.second(h * self.scale.data)

    def backward(self, grad_output):
        (h,) = self._recall()
        grad = self.second.backward(grad_output)
        self.scale.accumulate(np.array([np.sum(grad * h)]))
        return self.first.backward(grad * self.scale.data)


def test_a_module_of_ones_own():
    net = Net()
    names = ["scale", "calls", "first.weight", "first.bias", "second.1.weight", "second.1.bias"]
    assert list(net.state_dict()) == names
    assert [name for name, _ in net.named_parameters()] == [name for name in names if name != "calls"]
    x = np.random.default_rng(14).standard_normal((4, 3))
    assert gradcheck(net, x)
    assert net.calls == 0, "gradcheck works on a copy"
    assert len(net.summary((4, 3)).rows) == 3
    other = copy.deepcopy(net)
    other.first.weight.data += 1
    assert not np.array_equal(other(x), net(x))


def test_base_classes_say_what_is_missing():
    with pytest.raises(TypeError, match=r"Module does not define forward\(x\)"):
        nn.Module()(np.ones(3))
    with pytest.raises(TypeError, match=r"Module does not define backward\(grad_output\)"):
        nn.Module().backward(np.ones(3))


def test_shared_parameters_are_listed_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert [name for name, _ in net.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert list(net.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert net.summary((1, 3)).parameters == 15


def test_state_dict_is_a_copy():
    layer = nn.Linear(2, 2)
    state = layer.state_dict()
    layer.weight.data += 1
    assert not np.array_equal(state["weight"], layer.weight.data)
    data = layer.weight.data
    layer.load_state_dict(state)
    assert layer.weight.data is data, "loading writes in place: an optimizer holds the array"
    np.testing.assert_array_equal(data, state["weight"])


def test_load_state_dict_refuses_what_does_not_fit():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    before = net.state_dict()
    good = {name: value + 1 for name, value in before.items()}

    def refused(mapping, message, **keywords):
        with pytest.raises(ValueError, match=message):
            net.load_state_dict(mapping, **keywords)
        for name, value in net.state_dict().items():
            np.testing.assert_array_equal(value, before[name], err_msg="nothing may change")

    missing = {name: value for name, value in good.items() if name != "1.bias"}
    refused(missing, re.escape("missing names ['1.bias']"))
    refused(good | {"2.bias": np.zeros(2)}, re.escape("unexpected names ['2.bias']"))
    refused(good | {"0.weight": np.zeros((2, 4))}, r"0.weight has shape \(2, 4\), expected \(2, 3\)")
    refused(good | {"0.weight": np.zeros((2, 4))}, "has shape", strict=False)
    refused(good | {"0.weight": np.zeros((2, 3), complex)}, "0.weight has dtype complex128, expected float32")
    with pytest.raises(TypeError, match="mapping: expected a mapping"):
        net.load_state_dict(list(good.items()))
    result = net.load_state_dict(missing | {"more": np.zeros(1)}, strict=False)
    assert result == (["1.bias"], ["more"])
    np.testing.assert_array_equal(net.state_dict()["0.weight"], good["0.weight"])
    np.testing.assert_array_equal(net.state_dict()["1.bias"], before["1.bias"])


def test_load_state_dict_takes_parameters_and_tensors():
    theirs = torch.nn.Linear(3, 2)
    ours = nn.Linear(3, 2, dtype=np.float64)
    ours.load_state_dict(dict(theirs.named_parameters()))
    np.testing.assert_array_equal(ours.weight.data, theirs.weight.detach().numpy().astype(np.float64))
    assert ours.weight.dtype == np.float64


def test_parameter_refuses_what_is_not_a_float():
    with pytest.raises(TypeError, match="data: a parameter must be a floating-point array, got dtype int64"):
        nn.Parameter(np.arange(3))
    with pytest.raises(ValueError, match=r"grad: shape \(2,\) does not match the parameter's shape \(3,\)"):
        nn.Parameter(np.zeros(3)).accumulate(np.zeros(2))


# ---- containers ----------------------------------------------------------------------------------------------------


def test_sequential_is_a_sequence():
    net = nn.Sequential({"a": nn.ReLU(), "b": nn.Tanh()})
    assert len(net) == 2
    assert net["a"] is net[0]
    assert net[-1] is net["b"]
    assert [type(layer).__name__ for layer in net] == ["ReLU", "Tanh"]
    assert net.append(nn.ELU()) is net
    assert [name for name, _ in net.named_children()] == ["a", "b", "2"]


def test_a_layer_may_be_in_a_container_once():
    relu = nn.ReLU()
    for build in (
        lambda: nn.Sequential(relu, nn.Tanh(), relu),
        lambda: nn.Sequential(relu, nn.Sequential(relu)),
        lambda: nn.Residual(relu, relu),
        lambda: nn.Concat(nn.Sequential(relu), relu),
    ):
        with pytest.raises(ValueError, match="remembers only its latest forward"):
            build()


def test_containers_refuse_what_does_not_fit():
    with pytest.raises(TypeError, match="layer '1': expected a Module, got function"):
        nn.Sequential(nn.ReLU(), lambda x: x)
    with pytest.raises(ValueError, match=r"layer name: expected a new, non-empty name without dots, got 'a\.b'"):
        nn.Sequential({"a.b": nn.ReLU()})
    with pytest.raises(ValueError, match="branches: expected at least one"):
        nn.Concat()
    x = np.ones((1, 2, 5, 5), np.float32)
    with pytest.raises(ValueError, match=r"the branch gives \(1, 2, 3, 3\) and the shortcut \(1, 2, 5, 5\)"):
        nn.Residual(nn.Conv2d(2, 2, 3))(x)
    with pytest.raises(ValueError, match=r"the branches give \(1, 2, 3, 3\), \(1, 2, 5, 5\)"):
        nn.Concat(nn.Conv2d(2, 2, 3), nn.ReLU())(x)


# ---- bad arguments -------------------------------------------------------------------------------------------------

MISUSE = {
    "channels": (lambda: nn.Conv2d(0, 1, 3), ValueError, "in_channels: got 0, expected at least 1"),
    "float channels": (lambda: nn.Conv2d(1, 1.5, 3), TypeError, "out_channels: expected an int, got 1.5"),
    "kernel": (lambda: nn.Conv2d(1, 1, (3, 0)), ValueError, "kernel_size: got 0, expected at least 1"),
    "kernel length": (
        lambda: nn.Conv2d(1, 1, (3, 3, 3)),
        ValueError,
        "kernel_size: got (3, 3, 3), expected an int or a tuple of 2 ints",
    ),
    "kernel type": (lambda: nn.Conv2d(1, 1, "3"), TypeError, "kernel_size: expected an int, got '3'"),
    "stride": (lambda: nn.Conv1d(1, 1, 3, stride=0), ValueError, "stride: got 0, expected at least 1"),
    "dilation": (lambda: nn.Conv1d(1, 1, 3, dilation=-1), ValueError, "dilation: got -1, expected at least 1"),
    "groups": (lambda: nn.Conv2d(3, 4, 3, groups=2), ValueError, "groups: 2 does not divide in_channels=3"),
    "groups out": (lambda: nn.Conv2d(4, 3, 3, groups=2), ValueError, "groups: 2 does not divide out_channels=3"),
    "groups transposed": (lambda: nn.ConvTranspose2d(4, 3, 3, groups=2), ValueError, "groups: 2 does not divide"),
    "padding mode": (
        lambda: nn.Conv2d(1, 1, 3, padding_mode="mirror"),
        ValueError,
        "padding_mode: got 'mirror', expected",
    ),
    "padding mode transposed": (
        lambda: nn.ConvTranspose2d(1, 1, 3, padding_mode="reflect"),
        ValueError,
        "padding_mode: got 'reflect', expected 'zeros'",
    ),
    "activation": (lambda: nn.Conv2d(1, 1, 3, activation="gelu"), ValueError, "activation: expected one of"),
    "data format": (lambda: nn.Conv2d(1, 1, 3, data_format="NXYC"), ValueError, "data_format: got"),
    "data format relu": (lambda: nn.ReLU(data_format="last"), ValueError, "data_format: got"),
    "dtype": (lambda: nn.Linear(1, 1, dtype=np.int32), TypeError, "dtype: a layer's parameters are floating-point"),
    "multiplier": (
        lambda: nn.SeparableConv2d(1, 1, 3, depth_multiplier=0),
        ValueError,
        "depth_multiplier: got 0, expected at least 1",
    ),
    "pool kernel": (lambda: nn.MaxPool(0), ValueError, "kernel_size: got 0, expected at least 1"),
    "pool kernel length": (lambda: nn.MaxPool((2,) * 4), ValueError, "kernel_size: expected an int or a tuple of 1, 2"),
    "pool mixed": (
        lambda: nn.AvgPool((2, 2), stride=(2,)),
        ValueError,
        "stride: got (2,), expected an int or a tuple of 2 ints",
    ),
    "pool alias": (
        lambda: nn.MaxPool2d((2,)),
        ValueError,
        "kernel_size: got (2,), expected an int or a tuple of 2 ints",
    ),
    "features": (lambda: nn.BatchNorm2d(-3), ValueError, "num_features: got -3, expected at least 1"),
    "dropout": (lambda: nn.Dropout(1.5), ValueError, "p: expected a probability between 0 and 1, got 1.5"),
    "linear": (lambda: nn.Linear(True, 1), TypeError, "in_features: expected an int, got True"),
}


@pytest.mark.parametrize(("build", "error", "message"), MISUSE.values(), ids=MISUSE)
def test_misuse(build, error, message):
    with pytest.raises(error, match=re.escape(message)):
        build()


def test_misshapen_inputs():
    with pytest.raises(ValueError, match=r"BatchNorm2d.*expects 4 axes and 3 channels, got shape"):
        nn.BatchNorm2d(3)(np.zeros((2, 3, 4), np.float32))
    with pytest.raises(ValueError, match="expects 4 axes and 3 channels, got shape"):
        nn.BatchNorm2d(3)(np.zeros((2, 4, 4, 3), np.float32))
    with pytest.raises(ValueError, match="expects a batch with 1, 2 or 3 spatial axes"):
        nn.MaxPool(2)(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match="5"):
        nn.Conv2d(3, 4, 3)(np.zeros((2, 5, 8, 8), np.float32))
    with pytest.raises(ValueError, match="5"):
        nn.Linear(3, 4)(np.zeros((2, 5), np.float32))


# ---- repr ----------------------------------------------------------------------------------------------------------


def test_repr_shows_the_tree():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, groups=1, bias=False), nn.Residual(nn.ReLU()))
    assert repr(net) == (
        "Sequential(\n  (0): Conv2d(1, 2, kernel_size=(3, 3), stride=(2, 2), bias=False)\n"
        "  (1): Residual(\n    (branch): ReLU()\n  )\n)"
    )
