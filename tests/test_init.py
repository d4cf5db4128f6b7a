"""First weights: PyTorch's rules, by their distributions, and seeds."""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
import torch
from fastconv import nn


def test_init_is_seedable():
    nn.init.seed(5)
    first = nn.Conv2d(3, 4, 3).state_dict()
    nn.init.seed(5)
    second = nn.Conv2d(3, 4, 3).state_dict()
    np.testing.assert_array_equal(first["weight"], second["weight"])
    np.testing.assert_array_equal(first["bias"], second["bias"])
    third = nn.Conv2d(3, 4, 3, rng=np.random.default_rng(5)).state_dict()
    np.testing.assert_array_equal(first["weight"], third["weight"])
    assert not np.array_equal(nn.Conv2d(3, 4, 3).state_dict()["weight"], first["weight"])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda: nn.Conv2d(16, 32, 5), lambda: torch.nn.Conv2d(16, 32, 5)),
        (lambda: nn.Conv1d(16, 64, 9, groups=4), lambda: torch.nn.Conv1d(16, 64, 9, groups=4)),
        (lambda: nn.ConvTranspose2d(16, 24, 5), lambda: torch.nn.ConvTranspose2d(16, 24, 5)),
        (lambda: nn.Linear(100, 80), lambda: torch.nn.Linear(100, 80)),
    ],
    ids=["conv", "groups", "transposed", "linear"],
)
def test_first_weights_are_distributed_as_pytorchs(ours, theirs):
    """Uniform on the same interval: the extremes and the variance of thousands of draws agree."""
    nn.init.seed(0)
    torch.manual_seed(0)
    ours, theirs = ours(), theirs()
    weight, expected = ours.weight.data, theirs.weight.detach().numpy()
    assert weight.shape == expected.shape
    assert np.abs(weight).max() == pytest.approx(np.abs(expected).max(), rel=0.02)
    assert weight.std() == pytest.approx(expected.std(), rel=0.05)
    assert abs(weight.mean()) < 0.05 * np.abs(weight).max()
    assert np.abs(ours.bias.data).max() <= np.abs(weight).max() * 1.02
    assert np.abs(ours.bias.data).max() == pytest.approx(np.abs(theirs.bias.detach().numpy()).max(), rel=0.3)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("xavier_uniform_", {}),
        ("xavier_normal_", {"gain": 2.0}),
        ("kaiming_uniform_", {"a": 0.3}),
        ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
        ("kaiming_uniform_", {"mode": "fan_out", "nonlinearity": "tanh"}),
        ("kaiming_normal_", {"a": math.sqrt(5), "nonlinearity": "leaky_relu"}),
        ("uniform_", {}),
        ("uniform_", {"a": -3, "b": 5}),
        ("normal_", {}),
        ("normal_", {"mean": 2.0, "std": 0.3}),
        ("trunc_normal_", {}),
        ("trunc_normal_", {"mean": 1.0, "std": 2.0, "a": 0.5, "b": 1.5}),
        ("trunc_normal_", {"std": 0.02, "a": -0.03, "b": 0.01}),
        ("orthogonal_", {"gain": 3.0}),
    ],
)
def test_init_rules(name, arguments):
    array = np.empty((60, 40, 3, 3), np.float32)
    assert getattr(nn.init, name)(array, **arguments, rng=np.random.default_rng(0)) is array
    expected = getattr(torch.nn.init, name)(torch.empty(60, 40, 3, 3), **arguments).numpy()
    assert array.std() == pytest.approx(expected.std(), rel=0.03)
    assert array.mean() == pytest.approx(expected.mean(), abs=0.03 * float(expected.std()))
    if "uniform" in name or "trunc" in name:
        assert array.max() == pytest.approx(expected.max(), rel=0.01)
        assert array.min() == pytest.approx(expected.min(), rel=0.01, abs=0.001)


def test_init_constants_and_errors():
    parameter = nn.Parameter(np.empty((2, 2), np.float32))
    assert nn.init.zeros_(parameter) is parameter
    assert not parameter.data.any()
    assert nn.init.ones_(parameter).data.sum() == 4
    assert nn.init.constant_(np.empty(2), 7).tolist() == [7, 7]
    with pytest.raises(ValueError, match="a fan needs at least 2 axes"):
        nn.init.kaiming_uniform_(np.empty(3))
    with pytest.raises(ValueError, match="mode: expected 'fan_in' or 'fan_out', got 'fan'"):
        nn.init.kaiming_normal_(np.empty((3, 3)), mode="fan")
    with pytest.raises(ValueError, match="nonlinearity: expected one of"):
        nn.init.calculate_gain("softmax")
    with pytest.raises(TypeError, match=r"target: expected a Parameter or a numpy\.ndarray, got list"):
        nn.init.zeros_([1.0])


def test_gains():
    layers = [f"{kind}{n}d" for kind in ("conv", "conv_transpose") for n in (1, 2, 3)]
    for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu", *layers):
        assert nn.init.calculate_gain(name) == pytest.approx(torch.nn.init.calculate_gain(name)), name
    for slope in (0, 0.2, 1.5):
        expected = torch.nn.init.calculate_gain("leaky_relu", slope)
        assert nn.init.calculate_gain("leaky_relu", slope) == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(6, 6), (6, 4), (4, 6), (8, 3, 2, 2), (3, 8, 2), (5, 1, 1, 1, 1)], ids=str)
def test_orthogonal(shape):
    array = nn.init.orthogonal_(np.empty(shape), 2.0, rng=np.random.default_rng(0))
    matrix = array.reshape(shape[0], -1)
    product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    np.testing.assert_allclose(product, 4 * np.eye(len(product)), atol=1e-12)
    other = nn.init.orthogonal_(np.empty(shape), 2.0, rng=np.random.default_rng(1))
    assert not np.allclose(array, other)


def test_orthogonal_matrices_are_alike():
    """The diagonal of one drawn from all rotations and reflections is as often negative as positive."""
    rng = np.random.default_rng(0)
    diagonals = [np.diag(nn.init.orthogonal_(np.empty((3, 3)), rng=rng)) for _ in range(300)]
    assert abs(np.mean(np.sign(diagonals))) < 5 / np.sqrt(900)


@pytest.mark.parametrize(("a", "b"), [(-1, 3), (2, np.inf), (-np.inf, -2), (6, 7), (-30, -10), (-40, 40), (8.5, 60)])
def test_truncated_normal_distribution(a, b):
    """Kolmogorov and Smirnov's distance to SciPy's distribution, far tails too, is that of a sample of its size."""
    stats = pytest.importorskip("scipy.stats", reason="SciPy has the distribution")
    values = nn.init.trunc_normal_(np.empty(2000), 0.5, 2.0, a, b, rng=np.random.default_rng(0))
    assert values.min() >= a
    assert values.max() <= b
    expected = stats.truncnorm((a - 0.5) / 2, (b - 0.5) / 2, 0.5, 2.0)
    assert stats.kstest(values, expected.cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)], ids=str)
def test_eye(shape):
    np.testing.assert_array_equal(nn.init.eye_(np.empty(shape)), torch.nn.init.eye_(torch.empty(shape)).numpy())


@pytest.mark.parametrize("shape", [(4, 4, 3), (6, 2, 3, 3), (6, 5, 4, 2), (6, 1, 3, 2, 1), (8, 3, 5)], ids=str)
@pytest.mark.parametrize("groups", [1, 2])
def test_dirac(shape, groups):
    expected = torch.nn.init.dirac_(torch.empty(shape), groups).numpy()
    np.testing.assert_array_equal(nn.init.dirac_(np.full(shape, 7.0), groups), expected)


def test_dirac_lets_channels_through():
    layer = nn.Conv2d(6, 6, 3, padding=1, groups=2, bias=False)
    nn.init.dirac_(layer.weight, 2)
    x = np.random.default_rng(0).standard_normal((2, 6, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(layer(x), x)


@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.55, 1.0])
def test_sparse(sparsity):
    array = nn.init.sparse_(np.empty((30, 400)), sparsity, 0.5, rng=np.random.default_rng(0))
    expected = torch.nn.init.sparse_(torch.empty(30, 400), sparsity).numpy()
    zeros = np.count_nonzero(array == 0, axis=0)
    np.testing.assert_array_equal(zeros, np.count_nonzero(expected == 0, axis=0))
    if 0 < sparsity < 1:
        assert len(np.unique((array == 0).sum(1))) > 1, "which are zero is random"
    if sparsity < 1:
        assert array[array != 0].std() == pytest.approx(0.5, rel=0.05)


def test_every_rule_of_pytorchs():
    """The same rules with the same arguments and defaults; ``rng`` stands for ``generator``."""
    rules = {name for name in vars(torch.nn.init) if name.endswith("_") and not name.startswith("_")}
    assert rules == {name for name in nn.init.__all__ if name.endswith("_")}
    for name in rules:
        theirs = list(inspect.signature(getattr(torch.nn.init, name)).parameters.values())
        ours = list(inspect.signature(getattr(nn.init, name)).parameters.values())
        assert [(p.name, p.default) for p in ours[1:] if p.name != "rng"] == [
            (p.name, p.default) for p in theirs[1:] if p.name != "generator"
        ], name
        assert ("rng" in [p.name for p in ours]) == ("generator" in [p.name for p in theirs]), name


@pytest.mark.parametrize("name", sorted(set(nn.init.__all__) - {"calculate_gain", "default_generator", "seed"}))
def test_every_rule_is_seedable_and_in_place(name):
    rule, arguments = getattr(nn.init, name), {"constant_": (3.0,), "sparse_": (0.5,)}.get(name, ())
    if name == "fan_in_and_fan_out":
        assert rule((8, 4, 3, 3)) == torch.nn.init._calculate_fan_in_and_fan_out(torch.empty(8, 4, 3, 3))
        return
    shape = (6, 4, 3) if name == "dirac_" else (6, 4)
    results = []
    for _ in range(2):
        nn.init.seed(3)
        parameter = nn.Parameter(np.full(shape, np.nan, np.float32))
        data = parameter.data
        assert rule(parameter, *arguments) is parameter
        assert parameter.data is data
        assert not np.isnan(data).any()
        results.append(data)
    np.testing.assert_array_equal(*results)


MISUSE = {
    "eye": (lambda: nn.init.eye_(np.empty(3)), "target: expected 2 axes, got shape (3,)"),
    "dirac": (lambda: nn.init.dirac_(np.empty((3, 3))), "target: expected 3, 4 or 5 axes"),
    "dirac groups": (lambda: nn.init.dirac_(np.empty((3, 3, 3)), 2), "groups: expected a divisor of 3 outputs, got 2"),
    "orthogonal": (lambda: nn.init.orthogonal_(np.empty(3)), "target: expected at least 2 axes, got shape (3,)"),
    "sparse": (lambda: nn.init.sparse_(np.empty((3, 3, 3)), 0.1), "target: expected 2 axes, got shape (3, 3, 3)"),
    "sparsity": (
        lambda: nn.init.sparse_(np.empty((3, 3)), 1.5),
        "sparsity: expected a number between 0 and 1, got 1.5",
    ),
    "bounds": (lambda: nn.init.trunc_normal_(np.empty(3), a=1, b=1), "std, a, b: expected std > 0 and a < b"),
    "nothing": (lambda: nn.init.trunc_normal_(np.empty(3), a=90, b=99), "is never between 90 and 99"),
}


@pytest.mark.parametrize(("call", "message"), MISUSE.values(), ids=MISUSE)
def test_misuse(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
