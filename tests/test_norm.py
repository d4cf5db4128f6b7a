"""Batch norm against its definition."""

import fastconv.functional as F
import numpy as np
import problems
import pytest
import reference_norms
import tolerance
from conftest import runnable_kernels
from fastconv.testing import gradcheck
from hypothesis import given, settings
from hypothesis import strategies as st

# Around register widths, one block of rows or a plane's block, and wide enough for several groups of columns.
CHANNELS = (1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 64, 65, 255, 256, 513)
POSITIONS = (1, 2, 3, 49, 63, 64, 65, 130, 4095, 4097, 16385)
both_dtypes = pytest.mark.parametrize("dtype", problems.DTYPES)


def make(rng, shape, dtype, offset=0.0):
    """``(x, grad_output, weight, bias, running_mean, running_var)``, channels first."""
    c = shape[1]
    x, g = (rng.standard_normal(shape) + offset).astype(dtype), rng.standard_normal(shape).astype(dtype)
    weight, bias, mean = (rng.standard_normal(c).astype(dtype) for _ in range(3))
    return x, g, weight, bias, mean, rng.uniform(0.5, 2, c).astype(dtype)


def check(rng, shape, dtype, training, data_format="channels_first", view="contiguous", offset=0.0):
    """Forward, statistics, running statistics and gradients of one problem against the definition."""
    x, g, weight, bias, mean, var = make(rng, shape, dtype, offset)
    given_x, given_g = x, g
    if len(shape) > 2:
        given_x, given_g = problems.to_format(x, data_format), problems.to_format(g, data_format)
    given_x, given_g = problems.as_view(given_x, view), problems.as_view(given_g, view)
    new_mean, new_var = mean.copy(), var.copy()
    y, used_mean, invstd = F.batch_norm(
        given_x, new_mean, new_var, weight, bias, training, 0.2, return_stats=True, data_format=data_format
    )
    wanted = reference_norms.batch_norm(x, mean, var, weight, bias, training, 0.2)

    def first(array):
        return problems.to_first(array, data_format) if len(shape) > 2 else array

    # Statistics are within a rounding of the dtype; y then errs by a few roundings of its terms.
    u = tolerance.unit_roundoff(dtype)
    count = x.size // shape[1]
    spread = np.sqrt(reference_norms.batch_statistics(x)[1] + 1e-5).min() if training else 1.0
    size = 1 + np.abs(x).max() / spread
    for name, actual, expected, scale in (
        ("mean", used_mean, wanted[1], size),
        ("invstd", invstd, wanted[2], np.abs(wanted[2]).max()),
        ("running_mean", new_mean, wanted[3], size),
        ("running_var", new_var, wanted[4], np.abs(wanted[4]).max()),
        ("y", first(y), wanted[0], size * (1 + np.abs(wanted[0]).max())),
    ):
        # The definition, in float64 too, has the mean's error in what it says of the variance.
        bound = (8 * u + 64 * tolerance.unit_roundoff(np.float64) * size) * np.asarray(scale)
        tolerance.assert_close(actual, expected, bound, f"{name} of {shape} {data_format} {view}")
    assert y.dtype == used_mean.dtype == invstd.dtype == dtype
    gradients = F.batch_norm_backward(given_g, given_x, used_mean, invstd, weight, training, data_format=data_format)
    # From the statistics that the call was given, rounded as they are.
    expected = reference_norms.batch_norm_backward(
        g, x, reference_norms.f64(used_mean), reference_norms.f64(invstd), weight, training
    )
    assert gradients._fields == ("input", "weight", "bias")
    magnitude = (1 + np.abs(g).max()) * (1 + np.abs(weight).max()) * (1 + np.abs(expected[0]).max()) * size
    bounds = (
        tolerance.sum_bound(dtype, 8, magnitude * (1 + np.abs(invstd).max())),
        tolerance.sum_bound(dtype, 4, count**0.5 * magnitude * 4),
        tolerance.sum_bound(dtype, 4, count**0.5 * magnitude),
    )
    for name, actual, wanted_gradient, bound in zip(gradients._fields, gradients, expected, bounds, strict=True):
        actual = first(actual) if name == "input" else actual
        tolerance.assert_close(actual, wanted_gradient, bound, f"gradient of {name}, {shape} {data_format} {view}")


@both_dtypes
@settings(max_examples=150)
@given(data=st.data())
def test_random_problems(isa, dtype, data):
    """Any rank, format, view and number of channels."""
    source = problems.Drawn(data)
    problem = problems.channel_problem(source, "batch_norm", source.integer(0, 3))
    shape = (problem.n, source.choice(CHANNELS), *problem.size)
    training, offset = bool(source.integer(0, 1)), source.choice((0.0, 3.0, -50.0))
    view = source.choice([v for v in problems.VIEWS if v != "broadcast"])
    check(source.rng, shape, dtype, training, source.choice(problems.FORMATS), view, offset)


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_block_edges(isa, positions, data_format):
    """Around the sizes at which planes and rows are cut."""
    for channels in (1, 3, 16, 17):
        check(np.random.default_rng(positions), (3, channels, positions), np.float32, True, data_format)


@pytest.mark.parametrize("row", runnable_kernels("batch_norm"), ids=lambda row: row["name"])
def test_every_kernel(row, force_kernel):
    """Each row of the table, in both layouts."""
    with force_kernel(row["name"]):
        for data_format in problems.FORMATS:
            for shape in ((4, 19, 7, 9), (2, 64, 70), (33, 300)):
                for training in (True, False):
                    check(np.random.default_rng(1), shape, np.dtype(row["dtype"]).type, training, data_format)


def test_no_cancellation(isa):
    """A mean a million times the deviation, and an outlier as the first value, do not spoil the variance."""
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((16, 4, 31, 33)) * 1e-3 + 1e3).astype("f")
    x[:, 3] = rng.standard_normal((16, 31, 33)) * 1e-2
    x[0, 3, 0, 0] = 1e4
    mean, var = reference_norms.batch_statistics(x)
    for data_format in problems.FORMATS:
        own = problems.to_format(x, data_format)
        _, m, invstd = F.batch_norm(
            own, None, None, training=True, eps=1e-30, return_stats=True, data_format=data_format
        )
        np.testing.assert_allclose(m, mean, rtol=3e-7)
        np.testing.assert_allclose(invstd, 1 / np.sqrt(var), rtol=3e-7)


@pytest.mark.parametrize("training", [True, False])
def test_memory_order_is_kept(isa, training):
    """Channels-last memory stays so, whatever the data format says, and does not change the values."""
    x = np.random.default_rng(3).standard_normal((2, 5, 4, 6)).astype("f")
    mean, var = np.zeros(5, "f"), np.ones(5, "f")
    last_memory = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    y = F.batch_norm(last_memory, mean, var, training=training)
    assert np.moveaxis(y, 1, -1).flags.c_contiguous
    np.testing.assert_allclose(y, F.batch_norm(x, mean, var, training=training), rtol=1e-5, atol=1e-5)
    first_memory = np.moveaxis(x, 1, -1)
    y = F.batch_norm(first_memory, mean, var, training=training, data_format="channels_last")
    assert np.moveaxis(y, -1, 1).flags.c_contiguous


@pytest.mark.parametrize("shape", [(6, 300, 5, 5), (37, 20), (2, 3, 5000), (3, 2, 20, 20, 20)])
@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_threads_do_not_change_bits(isa, shape, data_format, threads):
    """Few channels or few samples, one thread or four."""
    rng = np.random.default_rng(4)
    x, g = (rng.standard_normal(shape).astype("f") for _ in range(2))
    if len(shape) > 2:
        x, g = problems.to_format(x, data_format), problems.to_format(g, data_format)
    results = []
    for count in (1, 4, 2):
        threads(count)
        y, mean, invstd = F.batch_norm(x, None, None, training=True, return_stats=True, data_format=data_format)
        results.append((y, mean, invstd, *F.batch_norm_backward(g, x, mean, invstd, data_format=data_format)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            tolerance.assert_same_bits(a, b)


def test_empty_and_tiny(isa):
    """No samples give nothing and leave the running arrays; one value a channel has no variance."""
    mean, var = np.zeros(3, "f"), np.ones(3, "f")
    for training in (True, False):
        y = F.batch_norm(np.ones((0, 3, 4), "f"), mean, var, training=training)
        assert y.shape == (0, 3, 4)
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_array_equal(var, 1)
    g = F.batch_norm_backward(np.ones((0, 3, 4), "f"), np.ones((0, 3, 4), "f"), mean, var)
    assert g.input.shape == (0, 3, 4)
    np.testing.assert_array_equal(g.weight, 0)
    with pytest.raises(ValueError, match=r"more than 1 value per channel.*\(1, 3, 1\)"):
        F.batch_norm(np.ones((1, 3, 1), "f"), mean, var, training=True)


def test_not_finite_values(isa):
    """A NaN or infinity spoils its own channel in training, its own value otherwise."""
    for value in (np.nan, np.inf):
        x = np.random.default_rng(5).standard_normal((3, 4, 70)).astype("f")
        x[1, 2, 69] = value
        mean, var = np.zeros(4, "f"), np.ones(4, "f")
        y = F.batch_norm(x, mean.copy(), var.copy(), training=True)
        assert np.isnan(y[:, 2]).all()
        assert np.isfinite(np.delete(y, 2, 1)).all()
        y = F.batch_norm(x, mean, var)
        assert np.isfinite(y).sum() == y.size - 1


def test_running_arrays_of_any_strides():
    """They are updated in place wherever they lie; read-only ones are refused."""
    room = np.zeros((4, 2), "f")
    x = np.random.default_rng(6).standard_normal((8, 4)).astype("f")
    mean, var = room[:, 0], np.ones(8, "f")[::-2]
    F.batch_norm(x, mean, var, training=True, momentum=1.0)
    np.testing.assert_allclose(room[:, 0], x.mean(0), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(var, x.var(0, ddof=1), rtol=1e-5)
    np.testing.assert_array_equal(room[:, 1], 0)
    var.flags.writeable = False
    with pytest.raises(ValueError, match="running_var"):
        F.batch_norm(x, mean, var, training=True)


@pytest.mark.parametrize("training", [True, False])
def test_gradcheck(isa, training):
    """The gradients are what central differences of the output say."""
    rng = np.random.default_rng(7)
    arrays = rng.standard_normal((4, 3, 5)), rng.uniform(0.5, 1.5, 3), rng.standard_normal(3)
    mean, var = rng.standard_normal(3), rng.uniform(0.5, 2, 3)

    def function(x, weight, bias):
        y, m, s = F.batch_norm(x, mean.copy(), var.copy(), weight, bias, training, return_stats=True)
        return y, lambda grad: F.batch_norm_backward(grad, x, m, s, weight, training)

    assert gradcheck(function, arrays)


def test_output_mask(isa):
    """A masked gradient is ``None`` and leaves the others as they are."""
    x, g, weight, _, mean, invstd = make(np.random.default_rng(8), (5, 6, 7), np.float32)
    full = F.batch_norm_backward(g, x, mean, invstd, weight)
    for i in range(3):
        masked = F.batch_norm_backward(g, x, mean, invstd, weight, output_mask=tuple(i == j for j in range(3)))
        assert [m is not None for m in masked] == [i == j for j in range(3)]
        tolerance.assert_same_bits(masked[i], full[i])
