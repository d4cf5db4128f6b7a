"""gradcheck passes what is right, and names what is wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest
from fastconv import functional as F
from fastconv import nn
from fastconv.testing import gradcheck

RNG = np.random.default_rng(0)


def square(x):
    return x**2, lambda grad: 2 * x * grad


def test_right_gradients_pass():
    assert gradcheck(square, RNG.standard_normal((3, 4))) is True
    assert gradcheck(lambda x, y: (x * y, lambda grad: (grad * y, grad * x)), (RNG.random(5), RNG.random(5)))
    assert gradcheck(lambda x: (np.sum(x**3), lambda grad: 3 * x**2 * grad), RNG.random(5))


def test_inputs_become_float64_and_stay_as_they_were():
    x = RNG.random(6).astype(np.float32)
    before = x.copy()
    seen = []

    def fn(a):
        seen.append(a.dtype)
        return square(a)

    assert gradcheck(fn, x)
    assert set(seen) == {np.dtype(np.float64)}
    np.testing.assert_array_equal(x, before)


def test_functional_ops():
    x, weight = RNG.standard_normal((2, 3, 6, 6)), RNG.standard_normal((4, 3, 3, 3))
    conv = lambda x, w: (F.conv2d(x, w), lambda grad: F.conv2d_backward(grad, x, w)[:2])  # noqa: E731
    assert gradcheck(conv, (x, weight))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses(reduction):
    logits, target = RNG.standard_normal((5, 4)), RNG.integers(0, 4, 5)
    loss = nn.CrossEntropyLoss(reduction=reduction, label_smoothing=0.1)
    # Class indices are passed through and not checked.
    assert gradcheck(lambda y, t: (loss(y, t), lambda grad: (loss.backward(grad), None)), (logits, target))
    mse = nn.MSELoss(reduction)
    assert gradcheck(lambda y: (mse(y, np.zeros((5, 4))), mse.backward), logits)


def test_one_wrong_entry_is_found_and_named():
    x = RNG.uniform(1, 2, (3, 4))

    def fn(a):
        def backward(grad):
            result = 2 * a * grad
            result[1, 2] *= 1.5
            result[0, 0] *= 1.01
            return result

        return a**2, backward

    with pytest.raises(AssertionError) as caught:
        gradcheck(fn, x)
    found = re.fullmatch(
        r"gradcheck: 2 of 12 entries are wrong \(atol=1e-06, rtol=1e-05\); the worst is input 0 at \(1, 2\): "
        r"analytic (\S+), numeric (\S+)",
        str(caught.value),
    )
    assert found, caught.value
    analytic, numeric = map(float, found.groups())
    assert analytic == pytest.approx(1.5 * numeric, rel=1e-6)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda grad: -grad,
        lambda grad: grad * (1 + 1e-4),
        lambda grad: grad + 1e-4,
        np.zeros_like,
        lambda grad: np.full_like(grad, np.nan),
        lambda grad: grad[::-1],
    ],
    ids=["sign", "factor", "offset", "zero", "nan", "reversed"],
)
def test_wrong_gradients_fail(spoil):
    with pytest.raises(AssertionError, match="of 5 entries are wrong"):
        gradcheck(lambda x: (x**2, lambda grad: spoil(2 * x * grad)), RNG.uniform(1, 2, 5))


def test_second_input_is_named():
    with pytest.raises(AssertionError, match="the worst is input 1 at"):
        gradcheck(lambda x, y: (x * y, lambda grad: (grad * y, grad * y)), (RNG.random(3), RNG.random(3)))


class BadBias(nn.Linear):
    def backward(self, grad_output):
        grad = super().backward(grad_output)
        self.bias.grad = self.bias.grad * 2
        return grad


class ForgetsWeight(nn.Linear):
    def backward(self, grad_output):
        grad = super().backward(grad_output)
        self.weight.grad = None
        return grad


def test_a_modules_parameters_are_checked():
    with pytest.raises(AssertionError, match=re.escape("the worst is parameter '1.bias' at")):
        gradcheck(nn.Sequential(nn.Tanh(), BadBias(3, 2)), RNG.random((4, 3)))
    with pytest.raises(AssertionError, match="the worst is parameter 'weight' at"):
        gradcheck(ForgetsWeight(3, 2), RNG.uniform(1, 2, (4, 3)))


def test_modules_are_left_alone():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    before, generator = net.state_dict(), net[2].rng.bit_generator.state
    assert gradcheck(net, RNG.random((6, 3)))
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
        assert value.dtype == before[name].dtype
    assert net[2].rng.bit_generator.state == generator
    assert all(parameter.grad is None for parameter in net.parameters())


def test_evaluation_mode_is_kept():
    norm = nn.BatchNorm1d(3)
    norm.running_var[:] = 4
    norm.eval()
    assert gradcheck(norm, RNG.random((4, 3)))
    assert not norm.training
    assert not norm.remembers


def test_other_mistakes():
    x = RNG.random(3)
    with pytest.raises(AssertionError, match=r"the gradient of input 0 has shape \(2,\), expected \(3,\)"):
        gradcheck(lambda a: (a**2, lambda grad: grad[:2]), x)
    with pytest.raises(AssertionError, match="backward returned 1 gradients for 2 inputs"):
        gradcheck(lambda a, b: (a * b, lambda grad: grad * b), (x, x))
    with pytest.raises(AssertionError, match="two different outputs for the same inputs"):
        gradcheck(lambda a: (a * RNG.random(), lambda grad: grad), x)
    with pytest.raises(ValueError, match="there is no floating-point array to check"):
        gradcheck(lambda a: (a, lambda grad: grad), np.arange(3))
    with pytest.raises(ValueError, match="no entry was checked"):
        gradcheck(lambda a: (a, lambda grad: None), x)
    with pytest.raises(ValueError, match="a module takes one input, got 2"):
        gradcheck(nn.ReLU(), (x, x))
