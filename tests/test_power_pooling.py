"""Root-mean-square and p-norm pooling, forward and backward, against their definitions and PyTorch's corner cases."""

import fastconv.functional as F
import numpy as np
import problems
import pytest
import reference_pools
import tolerance
from conftest import runnable_kernels
from fastconv._cli.problem import Problem
from fastconv.testing import gradcheck
from hypothesis import given, settings
from hypothesis import strategies as st

POOLS = ("rms_pool", "lp_pool")
both_formats = pytest.mark.parametrize("data_format", problems.FORMATS)
both_dtypes = pytest.mark.parametrize("dtype", problems.DTYPES)


def pool(axes, op, n=2, c=5, size=9, kernel=3, stride=2, padding=1, dilation=1, norm=2.0):
    """A pooling problem with the same numbers on every axis."""
    sizes = [(value,) * axes for value in (size, kernel, stride, dilation)]
    pads = ((padding, padding),) * axes
    return Problem("", op, n, c, sizes[0], 0, sizes[1], sizes[2], pads, sizes[3], norm=norm)


def check(problem, dtype, rng, data_format="channels_first", view="contiguous"):
    """Output and gradient of one problem."""
    op, axes, p = problem.op, problem.spatial, problem.norm
    first = (np.abs(rng.standard_normal((problem.n, problem.c, *problem.size))) + 0.01).astype(dtype)
    if p % 2 == 0:
        first *= rng.choice((-1, 1), first.shape).astype(dtype)
        first[rng.random(first.shape) < 0.3] = 0  # some windows have nothing but zeros
    x = problems.as_view(problems.to_format(first, data_format), view)
    first = np.array(problems.to_first(x, data_format))
    forward, backward = getattr(F, f"{op}{axes}d"), getattr(F, f"{op}{axes}d_backward")
    norm = (p,) if op == "lp_pool" else ()
    keywords = {
        "stride": problem.stride,
        "padding": problem.padding,
        "dilation": problem.dilation,
        "ceil_mode": problem.ceil_mode,
        "data_format": data_format,
    }
    geometry = problems.geometry_of(problem) | {"ceil_mode": problem.ceil_mode}
    y = forward(x, *norm, problem.kernel, **keywords)
    wanted = getattr(reference_pools, op)(first, *norm, problem.kernel, **geometry)
    # A power or a root multiplies the relative error of its argument by the exponent.
    taps = int(np.prod(problem.kernel))
    errors = (tolerance.growth(taps) + p) / min(p, 1) + 4
    tolerance.assert_close(problems.to_first(y, data_format), wanted, tolerance.ulp_bound(dtype, wanted, errors), "y")
    g = problems.as_view(problems.to_format(problems.normal(rng, wanted.shape, dtype), data_format), view)
    result = backward(g, x, problems.as_view(y, view) if view != "broadcast" else y, *norm, problem.kernel, **keywords)
    gradient = np.array(problems.to_first(g, data_format))
    definition = getattr(reference_pools, f"{op}_backward")
    expected = definition(gradient, first, wanted, *norm, problem.kernel, **geometry)
    size = definition(np.abs(gradient), np.abs(first), wanted, *norm, problem.kernel, **geometry)
    bound = tolerance.ulp_bound(dtype, size, tolerance.growth(taps) + (1 + abs(p - 1)) * errors + p)
    assert y.dtype == result.dtype == dtype
    assert result.shape == x.shape
    tolerance.assert_close(problems.to_first(result, data_format), expected, bound, "gradient")


@pytest.mark.parametrize("op", POOLS)
@both_dtypes
@settings(max_examples=40)
@given(data=st.data())
def test_random_problems(isa, op, dtype, data):
    """Any sizes, windows, pads, powers, formats and views."""
    source = problems.Drawn(data)
    problem = problems.pool_problem(source, op=op)
    if problems.usable(problem):
        check(problem, dtype, source.rng, source.choice(problems.FORMATS), source.choice(problems.VIEWS))


@pytest.mark.parametrize("op", POOLS)
@both_formats
@both_dtypes
def test_sizes_around_the_registers(isa, op, data_format, dtype):
    """Channels and columns one below, at and above what a register holds, and several of them."""
    rng = np.random.default_rng(0)
    for edge in (1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65):
        for kernel, stride, padding in ((2, 2, 0), (3, 2, 1), (3, 1, 1)):
            pads = ((0, 0), (padding, padding))
            wide = Problem("", op, 1, 2, (4, edge + 4), 0, (2, kernel), (2, stride), pads, (1, 1))
            check(wide, dtype, rng, data_format)
        check(pool(2, op, n=1, c=edge, size=5), dtype, rng, data_format)


@pytest.mark.parametrize(
    "row",
    runnable_kernels("square_pool", "power_pool", "square_pool_backward", "power_pool_backward"),
    ids=lambda row: row["name"],
)
def test_every_kernel(row, force_kernel):
    """Each row of the table, forced by name, on the memory order that it serves."""
    data_format = "channels_last" if "_lane_" in row["name"] else "channels_first"
    norms = (2.0,) if row["op"].startswith("square") else (1.0, 3.0, 8.0, 0.5, 2.5)
    with force_kernel(row["name"]):
        for axes in (1, 2, 3):
            for norm in norms:
                problem = pool(axes, "lp_pool", c=20, norm=norm)
                check(problem, np.dtype(row["dtype"]), np.random.default_rng(axes), data_format)


@both_formats
def test_very_long_windows(isa, data_format):
    """Windows that reach further than a scratch row."""
    rng = np.random.default_rng(4)
    for op in POOLS:
        problem = Problem("", op, 1, 2, (400_010,), 0, (3,), (2,), ((0, 0),), (200_000,))
        check(problem, np.float32, rng, data_format)


@pytest.mark.parametrize("axes", [1, 2, 3])
@both_dtypes
def test_norms_as_pytorch(isa, axes, dtype):
    """Every kind of power, negative sums without a root, and partial windows, which PyTorch scales up."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2, 3, *(7,) * axes)).astype(dtype)
    theirs, ours = getattr(torch.nn.functional, f"lp_pool{axes}d"), getattr(F, f"lp_pool{axes}d")
    backward = getattr(F, f"lp_pool{axes}d_backward")
    for norm in (1, 2, 3, 4, 7, 12, 0.5, 1.5, -2, np.inf, -np.inf):
        for kernel, stride, ceil in ((2, None, False), (3, 2, True), (3, 1, False), (2, 2, True)):
            for values in (x, np.abs(x) + dtype(0.1), np.zeros_like(x)):
                t = torch.tensor(values, requires_grad=True)
                expected = theirs(t, norm, kernel, stride, ceil)
                y = ours(values, norm, kernel, stride, ceil)
                case = f"norm {norm} kernel {kernel} stride {stride} ceil {ceil}"
                room = np.finfo(dtype).eps * 200
                if values is x and norm % 2 == 1:  # sums cancel: only which of them have no root is sure
                    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected.detach().numpy()), err_msg=case)
                    continue
                np.testing.assert_allclose(y, expected.detach().numpy(), rtol=room, err_msg=case)
                g = rng.standard_normal(y.shape).astype(dtype)
                expected.backward(torch.tensor(g))
                result = backward(g, values, y, norm, kernel, stride, ceil)
                np.testing.assert_allclose(result, t.grad.numpy(), rtol=room * 20, atol=room * 20, err_msg=case)


def test_windows_in_padding(isa):
    """The norm of nothing is zero, and so is its gradient."""
    x = np.arange(1, 5, dtype="f").reshape(1, 1, 4)
    for norm in (1, 2, 2.5, np.inf):
        y = F.lp_pool1d(x, norm, 2, 1, padding=((3, 3),))
        np.testing.assert_array_equal(y[0, 0, [0, 1, 7, 8]], 0)
        g = F.lp_pool1d_backward(np.ones_like(y), x, y, norm, 2, 1, padding=((3, 3),))
        assert np.isfinite(g).all()
    y = F.rms_pool1d(x, 2, 1, ((2, 0),))
    np.testing.assert_allclose(y[0, 0, :2], [0, np.sqrt(0.5)], rtol=1e-6)


@pytest.mark.parametrize("axes", [1, 2, 3])
@both_formats
def test_gradients_by_differences(axes, data_format):
    """Central differences agree with backward, for even, odd and broken powers."""
    rng = np.random.default_rng(6)
    x = problems.to_format(rng.uniform(0.5, 2, (2, 2, *(5,) * axes)), data_format)
    layout = {"padding": 1, "data_format": data_format}
    for norm in (1, 2, 3, 1.5):
        forward, back = getattr(F, f"lp_pool{axes}d"), getattr(F, f"lp_pool{axes}d_backward")

        def lp(a, norm=norm, forward=forward, back=back):
            y = forward(a, norm, 3, 2, **layout)
            return y, lambda g: back(g, a, y, norm, 3, 2, **layout)

        assert gradcheck(lp, x)
    forward, back = getattr(F, f"rms_pool{axes}d"), getattr(F, f"rms_pool{axes}d_backward")

    def rms(a):
        y = forward(a, 3, 2, **layout)
        return y, lambda g: back(g, a, y, 3, 2, **layout)

    assert gradcheck(rms, x - 1.2)


@pytest.mark.parametrize("op", POOLS)
@pytest.mark.parametrize("axes", [1, 2, 3])
@both_formats
def test_unbatched_and_empty(isa, op, axes, data_format):
    """``(C, *spatial)`` is one sample; no samples give empty results."""
    rng = np.random.default_rng(2)
    x = problems.to_format(problems.normal(rng, (2, 5, *(9,) * axes), np.float32), data_format)
    norm = (4,) if op == "lp_pool" else ()
    forward, backward = getattr(F, f"{op}{axes}d"), getattr(F, f"{op}{axes}d_backward")
    y = forward(x, *norm, 3, 2, data_format=data_format)
    tolerance.assert_same_bits(forward(x[1], *norm, 3, 2, data_format=data_format), y[1], "unbatched")
    assert forward(x[:0], *norm, 3, 2, data_format=data_format).shape == (0, *y.shape[1:])
    whole = backward(y, x, y, *norm, 3, 2, data_format=data_format)
    single = backward(y[1], x[1], y[1], *norm, 3, 2, data_format=data_format)
    tolerance.assert_same_bits(single, whole[1], "unbatched gradient")
    assert backward(y[:0], x[:0], y[:0], *norm, 3, 2, data_format=data_format).shape == (0, *x.shape[1:])


def test_torch_tensors():
    """A tensor in gives a tensor out."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.randn(2, 8, 6, 6)
    y = F.lp_pool2d(x, 2, 2)
    assert torch.allclose(y, torch.nn.functional.lp_pool2d(x, 2, 2))
    assert isinstance(F.lp_pool2d_backward(y, x, y, 2, 2), torch.Tensor)
    assert isinstance(F.rms_pool2d(x, 2), torch.Tensor)
