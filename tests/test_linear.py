"""The linear layer against its definition."""

import expected
import fastconv.functional as F
import numpy as np
import problems
import pytest
import tolerance
from conftest import runnable_kernels
from fastconv._cli.problem import Problem
from fastconv.testing import gradcheck
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("dtype", problems.DTYPES)
@settings(max_examples=150)
@given(data=st.data())
def test_random_problems(isa, dtype, data):
    """Any numbers of rows and features, views and an optional bias."""
    source = problems.Drawn(data)
    problem = Problem("", "linear", source.integer(1, 70), source.integer(1, 150), k=source.integer(1, 70))
    view = source.choice(problems.VIEWS)
    call = expected.make_call(problem, dtype, source.rng, view=view, bias=bool(source.integer(0, 3)))
    expected.check(call, source.rng, view)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (2, 1, 3), (0,), (2, 0)])
def test_leading_axes(isa, lead):
    """Any number of leading axes, none and empty ones included."""
    rng = np.random.default_rng(0)
    x, w, b = rng.standard_normal((*lead, 5)), rng.standard_normal((4, 5)), rng.standard_normal(4)
    y = F.linear(x, w, b)
    assert y.shape == (*lead, 4)
    tolerance.assert_close(y, x @ w.T + b, tolerance.sum_bound(x.dtype, 6, np.abs(x) @ np.abs(w).T + np.abs(b)))
    gradients = F.linear_backward(y, x, w)
    assert gradients._fields == ("input", "weight", "bias")
    assert [g.shape for g in gradients] == [x.shape, w.shape, b.shape]
    rows, g = x.reshape(-1, 5), y.reshape(-1, 4)
    bound = tolerance.sum_bound(x.dtype, max(len(rows), 1), np.abs(g).T @ np.abs(rows))
    tolerance.assert_close(gradients.weight, g.T @ rows, bound)


def test_long_rows(isa):
    """A reduction longer than any block."""
    rng = np.random.default_rng(1)
    problem = Problem("", "linear", 3, 5003, k=7)
    expected.check(expected.make_call(problem, np.float32, rng), rng)


def test_gradcheck(isa):
    """The gradients are what central differences of the output say."""
    rng = np.random.default_rng(2)
    arrays = rng.standard_normal((3, 4)), rng.standard_normal((5, 4)), rng.standard_normal(5)

    def function(x, weight, bias):
        return F.linear(x, weight, bias), lambda grad: F.linear_backward(grad, x, weight)

    assert gradcheck(function, arrays)


def test_output_mask(isa):
    """A masked gradient is ``None`` and leaves the others as they are."""
    rng = np.random.default_rng(3)
    x, w, g = rng.standard_normal((6, 4)), rng.standard_normal((5, 4)), rng.standard_normal((6, 5))
    full = F.linear_backward(g, x, w)
    for i in range(3):
        masked = F.linear_backward(g, x, w, output_mask=tuple(i == j for j in range(3)))
        assert [m is not None for m in masked] == [i == j for j in range(3)]
        tolerance.assert_same_bits(masked[i], full[i])


@pytest.mark.parametrize("row", runnable_kernels("conv", "product", "transpose"), ids=lambda row: row["name"])
def test_every_kernel(row, force_kernel):
    """Rows, columns and depths one below, at and above what the kernel, or a way through the product, takes."""
    rng = np.random.default_rng(4)
    edge = row["tile"][1]
    with force_kernel(row["name"]):
        for rows in (1, 2, 4, 5, 8, 9, 16, 17, 97):
            for c, k in ((edge - 1, edge), (2 * edge + 1, 3 * edge - 1), (321, edge + 1), (9, 130)):
                problem = Problem("", "linear", rows, max(c, 1), k=k)
                expected.check(expected.make_call(problem, np.dtype(row["dtype"]), rng), rng)


@pytest.mark.parametrize("features", [(40, 33), (700, 20), (64, 128)])
def test_bits_do_not_depend_on_the_rows_around(isa, features):
    """A row gives the same bits alone, among a few and among many, in memory of any order."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((150, features[0])).astype("f")
    w = rng.standard_normal((features[1], features[0])).astype("f")
    grad = rng.standard_normal((150, features[1])).astype("f")
    y, gx = F.linear(x, w), F.linear_backward(grad, x, w, output_mask=(True, False, False)).input
    for rows in (slice(1), slice(3, 5), slice(0, 17), slice(0, 150, 3), slice(20, 120)):
        for order in "CF":
            some, grads = np.asarray(x[rows], order=order), np.asarray(grad[rows], order=order)
            tolerance.assert_same_bits(F.linear(some, w), y[rows])
            result = F.linear_backward(grads, some, w, output_mask=(True, False, False)).input
            tolerance.assert_same_bits(result, gx[rows])
    image = x.reshape(10, 15, 1, features[0])
    weight = w[:, :, np.newaxis, np.newaxis]
    for view in (image, image[::2], image[:, ::3], image[:, ::-1]):
        result = F.conv2d(view, weight, data_format="channels_last")
        tolerance.assert_same_bits(result.reshape(-1, features[1]), F.linear(view.reshape(-1, features[0]), w))
