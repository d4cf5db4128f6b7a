"""Adaptive pooling, forward and backward, against its definition and PyTorch."""

import fastconv.functional as F
import numpy as np
import problems
import pytest
import reference
import reference_pools
import tolerance
from conftest import runnable_kernels
from fastconv._cli.problem import ADAPTIVE_POOLS, Problem
from fastconv.testing import gradcheck
from hypothesis import given, settings
from hypothesis import strategies as st

both_formats = pytest.mark.parametrize("data_format", problems.FORMATS)
both_dtypes = pytest.mark.parametrize("dtype", problems.DTYPES)


def values(rng, shape, dtype, kind):
    """Normal values, many ties, or values with many infinities or NaNs among them."""
    x = (rng.integers(-3, 4, shape) if kind == "ties" else rng.standard_normal(shape)).astype(dtype)
    special = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}.get(kind)
    if special is not None:
        x[rng.random(shape) < 0.4] = special
    return x


def check(problem, dtype, rng, data_format="channels_first", view="contiguous", kind="ties"):
    """Output, indices and gradient of one problem."""
    op, axes = problem.op, problem.spatial
    x = values(rng, problem.x_shape, dtype, kind)
    x = problems.as_view(problems.to_format(x, data_format), view)
    first = np.array(problems.to_first(x, data_format))
    g = problems.normal(rng, (problem.n, problem.c, *problem.output), dtype)
    g = problems.as_view(problems.to_format(g, data_format), view)
    gradient = np.array(problems.to_first(g, data_format))
    forward, backward = getattr(F, f"{op}{axes}d"), getattr(F, f"{op}{axes}d_backward")
    layout = {"data_format": data_format}
    if op == "adaptive_avg_pool":
        y = forward(x, problem.output, **layout)
        wanted = reference_pools.adaptive_avg_pool(first, problem.output)
        length = int(np.prod([-(-s // o) + 1 for s, o in zip(problem.size, problem.output, strict=True)]))
        with np.errstate(invalid="ignore"):
            size = reference_pools.adaptive_avg_pool(np.abs(first), problem.output)
        bound = tolerance.sum_bound(dtype, length + 1, size)
        tolerance.assert_close(problems.to_first(y, data_format), wanted, bound)
        result = backward(g, x.shape, **layout)

        def definition(a):
            return reference_pools.adaptive_avg_pool_backward(a, first.shape)
    else:
        wanted, places = reference_pools.adaptive_max_pool(first, problem.output)
        y, indices = forward(x, problem.output, True, **layout)
        assert indices.dtype == np.int64
        np.testing.assert_array_equal(problems.to_first(y, data_format), wanted)
        np.testing.assert_array_equal(problems.to_first(indices, data_format), places)
        np.testing.assert_array_equal(forward(x, problem.output, **layout), y)
        result = backward(g, indices, x.shape, **layout)

        def definition(a):
            return reference.pool_backward_from_indices(a, places, first.shape)

    assert y.dtype == result.dtype == dtype
    assert result.shape == x.shape
    shared = int(np.prod([-(-o // s) + 1 for s, o in zip(problem.size, problem.output, strict=True)]))
    bound = tolerance.sum_bound(dtype, shared + 2, definition(np.abs(gradient)))
    tolerance.assert_close(problems.to_first(result, data_format), definition(gradient), bound, "gradient")


@pytest.mark.parametrize("op", ADAPTIVE_POOLS)
@both_dtypes
@settings(max_examples=40)
@given(data=st.data())
def test_random_problems(isa, op, dtype, data):
    """Any sizes in and out, formats, views and values."""
    source = problems.Drawn(data)
    problem = problems.adaptive_problem(source, op)
    kinds = ("normal", "ties", "inf") if op == "adaptive_avg_pool" else ("normal", "ties", "inf", "-inf", "nan")
    view, data_format = source.choice(problems.VIEWS), source.choice(problems.FORMATS)
    check(problem, dtype, source.rng, data_format, view, source.choice(kinds))


@pytest.mark.parametrize(
    "row",
    runnable_kernels("adaptive_avg_pool", "adaptive_max_pool", "adaptive_avg_pool_backward"),
    ids=lambda row: row["name"],
)
def test_every_kernel(row, force_kernel):
    """Each row of the table, forced by name, at channels and columns around the registers' sizes."""
    data_format = "channels_last" if "_lane_" in row["name"] else "channels_first"
    op = row["op"].removesuffix("_backward")
    kinds = ("ties",) if op == "adaptive_avg_pool" else ("ties", "nan", "-inf")
    with force_kernel(row["name"]):
        for edge in (1, 3, 4, 5, 7, 8, 9, 15, 17, 33, 65):
            for kind in kinds:
                rng = np.random.default_rng(edge)
                for size, output in (((7, edge + 1), (5, edge)), ((3, 9), (4, 7))):
                    problem = Problem("", op, 2, edge + 1, size, output=output)
                    check(problem, np.dtype(row["dtype"]), rng, data_format, kind=kind)


@pytest.mark.parametrize("op", ADAPTIVE_POOLS)
@both_formats
def test_long_rows(isa, op, data_format):
    """Rows of several segments, bins longer than a segment or than a scratch row, and more outputs than inputs."""
    rng = np.random.default_rng(3)
    for size, output in ((4501, 2003), (9001, 2), (4500, 4499), (700_001, 2), (5, 4501)):
        check(Problem("", op, 1, 2, (size,), output=(output,)), np.float32, rng, data_format)


@pytest.mark.parametrize("axes", [1, 2, 3])
@both_formats
def test_as_pytorch(isa, axes, data_format):
    """Ints, tuples and ``None``, larger and smaller outputs, NaNs and infinities, against PyTorch itself."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(4)
    for output in (1, 2, 3, 5, 12, (4,) * axes, (None,) * axes):
        for kind in ("normal", "ties", "nan", "-inf"):
            first = values(rng, (2, 9, 7, 10, 8)[: axes + 2], np.float64, kind)
            x = problems.to_format(first, data_format)
            size = (first.shape[2] if output[0] is None else output[0]) if axes == 1 and output == (None,) else output
            theirs = getattr(torch.nn.functional, f"adaptive_max_pool{axes}d")
            wanted, places = theirs(torch.tensor(first), size, return_indices=True)
            y, indices = getattr(F, f"adaptive_max_pool{axes}d")(x, output, True, data_format=data_format)
            np.testing.assert_array_equal(problems.to_first(y, data_format), wanted.numpy())
            np.testing.assert_array_equal(problems.to_first(indices, data_format), places.numpy())
            wanted = getattr(torch.nn.functional, f"adaptive_avg_pool{axes}d")(torch.tensor(first), size)
            y = getattr(F, f"adaptive_avg_pool{axes}d")(x, output, data_format=data_format)
            np.testing.assert_allclose(problems.to_first(y, data_format), wanted.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("axes", [1, 2, 3])
@both_formats
def test_gradients_by_differences(axes, data_format):
    """Central differences agree with backward."""
    rng = np.random.default_rng(6)
    shape = (2, 2, *(5, 4, 3)[:axes])
    x = problems.to_format(rng.permutation(int(np.prod(shape))).reshape(shape) * 0.1, data_format)
    layout = {"data_format": data_format}
    for output in (3, 2, 7):
        for op in ADAPTIVE_POOLS:
            forward, back = getattr(F, f"{op}{axes}d"), getattr(F, f"{op}{axes}d_backward")

            def mean(a, forward=forward, back=back, output=output):
                return forward(a, output, **layout), lambda g: back(g, a.shape, **layout)

            def maximum(a, forward=forward, back=back, output=output):
                y, indices = forward(a, output, True, **layout)
                return y, lambda g: back(g, indices, a.shape, **layout)

            assert gradcheck(mean if op == "adaptive_avg_pool" else maximum, x)


@pytest.mark.parametrize("axes", [1, 2, 3])
@both_formats
def test_unbatched_and_empty(isa, axes, data_format):
    """``(C, *spatial)`` is one sample; no samples give empty results."""
    x = problems.to_format(np.random.default_rng(2).standard_normal((2, 5, *(9,) * axes)), data_format)
    layout = {"data_format": data_format}
    forward, backward = getattr(F, f"adaptive_avg_pool{axes}d"), getattr(F, f"adaptive_avg_pool{axes}d_backward")
    for output in (1, 3, 4):
        y = forward(x, output, **layout)
        tolerance.assert_same_bits(forward(x[1], output, **layout), y[1], "unbatched")
        assert forward(x[:0], output, **layout).shape == (0, *y.shape[1:])
        whole = backward(y, x.shape, **layout)
        tolerance.assert_same_bits(backward(y[1], x.shape[1:], **layout), whole[1], "unbatched gradient")
        assert backward(y[:0], (0, *x.shape[1:]), **layout).shape == (0, *x.shape[1:])
        y, indices = getattr(F, f"adaptive_max_pool{axes}d")(x, output, True, **layout)
        one, places = getattr(F, f"adaptive_max_pool{axes}d")(x[1], output, True, **layout)
        tolerance.assert_same_bits(one, y[1])
        tolerance.assert_same_bits(places, indices[1])


def test_equal_bins_are_the_windows_of_a_pool(isa):
    """Bins of one size give the bits of a pool with that window, one bin those of the global pool."""
    x = np.random.default_rng(7).standard_normal((2, 9, 12, 15)).astype("f")
    for view in (x, x.transpose(0, 1, 3, 2)):
        kernel = (view.shape[2] // 3, view.shape[3] // 3)
        tolerance.assert_same_bits(F.adaptive_avg_pool2d(view, 3), F.avg_pool2d(view, kernel))
        tolerance.assert_same_bits(F.adaptive_avg_pool2d(view, 1)[..., 0, 0], F.global_avg_pool(view))
        for a, b in zip(
            F.adaptive_max_pool2d(view, 3, True), F.max_pool2d(view, kernel, return_indices=True), strict=True
        ):
            tolerance.assert_same_bits(a, b)
