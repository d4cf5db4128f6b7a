"""Layer, group, instance and switchable norm against their definitions and against PyTorch."""

import itertools

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
from test_norm import CHANNELS, POSITIONS

both_dtypes = pytest.mark.parametrize("dtype", problems.DTYPES)
both_formats = pytest.mark.parametrize("data_format", problems.FORMATS)
PER_SAMPLE = ("layer_norm", "group_norm", "instance_norm")


def draw(rng, shape, dtype, offset=0.0):
    """``(x, grad_output)``."""
    return (rng.standard_normal(shape) + offset).astype(dtype), rng.standard_normal(shape).astype(dtype)


def affine(rng, shape, dtype):
    """``(weight, bias)``."""
    return rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)


def compare(dtype, x, g, sets, results, expected, what):
    """Output, statistics and gradients; ``sets`` is ``x`` with the values of one statistic along the last axis."""
    u, u64 = tolerance.unit_roundoff(dtype), tolerance.unit_roundoff(np.float64)
    spread = np.sqrt(sets.astype("d").var(axis=-1) + 1e-5).min(initial=np.inf)
    size = 1 + np.abs(x).max(initial=0.0) / spread
    names = ("y", "mean", "invstd", "gradient of input", "gradient of weight", "gradient of bias")
    for name, actual, wanted in zip(names, results, expected, strict=True):
        assert actual.dtype == dtype, what
        scale = size * (1 + np.abs(wanted).max(initial=0.0) + np.abs(g).max(initial=0.0))
        terms = 8 + (sets.shape[-1] ** 0.5 if "gradient" in name else 0)
        bound = terms * (8 * u + 64 * u64 * size) * scale
        tolerance.assert_close(actual, wanted, bound, f"{name} of {what}")


def check_group(rng, shape, groups, dtype, data_format="channels_first", view="contiguous", offset=0.0):
    """Group norm of one problem, and instance norm where groups are channels."""
    x, g = draw(rng, shape, dtype, offset)
    weight, bias = affine(rng, shape[1], dtype)
    own = [problems.as_view(problems.to_format(a, data_format) if len(shape) > 2 else a, view) for a in (x, g)]
    ops = ["group_norm"] + ["instance_norm"] * (groups == shape[1] and len(shape) > 2)
    for op in ops:
        arguments = (groups, weight, bias) if op == "group_norm" else (None, None, weight, bias)
        y, mean, invstd = getattr(F, op)(own[0], *arguments, return_stats=True, data_format=data_format)
        backward = getattr(F, f"{op}_backward")
        gradients = backward(own[1], own[0], mean, invstd, weight, data_format=data_format)
        assert gradients._fields == ("input", "weight", "bias")
        results = [y, mean, invstd, *gradients]
        if len(shape) > 2:
            results[0], results[3] = (problems.to_first(a, data_format) for a in (y, gradients.input))
        expected = (
            *reference_norms.group_norm(x, groups, weight, bias),
            *reference_norms.group_norm_backward(g, x, mean, invstd, weight),
        )
        sets = x.reshape(shape[0], groups, -1)
        compare(dtype, x, g, sets, results, expected, f"{op} of {shape} in {groups} {data_format} {view}")


def check_layer(rng, shape, axes, dtype, view="contiguous", offset=0.0):
    """Layer norm of one problem."""
    x, g = draw(rng, shape, dtype, offset)
    normalized = shape[len(shape) - axes :]
    weight, bias = affine(rng, normalized, dtype)
    own = [problems.as_view(a, view) for a in (x, g)]
    y, mean, invstd = F.layer_norm(own[0], normalized, weight, bias, return_stats=True)
    gradients = F.layer_norm_backward(own[1], own[0], mean, invstd, weight)
    expected = (
        *reference_norms.layer_norm(x, normalized, weight, bias),
        *reference_norms.layer_norm_backward(g, x, mean, invstd, weight),
    )
    sets = x.reshape(*shape[: len(shape) - axes], -1)
    compare(dtype, x, g, sets, (y, mean, invstd, *gradients), expected, f"layer norm of {shape}, {axes} axes, {view}")


VIEWS = [view for view in problems.VIEWS if view != "broadcast"]


@both_dtypes
@settings(max_examples=120)
@given(data=st.data())
def test_random_groups(isa, dtype, data):
    """Any rank, format, view and number of channels and groups."""
    source = problems.Drawn(data)
    axes = source.integer(0, 3)
    problem = problems.channel_problem(source, "group_norm", axes)
    channels = source.choice((problem.c, source.choice(CHANNELS)))
    groups = source.choice([d for d in (1, 2, 3, 4, 5, 8, channels) if channels % d == 0])
    size = tuple(s + 1 for s in problem.size)
    if not size and channels == groups:
        groups = 1
    shape = (source.integer(2, 5), channels, *size)
    arguments = (source.choice(problems.FORMATS), source.choice(VIEWS), source.choice((0.0, 3.0, -50.0)))
    check_group(source.rng, shape, groups, dtype, *arguments)


@both_dtypes
@settings(max_examples=120)
@given(data=st.data())
def test_random_layers(isa, dtype, data):
    """Any rank, view and number of axes."""
    source = problems.Drawn(data)
    shape = problems.some(source, source.integer(1, 5), 1, 9)
    if source.integer(0, 1):
        shape = (*shape[:3], source.integer(1, 600))
    check_layer(
        source.rng, shape, source.integer(1, len(shape)), dtype, source.choice(VIEWS), source.choice((0.0, -50.0))
    )


@both_formats
@pytest.mark.parametrize("positions", POSITIONS[1:])
def test_block_edges(isa, positions, data_format):
    """Around the sizes at which planes and rows are cut."""
    for channels, groups in ((1, 1), (3, 3), (16, 2), (17, 1)):
        check_group(np.random.default_rng(positions), (2, channels, positions), groups, np.float32, data_format)


@pytest.mark.parametrize("length", [1, 4, 7, 8, 9, 15, 16, 17, 31, 33, 1023, 1025, 4095, 4096, 4097, 9000])
def test_row_edges(isa, length):
    """Around register widths, the blocks of a row, and the rows whose gradients are summed together."""
    for rows in (1, 15, 17, 70):
        check_layer(np.random.default_rng(length), (rows, length), 1, np.float32)
        if length > 1:
            check_group(np.random.default_rng(length), (rows, 3 * length), 3, np.float32)


def test_many_samples(isa):
    """More than are taken together."""
    check_group(np.random.default_rng(0), (700, 24, 5, 5), 8, np.float32)
    check_group(np.random.default_rng(0), (700, 24, 5, 5), 8, np.float32, "channels_last")
    check_layer(np.random.default_rng(0), (3000, 40), 1, np.float32)


@pytest.mark.parametrize("row", runnable_kernels("layer_norm"), ids=lambda row: row["name"])
def test_every_kernel(row, force_kernel):
    """Each row of the table."""
    with force_kernel(row["name"]):
        for shape in ((4, 19), (33, 300), (2, 5000)):
            check_layer(np.random.default_rng(1), shape, 1, np.dtype(row["dtype"]).type)


def switch_arrays(rng, shape, dtype):
    """``(mean_weight, var_weight, weight, bias, running_mean, running_var)``."""
    weights = (rng.standard_normal(3).astype(dtype) for _ in range(2))
    return *weights, *affine(rng, shape[1], dtype), *affine(rng, shape[1], dtype)[:1], np.full(shape[1], 0.7, dtype)


@both_dtypes
@settings(max_examples=100)
@given(data=st.data())
def test_random_switches(isa, dtype, data):
    """Output, statistics and running statistics, in any format and view."""
    source = problems.Drawn(data)
    problem = problems.channel_problem(source, "switch_norm", source.integer(1, 3))
    data_format, view, training = source.choice(problems.FORMATS), source.choice(VIEWS), bool(source.integer(0, 1))
    x, _ = draw(source.rng, problem.x_shape, dtype, source.choice((0.0, 3.0)))
    *weights, mean, var = switch_arrays(source.rng, x.shape, dtype)
    wanted = reference_norms.switch_norm(x, *weights, mean, var, training, 0.2, 1e-3)
    own = problems.as_view(problems.to_format(x, data_format), view)
    options = {"return_stats": True, "data_format": data_format}
    y, own_mean, own_var = F.switch_norm(own, *weights, mean, var, training, 0.2, 1e-3, **options)
    results = (problems.to_first(y, data_format), own_mean, own_var, mean, var)
    for name, actual, expected in zip(
        ("y", "mean", "var", "running_mean", "running_var"), results, wanted, strict=True
    ):
        assert actual.dtype == dtype
        size = (1 + np.abs(expected).max()) * (1 + np.abs(x).max() / 1e-3**0.5)
        tolerance.assert_close(actual, expected, tolerance.sum_bound(dtype, 16, size), name)


@both_formats
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("learned", [True, False])
def test_switch_gradcheck(isa, training, learned, data_format):
    """All five gradients are what central differences of the output say."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 4, 5) if data_format == "channels_first" else (3, 5, 4))
    of_mean, of_var, weight, bias, mean, var = switch_arrays(rng, (3, 4, 5), np.float64)

    def function(x, of_mean, of_var, *pair):
        weight, bias = pair or (None, None)
        shared = (of_mean, of_var, weight)
        running = (mean.copy(), var.copy(), training)
        options = {"return_stats": True, "data_format": data_format}
        y, m, v = F.switch_norm(x, *shared, bias, *running, 0.1, 1e-5, **options)

        def backward(grad):
            got = F.switch_norm_backward(grad, x, m, v, *shared, *running, 1e-5, data_format=data_format)
            return got.input, got.mean_weight, got.var_weight, *((got.weight, got.bias) if pair else ())

        return y, backward

    assert gradcheck(function, (x, of_mean, of_var, *((weight, bias) if learned else ())))


@both_formats
@pytest.mark.parametrize("name", PER_SAMPLE)
def test_gradcheck(isa, name, data_format):
    """The gradients are what central differences of the output say."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((3, 4, 5) if data_format == "channels_first" or name == "layer_norm" else (3, 5, 4))
    shape = x.shape[1:] if name == "layer_norm" else (4,)
    options = {"data_format": data_format}

    def function(x, weight, bias):
        arguments = {"layer_norm": (shape, weight, bias), "group_norm": (2, weight, bias)}
        own = arguments.get(name, (None, None, weight, bias))
        y, mean, invstd = getattr(F, name)(x, *own, return_stats=True, **options)
        backward = getattr(F, f"{name}_backward")
        return y, lambda grad: backward(grad, x, mean, invstd, weight, **options)

    assert gradcheck(function, (x, rng.uniform(0.5, 1.5, shape), rng.standard_normal(shape)))


@both_dtypes
@both_formats
@pytest.mark.parametrize("running", [True, False])
def test_instance_norm_follows_pytorch(isa, dtype, data_format, running):
    """Running statistics move as PyTorch's, and are used without the input's."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    rng = np.random.default_rng(8)
    x = rng.standard_normal((4, 3, 5, 6)).astype(dtype)
    weight, bias = affine(rng, 3, dtype)
    ours, theirs = [np.zeros(3, dtype), np.ones(3, dtype)], [torch.zeros(3), torch.ones(3)]
    if not running:
        ours, theirs = [None, None], [None, None]
    theirs = [None if t is None else t.to(torch.from_numpy(x).dtype) for t in theirs]
    own = problems.to_format(x, data_format)
    for momentum, use in ((0.3, True), (-1.2, True), (0.1, False))[: 3 if running else 2]:
        y = F.instance_norm(own, *ours, weight, bias, use, momentum, data_format=data_format)
        wanted = torch.nn.functional.instance_norm(
            torch.from_numpy(x), *theirs, torch.from_numpy(weight), torch.from_numpy(bias), use, momentum
        )
        bound = 100 * tolerance.unit_roundoff(dtype) * 10
        np.testing.assert_allclose(problems.to_first(y, data_format), wanted, rtol=bound, atol=bound)
        for mine, other in zip(ours, theirs, strict=True):
            if running:
                np.testing.assert_allclose(mine, other, rtol=bound, atol=bound)


def test_instance_norm_without_input_stats_is_batch_norm(isa):
    """Forward, statistics and gradients."""
    rng = np.random.default_rng(9)
    x, g = draw(rng, (3, 4, 6), np.float32)
    weight, bias = affine(rng, 4, np.float32)
    mean, var = rng.standard_normal(4).astype("f"), rng.uniform(0.5, 2, 4).astype("f")
    ours = F.instance_norm(x, mean, var, weight, bias, False, return_stats=True)
    for a, b in zip(ours, F.batch_norm(x, mean, var, weight, bias, return_stats=True), strict=True):
        tolerance.assert_same_bits(a, b)
    gradients = F.instance_norm_backward(g, x, *ours[1:], weight, False)
    for a, b in zip(gradients, F.batch_norm_backward(g, x, *ours[1:], weight, False), strict=True):
        tolerance.assert_same_bits(a, b)


def test_no_cancellation(isa):
    """A mean a million times the deviation, and an outlier as the first value, do not spoil the variance."""
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((4, 4, 31, 33)) * 1e-3 + 1e3).astype("f")
    x[:, 3] = rng.standard_normal((4, 31, 33)) * 1e-2
    x[0, 3, 0, 0] = 1e4
    for data_format, groups in itertools.product(problems.FORMATS, (1, 2, 4)):
        own = problems.to_format(x, data_format)
        _, m, invstd = F.group_norm(own, groups, eps=0, return_stats=True, data_format=data_format)
        _, mean, wanted = reference_norms.group_norm(x, groups, eps=0)
        # A mean near zero is as good as its distance in deviations.
        assert (np.abs(m - mean) <= 3e-7 * np.abs(mean) + 2e-8 / wanted).all()
        np.testing.assert_allclose(invstd, wanted, rtol=3e-7)
    _, m, invstd = F.layer_norm(x, x.shape[1:], eps=0, return_stats=True)
    _, mean, wanted = reference_norms.layer_norm(x, x.shape[1:], eps=0)
    np.testing.assert_allclose(m, mean, rtol=3e-7)
    np.testing.assert_allclose(invstd, wanted, rtol=3e-7)


def test_memory_order_is_kept(isa):
    """Channels-last memory stays so, whatever the data format says."""
    x = np.random.default_rng(3).standard_normal((2, 6, 4, 5)).astype("f")
    memory = np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)
    for op, arguments in ((F.group_norm, (3,)), (F.instance_norm, ())):
        y = op(memory, *arguments)
        assert np.moveaxis(y, 1, -1).flags.c_contiguous
        np.testing.assert_allclose(y, op(x, *arguments), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("view", ["contiguous", "every other", "channels-last memory"])
@pytest.mark.parametrize("op", ["group_norm", "instance_norm"])
def test_one_sample_does_not_depend_on_the_gaps_of_its_batch(isa, op, view):
    """A sample of a batch with gaps is contiguous alone; its bits are the same."""
    base = np.random.default_rng(4).standard_normal((8, 6, 7, 9)).astype("f")
    if view == "channels-last memory":
        base = np.moveaxis(np.ascontiguousarray(np.moveaxis(base, 1, -1)), -1, 1)
    x = base if view == "contiguous" else base[::2]
    arguments = (3,) if op == "group_norm" else ()
    y, mean, invstd = getattr(F, op)(x, *arguments, return_stats=True)
    g = F.group_norm_backward(x[::-1], x, mean, invstd).input
    for i in range(len(x)):
        alone, m, s = getattr(F, op)(x[i : i + 1], *arguments, return_stats=True)
        tolerance.assert_same_bits(alone[0], y[i])
        tolerance.assert_same_bits(m[0], mean[i])
        own = F.group_norm_backward(x[len(x) - 1 - i : len(x) - i], x[i : i + 1], m, s).input
        tolerance.assert_same_bits(own[0], g[i])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("size", [(1,), (3,), (5, 6)])
def test_every_second_channel(isa, size, groups):
    """Planes that are runs of memory, but do not follow each other: one channel a group too."""
    rng = np.random.default_rng(4)
    x, g = (np.full((2, 8, *size), np.nan, np.float32)[:, ::2] for _ in range(2))
    x[...], g[...] = rng.standard_normal((2, *x.shape))
    weight = rng.standard_normal(4).astype("f")
    results = []
    for a, b in ((x, g), (x.copy(), g.copy())):
        y, mean, invstd = F.group_norm(a, groups, weight, weight, return_stats=True)
        results.append((y, *F.group_norm_backward(b, a, mean, invstd, weight)))
    for gapped, dense in zip(*results, strict=True):
        np.testing.assert_allclose(gapped, dense, rtol=1e-4, atol=1e-5)


def test_not_finite_values_stay_in_their_set(isa):
    """A NaN or infinity spoils what shares its statistics, nothing else."""
    for value in (np.nan, np.inf):
        x = np.random.default_rng(5).standard_normal((3, 4, 70)).astype("f")
        x[1, 2, 69] = value
        y = F.instance_norm(x)
        assert np.isnan(y[1, 2]).all()
        assert np.isnan(y).sum() == 70
        y = F.group_norm(x, 2)
        assert np.isnan(y[1, 2:]).all()
        assert np.isnan(y).sum() == 140
        y = F.layer_norm(x, 70)
        assert np.isnan(y[1, 2]).all()
        assert np.isnan(y).sum() == 70
        weights = np.zeros(3, "f")
        y = F.switch_norm(x, weights, weights, None, None, np.zeros(4, "f"), np.ones(4, "f"), False, 0.1, 1e-5)
        assert np.isnan(y[1]).all()
        assert np.isnan(y).sum() == 280


def test_empty(isa):
    """No samples, channels or positions give nothing; gradients of weights are 0."""
    none = np.ones((0, 4, 3), "f")
    for op, arguments in ((F.group_norm, (2,)), (F.instance_norm, ()), (F.layer_norm, (3,)), (F.layer_norm, ((4, 3),))):
        y, mean, invstd = op(none, *arguments, return_stats=True)
        assert y.shape == none.shape
        backward = getattr(F, f"{op.__name__}_backward")
        gradients = backward(none, none, mean, invstd)
        assert gradients.input.shape == none.shape
        np.testing.assert_array_equal(gradients.weight, 0)
        np.testing.assert_array_equal(gradients.bias, 0)
    assert F.group_norm(np.ones((0, 2), "f"), 1).shape == (0, 2)
    assert F.group_norm(np.ones((3, 2, 0), "f"), 1).shape == (3, 2, 0)
    mean, var = np.zeros(4, "f"), np.ones(4, "f")
    assert F.instance_norm(none, mean, var).shape == none.shape
    weights = np.ones(3, "f")
    y, m, v = F.switch_norm(none, weights, weights, None, None, mean, var, True, 0.1, 1e-5, return_stats=True)
    assert y.shape == none.shape
    gradients = F.switch_norm_backward(none, none, m, v, weights, weights, None, mean, var, True, 1e-5)
    assert [g.shape for g in gradients] == [none.shape, (4,), (4,), (3,), (3,)]
    np.testing.assert_array_equal(mean, 0)
    np.testing.assert_array_equal(var, 1)
    y, mean, _ = F.layer_norm(np.ones((3, 0), "f"), 0, return_stats=True)
    assert y.shape == (3, 0)
    assert np.isnan(mean).all()


def test_many_axes(isa):
    """Group norm has no limit of spatial axes."""
    x, g = draw(np.random.default_rng(6), (2, 4, 2, 3, 2, 2), np.float64)
    flat = x.reshape(2, 4, 24)
    y, mean, invstd = F.group_norm(x, 2, return_stats=True)
    np.testing.assert_array_equal(y.reshape(flat.shape), F.group_norm(flat, 2))
    last = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    np.testing.assert_allclose(np.moveaxis(F.group_norm(last, 2, data_format="channels_last"), -1, 1), y, atol=1e-14)
    gradients = F.group_norm_backward(g, x, mean, invstd)
    wanted = F.group_norm_backward(g.reshape(flat.shape), flat, mean, invstd)
    np.testing.assert_array_equal(gradients.input.reshape(flat.shape), wanted.input)


def test_output_mask(isa):
    """A masked gradient is ``None`` and leaves the others as they are."""
    rng = np.random.default_rng(8)
    x, g = draw(rng, (5, 6, 7), np.float32)
    weights, running = np.ones(3, "f"), (np.zeros(6, "f"), np.ones(6, "f"), True)
    calls = []
    for op, arguments in ((F.group_norm, (2,)), (F.instance_norm, ()), (F.layer_norm, (7,))):
        _, mean, invstd = op(x, *arguments, return_stats=True)
        backward = getattr(F, f"{op.__name__}_backward")
        calls.append((3, lambda mask, b=backward, m=mean, s=invstd: b(g, x, m, s, output_mask=mask)))
    _, m, v = F.switch_norm(x, weights, weights, None, None, *running, 0.1, 1e-5, return_stats=True)
    shared = (g, x, m, v, weights, weights, None, *running, 1e-5)
    calls.append((5, lambda mask: F.switch_norm_backward(*shared, output_mask=mask)))
    for count, call in calls:
        full = call((True,) * count)
        for i in range(count):
            masked = call(tuple(i == j for j in range(count)))
            assert [m is not None for m in masked] == [i == j for j in range(count)]
            tolerance.assert_same_bits(masked[i], full[i])


def test_torch_tensors_come_back_as_tensors():
    """Outputs, statistics and gradients of tensors are tensors."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    x = torch.randn(2, 4, 6)
    y, mean, invstd = F.group_norm(x, 2, return_stats=True)
    torch.testing.assert_close(y, torch.nn.functional.group_norm(x, 2))
    assert all(isinstance(g, torch.Tensor) for g in F.group_norm_backward(x, x, mean, invstd))
    torch.testing.assert_close(F.layer_norm(x, (4, 6)), torch.nn.functional.layer_norm(x, (4, 6)))
