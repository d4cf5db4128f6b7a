"""Convolution, forward and backward, against its definition."""

import expected
import fastconv.functional as F
import numpy as np
import problems
import pytest
import tolerance
from conftest import runnable_kernels
from fastconv._cli.calls import to_format
from fastconv._cli.problem import Problem
from fastconv.testing import gradcheck
from hypothesis import given, settings
from hypothesis import strategies as st

CONV_KERNELS = runnable_kernels("conv", "depthwise", "transpose", "winograd")
TILES = sorted({int(t) for row in CONV_KERNELS for t in np.atleast_1d(row["tile"]) if 1 < int(t) <= 64})


def conv(axes, n=2, c=5, k=7, size=9, kernel=3, stride=1, padding=1, dilation=1, groups=1):
    """A convolution problem with the same numbers on every axis."""

    def each(value):
        return (value,) * axes

    pads = padding if isinstance(padding, str) else each((padding, padding))
    return Problem("", "conv", n, c, each(size), k, each(kernel), each(stride), pads, each(dilation), groups)


@pytest.mark.parametrize("dtype", problems.DTYPES)
@settings(max_examples=200)
@given(data=st.data())
def test_random_problems(isa, dtype, data):
    """Any channels, groups, strides, dilations, pads, formats and views."""
    source = problems.Drawn(data)
    problem = problems.conv_problem(source, tiles=TILES)
    view, data_format = source.choice(problems.VIEWS), source.choice(problems.FORMATS)
    bias = bool(source.integer(0, 3))
    call = expected.make_call(problem, dtype, source.rng, data_format, view, bias)
    expected.check(call, source.rng, view)


def around(size):
    """One below, at and above a size and its double."""
    return sorted({m * size + d for m in (1, 2) for d in (-1, 0, 1)} - {0})


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("dtype", problems.DTYPES)
@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_sizes_around_the_tiles(isa, axes, dtype, data_format):
    """Channels and positions one below, at and above what a kernel does at once."""
    rng = np.random.default_rng(axes)
    tiles = TILES or [8, 16]
    for tile in tiles:
        for i, edge in enumerate(around(tile)):
            length = edge if axes == 1 else 5
            sizes = ((2,) * (axes - 1) if axes == 3 else (5,) * (axes - 1)) + (length + 2,)
            c, k = (3, edge) if i % 2 else (edge, 4)
            ones = (1,) * axes
            problem = Problem("", "conv", 1, c, sizes, k, (1,) * (axes - 1) + (3,), ones, "valid", ones)
            expected.check(expected.make_call(problem, dtype, rng, data_format), rng)


@pytest.mark.parametrize("view", problems.VIEWS)
@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_views(isa, axes, data_format, view):
    """Every arrangement of memory of inputs, weights and gradients, dense, grouped, depthwise and 1x1."""
    rng = np.random.default_rng(7)
    for c, k, groups, kernel in ((5, 7, 1, 3), (6, 4, 2, 3), (9, 9, 9, 3), (8, 16, 1, 1)):
        problem = conv(axes, c=c, k=k, groups=groups, kernel=kernel, size=6)
        expected.check(expected.make_call(problem, np.float32, rng, data_format, view), rng, view)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
def test_same_padding_is_keras(isa, axes, stride, kernel):
    """``"same"`` gives ``ceil(in/stride)`` positions with the odd pad at the end."""
    rng = np.random.default_rng(0)
    for size in (1, 2, 5, 6):
        for dilation in (1, 2):
            problem = conv(axes, n=1, c=2, k=3, size=size, kernel=kernel, stride=stride, padding="same")
            call = expected.make_call(problem, np.float32, rng)
            assert call.forward().shape[2:] == (-(-size // stride),) * axes
            expected.check(call, rng)
            if stride == 1:
                dilated = conv(axes, n=1, c=2, k=3, size=size, kernel=kernel, padding="same", dilation=dilation)
                expected.check(expected.make_call(dilated, np.float32, rng), rng)


def test_paddings_by_name_and_by_number(isa):
    """Every way to say the same padding gives the same bits."""
    rng = np.random.default_rng(1)
    x, w = rng.standard_normal((2, 3, 8, 9)), rng.standard_normal((4, 3, 3, 5))
    plain = F.conv2d(x, w, padding=(1, 2))
    for other in (((1, 1), (2, 2)), "same", [1, 2], np.array([1, 2])):
        tolerance.assert_same_bits(F.conv2d(x, w, padding=other), plain, f"padding={other}")
    tolerance.assert_same_bits(F.conv2d(x, w, padding="valid"), F.conv2d(x, w), "valid")
    tolerance.assert_same_bits(F.conv2d(x, w, padding="full"), F.conv2d(x, w, padding=(2, 4)), "full")
    x, w = x[:, :, 0], w[:, :, 0]
    causal = F.conv1d(x, w, padding="causal", dilation=2)
    tolerance.assert_same_bits(causal, F.conv1d(x, w, padding=((8, 0),), dilation=2), "causal")


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_unbatched_and_empty(isa, axes, data_format):
    """``(C, *spatial)`` is one sample; no samples give an empty result and zero gradients of the weights."""
    rng = np.random.default_rng(2)
    call = expected.make_call(conv(axes), np.float32, rng, data_format)
    x, w, b = (call.arrays[name] for name in ("x", "weight", "bias"))
    forward, backward = getattr(F, f"conv{axes}d"), getattr(F, f"conv{axes}d_backward")
    y = forward(x, w, b, padding=1, data_format=data_format)
    single = forward(x[1], w, b, padding=1, data_format=data_format)
    tolerance.assert_same_bits(single, y[1], "unbatched")
    gradients = backward(y[:1], x[:1], w, padding=1, data_format=data_format)
    unbatched = backward(y[0], x[0], w, padding=1, data_format=data_format)
    tolerance.assert_same_bits(unbatched.input, gradients.input[0], "unbatched gradient")
    tolerance.assert_same_bits(unbatched.weight, gradients.weight, "unbatched weight gradient")
    empty = forward(x[:0], w, b, padding=1, data_format=data_format)
    assert empty.shape == (0, *y.shape[1:])
    assert empty.dtype == x.dtype
    gradients = backward(empty, x[:0], w, padding=1, data_format=data_format)
    assert gradients.input.shape == x[:0].shape
    assert gradients.weight.shape == w.shape
    assert not gradients.weight.any()
    assert gradients.bias.shape == b.shape
    assert not gradients.bias.any()


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "sigmoid", "tanh"])
@pytest.mark.parametrize("dtype", problems.DTYPES)
def test_fused_activation(isa, activation, dtype):
    """``activation=`` is the activation of the plain result."""
    rng = np.random.default_rng(3)
    for data_format in problems.FORMATS:
        for groups in (1, 6):
            problem = conv(2, c=6, k=12, size=11, groups=groups)
            call = expected.make_call(problem, dtype, rng, data_format)
            plain = call.forward()
            call.options["activation"] = activation
            fused = call.forward()
            separate = getattr(F, activation)(plain)
            bound = tolerance.ulp_bound(dtype, separate, 4, floor=4)
            tolerance.assert_close(fused, separate, bound, activation)


@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_out(isa, data_format):
    """``out=`` receives the result, whatever its strides, and is returned."""
    rng = np.random.default_rng(4)
    call = expected.make_call(conv(2), np.float32, rng, data_format)
    y = call.forward()
    for view in ("contiguous", "reversed", "gapped", "transposed", "offset"):
        out = problems.as_view(np.full_like(y, np.nan), view)
        call.options["out"] = out
        assert call.forward() is out
        tolerance.assert_same_bits(out, y, f"out as a {view} view")


def test_out_may_share_memory_with_the_input(isa):
    """A result written over the input is still computed from the input as it was."""
    rng = np.random.default_rng(5)
    x, w = rng.standard_normal((2, 3, 9, 9)).astype("f"), rng.standard_normal((3, 3, 3, 3)).astype("f")
    y = F.conv2d(x, w, padding=1)
    F.conv2d(x, w, padding=1, out=x)
    tolerance.assert_same_bits(x, y, "out=x")


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_output_mask(isa, axes):
    """A masked gradient is ``None`` and leaves the others as they are."""
    rng = np.random.default_rng(6)
    call = expected.make_call(conv(axes), np.float64, rng)
    gradient = rng.standard_normal(call.forward().shape)
    full = call.backward(gradient)
    assert full._fields == ("input", "weight", "bias")
    for mask in ((True, False, False), (False, True, False), (False, False, True), (False, False, False)):
        for wanted, got, whole in zip(mask, call.backward(gradient, mask), full, strict=True):
            if wanted:
                tolerance.assert_same_bits(got, whole, str(mask))
            else:
                assert got is None


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_gradcheck(isa, axes, groups, data_format):
    """The gradients are what central differences of the output say."""
    rng = np.random.default_rng(8)
    problem = conv(axes, n=2, c=4, k=4, size=5 if axes < 3 else 3, kernel=2, stride=2, dilation=1, groups=groups)
    call = expected.make_call(problem, np.float64, rng, data_format)

    def function(x, weight, bias):
        call.arrays = {"x": x, "weight": weight, "bias": bias}
        return call.forward(), call.backward

    assert gradcheck(function, [call.arrays[name] for name in ("x", "weight", "bias")])


@pytest.mark.parametrize("row", CONV_KERNELS, ids=lambda row: row["name"])
def test_every_kernel(row, force_kernel):
    """Each kernel row, forced by name, on sizes around its own tile."""
    dtype = np.dtype(row["dtype"])
    tile = [int(t) for t in np.atleast_1d(row["tile"]) if int(t) > 0] or [8]
    rng = np.random.default_rng(11)
    ran = 0
    for axes in (1, 2, 3):
        for data_format in problems.FORMATS:
            for edge in around(max(tile)) + around(min(tile)):
                for problem in kernel_problems(row, axes, edge):
                    call = expected.make_call(problem, dtype, rng, data_format)
                    with force_kernel(row["name"]):
                        expected.check(call, rng, taps_mix=row["op"] == "winograd")
                    ran += 1
    assert ran


def kernel_problems(row, axes, edge):
    """Problems that a row serves: a depthwise row gets depthwise ones."""
    ones = (1,) * axes
    length = (2,) * (axes - 1) + (min(edge, 20) + 2,)
    if "depthwise" in row["name"]:
        channels = max(edge, 2)  # one channel in one group is a dense convolution
        yield Problem("", "conv", 1, channels, length, channels, (1,) * (axes - 1) + (3,), ones, "same", ones, channels)
        return
    if "winograd" in row["name"]:
        if axes > 1:
            yield Problem("", "conv", 1, edge, length, 3, (1,) * (axes - 2) + (3, 3), ones, "same", ones)
        return
    yield Problem("", "conv", 1, edge, length, 3, (1,) * (axes - 1) + (3,), ones, "same", ones)
    yield Problem("", "conv", 1, 3, length, edge, (1,) * (axes - 1) + (2,), (2,) * axes, "same", ones)


@pytest.mark.parametrize(
    "row", [row for row in CONV_KERNELS if "depthwise" in row["name"]], ids=lambda row: row["name"]
)
@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_rows_of_a_few_channels(row, force_kernel, data_format):
    """Sums along rows for several output channels at a time: rows around whole registers, sums longer than one part.

    Groups, some of which are turned together where the channels lie side by side.
    """
    rng = np.random.default_rng(12)
    lanes = max(row["tile"])
    cases = [(3, outputs, (5, lanes + 3), (3, 3)) for outputs in (1, 2, 3, 4, 5, 6, 7, 13)]
    cases += [(2, 5, (3, width), (3, 3)) for edge in (lanes, 2 * lanes, 4 * lanes) for width in around(edge)]
    cases += [(40, 4, (7, lanes + 5), (5, 5)), (2, 6, (4, 3, lanes), (3, 2, 3)), (3, 5, (2 * lanes + 1,), (4,))]
    cases = [(*case, 1) for case in cases]
    cases += [(c, k, (4, 2 * lanes + 1), (3, 3), g) for c, k, g in ((20, 20, 5), (14, 7, 7), (6, 18, 3), (34, 34, 17))]
    for inputs, outputs, length, kernel, groups in cases:
        ones = (1,) * len(length)
        for stride in (1, 2):
            pads = tuple((size - 1, size // 2) for size in kernel)
            strides = (stride,) * len(length)
            problem = Problem("", "conv", 2, inputs, length, outputs, kernel, strides, pads, ones, groups)
            call = expected.make_call(problem, np.dtype(row["dtype"]), rng, data_format)
            with force_kernel(row["name"]):
                expected.check(call, rng)


@pytest.mark.parametrize("dtype", problems.DTYPES)
@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_long_rows_of_few_channels(isa, data_format, dtype):
    """A weight gradient from windows' rows: with and without padding, strides, blocks of a long row, many outputs."""
    rng = np.random.default_rng(13)
    cases = [(c, k, (5, 31), (3, 3)) for c in (1, 2, 3, 4, 7) for k in (15, 16, 17, 33)]
    cases += [(c, 20, (3, width), (1, 4)) for c in (3, 17) for width in (27, 28, 452)]
    cases += [(3, 300, (26,), (2,)), (96, 5, (40,), (3,)), (97, 5, (40,), (3,)), (2, 33, (3, 4, 29), (2, 3, 3))]
    for inputs, outputs, length, kernel in cases:
        ones = (1,) * len(length)
        for stride, padded in ((1, True), (1, False), (2, True), (4, False)):
            pads = tuple((size - 1, size // 2) if padded else (0, 0) for size in kernel)
            strides = (*ones[1:], min(stride, (length[-1] - kernel[-1]) // 24 or 1))
            problem = Problem("", "conv", 2, inputs, length, outputs, kernel, strides, pads, ones)
            expected.check(expected.make_call(problem, dtype, rng, data_format), rng)


@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_rows_wholly_in_the_padding(isa, data_format):
    """Padding longer than what is computed at a time: some of it reads nothing at all."""
    rng = np.random.default_rng(14)
    for pads in ((300, 0), (0, 300), (250, 270)):
        for sizes in ((10,), (3, 8)):
            kernel, ones = (3,) * len(sizes), (1,) * len(sizes)
            padding = ((1, 0),) * (len(sizes) - 1) + (pads,)
            problem = Problem("", "conv", 1, 3, sizes, 40, kernel, ones, padding, ones)
            expected.check(expected.make_call(problem, np.float32, rng, data_format), rng)


def test_strides_and_padding_near_the_largest(isa):
    """A window's span over the padding is beyond 64 bits in elements."""
    rows, far = 100_000, 2**40 - 1
    x = np.broadcast_to(np.ones((1, 1, 1, 3), np.float32), (1, 64, rows, 3))
    weight, gradient = np.ones((40, 64, 2, 2), np.float32), np.ones((1, 40, 10, 24), np.float32)
    window = {"stride": (1, 2 * far // 23), "padding": ((0, 0), (far, far)), "dilation": (rows - 10, 1)}
    result = F.conv2d_backward(gradient, x, weight, **window, output_mask=(False, True, False)).weight
    np.testing.assert_array_equal(result, np.zeros_like(weight))


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_weights_that_repeat_along_the_window(isa, axes, data_format):
    """All taps of a channel in one place in memory."""
    rng = np.random.default_rng(8)
    for c, k, groups in ((8, 16, 1), (1, 5, 1), (6, 4, 2)):
        one = rng.standard_normal((k, c // groups)).astype("f")
        w = np.broadcast_to(one.reshape(*one.shape, *(1,) * axes), (*one.shape, *(3,) * axes))
        x = np.array(problems.to_format(rng.standard_normal((2, c, *(9,) * axes)).astype("f"), data_format))
        function = getattr(F, f"conv{axes}d")
        back = getattr(F, f"conv{axes}d_backward")
        options = {"padding": 1, "groups": groups, "data_format": data_format}
        y = function(x, w, **options)
        tolerance.assert_same_bits(y, function(x, np.array(w), **options))
        mask = (True, False, False)
        results = [back(y, x, weight, output_mask=mask, **options).input for weight in (w, np.array(w))]
        tolerance.assert_same_bits(*results)


WIDE_TAPS = {
    "most outputs read four taps of nine": conv(2, 1, 130, 129, 13, 3, 1, 7, 7),
    "some read one": conv(2, 2, 128, 128, 11, 3, 1, 6, 6),
    "some read none": conv(2, 1, 140, 120, 9, 2, 1, 12, 8),
    "with a stride": conv(2, 2, 131, 130, 15, 3, 2, 8, 8),
    "without padding on a side": Problem(
        "", "conv", 1, 128, (12, 13), 129, (3, 3), (1, 1), ((8, 0), (2, 9)), (8, 7), 1
    ),
    "groups": conv(2, 1, 256, 258, 9, 3, 1, 5, 5, 2),
    "one axis": conv(1, 2, 130, 130, 40, 3, 1, 25, 25),
    "three axes": conv(3, 1, 128, 128, 5, 3, 1, 3, 3),
}


@pytest.mark.parametrize("name", WIDE_TAPS)
@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_taps_wide_apart(isa, name, data_format, threads):
    """Where much of a kernel lies in the padding, outputs are cut by the taps that they have, whatever the batch."""
    rng = np.random.default_rng(7)
    problem = WIDE_TAPS[name]
    for dtype in (np.float32, np.float64):
        call = expected.make_call(problem, np.dtype(dtype), rng, data_format, bias=True)
        expected.check(call, rng)
    x = rng.standard_normal((5, problem.c, *problem.size)).astype("f")
    w = rng.standard_normal((problem.k, problem.c // problem.groups, *problem.kernel)).astype("f")
    x = np.array(problems.to_format(x, data_format))
    function = getattr(F, f"conv{len(problem.size)}d")
    options = {"stride": problem.stride, "padding": problem.padding, "dilation": problem.dilation}

    def run(inputs):
        return function(inputs, w, groups=problem.groups, data_format=data_format, **options)

    threads(1)
    whole = run(x)
    threads(2)
    tolerance.assert_same_bits(run(x[2:4]), whole[2:4])
    w[0, 0, -1] = np.inf  # the last row of taps
    y = run(np.abs(x))
    assert np.isinf(y).any()
    assert not np.isnan(y).any()


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("outputs", [1, 5, 20])
def test_infinite_weights_do_not_meet_the_padding(isa, outputs, data_format):
    """An infinite weight reaches the outputs that read an input with it, and no other, along rows and in tiles."""
    x, weight = np.ones((1, 2, 6, 20), np.float32), np.ones((outputs, 2, 3, 3), np.float32)
    weight[0, 0, 0, 0] = np.inf
    y = F.conv2d(to_format(x, data_format), weight, padding=1, data_format=data_format)
    y = y if data_format == "channels_first" else np.moveaxis(y, -1, 1)
    reads = np.zeros((6, 20), bool)
    reads[1:, 1:] = True
    np.testing.assert_array_equal(np.isposinf(y[0, 0]), reads)
    assert np.isfinite(y[0, 1:]).all()
    assert not np.isnan(y).any()


@pytest.mark.parametrize("view", ["contiguous", "gapped", "reversed"])
@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
@pytest.mark.parametrize("sizes", [(1,), (5,), (5, 3), (1, 1), (2, 3, 2)])
def test_one_window_is_a_matrix_product(isa, sizes, op, data_format, view):
    """A window as large as its input, as LeNet-5's last one and a generator's first: few and many samples."""
    rng = np.random.default_rng(3)
    ones = (1,) * len(sizes)
    for n, c, k in ((1, 3, 5), (7, 16, 33), (70, 1, 2)):
        size = sizes if op == "conv" else ones
        pads = ((0, 0),) * len(sizes)
        extra = (0,) * len(sizes) if op == "conv_transpose" else ()
        problem = Problem("", op, n, c, size, k, sizes, ones, pads, ones, 1, output_padding=extra)
        for bias in (False, True):
            call = expected.make_call(problem, np.float32, rng, data_format, view, bias)
            expected.check(call, rng, view)


def both_ways(op, channels, kernel, out, strides, padding, dilations):
    """Problems of (samples, few channels, many): few become many of size ``out``, or the reverse if transposed."""
    whole = tuple(
        (o - 1) * stride + (k - 1) * dilation + 1 - sum(pads)
        for o, k, stride, pads, dilation in zip(out, kernel, strides, padding, dilations, strict=True)
    )
    for n, few, many in channels:
        size, c, k = (whole, few, many) if op == "conv" else (out, many, few)
        extra = (0,) * len(kernel) if op == "conv_transpose" else ()
        yield Problem("", op, n, c, size, k, kernel, strides, padding, dilations, 1, output_padding=extra)


@pytest.mark.parametrize("view", ["contiguous", "gapped", "reversed"])
@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
@pytest.mark.parametrize(
    ("kernel", "out"),
    [((4,), (9,)), ((4, 4), (5, 7)), ((1, 4), (3, 5)), ((2, 2, 2), (3, 2, 5)), ((3, 1, 4), (2, 3, 4))],
)
def test_windows_that_do_not_overlap(isa, kernel, out, op, data_format, view):
    """Patches of an image, as a transformer's, and a U-Net's way up: a matrix product, in several dtypes and orders."""
    rng = np.random.default_rng(5)
    channels = ((1, 3, 8), (2, 5, 33), (3, 8, 16), (2, 17, 9), (1, 1, 8))
    for problem in both_ways(op, channels, kernel, out, kernel, ((0, 0),) * len(kernel), (1,) * len(kernel)):
        for dtype in problems.DTYPES:
            expected.check(expected.make_call(problem, dtype, rng, data_format, view, True), rng, view)


@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_patches_of_a_large_image(isa, data_format):
    """More than are laid out at a time, the same bits as in parts."""
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 3, 360, 300), np.float32)
    weight, bias = rng.standard_normal((8, 3, 4, 4), np.float32), rng.standard_normal(3, np.float32)
    y = F.conv2d(to_format(x, data_format), weight, stride=4, data_format=data_format)
    up = F.conv_transpose2d(y, weight, bias, stride=4, data_format=data_format)
    for rows in (slice(0, 40), slice(40, 360)):
        axis = 2 if data_format == "channels_first" else 1
        part = y[(slice(None),) * axis + (slice(rows.start // 4, rows.stop // 4),)]
        own = F.conv2d(to_format(x[:, :, rows], data_format), weight, stride=4, data_format=data_format)
        np.testing.assert_array_equal(own, part)
        own = F.conv_transpose2d(part, weight, bias, stride=4, data_format=data_format)
        np.testing.assert_array_equal(own, up[(slice(None),) * axis + (rows,)])
    np.testing.assert_allclose(
        y, to_format(np.einsum("nciajb,kcab->nkij", x.reshape(2, 3, 90, 4, 75, 4), weight), data_format), atol=1e-4
    )


FAR_OVER_THE_EDGE = [
    # kernel, outputs, stride, dilation, padding
    ((9, 9), (4, 4), 1, 1, ((0, 0), (0, 0))),
    ((5, 7), (3, 6), 1, 1, ((1, 0), (0, 2))),
    ((6, 5), (4, 3), 2, 1, ((0, 3), (1, 1))),
    ((7, 4), (3, 3), 3, 1, ((2, 0), (0, 0))),
    ((3, 3), (4, 5), 1, 3, ((1, 0), (0, 1))),
    ((31,), (9,), 1, 1, ((0, 4),)),
    ((16,), (7,), 3, 2, ((5, 0),)),
    ((3, 4, 3), (3, 2, 4), 1, 1, ((0, 0), (0, 1), (0, 0))),
    ((3, 2, 5), (2, 3, 3), 2, 1, ((0, 1), (0, 0), (2, 2))),
]


@pytest.mark.parametrize("view", ["contiguous", "gapped", "reversed"])
@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
@pytest.mark.parametrize(("kernel", "out", "stride", "dilation", "padding"), FAR_OVER_THE_EDGE)
def test_windows_far_over_the_edge(isa, kernel, out, stride, dilation, padding, op, data_format, view):
    """Input gradients, and transposed convolutions, most of whose windows' taps lie in the padding: products of each
    position with all weights, added where they belong."""
    rng = np.random.default_rng(8)
    strides, dilations = (stride,) * len(kernel), (dilation,) * len(kernel)
    channels = ((1, 3, 64), (3, 17, 40), (2, 33, 129))
    for problem in both_ways(op, channels, kernel, out, strides, padding, dilations):
        for dtype in problems.DTYPES:
            expected.check(expected.make_call(problem, dtype, rng, data_format, view, True), rng, view)


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize(
    ("kernel", "size", "padding"),
    [((3, 3, 3), (5, 4, 6), 1), ((5, 5), (7, 9), 2), ((3, 3), (8, 8), 0), ((9,), (20,), 4)],
)
def test_few_outputs_of_many_channels(isa, kernel, size, padding, data_format):
    """Forward passes to one channel or a few, whose lanes would idle."""
    rng = np.random.default_rng(9)
    ones, pads = (1,) * len(kernel), ((padding, padding),) * len(kernel)
    for n, c, k in ((1, 256, 1), (3, 131, 2), (2, 400, 1)):
        problem = Problem("", "conv", n, c, size, k, kernel, ones, pads, ones, 1)
        for dtype in problems.DTYPES:
            expected.check(expected.make_call(problem, dtype, rng, data_format, "contiguous", True), rng, "contiguous")


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize(
    ("n", "channels", "outputs", "size", "kernel", "dtype"),
    [
        (150, 64, 70, 3, 7, np.float32),  # more samples, and channels, than are multiplied at a time
        (64, 64, 40, 4, 9, np.float32),  # more contributions of sixteen channels than fit, so fewer samples
        (64, 64, 40, 4, 7, np.float64),
        (64, 1100, 17, 4, 5, np.float32),  # more inputs than fit
    ],
)
def test_batches_far_over_the_edge(isa, n, channels, outputs, size, kernel, dtype, data_format):
    """Batches that are computed in parts, of samples and of channels: the bits of each sample alone, and its sums."""
    rng = np.random.default_rng(10)
    x = to_format(rng.standard_normal((n, channels, size, size)).astype(dtype), data_format)
    weight = rng.standard_normal((channels, outputs, kernel, kernel)).astype(dtype)
    bias = 1000 * rng.standard_normal(outputs).astype(dtype)
    y = F.conv_transpose2d(x, weight, bias, data_format=data_format)
    for i in (0, n // 2, n - 1):
        own = F.conv_transpose2d(x[i : i + 1], weight, bias, data_format=data_format)
        np.testing.assert_array_equal(own, y[i : i + 1])
    first, x = problems.to_first(y, data_format), problems.to_first(x, data_format)
    truth = np.zeros(first[:2].shape)
    for h, w in np.ndindex(size, size):
        truth[:, :, h : h + kernel, w : w + kernel] += np.einsum("nc,ckhw->nkhw", x[:2, :, h, w].astype(float), weight)
    # A bias rounds once, however many sums it is added to.
    bound = tolerance.sum_bound(dtype, channels * size**2, np.abs(truth).max()) + np.finfo(dtype).eps * np.abs(
        truth + bias[:, None, None]
    )
    np.testing.assert_array_less(np.abs(first[:2] - (truth + bias[:, None, None])), bound)


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("width", [6, 20, 35])
@pytest.mark.parametrize("outputs", [3, 40])
@pytest.mark.parametrize("channels", [1, 3, 40])
def test_infinite_gradients_do_not_meet_the_padding(isa, channels, outputs, width, data_format):
    """An infinite gradient reaches the weights whose taps read an input there, and no other."""
    x = to_format(np.ones((2, channels, 5, width), np.float32), data_format)
    gradient = np.ones((2, outputs, 5, width), np.float32)
    gradient[0, 1, 0, 0] = np.inf
    weight = np.ones((outputs, channels, 3, 3), np.float32)
    gradient = to_format(gradient, data_format)
    result = F.conv2d_backward(gradient, x, weight, padding=1, data_format=data_format).weight
    reads = np.zeros((3, 3), bool)
    reads[1:, 1:] = True
    np.testing.assert_array_equal(np.isposinf(result[1]), np.broadcast_to(reads, (channels, 3, 3)))
    assert np.isfinite(np.delete(result, 1, axis=0)).all()
    assert not np.isnan(result).any()
