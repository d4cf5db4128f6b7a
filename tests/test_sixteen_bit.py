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


def norm_calls(title, forward, backward, x, *parameters, **options):
    """The calls of a norm whose forward pass takes ``(x, *parameters)`` and whose backward pass the statistics too."""

    def both(g, x, *parameters):
        y, *stats = forward(x, *parameters, return_stats=True, **options)
        return (y, *backward(g, x, *stats, *parameters, **options))

    return {
        title: (lambda x, *parameters: forward(x, *parameters, **options), [x, *parameters]),
        f"{title} backward": (both, [x, x, *parameters]),
    }


def batch(x, weight, *, return_stats=False, **options):
    """Batch norm of the batch's own statistics."""
    return F.batch_norm(x, None, None, weight, None, True, return_stats=return_stats, **options)


def switch(x, mean_weight, var_weight, weight, *, return_stats=False, **options):
    """Switch norm of the batch's own statistics."""
    batch_only = (weight, None, None, None, True, 0.1, 1e-5)
    return F.switch_norm(x, mean_weight, var_weight, *batch_only, return_stats=return_stats, **options)


def switch_backward(g, x, mean, var, mean_weight, var_weight, weight, **options):
    """The gradients of `switch`."""
    return F.switch_norm_backward(g, x, mean, var, mean_weight, var_weight, weight, None, None, True, 1e-5, **options)


def groups(x, weight, *, return_stats=False, **options):
    """Group norm of groups of three channels."""
    count = x.shape[-1 if options else 1] // 3
    return F.group_norm(x, count, weight, return_stats=return_stats, **options)


def rows(x, weight, *, return_stats=False):
    """Layer norm over the axes that the weight has."""
    return F.layer_norm(x, weight.shape, weight, return_stats=return_stats)


def instances(x, weight, *, return_stats=False, **options):
    """Instance norm of the input's own statistics."""
    return F.instance_norm(x, None, None, weight, return_stats=return_stats, **options)


CALLS |= norm_calls("batch_norm", batch, F.batch_norm_backward, (3, 6, 9, 11), (6,))
CALLS |= norm_calls("batch_norm long", batch, F.batch_norm_backward, (2, 3, 17000), (3,))
CALLS |= norm_calls("batch_norm last", batch, F.batch_norm_backward, (3, 9, 11, 6), (6,), **LAST)
CALLS |= norm_calls("batch_norm wide last", batch, F.batch_norm_backward, (2, 9, 11, 300), (300,), **LAST)
CALLS |= norm_calls("batch_norm rows", batch, F.batch_norm_backward, (33, 35), (35,))
CALLS |= norm_calls("group_norm", groups, F.group_norm_backward, (3, 6, 5, 7), (6,))
CALLS |= norm_calls("group_norm last", groups, F.group_norm_backward, (3, 5, 7, 6), (6,), **LAST)
CALLS |= norm_calls("group_norm rows", groups, F.group_norm_backward, (5, 33), (33,))
CALLS |= norm_calls("instance_norm", instances, F.instance_norm_backward, (3, 5, 4, 6, 7), (5,))
CALLS |= norm_calls("instance_norm last", instances, F.instance_norm_backward, (3, 40, 5), (5,), **LAST)
CALLS |= norm_calls("layer_norm", rows, F.layer_norm_backward, (5, 33), (33,))
CALLS |= norm_calls("layer_norm two axes", rows, F.layer_norm_backward, (5, 9, 11), (9, 11))
CALLS |= norm_calls("layer_norm long", rows, F.layer_norm_backward, (3, 17000), (17000,))
CALLS |= norm_calls("switch_norm", switch, switch_backward, (3, 5, 6, 7), (3,), (3,), (5,))
CALLS |= norm_calls("switch_norm last", switch, switch_backward, (3, 6, 7, 5), (3,), (3,), (5,), **LAST)
CALLS |= {
    "batch_norm eval": (
        lambda x, m, v, w, b: F.batch_norm(x, m, np.abs(v), w, b),
        [(3, 6, 9, 11), (6,), (6,), (6,), (6,)],
    ),
    "batch_norm eval backward": (
        lambda g, x, m, v, w: F.batch_norm_backward(g, x, m, np.abs(v), w, False),
        [(3, 6, 9), (3, 6, 9), (6,), (6,), (6,)],
    ),
    "batch_norm of a view": (
        lambda x, w: batch(x[:, ::2, ::-1, 1:], w),
        [(3, 6, 9, 11), (3,)],
    ),
    "layer_norm of a view": (lambda x, w, b: F.layer_norm(x.T[::-1], 5, w, b), [(5, 33), (5,), (5,)]),
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
