"""Convolution whose padding repeats the input: against the zero-padded one of an input padded by NumPy."""

import itertools

import fastconv.functional as F
import numpy as np
import problems
import pytest
import tolerance

NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def draw(rng, mode, dtype, data_format):
    """A random convolution: its arrays and arguments, channels first, and the pairs of padding."""
    axes = int(rng.integers(1, 4))
    groups = int(rng.integers(1, 4))
    c, k = groups * int(rng.integers(1, 5)), groups * int(rng.integers(1, 5))
    if rng.integers(0, 4) == 0:
        groups = c = k = int(rng.integers(2, 20))
    kernel = tuple(int(v) for v in rng.integers(1, 4, axes))
    stride = tuple(int(v) for v in rng.integers(1, 4, axes))
    dilation = tuple(int(v) for v in rng.integers(1, 3, axes))
    size = tuple(int(r + v) for r, v in zip(rng.integers(1, 9, axes), (5, 5, 5), strict=False))
    most = {"reflect": 1, "circular": 0, "replicate": -7}[mode]
    pads = tuple(tuple(int(v) for v in rng.integers(0, min(s - most, 6) + 1, 2)) for s in size)
    x = rng.standard_normal((int(rng.integers(1, 4)), c, *size)).astype(dtype)
    weight = rng.standard_normal((k, c // groups, *kernel)).astype(dtype)
    keywords = {"stride": stride, "dilation": dilation, "groups": groups, "data_format": data_format}
    return x, weight, rng.standard_normal(k).astype(dtype), keywords, pads


def pad(array, pads, mode):
    """The padded input, channels first."""
    return np.pad(array, ((0, 0), (0, 0), *pads), mode=NUMPY_MODES[mode])


def fold(gradient, shape, pads, mode):
    """The transpose of `pad`: what each element of the input gets from its copies."""
    result = np.zeros(shape, gradient.dtype)
    index = [np.pad(np.arange(s), p, mode=NUMPY_MODES[mode]) for s, p in zip(shape[2:], pads, strict=True)]
    for at in itertools.product(*(range(len(i)) for i in index)):
        result[(..., *(i[a] for i, a in zip(index, at, strict=True)))] += gradient[(..., *at)]
    return result


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dtype", problems.DTYPES)
@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_against_a_padded_copy(isa, mode, data_format, dtype, seed):
    """Forward and all gradients, any window, groups and depthwise included."""
    rng = np.random.default_rng([seed, 5])
    x, weight, bias, keywords, pads = draw(rng, mode, dtype, data_format)
    n = x.ndim - 2
    conv, backward = getattr(F, f"conv{n}d"), getattr(F, f"conv{n}d_backward")
    exact = {**keywords, "data_format": "channels_first"}
    wide = pad(x, pads, mode).astype("d")
    expected = conv(wide, weight.astype("d"), bias.astype("d"), **exact)
    given = problems.to_format(x, data_format)
    y = conv(given, weight, bias, padding=pads, padding_mode=mode, **keywords)
    length = weight[0].size
    magnitude = conv(np.abs(wide), np.abs(weight).astype("d"), np.abs(bias).astype("d"), **exact)
    limit = tolerance.sum_bound(dtype, length + 1, magnitude)
    tolerance.assert_close(problems.to_first(y, data_format), expected, limit, "y")

    gradient = rng.standard_normal(expected.shape).astype(dtype)
    truth = backward(gradient.astype("d"), wide, weight.astype("d"), **exact)
    scale = backward(np.abs(gradient).astype("d"), np.abs(wide), np.abs(weight).astype("d"), **exact)
    grads = backward(
        problems.to_format(gradient, data_format), given, weight, padding=pads, padding_mode=mode, **keywords
    )
    copies = 7**n  # of an element, at most, among the padding
    limit = tolerance.sum_bound(dtype, (weight.size + 1) * copies, fold(scale.input, x.shape, pads, mode))
    folded = fold(truth.input, x.shape, pads, mode)
    tolerance.assert_close(problems.to_first(grads.input, data_format), folded, limit, "gradient of x")
    limit = tolerance.sum_bound(dtype, gradient.size // weight.shape[0], scale.weight)
    tolerance.assert_close(grads.weight, truth.weight, limit, "gradient of the weight")


@pytest.mark.parametrize("size", [(40,), (700,), (1, 50), (5, 33)])
@pytest.mark.parametrize("pads", [(1, 1), (3, 0), (0, 2)])
@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_one_tap(isa, mode, data_format, pads, size):
    """A window of one element with padding is no product of the two arrays as they lie."""
    rng = np.random.default_rng(7)
    n = len(size)
    x = rng.standard_normal((2, 32, *size))
    every = (*((0, 0),) * (n - 1), pads)
    wide = pad(x, every, mode)
    gradient = rng.standard_normal((2, 64, *wide.shape[2:]))
    rows = gradient.reshape(2, 64, -1), wide.reshape(2, 32, -1)
    expected, scale = (np.einsum("nkp,ncp->kc", *arrays) for arrays in (rows, [np.abs(a) for a in rows]))
    for dtype in problems.DTYPES:
        grads = getattr(F, f"conv{n}d_backward")(
            problems.to_format(gradient.astype(dtype), data_format),
            problems.to_format(x.astype(dtype), data_format),
            np.zeros((64, 32, *(1,) * n), dtype),
            padding=every,
            padding_mode=mode,
            data_format=data_format,
        )
        limit = tolerance.sum_bound(dtype, gradient.size // 64, scale)
        tolerance.assert_close(grads.weight.reshape(64, 32), expected, limit, "gradient of the weight")


@pytest.mark.parametrize("mode", NUMPY_MODES)
def test_bits(threads, mode):
    """A sample's bits do not depend on the batch, nor on the number of threads."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((5, 6, 11, 13), np.float32)
    weight = rng.standard_normal((4, 6, 3, 3), np.float32)
    keywords = {"padding": 2, "padding_mode": mode, "stride": 2}
    results = []
    for count in (1, 2, 3):
        threads(count)
        y = F.conv2d(x, weight, **keywords)
        results.append((y, *F.conv2d_backward(y, x, weight, **keywords)))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            tolerance.assert_same_bits(a, b)
    y, grad_x = results[0][:2]
    tolerance.assert_same_bits(F.conv2d(x[3:4], weight, **keywords), y[3:4])
    only = F.conv2d_backward(y[3:4], x[3:4], weight, output_mask=(True, False, False), **keywords)
    tolerance.assert_same_bits(only.input, grad_x[3:4])


@pytest.mark.parametrize("groups", [1, 4])
def test_a_nan_at_the_edge_reaches_its_copies(groups):
    """What the padding repeats is multiplied like any other tap; an infinite weight meets no zero."""
    x = np.ones((1, 4, 1, 6), np.float32)
    x[..., 0] = np.nan
    weight = np.ones((4, 4 // groups, 1, 3), np.float32)
    y = F.conv2d(x, weight, padding=((0, 0), (2, 2)), groups=groups, padding_mode="circular")
    copies = np.pad(np.isnan(x[0, 0, 0]), 2, mode="wrap")
    expected = [bool(copies[i : i + 3].any()) for i in range(y.shape[-1])]
    assert np.isnan(y[0, 0, 0]).tolist() == expected
    weight[:] = np.inf
    y = F.conv2d(np.ones_like(x), weight, padding=((0, 0), (2, 2)), groups=groups, padding_mode="replicate")
    assert np.isposinf(y).all()


MISUSE = {
    "an unknown mode": (lambda x, w: F.conv2d(x, w, padding_mode="mirror"), "padding_mode: got 'mirror'"),
    "no str": (lambda x, w: F.conv2d(x, w, padding_mode=3), "padding_mode: got 3"),
    "reflect": (lambda x, w: F.conv2d(x, w, padding=5, padding_mode="reflect"), "padding: got .* expected at most 4"),
    "circular": (lambda x, w: F.conv2d(x, w, padding=6, padding_mode="circular"), "padding: got .* at most 5"),
    "empty": (
        lambda x, w: F.conv2d(x[:, :, :0], w, padding=2, padding_mode="replicate"),
        "padding: got .* a dimension of 0, expected at most 0",
    ),
    "transposed": (lambda x, w: F.conv_transpose2d(x, w, padding_mode="reflect"), "padding_mode: got 'reflect'"),
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse(case):
    """Refused by name, with what came and what was expected."""
    call, message = MISUSE[case]
    with pytest.raises(ValueError, match=message):
        call(np.ones((1, 3, 5, 5), np.float32), np.ones((3, 3, 3, 3), np.float32))
