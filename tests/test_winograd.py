"""Winograd's transforms for 3x3 convolutions, forced by name on sizes around tiles, and what chooses them."""

import expected
import fastconv
import fastconv.functional as F
import numpy as np
import problems
import pytest
import tolerance
from conftest import runnable_kernels
from fastconv import _core
from fastconv._cli.problem import Problem

ROWS = runnable_kernels("winograd")
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row["name"])
each_row_of_weights = pytest.mark.parametrize(
    "row", [row for row in ROWS if row["isa"] != "amx"], ids=lambda row: row["name"]
)  # a weight gradient has no products on tile registers
both_formats = pytest.mark.parametrize("data_format", problems.FORMATS)
NUMPY_MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def problem_of(size, c=5, k=7, n=2, pads=((1, 1), (1, 1)), groups=1, kernel=(3, 3), dilation=(1, 1)):
    """A convolution with stride 1."""
    ones = (1,) * len(size)
    return Problem("", "conv", n, c, tuple(size), k, kernel, ones, pads, dilation, groups)


def ran(name, function):
    """The function's result, and whether the kernel row was chosen in it."""
    before = _core.kernel_counts().get(name, 0)
    result = function()
    return result, _core.kernel_counts().get(name, 0) > before


def arrays(shape, weight, dtype, seed=0):
    """A random input and weight."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape).astype(dtype), rng.standard_normal(weight).astype(dtype)


def check_each(listed, row, data_format, rng, force_kernel, view="contiguous"):
    """Each problem by the row, which serves it; all three passes."""
    for problem in listed:
        call = expected.make_call(problem, np.dtype(row["dtype"]), rng, data_format, view)
        with force_kernel(row["name"]):
            before = _core.kernel_counts().get(row["name"], 0)
            expected.check(call, rng, view, taps_mix=True)
        assert _core.kernel_counts().get(row["name"], 0) > before, problem


def assert_padding_is_a_copy(conv, x, w, pads, mode, **options):
    """Padding that repeats the input gives the bits of the padded copy without padding."""
    padded = np.pad(x, ((0, 0), (0, 0), *pads), mode=NUMPY_MODES[mode])
    y = conv(x, w, padding=pads, padding_mode=mode, **options)
    tolerance.assert_same_bits(y, conv(padded, w, **options))


@each_row
@both_formats
def test_sizes_around_the_tiles(row, data_format, force_kernel):
    """Maps of one to several tiles, whole or not, and channels around registers, packed blocks and panels."""
    rng = np.random.default_rng(1)
    sizes = [(h, w) for h in (1, 2, 3, 4, 5, 8) for w in (1, 2, 3, 6, 7)] + [(13, 40), (29, 12)]
    channels = [(1, 1), (3, 17), (8, 31), (9, 16), (16, 33), (31, 8), (33, 65), (7, 70)]
    cases = [problem_of(size, *channels[i % len(channels)]) for i, size in enumerate(sizes)]
    cases += [problem_of((5, 6), c, k) for c, k in channels]
    cases += [problem_of((6, 5), 12, 18, groups=3), problem_of((9, 9), 70, 66, groups=2)]
    cases += [problem_of((2, 3), 6, 5, n=n) for n in (1, 7, 30)]
    for problem in cases:
        call = expected.make_call(problem, np.dtype(row["dtype"]), rng, data_format)
        with force_kernel(row["name"]):
            # Maps of a few positions: some taps see one product, and round like the others of their tile.
            expected.check(call, rng, taps_mix=True)


@each_row
@both_formats
@pytest.mark.parametrize("view", problems.VIEWS)
def test_views(row, data_format, view, force_kernel):
    """Every arrangement of memory of inputs, weights and gradients."""
    rng = np.random.default_rng(2)
    for problem in (problem_of((7, 6), 9, 20), problem_of((4, 5), 8, 12, groups=2)):
        call = expected.make_call(problem, np.dtype(row["dtype"]), rng, data_format, view)
        with force_kernel(row["name"]):
            expected.check(call, rng, view)


@each_row
def test_paddings(row, force_kernel):
    """None, one side only, more than the kernel, less than none."""
    rng = np.random.default_rng(3)
    for pads in (((0, 0), (0, 0)), ((0, 1), (2, 0)), ((3, 2), (4, 5)), ((1, 0), (0, 2))):
        for size in ((5, 8), (6, 7)):
            call = expected.make_call(problem_of(size, pads=pads), np.dtype(row["dtype"]), rng)
            with force_kernel(row["name"]):
                expected.check(call, rng)


@each_row
@both_formats
def test_dilation(row, data_format, force_kernel):
    """Each residue of the outputs is a convolution of its own, some shorter than others and some without outputs."""
    rng = np.random.default_rng(9)
    for size, dilation, pads in (
        ((9, 12), (2, 2), ((2, 2), (2, 2))),
        ((7, 5), (3, 1), ((3, 3), (1, 1))),
        ((8, 6), (1, 4), ((1, 0), (4, 5))),
        ((5, 33), (2, 6), ((2, 1), (6, 6))),
        ((3, 4), (5, 7), ((5, 5), (7, 7))),
    ):
        for c, k, n, groups in ((5, 7, 2, 1), (40, 36, 1, 2), (9, 33, 5, 1)):
            problem = problem_of(size, c // groups * groups, k // groups * groups, n, pads, groups, dilation=dilation)
            call = expected.make_call(problem, np.dtype(row["dtype"]), rng, data_format)
            with force_kernel(row["name"]):
                expected.check(call, rng, taps_mix=True)


@each_row
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_dilation_with_what_is_not_finite(row, value, force_kernel):
    """A lattice of a sample with a result that is not finite has the whole sample computed again."""
    x, w = arrays((3, 10, 9, 8), (20, 10, 3, 3), row["dtype"])
    with force_kernel(row["name"]):
        clean = F.conv2d(x, w, padding=2, dilation=2)
    x[1, 3, 4, 5] = value
    with force_kernel(direct_kernel(row["dtype"], 20)):
        exact = F.conv2d(x, w, padding=2, dilation=2)
    with force_kernel(row["name"]):
        y = F.conv2d(x, w, padding=2, dilation=2)
    tolerance.assert_same_bits(y[1], exact[1])
    tolerance.assert_same_bits(y[[0, 2]], clean[[0, 2]])


@each_row
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(row, mode, force_kernel):
    """Padding that repeats the input is the padded copy without padding, also where tiles reach over its end."""
    for size in ((5, 8), (4, 5), (6, 6)):
        x, w = arrays((2, 5, *size), (7, 5, 3, 3), row["dtype"])
        with force_kernel(row["name"]):
            assert_padding_is_a_copy(F.conv2d, x, w, ((1, 2), (3, 2)), mode)


@each_row
@both_formats
def test_depth(row, data_format, force_kernel):
    """Taps along the depth lengthen the sums: some, with steps and dilation, planes in the padding."""
    rng = np.random.default_rng(4)
    ones = ((1, 1), (1, 1))
    for depth, taps, pad, stride, dilation in ((4, 3, 1, 1, 1), (7, 2, 0, 2, 1), (9, 3, 2, 1, 3), (1, 3, 1, 1, 1)):
        for c in (6, 90):
            problem = Problem(
                "", "conv", 2, c, (depth, 5, 6), 10, (taps, 3, 3), (stride, 1, 1), ((pad, pad), *ones), (dilation, 1, 1)
            )
            call = expected.make_call(problem, np.dtype(row["dtype"]), rng, data_format)
            with force_kernel(row["name"]):
                expected.check(call, rng)


def taps_of(size, kernel, stride=(1, 1), pads=((1, 1), (1, 1)), dilation=(1, 1), c=5, k=7, n=2, groups=1, op="conv"):
    """A layer with any taps."""
    more = {"output_padding": (0,) * len(size)} if op == "conv_transpose" else {}
    return Problem("", op, n, c, tuple(size), k, tuple(kernel), stride, pads, dilation, groups, **more)


OTHER_TAPS = {
    "4x4 of stride 2": [
        taps_of(size, (4, 4), (2, 2), c=c, k=k, op=op)
        for size, c, k in (((8, 6), 5, 7), ((13, 9), 16, 33), ((12, 27), 33, 8), ((2, 4), 9, 6))
        for op in ("conv", "conv_transpose")
    ],
    "2x2, 2x3, 3x2": [
        taps_of((h, w), kernel) for kernel in ((2, 2), (2, 3), (3, 2)) for h, w in ((4, 7), (9, 5), (1, 2))
    ],
    "4x4, 5x5, 6x5, 9x2": [
        taps_of(size, kernel, pads=((2, 2), (1, 3)), c=c, k=k)
        for kernel in ((4, 4), (5, 5), (6, 5), (9, 2))
        for size, c, k in (((9, 8), 5, 7), ((12, 19), 20, 18))
    ],
    "5x5 of stride 2": [
        taps_of((11, 8), (5, 5), (2, 2), ((2, 2), (2, 1)), c=18, k=20, op=op) for op in ("conv", "conv_transpose")
    ],
    "3x3 of stride 2": [taps_of((11, 12), (3, 3), (2, 2), c=18, k=20, op=op) for op in ("conv", "conv_transpose")],
    "3x1, 1x4, 7x7": [
        taps_of((9, 12), kernel, stride, ((3, 3), (3, 3)), c=18, k=20, op=op)
        for kernel, stride in (((3, 1), (1, 1)), ((1, 4), (1, 1)), ((7, 7), (1, 1)), ((7, 7), (2, 2)), ((2, 2), (3, 3)))
        for op in ("conv", "conv_transpose")
    ],
    "7x5 of stride 3x2": [
        taps_of((17, 14), (7, 5), (3, 2), ((3, 3), (2, 2)), op=op) for op in ("conv", "conv_transpose")
    ],
    "stride 2 and dilation": [
        taps_of(
            (16, 15), (3, 3), (2, 2), ((2, 2), (2, 2)), dilation, op=op
        )  # every other output of a gradient has no taps
        for dilation in ((2, 2), (3, 3), (2, 3))
        for op in ("conv", "conv_transpose")
    ],
    "5x4 and dilation": [taps_of((16, 15), (5, 4), (1, 1), ((4, 4), (3, 3)), (2, 3), c=18, k=5)],
    "groups": [taps_of((12, 12), (4, 4), (2, 2), c=12, k=18, groups=3, op=op) for op in ("conv", "conv_transpose")],
    "samples together": [taps_of((3, 3), (4, 4), (2, 2), n=11, op=op) for op in ("conv", "conv_transpose")],
    "three axes": [
        taps_of((5, 8, 7), (4, 4, 4), (2, 2, 2), ((1, 1),) * 3, (1, 1, 1), c=9, k=20, op=op)
        for op in ("conv", "conv_transpose")
    ],
    "long sums": [taps_of((9, 8), (4, 4), (2, 2), c=140, k=300, n=1, op=op) for op in ("conv", "conv_transpose")],
}


@each_row_of_weights
@both_formats
@pytest.mark.parametrize("taps", OTHER_TAPS)
def test_other_taps(row, data_format, taps, force_kernel):
    """Other kernels than 3x3 of stride 1 are sums of runs of two or three taps, of every stride-th input."""
    check_each(OTHER_TAPS[taps], row, data_format, np.random.default_rng(10), force_kernel)


@each_row_of_weights
@both_formats
@pytest.mark.parametrize("view", problems.VIEWS)
def test_views_of_other_taps(row, data_format, view, force_kernel):
    """Every arrangement of memory of inputs, weights and gradients, where kernels have more taps than a phase."""
    ops = ("conv", "conv_transpose")
    listed = [taps_of((12, 10), (4, 5), (2, 2), ((1, 1), (2, 2)), c=18, k=20, op=op) for op in ops]
    check_each(listed, row, data_format, np.random.default_rng(11), force_kernel, view)


@each_row_of_weights
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes_of_other_taps(row, mode, force_kernel):
    """As of 3x3."""
    for size, kernel, stride in (((8, 8), (4, 4), 2), ((9, 7), (5, 5), 1), ((6, 11), (2, 4), (1, 2))):
        x, w = arrays((2, 5, *size), (7, 5, *kernel), row["dtype"])
        with force_kernel(row["name"]):
            assert_padding_is_a_copy(F.conv2d, x, w, ((1, 2), (3, 2)), mode, stride=stride)


@each_row_of_weights
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_other_taps_with_what_is_not_finite(row, value, force_kernel):
    """A sample with a result that is not finite has the phase computed again, as the definition has it."""
    x, w = arrays((3, 10, 9, 8), (20, 10, 4, 4), row["dtype"])
    dtype = row["dtype"]

    def both(inputs):
        return F.conv2d(inputs, w, stride=2, padding=1), F.conv_transpose2d(inputs, w[:10], stride=2, padding=1)

    with force_kernel(row["name"]):
        clean = both(x)
    x[1, 3, 4, 5] = value
    with force_kernel(row["name"]):
        results = both(x)
    for y, before, cols in zip(results, clean, (20, 10), strict=True):
        with force_kernel(direct_kernel(dtype, cols)):
            exact = both(x)[0 if cols == 20 else 1]
        np.testing.assert_array_equal(np.isnan(y[1]), np.isnan(exact[1]))
        np.testing.assert_array_equal(np.isinf(y[1]), np.isinf(exact[1]))
        tolerance.assert_same_bits(y[[0, 2]], before[[0, 2]])


def assert_same_bits_in_any_batch(run, threads):
    """``run(pick)`` gives the results of some of nine samples: the same in any batch, with any number of threads."""
    threads(1)
    whole = run(slice(None))
    for count, pick in ((2, slice(None)), (3, slice(None)), (1, slice(0, 1)), (2, slice(8, 9)), (2, slice(2, 7))):
        threads(count)
        for some, all_ in zip(run(pick), whole, strict=True):
            tolerance.assert_same_bits(some, all_[pick])


@each_row_of_weights
@both_formats
def test_bits_of_other_taps(row, data_format, threads, force_kernel):
    """The same bits for any batch around a sample and any number of threads."""
    x, w = arrays((9, 24, 14, 11), (40, 24, 4, 4), row["dtype"])
    g = arrays((9, 40, 7, 5), (1,), row["dtype"], 1)[0]
    x, g = (np.array(problems.to_format(array, data_format)) for array in (x, g))
    options = {"padding": 1, "stride": 2, "data_format": data_format}

    def run(pick):
        return F.conv2d(x[pick], w, **options), F.conv2d_backward(g[pick], x[pick], w, **options).input

    with force_kernel(row["name"]):
        assert_same_bits_in_any_batch(run, threads)


@each_row_of_weights
def test_error_of_other_taps_is_no_larger_than_of_a_plain_loop(row, force_kernel):
    """Against a running sum in the same dtype; of 16 channels it is larger, which no problem chooses."""
    for c in (64, 256):
        x, w = arrays((1, c, 14, 14), (8, c, 4, 4), row["dtype"])
        for inputs in (x, np.maximum(x, 0), np.abs(x) + 1):
            windows = np.moveaxis(np.lib.stride_tricks.sliding_window_view(inputs[0], (4, 4), axis=(1, 2)), 0, 2)
            for stride in (1, 2):
                some = windows[::stride, ::stride][None]
                terms = some * w[:, None, None]
                exact = (some.astype(np.longdouble) * w[:, None, None]).sum((3, 4, 5))
                plain = np.add.accumulate(terms.reshape(*terms.shape[:3], -1), axis=-1, dtype=inputs.dtype)[..., -1]
                with force_kernel(row["name"]):
                    y = F.conv2d(inputs, w, stride=stride)[0]
                assert np.linalg.norm((y - exact).astype("d")) <= np.linalg.norm((plain - exact).astype("d"))


@each_row
def test_long_sums(row, force_kernel):
    """More channels than one running sum has, and so many that the panels are packed a few at a time."""
    rng = np.random.default_rng(5)
    for problem in (problem_of((4, 7), 521, 40, n=1), problem_of((3, 4), 260, 600, n=1)):
        call = expected.make_call(problem, np.dtype(row["dtype"]), rng)
        with force_kernel(row["name"]):
            expected.check(call, rng, taps_mix=True)


@each_row
def test_bias_and_activation(row, force_kernel):
    """Both are applied to the sums before they are stored."""
    x, w = arrays((2, 20, 9, 7), (24, 20, 3, 3), row["dtype"])
    bias = np.linspace(-1, 1, 24, dtype=row["dtype"])
    with force_kernel(row["name"]):
        plain = F.conv2d(x, w, padding=1)
        y = F.conv2d(x, w, bias, padding=1, activation="relu")
    tolerance.assert_same_bits(y, np.maximum(plain + bias[:, None, None], 0))


@each_row
def test_sixteen_bit(row, force_kernel):
    """16-bit arrays give what float32 gives, rounded once."""
    if row["dtype"] != "float32":
        return
    x, w = (array.astype(np.float16) for array in arrays((2, 20, 9, 7), (24, 20, 3, 3), "f"))
    with force_kernel(row["name"]):
        tolerance.assert_same_bits(
            F.conv2d(x, w, padding=1), F.conv2d(x.astype("f"), w.astype("f"), padding=1).astype(np.float16)
        )


@each_row
@both_formats
@pytest.mark.parametrize("size", [(7, 7), (3, 4), (18, 31)])
@pytest.mark.parametrize("dilation", [1, 3])
def test_bits(row, data_format, size, dilation, threads, force_kernel):
    """The same bits for any batch around a sample and any number of threads, forward and in the input's gradient."""
    x, w = arrays((9, 24, *size), (40, 24, 3, 3), row["dtype"])
    g = arrays((9, 40, *size), (1,), row["dtype"], 1)[0]
    x, g = (np.array(problems.to_format(array, data_format)) for array in (x, g))
    options = {"padding": dilation, "dilation": dilation, "data_format": data_format}

    def run(pick):
        y = F.conv2d(x[pick], w, **options)
        return y, F.conv2d_backward(g[pick], x[pick], w, **options).input

    with force_kernel(row["name"]):
        assert_same_bits_in_any_batch(run, threads)


def weight_gradient(g, x, weight_shape, **options):
    """That of a convolution padded by one."""
    mask = (False, True, False)
    return F.conv2d_backward(g, x, np.empty(weight_shape, x.dtype), padding=1, output_mask=mask, **options).weight


@each_row_of_weights
@both_formats
@pytest.mark.parametrize("size", [(7, 7), (3, 40), (18, 31), (2, 2)])
def test_bits_of_the_weight_gradient(row, data_format, size, threads, force_kernel):
    """Any number of threads gives the same, and so do both layouts."""
    for c, k in ((24, 40), (130, 9)):
        x, _ = arrays((9, c, *size), (1,), row["dtype"])
        g, _ = arrays((9, k, *size), (1,), row["dtype"], 1)
        first = None
        with force_kernel(row["name"]):
            for count in (1, 2, 3):
                threads(count)
                gx, xx = (np.array(problems.to_format(array, data_format)) for array in (g, x))
                for some in (
                    weight_gradient(gx, xx, (k, c, 3, 3), data_format=data_format),
                    weight_gradient(g, x, (k, c, 3, 3)),
                ):
                    first = some if first is None else first
                    tolerance.assert_same_bits(some, first)


@each_row_of_weights
@both_formats
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "largest", "tiny"])
def test_weight_gradients_that_are_not_finite_are_exact(row, data_format, value, force_kernel):
    """They, and those that the last transform would lose, are computed by the definition."""
    dtype = np.dtype(row["dtype"])
    info = np.finfo(dtype)
    direct = direct_kernel(row["dtype"], 20)
    x, _ = arrays((3, 10, 7, 8), (1,), dtype)
    g, _ = arrays((3, 20, 7, 8), (1,), dtype, 1)
    cases = []
    for position in (0, x.size // 2, x.size - 1):
        changed, gradient = x.copy(), g.copy()
        if value == "largest":  # the difference of two inputs overflows, no sum of products does
            changed = np.where(np.arange(x.size).reshape(x.shape) % 2, info.max, -info.max) * dtype.type(0.9)
            gradient *= dtype.type(1e-4)
        elif value == "tiny":
            changed *= info.tiny * dtype.type(64)
        else:
            changed.reshape(-1)[position] = value
            gradient.reshape(-1)[position] = 0 if position else value
        cases.append((gradient, changed))
    for gradient, inputs in cases:
        gradient, inputs = (np.array(problems.to_format(array, data_format)) for array in (gradient, inputs))
        results = []
        for name in (direct, row["name"]):
            with force_kernel(name), np.errstate(all="ignore"):
                results.append(weight_gradient(gradient, inputs, (20, 10, 3, 3), data_format=data_format))
        if value in ("largest", "tiny"):
            assert np.isfinite(results[0]).all()
        else:
            assert not np.isfinite(results[0]).all()
        tolerance.assert_same_bits(*results)


@each_row_of_weights
def test_error_of_weight_gradients_is_no_larger_than_of_a_plain_loop(row, force_kernel):
    """Against a running sum in the same dtype over all positions."""
    for n, size in ((12, 10), (3, 20), (2, 60)):
        x, _ = arrays((n, 3, size + 2, size + 2), (1,), row["dtype"])
        g, _ = arrays((n, 4, size, size), (1,), row["dtype"], 1)
        for inputs, gradient in ((x, g), (np.maximum(x, 0), g), (np.abs(x) + 1, np.abs(g))):
            windows = np.lib.stride_tricks.sliding_window_view(inputs, (size, size), axis=(2, 3))
            terms = np.moveaxis(windows[:, None] * gradient[:, :, None, None, None], 0, -3)
            exact = np.moveaxis(windows.astype(np.longdouble)[:, None] * gradient[:, :, None, None, None], 0, -3)
            plain = np.add.accumulate(terms.reshape(*terms.shape[:4], -1), axis=-1, dtype=inputs.dtype)[..., -1]
            exact = exact.sum((-3, -2, -1))
            with force_kernel(row["name"]):
                dw = F.conv2d_backward(gradient, inputs, np.empty((4, 3, 3, 3), inputs.dtype)).weight
            assert np.linalg.norm((dw - exact).astype("d")) <= np.linalg.norm((plain - exact).astype("d"))


def direct_kernel(dtype, cols):
    """The name of the direct kernel of the best instruction set in use: the products of Winograd's are made by it."""
    levels = fastconv.available_isas()
    usable = levels[: levels.index(fastconv.get_isa()) + 1]
    rows = [k for k in _core.kernel_table() if (k["op"], k["dtype"]) == ("conv", dtype) and k["isa"] in usable]
    best = max(levels.index(k["isa"]) for k in rows)
    rows = [k for k in rows if levels.index(k["isa"]) == best]
    widest = max(k["tile"][1] for k in rows)

    def cost(kernel):
        width = kernel["tile"][1]
        return -(-cols // width) * width * (1 if width == widest else 4 / 3)

    return min(rows, key=cost)["name"]


@each_row
@both_formats
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, "largest"])
def test_what_is_not_finite_is_exact(row, data_format, value, force_kernel):
    """A sample with a result that is not finite is computed by the definition, the others as if it were not there."""
    dtype = np.dtype(row["dtype"])
    number = np.finfo(dtype).max if value == "largest" else value
    x, w = arrays((3, 10, 8, 7), (20, 10, 3, 3), dtype)
    x = np.array(problems.to_format(x, data_format))
    options = {"padding": 1, "data_format": data_format}
    direct = direct_kernel(row["dtype"], 20)

    def both(inputs, weights):
        with np.errstate(all="ignore"):
            with force_kernel(direct):
                exact = F.conv2d(inputs, weights, **options)
            with force_kernel(row["name"]):
                return F.conv2d(inputs, weights, **options), exact

    clean, _ = both(x, w)
    for position in (0, x[1].size // 2, x[1].size - 1):
        changed = x.copy()
        changed[1].reshape(-1)[position] = number
        if value == "largest":  # a difference of the transform overflows, no result does
            changed[1] = np.where(changed[1] == number, number, -number)
        y, exact = both(changed, w * (1e-3 if value == "largest" else 1))
        tolerance.assert_same_bits(y[1], exact[1], f"{number} at {position}")
        if value != "largest":
            tolerance.assert_same_bits(y[[0, 2]], clean[[0, 2]], "the other samples")
    for position in (0, w.size // 2, w.size - 1):
        weights = w.copy()
        weights.reshape(-1)[position] = number
        y, exact = both(x, weights)
        if value == "largest":
            finite = np.isfinite(exact)
            assert (np.isfinite(y) == finite).all()
        else:
            tolerance.assert_same_bits(y, exact, f"weight {number} at {position}")


@each_row
def test_error_is_no_larger_than_of_a_plain_loop(row, force_kernel):
    """Against a running sum in the same dtype, for normal data and for what comes after a rectifier."""
    for c in (16, 64, 256):
        x, w = arrays((1, c, 10, 10), (8, c, 3, 3), row["dtype"])
        for inputs in (x, np.maximum(x, 0), np.abs(x) + 1):
            windows = np.lib.stride_tricks.sliding_window_view(inputs[0], (3, 3), axis=(1, 2))
            terms = np.moveaxis(windows, 0, 2)[None] * w[:, None, None]
            exact = (np.moveaxis(windows, 0, 2)[None].astype(np.longdouble) * w[:, None, None]).sum((3, 4, 5))
            plain = np.add.accumulate(terms.reshape(*terms.shape[:3], -1), axis=-1, dtype=inputs.dtype)[..., -1]
            with force_kernel(row["name"]):
                y = F.conv2d(inputs, w)[0]
            assert np.linalg.norm((y - exact).astype("d")) <= np.linalg.norm((plain - exact).astype("d"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_choice(isa, dtype):
    """Enough channels and outputs a tile choose it, whatever the batch; where most of it is zeros, nothing does."""
    own = [row["name"] for row in ROWS if row["isa"] == isa and row["dtype"] == dtype]
    if not own:
        pytest.skip(f"{isa} has no such kernels of its own: its tile registers come first, or those of the level below")
    name, c = own[0], 256 if isa == "amx" else 64  # fewer channels are faster in tiles of outputs there

    def chosen(n, c, k, size, kernel=(3, 3), **options):
        x, w = arrays((n, c, *size), (k, c // options.get("groups", 1), *kernel), dtype)
        return ran(name, lambda: F.conv2d(x, w, **options))[1]

    def chosen_for_weights(c, k, size, kernel=(3, 3), **options):
        x, w = arrays((2, c, *size), (k, c, *kernel), dtype)
        g = F.conv2d(x, w, **options)
        return ran(name, lambda: F.conv2d_backward(g, x, w, output_mask=(False, True, False), **options))[1]

    if isa != "amx":  # the weight gradient has no products on tile registers
        assert chosen_for_weights(c, c, (30, 20), padding=1)
        assert chosen_for_weights(16, 9, (40, 16))
        assert not chosen_for_weights(c, c, (30, 17), padding=1)  # 1020 positions
        assert chosen_for_weights(c, c, (32, 16), padding=1)
        assert not chosen_for_weights(7, c, (14, 14), padding=1)
        assert not chosen_for_weights(c, c, (3, 3), padding=1)
        assert not chosen_for_weights(c, c, (14, 14), stride=2)
        assert chosen_for_weights(c, c, (20, 28), padding=2, dilation=2)
        assert not chosen_for_weights(c, c, (14, 14), padding=5, dilation=5)

    for n in (1, 5):
        assert chosen(n, c, c, (14, 14), padding=1)
        assert chosen(n, c, c, (7, 7), padding=1)
        assert chosen(n, 2 * c, 2 * c, (9, 9), groups=2)
        assert not chosen(n, c, c, (3, 3), padding=1)
        assert not chosen(n, 8, c, (14, 14), padding=1)
        assert not chosen(n, c, 6, (14, 14), padding=1)
        assert not chosen(n, c, c, (14, 14), stride=2)
        assert chosen(n, c, c, (20, 28), padding=2, dilation=2)
        assert not chosen(n, c, c, (14, 14), padding=5, dilation=5)
        assert not chosen(n, c, c, (14, 14), (3, 1))
        if isa != "amx":
            assert chosen(n, c, c, (62, 58), (4, 4), stride=2, padding=1)
            assert chosen(n, c, c, (20, 22), (5, 5), padding=2)
            assert chosen(n, 2 * c, 2 * c, (20, 22), (2, 2))
            assert chosen(n, 2 * c, 2 * c, (56, 56), stride=2, padding=1)
            assert not chosen(n, c, c, (5, 5), (5, 5), padding=2)  # half of the taps lie in the padding
            assert not chosen(n, c, c, (20, 22), (2, 2))  # a plain sum of so few products errs less
            assert not chosen(n, c, c, (14, 14), (5, 1))
