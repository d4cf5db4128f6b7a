"""float16 and bfloat16: computed in float32 and rounded once, in every op that takes them."""

import inspect
import sys

import fastconv.functional as F
import numpy as np
import pytest
import tolerance
from sixteen_bit_calls import CALLS

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
    arrays = [normal(*shape).astype(dtype) for shape in shapes]
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
