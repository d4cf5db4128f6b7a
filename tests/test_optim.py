"""Optimizers against PyTorch's, step by step."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import torch
from fastconv import _core, nn, optim

RULES = {
    "sgd": ("SGD", {"lr": 0.1}),
    "sgd momentum": ("SGD", {"lr": 0.1, "momentum": 0.9}),
    "sgd nesterov": ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    "sgd decay": ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05}),
    "sgd all": ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    "adam": ("Adam", {}),
    "adam lr": ("Adam", {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-4}),
    "adam decay": ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
    "adam largest": ("Adam", {"amsgrad": True}),
    "adamw": ("AdamW", {}),
    "adamw all": ("AdamW", {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-6, "weight_decay": 0.3, "amsgrad": True}),
    "rmsprop": ("RMSprop", {}),
    "rmsprop all": ("RMSprop", {"lr": 0.003, "alpha": 0.9, "eps": 1e-5, "weight_decay": 0.1, "momentum": 0.8}),
    "rmsprop centered": ("RMSprop", {"alpha": 0.8, "eps": 1e-2, "centered": True}),
    "rprop": ("Rprop", {}),
    "rprop all": ("Rprop", {"lr": 0.05, "etas": (0.3, 1.5), "step_sizes": (0.01, 0.4)}),
}
SHAPES = [(4, 3), (5,), ()]


def _both(name, keywords, dtype, seed=0):
    """Parameters and a rule of ours, and the same of PyTorch's."""
    rng = np.random.default_rng(seed)
    ours = [nn.Parameter(np.asarray(rng.standard_normal(shape), dtype)) for shape in SHAPES]
    theirs = [torch.nn.Parameter(torch.from_numpy(parameter.data.copy())) for parameter in ours]
    return ours, getattr(optim, name)(ours, **keywords), theirs, getattr(torch.optim, name)(theirs, **keywords)


def _give_gradients(rng, dtype, *groups):
    """Give the parameters of several networks the same gradients."""
    for parameters in zip(*groups, strict=True):
        grad = np.asarray(rng.standard_normal(parameters[0].shape) * 10.0 ** rng.integers(-3, 2), dtype)
        for parameter in parameters:
            parameter.grad = torch.from_numpy(grad.copy()) if isinstance(parameter, torch.nn.Parameter) else grad


def _assert_same(ours, theirs, dtype, steps):
    """A few roundings of the value at each step so far."""
    bound = 8 * steps * np.finfo(dtype).eps
    for parameter, other in zip(ours, theirs, strict=True):
        assert parameter.data.dtype == dtype
        np.testing.assert_allclose(parameter.data, other.detach().numpy(), rtol=bound, atol=bound)


@pytest.mark.parametrize(("name", "keywords"), RULES.values(), ids=RULES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_steps_are_pytorchs(name, keywords, dtype):
    ours, optimizer, theirs, reference = _both(name, keywords, dtype)
    arrays = [parameter.data for parameter in ours]
    rng = np.random.default_rng(7)
    for step in range(40):
        _give_gradients(rng, dtype, ours, theirs)
        if step % 3 == 1:
            ours[1].grad = theirs[1].grad = None  # a parameter that took no part is left alone
        if step == 20:
            optimizer.lr = 0.003
            reference.param_groups[0]["lr"] = 0.003
        optimizer.step()
        reference.step()
        _assert_same(ours, theirs, dtype, step + 1)
    assert all(parameter.data is array for parameter, array in zip(ours, arrays, strict=True)), "updates are in place"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("name", "keywords"), RULES.values(), ids=RULES)
def test_sixteen_bit_parameters_move_in_float32(name, keywords, dtype):
    """Each step is float32's, rounded once; what is remembered is float32, and small squares do not vanish."""
    rng = np.random.default_rng(0)
    narrow = nn.Parameter(rng.standard_normal((4, 3)).astype(dtype))
    wide = nn.Parameter(narrow.data.astype(np.float32))
    rules = getattr(optim, name)([narrow], **keywords), getattr(optim, name)([wide], **keywords)
    for _ in range(5):
        narrow.grad = (1e-3 * rng.standard_normal((4, 3))).astype(dtype)
        wide.data, wide.grad = narrow.data.astype(np.float32), narrow.grad.astype(np.float32)
        for rule in rules:
            rule.step()
        assert narrow.data.dtype == dtype
        np.testing.assert_array_equal(narrow.data.view(np.uint16), wide.data.astype(dtype).view(np.uint16))
        rules[0].load_state_dict(rules[0].state_dict())
    kept = rules[0].state_dict()["state"].get(0, {})
    assert all(array.dtype == np.float32 for array in kept.values() if isinstance(array, np.ndarray))


def test_l1_is_the_gradient_of_the_sum_of_magnitudes():
    start = np.array([1.0, -2.0, 0.0, 0.5])
    parameter = nn.Parameter(start.copy())
    parameter.grad = np.array([0.1, 0.2, 0.3, 0.4])
    optim.SGD([parameter], lr=0.5, l1=0.2).step()
    np.testing.assert_allclose(parameter.data, start - 0.5 * (np.array([0.1, 0.2, 0.3, 0.4]) + 0.2 * np.sign(start)))


def test_gradients_are_not_changed():
    for name, keywords in [*RULES.values(), ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "l1": 0.1})]:
        parameter = nn.Parameter(np.ones(3))
        grad = np.full(3, 0.5)
        parameter.grad = grad
        optimizer = getattr(optim, name)([parameter], **keywords)
        optimizer.step()
        optimizer.step()
        np.testing.assert_array_equal(grad, np.full(3, 0.5), err_msg=name)
        assert not any(np.shares_memory(grad, kept) for kept in _arrays(optimizer.state_dict())), name


def _arrays(state):
    return [value for kept in state["state"].values() for value in kept.values() if isinstance(value, np.ndarray)]


# ---- saving and loading --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "keywords"), RULES.values(), ids=RULES)
@pytest.mark.parametrize("source", ["fastconv", "torch"])
def test_a_loaded_state_continues(name, keywords, source):
    """A fresh optimizer with the state of one of ours, or of PyTorch's, goes on where that one was."""
    ours, optimizer, theirs, reference = _both(name, keywords, np.float64)
    rng = np.random.default_rng(3)
    for step in range(5):
        _give_gradients(rng, np.float64, ours, theirs)
        if step == 4:
            ours[2].grad = theirs[2].grad = None
        optimizer.step()
        reference.step()
    copies = [nn.Parameter(parameter.data.copy()) for parameter in ours]
    fresh = getattr(optim, name)(copies, lr=0.9)
    saved = optimizer.state_dict()
    fresh.load_state_dict(saved if source == "fastconv" else reference.state_dict())
    expected, actual = saved["state"], fresh.state_dict()["state"]
    assert actual.keys() == expected.keys() == {i for i, kept in reference.state_dict()["state"].items() if kept}
    for i, kept in expected.items():
        assert actual[i].keys() == kept.keys() == {*reference.state_dict()["state"][i]}
    for step in range(5, 10):
        _give_gradients(rng, np.float64, ours, theirs, copies)
        for each in (optimizer, reference, fresh):
            each.step()
        _assert_same(copies, theirs, np.float64, step + 1)
        if source == "fastconv":
            for parameter, copy in zip(ours, copies, strict=True):
                np.testing.assert_array_equal(parameter.data, copy.data)


def test_a_state_is_a_copy():
    parameter = nn.Parameter(np.ones(3))
    optimizer = optim.Adam([parameter])
    assert optimizer.state_dict()["state"] == {}
    parameter.grad = np.ones(3)
    optimizer.step()
    saved = optimizer.state_dict()
    mean = saved["state"][0]["exp_avg"].copy()
    other = optim.Adam([parameter])
    other.load_state_dict(saved)
    for each in (optimizer, other):
        each.step()
        np.testing.assert_array_equal(saved["state"][0]["exp_avg"], mean)
    assert saved["state"][0]["step"] == 1


def test_loading_takes_all_or_nothing():
    parameters = [nn.Parameter(np.ones(3)), nn.Parameter(np.ones(2, np.float32))]
    optimizer = optim.Adam(parameters, lr=0.1)
    for parameter in parameters:
        parameter.grad = np.ones_like(parameter.data)
    optimizer.step()
    good = optimizer.state_dict()

    def refused(change, *messages, error=ValueError):
        state = {
            "state": {i: dict(kept) for i, kept in good["state"].items()},
            "param_groups": [dict(group, lr=0.7) for group in good["param_groups"]],
        }
        change(state)
        with pytest.raises(error) as caught:
            optimizer.load_state_dict(state)
        for message in messages:
            assert message in str(caught.value)
        assert optimizer.lr == 0.1
        for array, before in zip(_arrays(optimizer.state_dict()), _arrays(good), strict=True):
            np.testing.assert_array_equal(array, before)

    def group(**changes):
        return lambda state: state["param_groups"][0].update(changes)

    refused(lambda state: state.pop("state"), "expected a mapping with", error=TypeError)
    refused(group(params=[0]), "it is of 1 parameters, expected 2")
    refused(lambda state: state["param_groups"].append({}), "it has 2 groups of parameters, expected 1")
    refused(group(maximize=True), "maximize=True is not what this rule does")
    refused(group(decoupled_weight_decay=True), "decoupled_weight_decay=True is not what this rule does")
    refused(group(betas=(0.9, 2.0)), "betas: expected two numbers in [0, 1)")
    refused(lambda state: state["state"].update({5: {}}), "state 5 belongs to no parameter")
    refused(
        lambda state: state["state"][0].update(prev=np.ones(3)), "state 0 has 'prev', which this rule does not know"
    )
    refused(lambda state: state["state"][1].pop("step"), "state 1 lacks 'step'")
    both = {"exp_avg": np.ones(4)}, {"exp_avg_sq": np.ones((2, 1))}
    refused(
        lambda state: [state["state"][i].update(change) for i, change in enumerate(both)],
        "exp_avg of state 0 has shape (4,), expected (3,)",
        "exp_avg_sq of state 1 has shape (2, 1), expected (2,)",
    )
    optimizer.load_state_dict(good | {"param_groups": [good["param_groups"][0] | {"foreach": None, "maximize": False}]})
    assert optimizer.state_dict()["state"][1]["exp_avg"].dtype == np.float32


def test_zero_grad():
    layer = nn.Linear(2, 2)
    layer.backward(np.ones_like(layer(np.ones((1, 2), np.float32))))
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    before = layer.weight.data.copy()
    optimizer.zero_grad()
    assert layer.weight.grad is None
    optimizer.step()
    np.testing.assert_array_equal(layer.weight.data, before)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, 0.05, momentum=0.9),
        lambda p: optim.Adam(p, 0.02),
        lambda p: optim.AdamW(p, 0.02, weight_decay=0.0),
        lambda p: optim.RMSprop(p, 0.001, alpha=0.9, momentum=0.9),
        lambda p: optim.Rprop(p, 0.01),
    ],
    ids=["SGD", "Adam", "AdamW", "RMSprop", "Rprop"],
)
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
    "nothing": (lambda p: optim.SGD([], 0.1), ValueError, "params: there is nothing to optimize"),
    "array": (
        lambda p: optim.SGD([p.data], 0.1),
        TypeError,
        "params: expected fastconv.nn.Parameter objects, got ndarray",
    ),
    "no rate": (lambda p: optim.SGD([p]), TypeError, "lr"),
    "twice": (lambda p: optim.Adam([p, p]), ValueError, "params: a parameter is there more than once"),
    "lr": (lambda p: optim.SGD([p], lr=-1), ValueError, "lr: expected a number that is not negative, got -1"),
    "nan": (lambda p: optim.Adam([p], lr=float("nan")), ValueError, "lr: expected a number that is not negative"),
    "momentum": (lambda p: optim.SGD([p], 0.1, momentum=-0.1), ValueError, "momentum: expected"),
    "nesterov": (lambda p: optim.SGD([p], 0.1, nesterov=True), ValueError, "nesterov: needs a momentum"),
    "decay": (lambda p: optim.Adam([p], weight_decay=-1), ValueError, "weight_decay: expected"),
    "l1": (lambda p: optim.SGD([p], 0.1, l1=-1), ValueError, "l1: expected"),
    "betas": (lambda p: optim.Adam([p], betas=(0.9, 1.0)), ValueError, "betas: expected two numbers in"),
    "three betas": (lambda p: optim.Adam([p], betas=(0.9, 0.9, 0.9)), ValueError, "betas: expected two numbers, got"),
    "alpha": (lambda p: optim.RMSprop([p], alpha=-1), ValueError, "alpha: expected"),
    "etas": (lambda p: optim.Rprop([p], etas=(1.2, 0.5)), ValueError, "etas: expected a number between 0 and 1"),
    "step sizes": (lambda p: optim.Rprop([p], step_sizes=(1, 0)), ValueError, "step_sizes: expected the smallest"),
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


@pytest.mark.parametrize(("name", "keywords"), RULES.values(), ids=RULES)
def test_any_order_in_memory(name, keywords):
    """Parameters and gradients of any strides move as contiguous ones do, in place."""
    rng = np.random.default_rng(1)
    start, grads = rng.standard_normal((7, 50)), rng.standard_normal((3, 7, 50))
    plain = nn.Parameter(start.copy())
    strided = nn.Parameter(np.zeros((7, 100))[:, ::2])
    strided.data[:] = start
    rules = [getattr(optim, name)([parameter], **keywords) for parameter in (plain, strided)]
    for grad in grads:
        plain.grad, strided.grad = grad, np.asfortranarray(grad)
        for rule in rules:
            rule.step()
    np.testing.assert_array_equal(strided.data, plain.data)
    rules[1].load_state_dict(rules[0].state_dict())
    plain.grad, strided.grad = grads[0], grads[0]
    for rule in rules:
        rule.step()
    np.testing.assert_array_equal(strided.data, plain.data)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_engine_updates_refuse_what_does_not_fit(dtype):
    """The engine's own checks: dense arrays of one dtype and size, those that change writeable."""
    data, other = np.ones(40, dtype), np.ones(40, dtype)
    sgd = (False, 0.1, 0.9, False, 0.0, 0.0)
    adam = (0.1, 0.9, 0.99, 1.0, 1e-8, 0.0, 1.0)
    frozen = other.copy()
    frozen.flags.writeable = False
    for wrong in (np.ones(39, dtype), np.ones(80, dtype)[::2], np.ones(40, np.float16), np.ones(40, int)):
        with pytest.raises((TypeError, ValueError), match="grad: "):
            _core.sgd(data, wrong, other, *sgd)
        with pytest.raises((TypeError, ValueError), match="velocity: "):
            _core.sgd(data, other, wrong, *sgd)
        with pytest.raises((TypeError, ValueError), match="largest: "):
            _core.adam(data, other, other.copy(), other.copy(), wrong, *adam)
    for arrays in ((frozen, other, other), (data, other, frozen)):
        with pytest.raises(ValueError, match=r"read-only|writ"):
            _core.sgd(*arrays, *sgd)
    assert (data == 1).all()


@pytest.mark.parametrize("rule", ["SGD", "Adam", "AdamW", "RMSprop", "Rprop"])
def test_a_gradient_of_another_shape(rule):
    """It is refused by name, and the failed step leaves nothing behind."""
    parameter = nn.Parameter(np.ones((2, 3), np.float32))
    optimizer = getattr(optim, rule)([parameter], lr=0.1, **({"momentum": 0.9} if rule == "SGD" else {}))
    for shape in ((3, 2), (1, 3), (6,)):
        parameter.grad = np.ones(shape, np.float32)
        with pytest.raises(ValueError, match=r"grad: got shape .* for a parameter of shape \(2, 3\)"):
            optimizer.step()
    assert (parameter.data == 1).all()
    assert all(set(kept) <= {"step"} for kept in optimizer.state_dict()["state"].values())


def test_infinite_parameters_stay_infinite():
    """A penalty that is not there does not make NaNs of them, nor does its l1."""
    for rule in (optim.AdamW, optim.Adam, optim.SGD, lambda p, **o: optim.SGD(p, l1=0.1, **o)):
        keywords = {"weight_decay": 0} if rule in (optim.AdamW, optim.Adam) else {}
        parameter = nn.Parameter(np.array([np.inf, -np.inf, 1]))
        parameter.grad = np.ones(3)
        rule([parameter], lr=0.1, **keywords).step()
        np.testing.assert_array_equal(parameter.data[:2], [np.inf, -np.inf])
        assert parameter.data[2] < 1


def test_misaligned_parameters_move():
    memory = np.zeros(8 * 5 + 1, np.uint8)
    parameter = nn.Parameter(memory[1:].view(np.float64))
    parameter.grad = np.ones(5)
    optim.SGD([parameter], lr=0.5).step()
    np.testing.assert_array_equal(parameter.data, np.full(5, -0.5))
