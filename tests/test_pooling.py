"""Pooling, forward and backward, against its definition and against PyTorch's corner cases."""

import fastconv.functional as F
import numpy as np
import problems
import pytest
import reference
import tolerance
from conftest import runnable_kernels
from fastconv._cli.problem import Problem
from hypothesis import given, settings
from hypothesis import strategies as st

POOLS = ("max_pool", "min_pool", "avg_pool")
both_formats = pytest.mark.parametrize("data_format", problems.FORMATS)
both_dtypes = pytest.mark.parametrize("dtype", problems.DTYPES)


def pool(axes, op="max_pool", n=2, c=5, size=9, kernel=3, stride=2, padding=1, dilation=1, ceil_mode=False):
    """A pooling problem with the same numbers on every axis."""

    def each(value):
        return (value,) * axes

    pads = padding if isinstance(padding, str) else each((padding, padding))
    return Problem("", op, n, c, each(size), 0, each(kernel), each(stride), pads, each(dilation), ceil_mode=ceil_mode)


def values(rng, shape, dtype, kind):
    """Normal values, many ties, or values with some infinities or NaNs among them."""
    x = rng.integers(-3, 4, shape) if kind == "ties" else rng.standard_normal(shape)
    x = x.astype(dtype)
    special = {"inf": np.inf, "-inf": -np.inf, "nan": np.nan}.get(kind)
    if special is not None:
        x[rng.random(shape) < 0.2] = special
    return x


def order_of(indices, rng):
    """Indices in another arrangement of memory."""
    return problems.as_view(indices, ("contiguous", "reversed", "transposed")[rng.integers(3)])


def check(problem, dtype, rng, data_format="channels_first", view="contiguous", kind="ties", **options):
    """Output, indices and gradient of one problem."""
    op, axes = problem.op, problem.spatial
    x = problems.as_view(
        problems.to_format(values(rng, (problem.n, problem.c, *problem.size), dtype, kind), data_format), view
    )
    first = np.array(problems.to_first(x, data_format))
    gradient = problems.normal(rng, (problem.n, problem.c, *problems.output_size_of(problem)), dtype)
    g = problems.as_view(problems.to_format(gradient, data_format), view)
    gradient = np.array(problems.to_first(g, data_format))
    forward, backward = getattr(F, f"{op}{axes}d"), getattr(F, f"{op}{axes}d_backward")
    keywords = {
        "stride": problem.stride,
        "padding": problem.padding,
        "dilation": problem.dilation,
        "ceil_mode": problem.ceil_mode,
        "data_format": data_format,
    }
    geometry = problems.geometry_of(problem) | {"ceil_mode": problem.ceil_mode}
    length = int(np.prod(problem.kernel)) + 1
    if op == "avg_pool":
        y = forward(x, problem.kernel, **keywords, **options)
        with np.errstate(invalid="ignore"):
            size = reference.avg_pool(np.abs(first), problem.kernel, **geometry, **options)
        wanted = reference.avg_pool(first, problem.kernel, **geometry, **options)
        tolerance.assert_close(problems.to_first(y, data_format), wanted, tolerance.sum_bound(dtype, length, size))
        result = backward(g, x.shape, problem.kernel, **keywords, **options)

        def definition(a):
            return reference.avg_pool_backward(a, first.shape, problem.kernel, **geometry, **options)
    else:
        wanted, places = getattr(reference, op)(first, problem.kernel, **geometry)
        y, indices = forward(x, problem.kernel, return_indices=True, **keywords)
        assert indices.dtype == np.int64
        np.testing.assert_array_equal(problems.to_first(y, data_format), wanted)
        np.testing.assert_array_equal(problems.to_first(indices, data_format), places)
        alone = forward(x, problem.kernel, **keywords)
        np.testing.assert_array_equal(problems.to_first(alone, data_format), wanted)
        result = backward(g, order_of(indices, rng), x.shape, data_format=data_format)

        def definition(a):
            return reference.pool_backward_from_indices(a, places, first.shape)

    assert y.dtype == dtype
    assert result.dtype == dtype
    bound = tolerance.sum_bound(dtype, length, definition(np.abs(gradient)))
    tolerance.assert_close(problems.to_first(result, data_format), definition(gradient), bound, "gradient")


@pytest.mark.parametrize("op", POOLS)
@both_dtypes
@settings(max_examples=100)
@given(data=st.data())
def test_random_problems(isa, op, dtype, data):
    """Any sizes, windows, pads, formats, views and values."""
    source = problems.Drawn(data)
    problem = problems.pool_problem(source, op=op)
    if not problems.usable(problem):
        return
    kinds = ("normal", "ties", "inf") if op == "avg_pool" else ("normal", "ties", "inf", "-inf", "nan")
    options = {}
    if op == "avg_pool":
        options["count_include_pad"] = bool(source.integer(0, 1))
        options["divisor_override"] = source.choice((None, None, 3))
    view, data_format = source.choice(problems.VIEWS), source.choice(problems.FORMATS)
    check(problem, dtype, source.rng, data_format, view, source.choice(kinds), **options)


@pytest.mark.parametrize("op", POOLS)
@both_formats
@both_dtypes
def test_sizes_around_the_registers(isa, op, data_format, dtype):
    """Channels and columns one below, at and above what a register holds, and several of them."""
    rng = np.random.default_rng(0)
    for edge in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65):
        for kernel, stride, padding in ((2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 3, 0), (4, 4, 0), (2, 5, 0)):
            wide = Problem(
                "", op, 1, 2, (4, edge + 4), 0, (2, kernel), (2, stride), ((0, 0), (padding, padding)), (1, 1)
            )
            check(wide, dtype, rng, data_format)
        check(pool(2, op, n=1, c=edge, size=5), dtype, rng, data_format)


@pytest.mark.parametrize("row", runnable_kernels("max_pool", "min_pool", "avg_pool"), ids=lambda row: row["name"])
def test_every_window_kernel(row, force_kernel):
    """Each row of the table, forced by name, on the memory order that it serves."""
    data_format = "channels_last" if "_lane_" in row["name"] else "channels_first"
    with force_kernel(row["name"]):
        for axes in (1, 2, 3):
            for c in (1, 7, 40):
                check(pool(axes, row["op"], c=c + 1), np.dtype(row["dtype"]), np.random.default_rng(c), data_format)


@pytest.mark.parametrize("row", runnable_kernels("avg_pool_backward"), ids=lambda row: row["name"])
def test_every_backward_kernel(row, force_kernel):
    """The same for the gradient of the mean, with divisors that differ and that do not."""
    data_format = "channels_last" if "_lane_" in row["name"] else "channels_first"
    with force_kernel(row["name"]):
        for stride, padding, dilation in ((1, 1, 1), (2, 1, 1), (3, 0, 1), (2, 2, 2), (5, 1, 1)):
            problem = pool(2, "avg_pool", c=9, size=19, stride=stride, padding=padding, dilation=dilation)
            for include in (True, False):
                rng = np.random.default_rng(stride)
                check(problem, np.dtype(row["dtype"]), rng, data_format, count_include_pad=include)


@pytest.mark.parametrize("row", runnable_kernels("global_avg_pool", "global_max_pool"), ids=lambda row: row["name"])
def test_every_global_kernel(row, force_kernel):
    """Rows of the global pools, on planes below and above a chunk."""
    data_format = "channels_last" if "_lane_" in row["name"] else "channels_first"
    with force_kernel(row["name"]):
        for shape in ((2, 9, 5), (3, 33, 7, 7), (2, 3, 3, 4, 5)):
            check_global(row["op"], shape, np.dtype(row["dtype"]), np.random.default_rng(0), data_format)


def check_global(op, shape, dtype, rng, data_format="channels_first", view="contiguous", kind="ties"):
    """Output, indices and gradient of a pool over whole images."""
    x = problems.as_view(problems.to_format(values(rng, shape, dtype, kind), data_format), view)
    first = np.array(problems.to_first(x, data_format))
    g = problems.as_view(problems.normal(rng, shape[:2], dtype), view)
    forward, backward = getattr(F, op), getattr(F, f"{op}_backward")
    if op == "global_avg_pool":
        y = forward(x, data_format=data_format)
        bound = tolerance.sum_bound(dtype, int(np.prod(shape[2:])), reference.global_avg_pool(np.abs(first)))
        tolerance.assert_close(y, reference.global_avg_pool(first), bound)
        result = problems.to_first(backward(g, x.shape, data_format=data_format), data_format)
        wanted = reference.global_avg_pool_backward(g, first.shape)
        tolerance.assert_close(result, wanted, tolerance.ulp_bound(dtype, wanted, 1))
        return
    wanted, places = reference.global_max_pool(first)
    y, indices = forward(x, return_indices=True, data_format=data_format)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(indices, places)
    np.testing.assert_array_equal(forward(x, data_format=data_format), wanted)
    result = backward(g, order_of(indices, rng), x.shape, data_format=data_format)
    wanted = reference.global_max_pool_backward(g, places, first.shape)
    np.testing.assert_array_equal(problems.to_first(result, data_format), wanted)


@pytest.mark.parametrize("op", ["global_avg_pool", "global_max_pool"])
@pytest.mark.parametrize("view", problems.VIEWS)
@both_formats
@both_dtypes
def test_global_pools(isa, op, view, data_format, dtype):
    """One to three axes, one sample and one channel, in every arrangement of memory."""
    rng = np.random.default_rng(1)
    for shape in ((2, 5, 9), (1, 1, 1), (2, 33, 7, 7), (3, 1, 4, 6), (2, 17, 2, 3, 5)):
        kinds = ("normal", "inf") if op == "global_avg_pool" else ("normal", "ties", "-inf", "nan")
        for kind in kinds:
            check_global(op, shape, dtype, rng, data_format, view, kind)


@both_formats
@both_dtypes
def test_global_pools_of_many_positions(isa, data_format, dtype):
    """Planes of several chunks: the mean keeps its precision, the first of equal maxima is found."""
    rng = np.random.default_rng(3)
    for shape in ((1, 2, 50_000), (2, 70, 30, 90)):
        first = rng.integers(0, 1000, shape).astype(dtype)
        x = problems.to_format(first, data_format)
        flat = first.reshape(*shape[:2], -1)
        y, indices = F.global_max_pool(x, return_indices=True, data_format=data_format)
        np.testing.assert_array_equal(y, flat.max(axis=2))
        np.testing.assert_array_equal(indices, flat.argmax(axis=2))
        mean = flat.astype("d").mean(axis=2)
        bound = tolerance.ulp_bound(dtype, mean, 4)
        tolerance.assert_close(F.global_avg_pool(x, data_format=data_format), mean, bound)


@pytest.mark.parametrize("op", POOLS)
@pytest.mark.parametrize("axes", [1, 2, 3])
@both_formats
def test_unbatched_and_empty(isa, op, axes, data_format):
    """``(C, *spatial)`` is one sample; no samples give empty results."""
    rng = np.random.default_rng(2)
    x = problems.to_format(problems.normal(rng, (2, 5, *(9,) * axes), np.float32), data_format)
    forward, backward = getattr(F, f"{op}{axes}d"), getattr(F, f"{op}{axes}d_backward")
    layout = {"data_format": data_format}
    y = forward(x, 3, 2, 1, **layout)
    tolerance.assert_same_bits(forward(x[1], 3, 2, 1, **layout), y[1], "unbatched")
    assert forward(x[:0], 3, 2, 1, **layout).shape == (0, *y.shape[1:])
    if op == "avg_pool":
        whole = backward(y, x.shape, 3, 2, 1, **layout)
        single = backward(y[1], x.shape[1:], 3, 2, 1, **layout)
        empty = backward(y[:0], (0, *x.shape[1:]), 3, 2, 1, **layout)
    else:
        y, indices = forward(x, 3, 2, 1, return_indices=True, **layout)
        whole = backward(y, indices, x.shape, **layout)
        single = backward(y[1], indices[1], x.shape[1:], **layout)
        empty = backward(y[:0], indices[:0], (0, *x.shape[1:]), **layout)
        one, where = forward(x[0], 3, 2, 1, return_indices=True, **layout)
        tolerance.assert_same_bits(one, y[0], "unbatched")
        tolerance.assert_same_bits(where, indices[0], "unbatched indices")
    tolerance.assert_same_bits(single, whole[1], "unbatched gradient")
    assert empty.shape == (0, *x.shape[1:])


def test_windows_in_padding(isa):
    """A window wholly in padding gives the identity and an index inside the input."""
    for data_format in problems.FORMATS:
        x = problems.to_format(np.arange(1, 13, dtype="f").reshape(1, 3, 4) * [[[1], [-1], [2]]], data_format)
        x = x.astype("f")
        pads = ((3, 4),)
        for op, identity in (("max_pool", -np.inf), ("min_pool", np.inf)):
            y, indices = getattr(F, f"{op}1d")(x, 2, 1, pads, return_indices=True, data_format=data_format)
            y, indices = problems.to_first(y, data_format), problems.to_first(indices, data_format)
            assert y.shape == (1, 3, 10)
            assert (y[..., [0, 1, 7, 8, 9]] == identity).all()
            assert np.isfinite(y[..., 2:7]).all()
            np.testing.assert_array_equal(indices[0, 0, [0, 1, 7, 8, 9]], [0, 0, 3, 3, 3])
        for include in (True, False):
            y = F.avg_pool1d(x, 2, 1, pads, count_include_pad=include, data_format=data_format)
            assert (problems.to_first(y, data_format)[..., [0, 1, 7, 8, 9]] == 0).all()
    # The first tap before the input, the second behind it.
    y, indices = F.max_pool1d(np.ones((1, 1, 1), "f"), 2, 1, ((1, 1),), dilation=2, return_indices=True)
    np.testing.assert_array_equal(y, [[[-np.inf]]])
    np.testing.assert_array_equal(indices, [[[0]]])


@both_formats
def test_very_long_windows(isa, data_format):
    """Windows that reach further than a scratch row, with few taps and with many."""
    rng = np.random.default_rng(4)
    for kernel, dilation, length in ((3, 200_000, 400_010), (2, 299_999, 300_005)):
        for op in POOLS:
            problem = Problem("", op, 1, 2, (length,), 0, (kernel,), (2,), ((0, 0),), (dilation,))
            check(problem, np.float32, rng, data_format, kind="normal")


@both_formats
def test_long_rows(isa, data_format):
    """Rows longer than one segment, at strides that split columns in every way."""
    rng = np.random.default_rng(5)
    for op in POOLS:
        for kernel, stride in ((3, 1), (2, 2), (3, 2), (4, 4), (5, 3), (2, 7)):
            check(pool(1, op, n=1, c=2, size=9001, kernel=kernel, stride=stride), np.float64, rng, data_format)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), (3, 2, 1), (3, 1, 1), (3, 3, 0), (4, 4, 0)])
def test_more_short_rows_than_one_strip(isa, kernel, stride, padding):
    """Rows are merged side by side: tasks of several strips, the last one cut short, and more than one item."""
    rng = np.random.default_rng(kernel * 7 + stride)
    for op in POOLS:
        for size in (7, 8, 12):
            p = pool(2, op, n=7, c=23, size=size, kernel=kernel, stride=stride, padding=padding)
            check(p, "float32", rng, kind="normal")


def test_equal_numbers_are_not_equal_arguments():
    """A window of ints is checked once and kept; True and 2.0 equal ints, and are refused all the same."""
    x = np.zeros((1, 1, 4, 4), np.float32)
    for good, bad in ((1, True), (2, 2.0), ((1, 2), (True, 2))):
        assert F.max_pool2d(x, good).shape[0] == 1
        with pytest.raises(TypeError, match="kernel_size"):
            F.max_pool2d(x, bad)
    F.max_pool2d(x, 2, ceil_mode=False)
    with pytest.raises(TypeError, match="ceil_mode"):
        F.max_pool2d(x, 2, ceil_mode=0)


def test_memory_order_is_kept():
    """The channels-first view of channels-last memory gives such a view, with the values of a copy's result."""
    x = np.random.default_rng(6).standard_normal((2, 8, 8, 16)).astype("f").transpose(0, 3, 1, 2)
    y = F.max_pool2d(x, 2)
    assert y.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(y, F.max_pool2d(np.ascontiguousarray(x), 2))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_ceil_mode_and_divisors_as_pytorch(isa, axes):
    """Every small size, window, stride, pad and way to divide, against PyTorch itself."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(8)
    sizes = (1, 2, 5, 8) if axes == 1 else (3, 6)
    for size in sizes:
        x = rng.standard_normal((1, 2, *(size,) * axes))
        t = torch.tensor(x)
        for kernel in (1, 2, 3):
            for stride in (1, 2, 3, 4):
                for padding in range(kernel // 2 + 1):
                    if size + 2 * padding < kernel:
                        continue
                    for ceil in (False, True):
                        case = f"size {size} kernel {kernel} stride {stride} padding {padding} ceil {ceil}"
                        theirs = getattr(torch.nn.functional, f"max_pool{axes}d")(
                            t, kernel, stride, padding, 1, ceil, return_indices=True
                        )
                        ours = getattr(F, f"max_pool{axes}d")(x, kernel, stride, padding, 1, ceil, return_indices=True)
                        for a, b in zip(ours, theirs, strict=True):
                            np.testing.assert_array_equal(a, b.numpy(), case)
                        for include in (True, False):
                            average = getattr(torch.nn.functional, f"avg_pool{axes}d")(
                                t, kernel, stride, padding, ceil, include
                            )
                            y = getattr(F, f"avg_pool{axes}d")(x, kernel, stride, padding, ceil, include)
                            np.testing.assert_allclose(y, average.numpy(), rtol=1e-13, atol=1e-15, err_msg=case)


@pytest.mark.parametrize("op", POOLS)
@both_formats
def test_gradients_by_differences(op, data_format):
    """Central differences of forward agree with backward."""
    rng = np.random.default_rng(9)
    shape = (2, 3, 6, 7) if data_format == "channels_first" else (2, 6, 7, 3)
    x = rng.permutation(252).reshape(shape).astype("d")  # no ties within a difference's reach
    forward, backward = getattr(F, f"{op}2d"), getattr(F, f"{op}2d_backward")
    step, layout = 1e-3, {"data_format": data_format}
    weight = rng.standard_normal(forward(x, 3, 2, 1, **layout).shape)
    if op == "avg_pool":
        gradient = backward(weight, x.shape, 3, 2, 1, **layout)
    else:
        gradient = backward(weight, forward(x, 3, 2, 1, return_indices=True, **layout)[1], x.shape, **layout)
    for at in rng.choice(x.size, 60, replace=False):
        moved = []
        for sign in (1, -1):
            z = x.copy()
            z.flat[at] += sign * step
            moved.append((forward(z, 3, 2, 1, **layout) * weight).sum())
        np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), gradient.flat[at], rtol=1e-6, atol=1e-6)


def test_torch_tensors():
    """A tensor in gives a tensor out, also of a channels-last tensor and of indices."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.randn(2, 8, 6, 6).to(memory_format=torch.channels_last)
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    wanted, places = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(y, wanted)
    assert torch.equal(indices, places)
    assert isinstance(F.max_pool2d_backward(y, indices, tuple(x.shape)), torch.Tensor)
    assert isinstance(F.max_pool2d_backward(y, indices, x.shape), torch.Tensor)


def test_padding_names(isa):
    """``"same"`` gives ``ceil(in / stride)`` windows, the odd pad at the end; ``"valid"`` pads nothing."""
    x = np.random.default_rng(10).standard_normal((1, 2, 7, 8)).astype("f")
    assert F.max_pool2d(x, 2, 3, "same").shape == (1, 2, 3, 3)
    np.testing.assert_array_equal(F.max_pool2d(x, 2, 1, "same"), F.max_pool2d(x, 2, 1, ((0, 1), (0, 1))))
    np.testing.assert_array_equal(F.avg_pool2d(x, 3, 2, "valid"), F.avg_pool2d(x, 3, 2))


def test_sizes_as_pytorch_takes_them():
    """A tuple of one int serves every axis, no stride is the window's size, and a divisor may be negative."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = np.random.default_rng(11).standard_normal((1, 2, 9, 9))
    t = torch.tensor(x, requires_grad=True)
    for arguments in (((3, 3), (1, 1), (1,), True, False, 2), ((2,), (), (0,), False, True, -2), ((4, 4), (2,), (2,))):
        wanted = torch.nn.functional.avg_pool2d(t, *arguments)
        y = F.avg_pool2d(x, *arguments)
        np.testing.assert_allclose(y, wanted.detach().numpy(), rtol=1e-13, atol=1e-15)
        (gradient,) = torch.autograd.grad(wanted, t, torch.tensor(y))
        np.testing.assert_allclose(F.avg_pool2d_backward(y, x.shape, *arguments), gradient.numpy(), rtol=1e-12)
    with pytest.raises(ValueError, match="no channels"):
        F.max_pool2d(x[:, :0], 2)


def test_float64_keeps_subnormals(isa):
    """Only float32 arithmetic may flush subnormal numbers."""
    x, grad = np.full((1, 2, 8, 8), 2.0**-1030), np.full((1, 2, 4, 4), 2.0**-1030)
    np.testing.assert_array_equal(F.avg_pool2d(x, 2), 2.0**-1030)
    np.testing.assert_array_equal(F.global_avg_pool(x), 2.0**-1030)
    np.testing.assert_array_equal(F.adaptive_avg_pool2d(x, 3), 2.0**-1030)
    np.testing.assert_array_equal(F.avg_pool2d_backward(grad, x.shape, 2), 2.0**-1032)
    np.testing.assert_array_equal(F.adaptive_avg_pool2d_backward(grad, x.shape), 2.0**-1032)
