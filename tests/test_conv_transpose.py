"""Transposed convolution, forward and backward, against its definition by scatter."""

import expected
import fastconv.functional as F
import numpy as np
import problems
import pytest
import tolerance
from fastconv._cli.problem import Problem
from fastconv.testing import gradcheck
from hypothesis import given, settings
from hypothesis import strategies as st


def transposed(axes, n=2, c=5, k=7, size=5, kernel=3, stride=2, padding=1, extra=0, dilation=1, groups=1):
    """A transposed convolution with the same numbers on every axis."""

    def each(value):
        return (value,) * axes

    sizes = (each(size), k, each(kernel), each(stride), each((padding, padding)), each(dilation), groups, each(extra))
    return Problem("", "conv_transpose", n, c, *sizes)


@pytest.mark.parametrize("dtype", problems.DTYPES)
@settings(max_examples=150)
@given(data=st.data())
def test_random_problems(isa, dtype, data):
    """Any channels, groups, strides, dilations, pads, output paddings, formats and views."""
    source = problems.Drawn(data)
    problem = problems.conv_problem(source, op="conv_transpose")
    view, data_format = source.choice(problems.VIEWS), source.choice(problems.FORMATS)
    call = expected.make_call(problem, dtype, source.rng, data_format, view, bool(source.integer(0, 3)))
    expected.check(call, source.rng, view)


@pytest.mark.parametrize("view", problems.VIEWS)
@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_views(isa, axes, data_format, view):
    """Every arrangement of memory."""
    rng = np.random.default_rng(1)
    for c, k, groups in ((5, 7, 1), (6, 4, 2), (9, 9, 9)):
        problem = transposed(axes, c=c, k=k, groups=groups, size=4)
        expected.check(expected.make_call(problem, np.float32, rng, data_format, view), rng, view)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_output_padding(isa, axes):
    """``output_padding`` lengthens the end of the output, where only padding and late taps reach."""
    rng = np.random.default_rng(2)
    for stride, dilation, extra in ((2, 1, 1), (3, 1, 2), (2, 3, 2), (1, 2, 1)):
        for padding in (0, 1):
            problem = transposed(axes, size=3, stride=stride, dilation=dilation, extra=extra, padding=padding)
            expected.check(expected.make_call(problem, np.float64, rng), rng)


@pytest.mark.parametrize("dtype", problems.DTYPES)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_is_the_adjoint_of_convolution(isa, stride, dtype):
    """``sum(conv(x, w) * y) == sum(x * conv_transpose(y, w))``, and the gradients are each other's forward."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((2, 4, 10, 11)).astype(dtype)
    w = rng.standard_normal((6, 4, 3, 3)).astype(dtype)
    y = F.conv2d(x, w, stride=stride, padding=1)
    g = rng.standard_normal(y.shape).astype(dtype)
    extra = tuple((i + 2 - 3) % stride for i in x.shape[2:])
    back = F.conv_transpose2d(g, w, stride=stride, padding=1, output_padding=extra)
    assert back.shape == x.shape
    left, right = np.vdot(y.astype("d"), g.astype("d")), np.vdot(x.astype("d"), back.astype("d"))
    most = np.abs(x).astype("d").sum() * np.abs(g).max() * np.abs(w).max() * 54
    assert abs(left - right) <= tolerance.sum_bound(dtype, 54, most)
    gradient = F.conv2d_backward(g, x, w, stride=stride, padding=1).input
    tolerance.assert_same_bits(back, gradient, "the input gradient of the convolution")


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_unbatched_empty_and_out(isa, axes, data_format):
    """``(C, *spatial)`` is one sample, no samples give none, ``out=`` receives the result."""
    rng = np.random.default_rng(4)
    call = expected.make_call(transposed(axes), np.float32, rng, data_format)
    x, w, b = (call.arrays[name] for name in ("x", "weight", "bias"))
    keywords = {"stride": 2, "padding": 1, "data_format": data_format}
    forward = getattr(F, f"conv_transpose{axes}d")
    y = forward(x, w, b, **keywords)
    tolerance.assert_same_bits(forward(x[1], w, b, **keywords), y[1], "unbatched")
    assert forward(x[:0], w, b, **keywords).shape == (0, *y.shape[1:])
    out = problems.as_view(np.full_like(y, np.nan), "gapped")
    assert forward(x, w, b, out=out, **keywords) is out
    tolerance.assert_same_bits(out, y, "out")
    gradients = getattr(F, f"conv_transpose{axes}d_backward")(y[:0], x[:0], w, **keywords)
    assert gradients.input.shape == x[:0].shape
    assert gradients.weight.shape == w.shape
    assert not gradients.weight.any()
    assert not gradients.bias.any()


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradcheck(isa, axes, groups):
    """The gradients are what central differences of the output say."""
    rng = np.random.default_rng(5)
    problem = transposed(axes, c=4, k=4, size=3 if axes < 3 else 2, kernel=2, groups=groups, padding=0)
    call = expected.make_call(problem, np.float64, rng)

    def function(x, weight, bias):
        call.arrays = {"x": x, "weight": weight, "bias": bias}
        return call.forward(), call.backward

    assert gradcheck(function, [call.arrays[name] for name in ("x", "weight", "bias")])


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sizes", [(1, 3, 5, 2), (5, 10, 7, 4), (17, 33, 18, 3), (2, 100, 64, 4)])
def test_one_position_with_a_bias(isa, sizes, dtype, data_format):
    """The kernel itself, times the channels of one position: a product of matrices, whose columns share their channel's
    bias.
    """
    samples, inputs, outputs, kernel = sizes
    rng = np.random.default_rng(0)
    x = rng.standard_normal((samples, inputs, 1, 1)).astype(dtype)
    weight = rng.standard_normal((inputs, outputs, kernel, kernel)).astype(dtype)
    bias = rng.standard_normal(outputs).astype(dtype)
    expected = np.einsum("nc,ckhw->nkhw", x[:, :, 0, 0].astype(float), weight.astype(float)) + bias[:, None, None]
    if data_format == "channels_last":
        x, expected = x.transpose(0, 2, 3, 1), expected.transpose(0, 2, 3, 1)
    y = F.conv_transpose2d(np.ascontiguousarray(x), weight, bias, stride=2, data_format=data_format)
    np.testing.assert_allclose(y, expected, rtol=0, atol=64 * np.finfo(dtype).eps * np.abs(expected).max())
