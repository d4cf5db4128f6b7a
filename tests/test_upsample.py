"""What of Upsample the cases of every layer do not show; ``layer_cases`` has those, with PyTorch's."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from fastconv import nn
from tolerance import assert_close, assert_same_bits, growth, unit_roundoff

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


@pytest.mark.parametrize("before", [1, 2, 3, 7, 10, 33])
def test_every_size_is_pytorchs(before):
    """Output sizes 1 to 40 from a size, and factors around the whole numbers, at every position of a row."""
    x = np.random.default_rng(0).standard_normal((2, 3, before))
    targets = [{"size": after} for after in range(1, 41)]
    targets += [{"scale_factor": factor} for factor in (1, 1.1, 1.25, 1.5, 1.9, 2, 2.7, 3, 4.0, 10)]
    for target in targets:
        for mode in ({}, {"mode": "nearest-exact"}, {"mode": "linear"}, {"mode": "linear", "align_corners": True}):
            expected = torch.nn.Upsample(**target, **mode)(torch.from_numpy(x)).numpy()
            y = nn.Upsample(**target, **mode)(x)
            bound = 8 * before * unit_roundoff(np.float64) * np.abs(x).max()  # of a position, times a slope
            assert_close(y, expected, bound if "linear" in mode.values() else 0.0, f"{target} {mode}")


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_types_are_rounded_once(n, dtype):
    """The result in a narrow type is that in a wide one, rounded; float16 is worked on in float32."""
    x = np.random.default_rng(1).standard_normal((2, 3, *(5, 4, 6)[:n])).astype(dtype)
    layer = nn.Upsample(scale_factor=1.5, mode=LINEAR[n])
    exact = layer(x.astype(np.float64))
    y = layer(x)
    assert y.dtype == dtype
    inner = unit_roundoff(np.float32) * growth(2**n) * np.abs(x).max() * 4
    assert_close(y, exact, unit_roundoff(dtype) * np.abs(exact) + inner)
    grad = layer.backward(y)
    assert (grad.dtype, grad.shape) == (x.dtype, x.shape)


def test_a_tap_without_a_share_does_not_count():
    x = np.array([[[1.0, np.inf, np.nan]]])
    y = nn.Upsample(size=5, mode="linear", align_corners=True)(x)
    np.testing.assert_array_equal(y, [[[1.0, np.inf, np.inf, np.nan, np.nan]]])
    np.testing.assert_array_equal(nn.Upsample(scale_factor=2)(x), np.repeat(x, 2, axis=2))


def test_a_sample_does_not_depend_on_the_batch():
    x = np.random.default_rng(2).standard_normal((5, 3, 6, 7)).astype(np.float32)
    layer = nn.Upsample(scale_factor=(1.6, 2), mode="bilinear")
    y = layer(x)
    grad = layer.backward(y)
    for i in range(5):
        assert_same_bits(layer(x[i : i + 1])[0], y[i])
        assert_same_bits(layer.backward(y[i : i + 1])[0], grad[i])
    assert layer(x[:0]).shape == (0, *y.shape[1:])
    assert layer.backward(y[:0]).shape == (0, *x.shape[1:])


def test_receptive_field():
    """Nearest sees one position; linear two, which the layers before widen as they do a convolution's taps."""
    for layer, field, after in (
        (nn.Upsample(scale_factor=2), (3, 3), (4, 4)),
        (nn.Upsample(size=(18, 12)), (3, 3), (5, 5)),
        (nn.Upsample(scale_factor=2, mode="bilinear"), (4, 4), (5, 5)),
        (nn.Upsample(scale_factor=0.5, mode="bilinear"), (4, 4), (8, 8)),
    ):
        net = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), layer, nn.Conv2d(1, 1, 3, padding=1))
        rows = net.summary((2, 1, 12, 12)).rows
        assert rows[1].receptive_field == field
        assert rows[2].receptive_field[0] == after[0]
        assert (rows[1].parameters, rows[1].multiply_adds) == (0, 0)


MISUSE = {
    "mode": (lambda: nn.Upsample(2, mode="cubic"), "mode: expected one of"),
    "neither": (lambda: nn.Upsample(), "size: expected either size or scale_factor, got None and None"),
    "both": (lambda: nn.Upsample(2, 2), "size: expected either size or scale_factor, got 2 and 2"),
    "corners": (
        lambda: nn.Upsample(2, align_corners=True),
        "align_corners: expected None for mode='nearest', got True",
    ),
    "size": (lambda: nn.Upsample((2, 0)), "size: got 0, expected at least 1"),
    "factor": (lambda: nn.Upsample(scale_factor=(2, 0)), "scale_factor: expected positive numbers, got (2, 0)"),
    "nan": (lambda: nn.Upsample(scale_factor=np.nan), "scale_factor: expected positive numbers"),
    "axes": (
        lambda: nn.Upsample(2, mode="bilinear")(np.ones((1, 1, 3))),
        "Upsample(mode='bilinear') expects a batch with 2 spatial axes, got 1",
    ),
    "no axes": (lambda: nn.Upsample(2)(np.ones((1, 3))), "expects a batch with 1, 2 or 3 spatial axes, got 0"),
    "sizes": (lambda: nn.Upsample((2, 3))(np.ones((1, 1, 3))), "size: got (2, 3), expected an int or a tuple of 1 int"),
    "factors": (
        lambda: nn.Upsample(scale_factor=(2, 3))(np.ones((1, 1, 3))),
        "scale_factor: got (2, 3), expected a number or 1 of them",
    ),
    "nothing": (
        lambda: nn.Upsample(scale_factor=0.1)(np.ones((1, 1, 3))),
        "scale_factor: 0.1 makes nothing of the spatial size (3,)",
    ),
}


@pytest.mark.parametrize(("call", "message"), MISUSE.values(), ids=MISUSE)
def test_misuse(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
