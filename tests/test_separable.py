"""Separable convolution against the depthwise convolution followed by the pointwise one."""

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


@pytest.mark.parametrize("dtype", problems.DTYPES)
@settings(max_examples=120)
@given(data=st.data())
def test_random_problems(isa, dtype, data):
    """Any channels, multipliers, strides, dilations, pads, formats and views."""
    source = problems.Drawn(data)
    problem = problems.conv_problem(source, op="separable_conv")
    view, data_format = source.choice(problems.VIEWS), source.choice(problems.FORMATS)
    call = expected.make_call(problem, dtype, source.rng, data_format, view, bool(source.integer(0, 3)))
    expected.check(call, source.rng, view)


def small(axes, multiplier=2):
    """A small separable convolution."""
    each = [(value,) * axes for value in (4, 3, 1, (1, 1), 1)]
    return Problem("", "separable_conv", 2, 3, each[0], 4, *each[1:], multiplier=multiplier)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_gradcheck(isa, axes):
    """The gradients are what central differences of the output say."""
    rng = np.random.default_rng(0)
    problem = small(axes, multiplier=1 if axes == 3 else 2)
    call = expected.make_call(problem, np.float64, rng)
    names = ("x", "weight", "pointwise_weight", "bias")

    def function(*arrays):
        call.arrays = dict(zip(names, arrays, strict=True))
        return call.forward(), call.backward

    assert gradcheck(function, [call.arrays[name] for name in names])


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_unbatched(isa, axes, data_format):
    """``(C, *spatial)`` is one sample."""
    rng = np.random.default_rng(1)
    call = expected.make_call(small(axes), np.float32, rng, data_format)
    arrays = [call.arrays[name] for name in ("x", "weight", "pointwise_weight", "bias")]
    forward = getattr(F, f"separable_conv{axes}d")
    y = call.forward()
    single = forward(arrays[0][0], *arrays[1:], padding=1, data_format=data_format)
    tolerance.assert_same_bits(single, y[0], "unbatched")
    full = call.backward(y)
    assert full._fields == ("input", "depthwise_weight", "pointwise_weight", "bias")
