"""float16 and bfloat16: computed in float32 and rounded once, in every op that takes them."""

import fastconv.functional as F
import numpy as np
import pytest
import tolerance

ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes has the type bfloat16")
DTYPES = (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
RNG = np.random.default_rng(11)


def normal(*shape):
    """Random float32 values."""
    return RNG.standard_normal(shape, np.float32)


LAST = {"data_format": "channels_last"}

# A call on arrays of any dtype; a list of the shapes of its arrays.
CALLS = {
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, 2, 1), [(2, 4, 33), (7, 4, 3), (7,)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, padding=1), [(2, 4, 9, 19), (35, 4, 3, 3), (35,)]),
    "conv2d last": (lambda x, w, b: F.conv2d(x, w, b, 2, 1, **LAST), [(2, 9, 19, 4), (35, 4, 3, 3), (35,)]),
    "conv2d 1x1": (lambda x, w: F.conv2d(x, w), [(2, 40, 9, 9), (17, 40, 1, 1)]),
    "conv2d grouped": (lambda x, w: F.conv2d(x, w, groups=2), [(2, 8, 9, 9), (10, 4, 3, 3)]),
    "conv2d depthwise": (lambda x, w: F.conv2d(x, w, groups=40), [(2, 40, 9, 9), (40, 1, 3, 3)]),
    "conv2d depthwise wide": (lambda x, w: F.conv2d(x, w, padding=1, groups=9), [(2, 9, 9, 39), (18, 1, 3, 3)]),
    "conv2d depthwise last": (lambda x, w: F.conv2d(x, w, groups=40, **LAST), [(2, 9, 9, 40), (40, 1, 3, 3)]),
    "conv2d depthwise relu": (
        lambda x, w, b: F.conv2d(x, w, b, 2, 1, 1, 37, activation="relu", **LAST),
        [(2, 9, 9, 37), (37, 1, 3, 3), (37,)],
    ),
    "conv2d elu": (lambda x, w, b: F.conv2d(x, w, b, activation="elu"), [(2, 4, 9, 9), (5, 4, 3, 3), (5,)]),
    "conv2d circular": (
        lambda x, w: F.conv2d(x, w, padding=2, padding_mode="circular"),
        [(2, 4, 9, 9), (5, 4, 3, 3)],
    ),
    "conv3d": (lambda x, w: F.conv3d(x, w, padding=1), [(2, 3, 5, 6, 7), (4, 3, 3, 3, 3)]),
    "conv2d_backward": (
        lambda g, x, w: F.conv2d_backward(g, x, w, padding=1),
        [(2, 35, 9, 19), (2, 4, 9, 19), (35, 4, 3, 3)],
    ),
    "conv2d_backward last": (
        lambda g, x, w: F.conv2d_backward(g, x, w, 2, 1, **LAST),
        [(2, 5, 10, 35), (2, 9, 19, 4), (35, 4, 3, 3)],
    ),
    "conv2d_backward depthwise": (
        lambda g, x, w: F.conv2d_backward(g, x, w, 1, 1, groups=33),
        [(2, 33, 9, 9), (2, 33, 9, 9), (33, 1, 3, 3)],
    ),
    "conv2d_backward depthwise last": (
        lambda g, x, w: F.conv2d_backward(g, x, w, 2, 1, groups=33, **LAST),
        [(2, 5, 5, 33), (2, 9, 9, 33), (33, 1, 3, 3)],
    ),
    "conv2d_backward reflect": (
        lambda g, x, w: F.conv2d_backward(g, x, w, padding=1, padding_mode="reflect"),
        [(2, 5, 9, 9), (2, 4, 9, 9), (5, 4, 3, 3)],
    ),
    "conv_transpose2d": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, 1),
        [(2, 4, 5, 6), (4, 9, 3, 3), (9,)],
    ),
    "conv_transpose2d_backward": (
        lambda g, x, w: F.conv_transpose2d_backward(g, x, w, 2, 1, 1),
        [(2, 9, 10, 12), (2, 4, 5, 6), (4, 9, 3, 3)],
    ),
    "separable_conv2d": (
        lambda x, d, p, b: F.separable_conv2d(x, d, p, b, padding=1),
        [(2, 4, 9, 9), (8, 1, 3, 3), (5, 8, 1, 1), (5,)],
    ),
    "separable_conv2d_backward": (
        lambda g, x, d, p: F.separable_conv2d_backward(g, x, d, p, padding=1),
        [(2, 5, 9, 9), (2, 4, 9, 9), (8, 1, 3, 3), (5, 8, 1, 1)],
    ),
    "softmax": (lambda x: F.softmax(x, 1), [(5, 33, 7)]),
    "softmax rows": (lambda x: F.softmax(x, -1), [(5, 33)]),
    "softmax view": (lambda x: F.softmax(x[:, ::2, ::-1], 2), [(5, 33, 9)]),
    "log_softmax": (lambda x: F.log_softmax(x, 1), [(5, 33, 300)]),
    "softmax_backward": (lambda g, y: F.softmax_backward(g, y, 1), [(5, 33, 7), (5, 33, 7)]),
    "log_softmax_backward": (lambda g, y: F.log_softmax_backward(g, y, 1), [(5, 33), (5, 33)]),
    "dropout": (lambda x: F.dropout(x, 0.3, seed=5)[0], [(3, 1500)]),
    "dropout_backward": (lambda g: F.dropout_backward(g, np.arange(1500) % 3 > 0, 0.3), [(1500,)]),
    "mse_loss": (lambda y, t: np.asarray(F.mse_loss(y, t)), [(33, 41), (33, 41)]),
    "mse_loss each": (lambda y, t: F.mse_loss(y, t, "none"), [(33, 41), (33, 41)]),
    "mse_loss_backward": (lambda y, t: F.mse_loss_backward(1.5, y, t), [(33, 41), (33, 41)]),
    "mse_loss_backward each": (lambda g, y, t: F.mse_loss_backward(g, y, t, "none"), [(5, 41), (5, 41), (5, 41)]),
    "binary": (
        lambda y, t, w: F.binary_cross_entropy_with_logits(y, t, w, "none"),
        [(33, 41), (33, 41), (41,)],
    ),
    "binary mean": (lambda y, t: np.asarray(F.binary_cross_entropy_with_logits(y, t)), [(33, 41), (33, 41)]),
    "binary backward": (
        lambda g, y, t: F.binary_cross_entropy_with_logits_backward(g, y, t, reduction="none"),
        [(33, 41), (33, 41), (33, 41)],
    ),
    "cross_entropy": (lambda x: F.cross_entropy(x, np.arange(33) % 10, reduction="none"), [(33, 10)]),
    "cross_entropy mean": (lambda x, w: np.asarray(F.cross_entropy(x, np.arange(33) % 10, w)), [(33, 10), (10,)]),
    "cross_entropy probabilities": (
        lambda x, t: F.cross_entropy(x, t, reduction="none", label_smoothing=0.1),
        [(3, 10, 37), (3, 10, 37)],
    ),
    "cross_entropy_backward": (
        lambda x: F.cross_entropy_backward(0.5, x, np.arange(3 * 37).reshape(3, 37) % 10),
        [(3, 10, 37)],
    ),
    "cross_entropy_backward probabilities": (
        lambda g, x, t: F.cross_entropy_backward(g, x, t, reduction="none"),
        [(3,), (3, 10), (3, 10)],
    ),
    **{name: (getattr(F, name), [(33, 41)]) for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh", "step")},
    **{
        f"{name}_backward": (getattr(F, f"{name}_backward"), [(3, 41), (3, 41)])
        for name in ("relu", "leaky_relu", "elu", "sigmoid", "tanh")
    },
    "relu of a view": (lambda x: F.relu(x[::2, ::-1]), [(33, 41)]),
    "linear": (lambda x, w, b: F.linear(x, w, b), [(5, 33), (9, 33), (9,)]),
    "linear_backward": (lambda g, x, w: F.linear_backward(g, x, w), [(5, 9), (5, 33), (9, 33)]),
}


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
        assert narrow.dtype == dtype
        tolerance.assert_same_bits(narrow.view(np.uint16), reference.astype(dtype).view(np.uint16))


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
