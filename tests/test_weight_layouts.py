"""What a result may not depend on: how a weight lies in memory, and how many samples or rows come with it."""

import itertools

import fastconv.functional as F
import numpy as np
import pytest

CONVOLUTIONS = {
    "3x3_stride_2": ((32, 32, 3, 3), (2, 32, 12, 12), {"stride": 2, "padding": 1}),
    "3x3": ((32, 32, 3, 3), (2, 32, 12, 12), {"padding": 1}),
    "3x1": ((20, 17, 3, 1), (2, 17, 9, 9), {"padding": (1, 0)}),
    "2x2_stride_2": ((40, 24, 2, 2), (1, 24, 8, 8), {"stride": 2}),
    "one_plane": ((16, 32, 1, 3, 3), (1, 32, 1, 8, 8), {"padding": (0, 1, 1)}),
    "tap_of_a_plane": ((32, 32, 2, 3, 3), (1, 32, 1, 8, 8), {"stride": (2, 1, 1), "padding": (1, 1, 1)}),
}


def layouts(weight):
    """The same numbers flipped in memory along each spatial axis, and with the axes in every order."""
    for axis in range(2, weight.ndim):
        yield f"flipped along {axis}", np.flip(np.flip(weight, axis).copy(), axis)
    for order in itertools.permutations(range(weight.ndim)):
        yield f"axes {order}", np.ascontiguousarray(weight.transpose(order)).transpose(np.argsort(order))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_layouts_of_a_weight(isa, name):
    """Bits are those of a contiguous weight, forward and backward."""
    shape, of_input, options = CONVOLUTIONS[name]
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal(shape).astype("f4"), rng.standard_normal(of_input).astype("f4")
    conv, backward = getattr(F, f"conv{w.ndim - 2}d"), getattr(F, f"conv{w.ndim - 2}d_backward")
    y = conv(x, w, **options)
    gradient = rng.standard_normal(y.shape).astype("f4")
    of_x = backward(gradient, x, w, **options, output_mask=(True, False, False)).input
    for layout, view in layouts(w):
        np.testing.assert_array_equal(conv(x, view, **options), y, err_msg=layout)
        result = backward(gradient, x, view, **options, output_mask=(True, False, False)).input
        np.testing.assert_array_equal(result, of_x, err_msg=layout)


def test_transposed_phases_of_one_tap(isa):
    """Each phase has one tap of a weight whose channels follow each other like taps would."""
    rng = np.random.default_rng(2)
    w = np.moveaxis(rng.standard_normal((32, 2, 2, 1)).astype("f4"), -1, 0)
    x = rng.standard_normal((1, 1, 5, 5)).astype("f4")
    expected = F.conv_transpose2d(x, np.ascontiguousarray(w), stride=2)
    np.testing.assert_array_equal(F.conv_transpose2d(x, w, stride=2), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_very_many_channels_do_not_look_at_the_batch(isa, dtype):
    """Scratch of several samples together would be too large, of one it is not."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((8, 6000, 4, 4)).astype(dtype)
    w = rng.standard_normal((16, 6000, 3, 3)).astype(dtype)
    np.testing.assert_array_equal(F.conv2d(x, w, padding=1)[:1], F.conv2d(x[:1], w, padding=1))


@pytest.mark.parametrize("outputs", [2, 3, 40])
def test_rows_of_a_linear_layer_do_not_look_at_each_other(isa, outputs):
    """Rows whose features lie apart."""
    rng = np.random.default_rng(4)
    x = np.asfortranarray(rng.standard_normal((64, 700)).astype("f4"))
    w = rng.standard_normal((outputs, 700)).astype("f4")
    y = F.linear(x, w)
    for rows in (1, 4, 33):
        np.testing.assert_array_equal(y[:rows], F.linear(x[:rows], w))


def test_weights_near_the_end_of_the_range(isa):
    """Halved twice they would be subnormal."""
    w = np.zeros((32, 32, 3, 3), "f4")
    w[range(32), range(32), 1, 1] = 2e-38
    y = F.conv2d(np.full((1, 32, 8, 8), 1e10, "f4"), w, padding=1)
    np.testing.assert_allclose(y, 2e-28, rtol=1e-5)
