"""Activations and softmax against their definitions."""

import fastconv.functional as F
import numpy as np
import problems
import pytest
import reference
import tolerance
from conftest import runnable_kernels
from fastconv.testing import gradcheck
from hypothesis import given, settings
from hypothesis import strategies as st

# How many unit roundoffs of its own value each function may err by.
ULPS = {"relu": 0, "leaky_relu": 1, "elu": 4, "sigmoid": 6, "tanh": 6}
FROM_OUTPUT = ("relu", "sigmoid", "tanh")
OPTIONS = {"leaky_relu": (0.2,), "elu": (1.5,)}
each_op = pytest.mark.parametrize("name", ULPS)
both_dtypes = pytest.mark.parametrize("dtype", problems.DTYPES)
SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, -1e-40, 1e-30, 88.5, -88.5, 104.0, -104.0, 750.0, -750.0]


def check(name, x, g):
    """Forward and backward of one activation."""
    options = OPTIONS.get(name, ())
    # The parameter as the kernel has it, rounded to the dtype.
    rounded = tuple(float(x.dtype.type(o)) for o in options)
    y = getattr(F, name)(x, *options)
    assert y.dtype == x.dtype
    wanted = getattr(reference, name)(x, *rounded)
    tolerance.assert_close(y, wanted, tolerance.ulp_bound(x.dtype, wanted, ULPS[name]), name)
    saved = y if name in FROM_OUTPUT else x
    gradient = getattr(F, f"{name}_backward")(g, saved, *options)
    wanted = getattr(reference, f"{name}_backward")(g, saved, *rounded)
    # Near saturation the definition's 1 - y**2 cancels in float64 too.
    own = 2 * tolerance.unit_roundoff(np.float64) * np.abs(g)
    bound = tolerance.ulp_bound(x.dtype, wanted, 8) + own
    tolerance.assert_close(gradient, wanted, bound, f"{name}_backward")


@each_op
@both_dtypes
@settings(max_examples=40)
@given(data=st.data())
def test_random_problems(isa, name, dtype, data):
    """Any rank and view, tails included."""
    source = problems.Drawn(data)
    shape = problems.some(source, source.integer(0, 4), 0, 9) if source.integer(0, 1) else (source.integer(0, 5000),)
    scale = source.choice((0.01, 1.0, 20.0))
    x, g = (np.asarray(source.rng.standard_normal(shape) * scale, dtype) for _ in range(2))
    if x.ndim:
        x, g = problems.as_view(x, source.choice(problems.VIEWS)), problems.as_view(g, source.choice(problems.VIEWS))
    check(name, x, g)


@each_op
@both_dtypes
def test_the_whole_range(isa, name, dtype):
    """A fine grid over everything but saturation, and around it."""
    x = np.concatenate([np.linspace(-110, 110, 40001), np.geomspace(1e-30, 1, 4001), -np.geomspace(1e-30, 1, 4001)])
    check(name, x.astype(dtype), np.ones(x.size, dtype))


@each_op
@both_dtypes
def test_special_values(isa, name, dtype):
    """NaN, infinities, zeros and what overflows, in full registers and in tails."""
    x = np.resize(np.array(SPECIAL, dtype), 57)
    with np.errstate(all="ignore"):
        wanted = getattr(reference, name)(x)
    y = getattr(F, name)(x)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
    kept = ~np.isnan(wanted)
    bound = tolerance.ulp_bound(dtype, wanted[kept], 8)
    bound = np.where(np.isinf(bound), 0, bound)
    tolerance.assert_close(y[kept], wanted[kept], bound)
    for i in range(1, 20):
        tolerance.assert_same_bits(getattr(F, name)(x[i:]), y[i:])


def test_selections_keep_subnormals(isa):
    """What only picks its input does not flush it."""
    x = np.full(37, 1e-40, "f")
    np.testing.assert_array_equal(F.relu(x), x)
    np.testing.assert_array_equal(F.leaky_relu(x), x)
    np.testing.assert_array_equal(F.relu_backward(x, np.ones_like(x)), x)
    np.testing.assert_array_equal(F.leaky_relu_backward(x, np.ones_like(x)), x)
    assert (F.leaky_relu(-x, 0.5) < 0).all()


@each_op
def test_memory_order_and_threads(isa, name, threads):
    """A dense input's order is kept, and neither strides nor threads change an element's bits."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 40, 30, 20)).astype("f")
    threads(1)
    y = getattr(F, name)(x)
    threads(3)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    result = getattr(F, name)(last)
    assert result.strides == last.strides
    tolerance.assert_same_bits(result, y)
    for view in problems.VIEWS[:-1]:
        tolerance.assert_same_bits(getattr(F, name)(problems.as_view(x, view)), y, view)


@pytest.mark.parametrize("row", runnable_kernels("activation", "softmax"), ids=lambda row: row["name"])
def test_every_kernel(row, force_kernel):
    """Each row of the table."""
    rng, dtype = np.random.default_rng(1), np.dtype(row["dtype"])
    x, g = (rng.standard_normal((3, 37, 11)).astype(dtype) for _ in range(2))
    with force_kernel(row["name"]):
        for name in ULPS:
            if row["op"] == "activation":
                check(name, x, g)
        for axis in (0, 1, 2):
            if row["op"] == "softmax":
                check_softmax(x, g, axis)


@each_op
def test_gradcheck(isa, name):
    """The gradients are what central differences of the output say."""
    x = np.random.default_rng(2).standard_normal((4, 5))
    options = OPTIONS.get(name, ())

    def function(x):
        y = getattr(F, name)(x, *options)
        saved = y if name in FROM_OUTPUT else x
        return y, lambda grad: getattr(F, f"{name}_backward")(grad, saved, *options)

    assert gradcheck(function, (x + 0.1 * np.sign(x),))


@both_dtypes
@pytest.mark.parametrize("view", problems.VIEWS)
def test_step(isa, view, dtype):
    """1 where positive (subnormal numbers too), else 0; a NaN stays; the bits do not depend on what lies around."""
    rng = np.random.default_rng(6)
    x = problems.as_view(rng.choice(np.array([*SPECIAL, 1.0, -1.0]), (5, 7, 11)).astype(dtype), view)
    y = F.step(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, reference.step(x))
    for i in range(5):
        tolerance.assert_same_bits(F.step(x[i]), y[i])
    assert F.step(x[:0]).shape == (0, 7, 11)


# --- softmax ---------------------------------------------------------------------------------------------------------


def check_softmax(x, g, axis):
    """Both forms, forward and backward, along an axis."""
    u = tolerance.unit_roundoff(x.dtype)
    length = max(x.shape[axis], 1)
    spread = 1 + (np.abs(x).max(initial=0.0) * 2 if x.size else 0)
    for name in ("softmax", "log_softmax"):
        y = getattr(F, name)(x, axis)
        assert y.dtype == x.dtype
        wanted = getattr(reference, name)(x, axis)
        # The shifted argument is rounded relative to the largest difference; then a sum and a division follow.
        size = np.abs(wanted) * spread if name == "softmax" else spread + np.abs(wanted)
        tolerance.assert_close(y, wanted, tolerance.sum_bound(x.dtype, 3 + length**0.5, size), f"{name} {x.shape}")
        gradient = getattr(F, f"{name}_backward")(g, y, axis)
        wanted = getattr(reference, f"{name}_backward")(g, y, axis)
        size = np.abs(g).max(initial=0.0) * (1 if name == "softmax" else length) + u
        tolerance.assert_close(gradient, wanted, tolerance.sum_bound(x.dtype, length + 4, size), f"{name}_backward")


@both_dtypes
@settings(max_examples=150)
@given(data=st.data())
def test_random_softmax(isa, dtype, data):
    """Any rank, axis and view."""
    source = problems.Drawn(data)
    shape = problems.some(source, source.integer(1, 4), 1, 12)
    axis = source.integer(-len(shape), len(shape) - 1)
    if source.integer(0, 1):
        shape = tuple(source.integer(1, 700) if i == axis % len(shape) else min(s, 4) for i, s in enumerate(shape))
    scale = source.choice((1.0, 30.0))
    x, g = ((source.rng.standard_normal(shape) * scale).astype(dtype) for _ in range(2))
    check_softmax(
        problems.as_view(x, source.choice(problems.VIEWS)), problems.as_view(g, source.choice(problems.VIEWS)), axis
    )


@pytest.mark.parametrize("shape", [(3, 21, 40, 41), (2, 1000, 49), (2, 5000, 3), (70, 1000), (3, 0), (0, 3)])
def test_large_softmax(isa, shape):
    """More than one block of positions, wide and empty axes."""
    rng = np.random.default_rng(3)
    x, g = (rng.standard_normal(shape).astype("f") for _ in range(2))
    if x.size:
        check_softmax(x, g, 1)
    else:
        assert F.softmax(x, 1).shape == F.log_softmax_backward(g, x, 1).shape == shape


@pytest.mark.parametrize("axis", [1, -1])
def test_softmax_samples_do_not_depend_on_the_batch(isa, axis):
    """One sample alone gives its bits, in every arrangement of memory."""
    x = np.random.default_rng(4).standard_normal((5, 11, 6, 7)).astype("f")
    for view in problems.VIEWS[:-1]:
        own = problems.as_view(x, view)
        for name in ("softmax", "log_softmax"):
            y = getattr(F, name)(own, axis)
            for i in range(5):
                tolerance.assert_same_bits(getattr(F, name)(own[i : i + 1], axis)[0], y[i], view)


def test_softmax_of_special_values(isa):
    """Large entries do not overflow, minus infinity is probability 0, NaN spoils its own distribution."""
    for axis, shape in ((1, (3, 19)), (0, (19, 3))):
        x = np.zeros((3, 19), "f")
        x[0], x[1, 4], x[2, 18] = 1e38, -np.inf, np.nan
        x = x if axis else np.ascontiguousarray(x.T)
        y = F.softmax(x, axis)
        assert y.shape == shape
        y = y if axis else y.T
        np.testing.assert_allclose(y[0], 1 / 19, rtol=1e-6)
        np.testing.assert_allclose(y[1], np.where(np.arange(19) == 4, 0, 1 / 18), rtol=1e-6)
        assert np.isnan(y[2]).all()
        log = F.log_softmax(x, axis)
        log = log if axis else log.T
        assert np.isneginf(log[1, 4])
        np.testing.assert_allclose(log[0], -np.log(19), rtol=1e-6)


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_softmax_gradcheck(isa, name):
    """The gradients are what central differences of the output say."""
    x = np.random.default_rng(5).standard_normal((3, 4, 5))

    def function(x):
        y = getattr(F, name)(x, 1)
        return y, lambda grad: getattr(F, f"{name}_backward")(grad, y, 1)

    assert gradcheck(function, (x,))
