"""Convolutions as matrices and networks in numbers, each against its definition."""

from __future__ import annotations

import sys

import fastconv.functional as F
import numpy as np
import pytest
from fastconv import models, nn
from fastconv.analysis import conv_matrix, count_macs, count_parameters, receptive_field

GEOMETRIES = [
    (1, (2, 3), (9,), {}),
    (1, (1, 2), (7,), {"padding": "causal"}),
    (2, (3, 2), (6, 5), {}),
    (2, (3, 2), (6, 7), {"stride": 2, "padding": 1}),
    (2, (2, 2), (7, 8), {"stride": (2, 3), "padding": ((0, 2), (1, 0)), "dilation": (2, 1)}),
    (2, (4, 6), (5, 5), {"padding": "same", "groups": 2}),
    (2, (6, 6), (4, 5), {"padding": "full", "groups": 6}),
    (2, (2, 1), (6, 5), {"stride": 2, "padding": "same"}),
    (3, (2, 2), (4, 5, 3), {"stride": (1, 2, 1), "padding": 1}),
]


@pytest.mark.parametrize(("n", "channels", "sizes", "geometry"), GEOMETRIES)
def test_a_convolution_is_its_matrix_and_the_transpose_its_gradient(n, channels, sizes, geometry):
    rng = np.random.default_rng(0)
    outputs, inputs = channels
    kernel = (3, 2, 3)[:n]
    weight = rng.standard_normal((outputs, inputs // geometry.get("groups", 1), *kernel))
    x = rng.standard_normal((inputs, *sizes))
    matrix = conv_matrix(weight, x.shape, **geometry)
    y = getattr(F, f"conv{n}d")(x[None], weight, **geometry)
    assert matrix.shape == (y.size, x.size)
    np.testing.assert_allclose(matrix @ x.ravel(), y.ravel(), rtol=1e-12, atol=1e-12)
    grad = rng.standard_normal(y.shape)
    expected = getattr(F, f"conv{n}d_backward")(grad, x[None], weight, **geometry).input
    np.testing.assert_allclose(matrix.T @ grad.ravel(), expected.ravel(), rtol=1e-12, atol=1e-12)
    assert matrix.nnz <= y.size * weight[0].size


def test_the_transpose_is_the_transposed_convolution():
    rng = np.random.default_rng(1)
    weight, y = rng.standard_normal((2, 3, 3, 3)), rng.standard_normal((2, 4, 4))
    expected = F.conv_transpose2d(y[None], weight, stride=2, padding=1, output_padding=1)
    matrix = conv_matrix(weight, expected.shape[1:], stride=2, padding=1)
    np.testing.assert_allclose(matrix.T @ y.ravel(), expected.ravel(), rtol=1e-12, atol=1e-12)


def test_the_matrix_of_a_small_convolution():
    """Doubly blocked Toeplitz: the example of Dumoulin and Visin (2016), 3 x 3 on 4 x 4."""
    matrix = conv_matrix(np.arange(1.0, 10).reshape(1, 1, 3, 3), (1, 4, 4)).toarray()
    first = [1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 0, 0, 0, 0]
    np.testing.assert_array_equal(matrix, [np.roll(first, shift) for shift in (0, 1, 4, 5)])
    assert conv_matrix(np.ones((1, 1, 2), np.float32), (1, 3)).dtype == np.float32


def test_bad_matrices():
    weight = np.ones((2, 1, 3, 3))
    for keywords, message in (
        ({"input_shape": (1, 4)}, r"input_shape: expected \(C_in, \*spatial\) with 2 spatial axes, got \(1, 4\)"),
        ({"input_shape": (2, 4, 4)}, r"weight: shape \(2, 1, 3, 3\) does not fit 2 channels in groups=1"),
        ({"input_shape": (3, 4, 4), "groups": 3}, r"weight: shape \(2, 1, 3, 3\) does not fit 3 channels in groups=3"),
        ({"input_shape": (1, 2, 4)}, "kernel_size: a window of .* is larger than the padded input"),
        ({"input_shape": (1, 4, 4), "stride": 0}, "stride: got 0, expected at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            conv_matrix(weight, **keywords)
    with pytest.raises(ValueError, match="weight: expected shape"):
        conv_matrix(np.ones((3, 3)), (1, 4))


def test_without_scipy(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "scipy"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ImportError, match=r"pip install 'fastconv\[analysis\]'"):
        conv_matrix(np.ones((1, 1, 2)), (1, 3))


def _seen(net, shape):
    """By definition: the extent of the inputs that the output in the middle depends on."""
    for parameter in net.parameters():
        parameter.data[...] = 1  # nothing cancels
    y = net(np.ones(shape, np.float32))
    grad = np.zeros_like(y)
    grad[(0, 0, *(size // 2 for size in y.shape[2:]))] = 1
    touched = np.argwhere(net.backward(grad)[0].any(0))
    return tuple((np.ptp(touched, 0) + 1).tolist())


NETWORKS = {
    "convolutions": lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, (5, 1)), nn.Conv2d(2, 1, 1)),
    "strides and dilation": lambda: nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.AvgPool2d(2), nn.Conv2d(2, 1, 3, dilation=2, padding=2)
    ),
    "branches": lambda: nn.Sequential(
        nn.Concat(nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 7, padding=3)),
        nn.Residual(nn.SeparableConv2d(2, 2, 3, padding=1)),
        nn.AvgPool2d(3, 2),
    ),
}


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_receptive_field_is_what_an_output_depends_on(make):
    net, shape = make(), (1, 1, 48, 48)
    assert receptive_field(net, shape) == _seen(net, shape)


def test_receptive_field_of_whole_networks():
    assert receptive_field(models.lenet5()[4], (1, 16, 14, 14)) == (1, 1)
    assert receptive_field(models.lenet5(), (1, 1, 28, 28)) == (28, 28), "all of it"
    assert receptive_field(models.lenet5(data_format="channels_last"), (1, 28, 28, 1)) == (28, 28)
    assert receptive_field(nn.Linear(5, 2), (1, 5)) == (5,)
    trunk = nn.Sequential(*list(models.resnet18(width=2))[:-2])
    assert receptive_field(trunk, (1, 3, 64, 64)) == (435, 435), "as published for ResNet-18's last convolution"


@pytest.mark.parametrize("samples", [1, 3])
def test_counts(samples):
    """Each product of a weight and a value, counted by hand."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30, 7))
    assert count_parameters(net) == (2 * 4 * 9 + 4) + (4 + 4) + (120 * 7 + 7)
    assert count_macs(net, (samples, 2, 5, 6)) == samples * (30 * 4 * 2 * 9 + 120 * 7)


def test_shared_parameters_count_once():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    assert count_parameters(nn.Sequential(first, second)) == 9 + 3 + 3
