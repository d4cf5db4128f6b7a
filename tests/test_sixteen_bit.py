"""float16 and bfloat16: computed in float32 and rounded once, in every op that takes them."""

import inspect
import sys

import fastconv.functional as F
import layer_cases
import numpy as np
import pytest
import tolerance
from fastconv import nn
from sixteen_bit_calls import CALLS, LAST

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes has the type bfloat16")
DTYPES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
RNG = np.random.default_rng(11)


def normal(*shape):
    """Random float32 values."""
    return RNG.standard_normal(shape, np.float32)


def results(value):
    """The arrays of a call's result."""
    return [array for array in value if array is not None] if isinstance(value, tuple) else [value]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_rounded_once(isa, name, dtype):
    """The result is that of float32, rounded once at the end, to the last bit."""
    call, shapes = CALLS[name]
    rng = np.random.default_rng(13)  # the same numbers whatever ran before
    arrays = [rng.standard_normal(shape, np.float32).astype(dtype) for shape in shapes]
    wide = results(call(*(array.astype(np.float32) for array in arrays)))
    for narrow, reference in zip(results(call(*arrays)), wide, strict=True):
        if reference.dtype == np.int64:
            tolerance.assert_same_bits(narrow, reference)
            continue
        assert narrow.dtype == dtype
        with np.errstate(over="ignore"):
            expected = reference.astype(dtype)
        tolerance.assert_same_bits(narrow.view(np.uint16), expected.view(np.uint16))


def test_every_op_is_called():
    """Every function of `fastconv.functional` takes 16-bit arrays: the calls of this file run each of them."""
    called = set()
    codes = {getattr(F, name).__code__: name for name in dir(F) if inspect.isfunction(getattr(F, name, None))}
    sys.setprofile(lambda frame, event, _: called.add(codes.get(frame.f_code)) if event == "call" else None)
    try:
        for call, shapes in CALLS.values():
            call(*(np.ones(shape, np.float16) for shape in shapes))
    finally:
        sys.setprofile(None)
    assert set(codes.values()) - called == set()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_threads_do_not_change_bits(threads, dtype):
    """One thread and three give the same bits."""
    for name, (call, shapes) in CALLS.items():
        arrays = [normal(*shape).astype(dtype) for shape in shapes]
        threads(1)
        alone = results(call(*arrays))
        threads(3)
        for first, second in zip(alone, results(call(*arrays)), strict=True):
            assert first.tobytes() == second.tobytes(), name


OF_SAMPLES = {
    "max_pool2d": lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True),
    "max_pool2d last": lambda x: F.max_pool2d(x, 3, 2, 1, return_indices=True, **LAST),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, 1, 1),
    "rms_pool2d last": lambda x: F.rms_pool2d(x, 3, 2, **LAST),
    "avg_pool2d_backward": lambda x: F.avg_pool2d_backward(x, (len(x), x.shape[1], 26, 60), 3, 2, 1),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 5),
    "global_avg_pool last": lambda x: F.global_avg_pool(x, **LAST),
    "group_norm": lambda x: F.group_norm(x, 3, return_stats=True),
    "instance_norm last": lambda x: F.instance_norm(x, **LAST),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[2:], return_stats=True),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", OF_SAMPLES)
def test_samples_do_not_depend_on_the_batch(name, dtype):
    """A sample alone has the bits that it has in a batch."""
    x = normal(5, 12, 13, 30).astype(dtype)
    together = results(OF_SAMPLES[name](x))
    for i in (0, 2, 4):
        for alone, whole in zip(results(OF_SAMPLES[name](x[i : i + 1])), together, strict=True):
            tolerance.assert_same_bits(alone.view(np.uint8), whole[i : i + 1].view(np.uint8))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_that_are_not_ordinary(isa, dtype):
    """NaN, infinities and the smallest numbers of a type come through the extremes as they are."""
    tiny = np.uint16(1).view(dtype)  # subnormal
    row = np.array([np.nan, 1, -np.inf, -np.inf, np.inf, 2, tiny, -tiny, -1, 3], dtype)
    for options, x in (({}, row.reshape(1, 1, -1)), (LAST, row.reshape(1, -1, 1))):
        x = np.repeat(x, 37, axis=-1 if options else 1)
        y, places = F.max_pool1d(x, 2, return_indices=True, **options)
        least = F.min_pool1d(x, 2, **options)
        mean = F.avg_pool1d(x, 2, **options).astype(np.float32)
        first = (slice(None), 0) if options else (0, slice(None))
        y, places, least, mean = (np.squeeze(a[0])[first] for a in (y, places, least, mean))
        np.testing.assert_array_equal(y.astype("f"), row[[0, 2, 4, 6, 9]].astype("f"))
        np.testing.assert_array_equal(places, [0, 2, 4, 6, 9])
        np.testing.assert_array_equal(least.astype("f"), row[[0, 2, 5, 7, 8]].astype("f"))
        np.testing.assert_array_equal(mean, np.array([np.nan, -np.inf, np.inf, 0, 1], "f"))
    x = np.ones((2, 3, 4, 5), dtype)
    x[0, 1, 2, 3] = np.nan
    assert np.isnan(F.batch_norm(x, None, None, training=True).astype("f"))[:, 1].all()
    assert np.isnan(F.instance_norm(x).astype("f")).sum() == 20
    if dtype == np.float16:  # its subnormal numbers are ordinary in float32
        assert (F.avg_pool2d(np.full_like(x, tiny), 2) == tiny).all()


@pytest.mark.parametrize("options", [{}, LAST], ids=["first", "last"])
def test_images_larger_than_a_box(options):
    """Global pools of 2**22 positions and more are reduced where the image is."""
    x = np.zeros((1, 2100, 2000, 1) if options else (1, 1, 2100, 2000), np.float16)
    x.reshape(-1)[[7, 4_000_000, 4_100_000]] = 3, 5, 5
    y, place = F.global_max_pool(x, return_indices=True, **options)
    assert (y.item(), place.item()) == (5, 4_000_000)
    assert F.global_avg_pool(x + np.float16(1), **options).item() == 1
    x[:] = 2**-20
    assert F.global_avg_pool(x, **options).item() == 2**-20
    x[0, -1, -1, -1] = np.nan
    y, place = F.global_max_pool(x, return_indices=True, **options)
    assert np.isnan(y).all()
    assert place.item() == x.size - 1


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layers(dtype):
    """Every layer works on 16-bit arrays and parameters, and stays near itself in float32."""
    bound = 32 * float(ml_dtypes.finfo(dtype).eps)  # each step of a branch rounds
    for case in layer_cases.CASES:
        narrow, wide = case.ours(), case.ours()
        for one, other in zip(narrow.parameters(), wide.parameters(), strict=True):
            one.data = one.data.astype(dtype)
            other.data = one.data.astype(np.float32)
        wide.load_state_dict(narrow.state_dict())  # buffers too
        x = normal(*case.shape).astype(dtype)
        y, expected = narrow(x), wide(x.astype(np.float32))
        g = normal(*y.shape).astype(dtype)
        pairs = [(y, expected), (narrow.backward(g), wide.backward(g.astype(np.float32)))]
        pairs += [(a.grad, b.grad) for a, b in zip(narrow.parameters(), wide.parameters(), strict=True)]
        for ours, reference in pairs:
            assert ours.dtype == dtype, case.name
            error = np.abs(ours.astype(np.float32) - reference).max(initial=0)
            assert error <= bound * np.abs(reference).max(initial=1), case.name


def test_running_statistics_of_layers():
    """A layer of 16-bit parameters keeps its running statistics in float32."""
    layer = nn.BatchNorm2d(3, momentum=0.001, dtype=np.float16)
    for _ in range(30):
        layer(np.full((2, 3, 4, 4), 100, np.float16) + normal(2, 3, 4, 4).astype(np.float16))
    assert [layer.running_mean.dtype, layer.running_var.dtype] == [np.float32] * 2
    np.testing.assert_allclose(layer.running_mean, 100 * (1 - 0.999**30), rtol=0.01)
    assert layer.eval()(np.ones((1, 3, 2, 2), np.float16)).dtype == np.float16


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_value_survives(isa, dtype):
    """All 65,536 bit patterns through a multiplication by one: widened and narrowed without a change.

    NaNs stay NaNs, and bfloat16's subnormal numbers, which are subnormal in float32 too, may become zeros.
    """
    values = np.arange(2**16, dtype=np.uint16).view(dtype)
    y = F.conv1d(values.reshape(1, 1, -1), np.ones((1, 1, 1), dtype))[0, 0].astype(np.float32)
    wide = values.astype(np.float32)
    subnormal = np.abs(wide) < np.finfo(np.float32).tiny
    assert ((y == wide) | (np.isnan(wide) & np.isnan(y)) | (subnormal & (y == 0))).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rounding(isa, dtype):
    """Sums that need rounding: ties to even, overflow to infinity, gradual underflow in float16."""
    a = np.concatenate([RNG.standard_normal(20000) * 2.0 ** RNG.integers(-26, 17, 20000), [65519.0, 65520.0, 2.0**-25]])
    with np.errstate(over="ignore", invalid="ignore"):
        parts = a.astype(dtype), (a - a.astype(dtype).astype("d")).astype(dtype)
        expected = parts[0].astype(np.float32) + parts[1].astype(np.float32)
        y = F.conv1d(np.stack(parts)[np.newaxis], np.ones((1, 2, 1), dtype))[0, 0].astype(np.float32)
        np.testing.assert_array_equal(y, expected.astype(dtype).astype(np.float32))


def test_statistics_stay_wide():
    """Statistics of 16-bit data are float32, so that a gradient is that of the norm, and running ones may be."""
    for dtype in DTYPES:
        x = normal(4, 3, 50).astype(dtype) + dtype.type(30)
        mean, var = np.zeros(3, dtype), np.ones(3, dtype)
        wide_mean, wide_var = mean.astype(np.float32), var.astype(np.float32)
        y, *stats = F.batch_norm(x, mean, var, training=True, return_stats=True)
        F.batch_norm(x, wide_mean, wide_var, training=True)
        assert [y.dtype, *(stat.dtype for stat in stats)] == [dtype, np.float32, np.float32]
        np.testing.assert_allclose(stats[0], x.astype(np.float32).mean((0, 2)), rtol=1e-6)
        tolerance.assert_same_bits(mean.view(np.uint16), wide_mean.astype(dtype).view(np.uint16))
        tolerance.assert_same_bits(var.view(np.uint16), wide_var.astype(dtype).view(np.uint16))
        evaluated = F.batch_norm(x, wide_mean, wide_var)
        expected = F.batch_norm(x.astype(np.float32), wide_mean, wide_var).astype(dtype)
        tolerance.assert_same_bits(evaluated.view(np.uint16), expected.view(np.uint16))
        with pytest.raises(TypeError, match="running_mean: dtype float64 differs"):
            F.batch_norm(x, wide_mean.astype(np.float64), wide_var)
        with pytest.raises(TypeError, match="weight: dtype float32 differs"):
            F.batch_norm(x, mean, var, wide_mean)


def test_dtypes_are_not_mixed():
    """One call, one dtype; the message says what to cast to."""
    x = np.ones((1, 1, 4), np.float16)
    with pytest.raises(TypeError, match=r"weight: dtype float32 differs from x's float16"):
        F.conv1d(x, np.ones((1, 1, 1), np.float32))
    with pytest.raises(TypeError, match=r"weight: dtype float16 differs from x's bfloat16"):
        F.conv1d(x.astype(ml_dtypes.bfloat16), x[..., :1])
    with pytest.raises(TypeError, match="x: dtype int16 is not supported"):
        F.conv1d(x.astype(np.int16), x[..., :1])


def test_torch_tensors():
    """Tensors of both types come in and go out as tensors."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    for dtype in (torch.float16, torch.bfloat16):
        x, w = torch.randn(2, 3, 8).to(dtype), torch.randn(4, 3, 3).to(dtype)
        y = F.conv1d(x, w)
        assert y.dtype == dtype
        assert torch.equal(y, F.conv1d(x.float(), w.float()).to(dtype))


NEAR_PYTORCH = {
    "conv2d": (F.conv2d, "conv2d", [(2, 4, 9, 9), (5, 4, 3, 3), (5,)], {}),
    "linear": (F.linear, "linear", [(5, 33), (9, 33), (9,)], {}),
    "max_pool2d": (F.max_pool2d, "max_pool2d", [(2, 4, 9, 9)], {"kernel_size": 3, "stride": 2, "padding": 1}),
    "avg_pool2d": (F.avg_pool2d, "avg_pool2d", [(2, 4, 9, 9)], {"kernel_size": 3, "stride": 2, "padding": 1}),
    "lp_pool2d": (F.lp_pool2d, "lp_pool2d", [(2, 4, 9, 9)], {"norm_type": 2, "kernel_size": 2}),
    "adaptive_avg_pool2d": (F.adaptive_avg_pool2d, "adaptive_avg_pool2d", [(2, 4, 9, 11)], {"output_size": 4}),
    "adaptive_max_pool2d": (F.adaptive_max_pool2d, "adaptive_max_pool2d", [(2, 4, 9, 11)], {"output_size": 4}),
    "batch_norm": (F.batch_norm, "batch_norm", [(4, 6, 5, 7), (6,), "positive", (6,), (6,)], {}),
    "batch_norm train": (F.batch_norm, "batch_norm", [(4, 6, 5, 7), (6,), "positive"], {"training": True}),
    "layer_norm": (F.layer_norm, "layer_norm", [(5, 33)], {"normalized_shape": (33,)}),
    "group_norm": (F.group_norm, "group_norm", [(4, 6, 5, 7)], {"num_groups": 2}),
    "instance_norm": (F.instance_norm, "instance_norm", [(4, 6, 5, 7)], {}),
    "softmax": (lambda x: F.softmax(x, -1), "softmax", [(5, 33)], {}),
}


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
@pytest.mark.parametrize("op", NEAR_PYTORCH)
def test_near_pytorch(op, name):
    """PyTorch's results in the same type differ by a few of its roundings; running statistics move alike."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    function, theirs, shapes, options = NEAR_PYTORCH[op]
    arrays = [torch.randn(6 if shape == "positive" else shape) for shape in shapes]
    arrays = [
        (a.abs() + 0.5 if s == "positive" else a).to(getattr(torch, name)) for a, s in zip(arrays, shapes, strict=True)
    ]
    own = [a.clone() for a in arrays]
    y = function(*own, **options)
    expected = getattr(torch.nn.functional, theirs)(
        *arrays, **(options or ({"dim": -1} if theirs == "softmax" else {}))
    )
    eps = torch.finfo(y.dtype).eps
    torch.testing.assert_close(y, expected, rtol=4 * eps, atol=4 * eps)
    for ours, reference in zip(own[1:3], arrays[1:3], strict=True):
        torch.testing.assert_close(ours, reference, rtol=4 * eps, atol=4 * eps)
