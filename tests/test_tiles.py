"""Convolution on tile registers (the instruction set ``amx``, or the model of it that a build can have instead)."""

import expected
import fastconv
import fastconv.functional as F
import numpy as np
import problems
import pytest
import tolerance
from conftest import isas_of_run, runnable_kernels
from fastconv import _core
from fastconv._cli.problem import Problem

if "amx" not in isas_of_run():
    pytest.skip("this run does not cover the instruction set amx", allow_module_level=True)

ROWS = {row["name"].removeprefix("tiles_f32_").split("_")[0]: row["name"] for row in runnable_kernels("tiles")}
SIX, FOUR, THREE, ONE = (ROWS[products] for products in "6431")


@pytest.fixture(autouse=True)
def _amx():
    before = fastconv.get_isa()
    fastconv.set_isa("amx")
    yield
    fastconv.set_isa(before)


def tiles_that_ran(call):
    """A call's result and the names of the tile kernels that ran in it."""
    before = _core.kernel_counts()
    result = call()
    after = _core.kernel_counts()
    return result, {name for name in ROWS.values() if after.get(name, 0) > before.get(name, 0)}


def relative(actual, exact):
    """The error relative to the result, in the L2 norm."""
    return float(np.linalg.norm(np.asarray(actual, np.float64) - exact) / np.linalg.norm(exact))


def arrays(n, c, k, size, kernel, seed=0, groups=1):
    """Random x (channels first) and weight in float32."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, c, *size), "f"), rng.standard_normal((k, c // groups, *kernel), "f")


def test_one_product_of_tiles(force_kernel):
    """The bits that the instruction's definition gives: even and odd products apart, fused, then both added."""
    rng = np.random.default_rng(1)
    x = (rng.integers(-128, 128, (1, 32, 1, 16)) * 2.0 ** rng.integers(-6, 7, (1, 32, 1, 1))).astype("f")
    w = (rng.integers(-128, 128, (16, 32, 1, 1)) * 2.0 ** rng.integers(-6, 7, (1, 32, 1, 1))).astype("f")
    halves = []
    for first in (0, 1):
        total = np.zeros((16, 16), np.float32)
        for c in range(first, 32, 2):  # exact in float64, so rounded once
            total = (np.float64(w[:, c, 0, 0])[:, None] * x[0, c, 0] + total).astype("f")
        halves.append(total)
    with force_kernel(ONE):
        y = F.conv2d(x, w)
    tolerance.assert_same_bits(y[0, :, 0], halves[0] + halves[1])
    with force_kernel(SIX):  # parts that are zero change nothing
        tolerance.assert_same_bits(F.conv2d(x, w), y)


CASES = """
1 1 1    positions=15   kernel=1
1 31 15  positions=31   kernel=3 pad=1
1 32 16  positions=32   kernel=3 pad=1
1 33 17  positions=33   kernel=3 pad=1
1 64 31  positions=300  kernel=2
1 40 33  positions=70   kernel=5 dilation=20 pad=40
1 6 32   positions=47   kernel=3 stride=2 pad=1
1 66 20  positions=29   kernel=2 stride=3 groups=2
2 64 33  positions=5x31 kernel=3 pad=1
2 33 31  positions=7x7  kernel=3 pad=1
2 9 48   positions=9x17 kernel=3 stride=2 pad=1
2 32 17  positions=9x9  kernel=3 dilation=3 pad=3
2 12 18  positions=6x15 kernel=3 stride=2 dilation=2 pad=2 groups=3
2 35 16  positions=5x16 kernel=1
2 8 20   positions=8x8  kernel=1 stride=3
3 33 15  positions=3x5x9 kernel=3 pad=1
3 5 33   positions=5x4x6 kernel=2 stride=2
"""


def parse_case(line, op, n=2):
    """A line of `CASES` as a problem."""
    axes, c, k, *settings = line.split()
    value = dict(part.split("=") for part in settings)
    axes = int(axes)

    def each(name, default):
        return (int(value.get(name, default)),) * axes

    size = tuple(int(i) for i in value["positions"].split("x"))
    pads = tuple((p, p) for p in each("pad", 0))
    groups = int(value.get("groups", 1))
    c, k = (int(i) // groups * groups for i in (c, k))
    window = (each("kernel", 1), each("stride", 1), pads, each("dilation", 1), groups)
    extra = (0,) * axes if op == "conv_transpose" else ()
    return Problem("", op, n, c, size, k, *window, output_padding=extra)


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
@pytest.mark.parametrize("line", CASES.strip().splitlines())
def test_highest_keeps_float32_bounds(line, op, data_format, force_kernel):
    """Six products keep every element within the bounds of a float32 sum, forward and in all gradients."""
    rng = np.random.default_rng(2)
    problem = parse_case(line, op)
    with force_kernel(SIX):
        expected.check(expected.make_call(problem, np.float32, rng, data_format), rng)


@pytest.mark.parametrize(("name", "limit"), [(FOUR, 1e-5), (THREE, 1e-5), (ONE, 6e-3)])
@pytest.mark.parametrize("line", CASES.strip().splitlines()[1::3])
def test_lower_levels_keep_theirs(line, name, limit, force_kernel):
    """Fewer products: the error of each result as a whole, and more than the level above has."""
    rng = np.random.default_rng(3)
    call = expected.make_call(parse_case(line, "conv"), np.float32, rng)
    y = call.forward()
    gradient = rng.standard_normal(y.shape).astype("f")
    wanted = expected.expect(call, gradient)
    with force_kernel(name):
        results = [call.forward(), *call.backward(gradient)]
    errors = [relative(result, each.value) for result, each in zip(results, wanted, strict=True)][:3]
    assert max(errors) <= limit
    assert max(errors) > limit / 50


@pytest.mark.parametrize(("c", "kernel"), [(64, 3), (200, 1), (128, 3), (512, 1)])
def test_highest_is_no_worse_than_a_float32_loop(c, kernel, force_kernel):
    """The error against float64, relative in the L2 norm, is at most that of sums in float32, term by term."""
    x, w = arrays(1, c, 32, (kernel, kernel + 15), (kernel, kernel))
    windows = np.lib.stride_tricks.sliding_window_view(x[0], kernel, axis=2)  # (c, kernel, 16, kernel)
    terms = windows.transpose(0, 1, 3, 2).reshape(-1, 16)
    factors = w.reshape(32, -1)
    loop = np.zeros((32, 16), np.float32)
    for term, factor in zip(terms, factors.T, strict=True):  # exact in float64, so rounded once: fused
        loop = (np.float64(factor)[:, None] * term + loop).astype("f")
    exact = np.float64(factors) @ np.float64(terms)
    with force_kernel(SIX):
        y = F.conv2d(x, w)
    assert relative(y[0, :, 0], exact) <= relative(loop, exact)


def large_call(dtype=np.float32, n=3, seed=4):
    """A convolution that tiles are chosen for, and its arrays."""
    x, w = arrays(n, 64, 64, (12, 14), (3, 3), seed)
    x, w = x.astype(dtype), w.astype(dtype)
    g = np.random.default_rng(seed).standard_normal((n, 64, 12, 14), "f").astype(dtype)

    def call(x=x, w=w, g=g):
        gradients = F.conv2d_backward(g, x, w, padding=1, output_mask=(True, True, False))
        return F.conv2d(x, w, padding=1), gradients.input, gradients.weight

    return call, x, w, g


def test_tiles_are_chosen_where_they_gain():
    """Wide layers at every level; few channels, float64 and linear layers never."""
    call, *_ = large_call(n=1)
    for level, name in (("highest", SIX), ("high", THREE), ("medium", ONE)):
        with fastconv.float32_precision(level):
            assert tiles_that_ran(call)[1] == {name}
    for c, k, groups in ((3, 64, 1), (64, 3, 1), (64, 64, 64), (64, 64, 16)):
        x, w = arrays(1, c, k, (12, 12), (3, 3), groups=groups)
        assert not tiles_that_ran(lambda x=x, w=w, g=groups: F.conv2d(x, w, padding=1, groups=g))[1]
    x, w = arrays(1, 64, 64, (12, 12), (3, 3))
    assert not tiles_that_ran(lambda: F.conv2d(x.astype("d"), w.astype("d")))[1]
    assert not tiles_that_ran(lambda: F.linear(x.reshape(-1, 64), w[:, :, 0, 0]))[1]
    wide_x, wide_w = arrays(1, 128, 128, (20, 20), (1, 1))
    for data_format in problems.FORMATS:
        own = problems.to_format(wide_x, data_format)
        assert tiles_that_ran(lambda own=own, f=data_format: F.conv2d(own, wide_w, data_format=f))[1] == {SIX}


def test_levels_by_argument_and_by_setting():
    """A call's own level and the one that is set give the same bits; below amx all levels do."""
    call, x, w, _ = large_call(n=1)
    by_level = {}
    for level in ("highest", "high", "medium"):
        with fastconv.float32_precision(level):
            by_level[level] = F.conv2d(x, w, padding=1)
        tolerance.assert_same_bits(F.conv2d(x, w, padding=1, precision=level), by_level[level])
        y, gradient = by_level[level], F.conv2d_backward(by_level[level], x, w, padding=1, precision=level)
        transposed = F.conv_transpose2d(y, w, padding=1, precision=level)
        tolerance.assert_same_bits(transposed, gradient.input)
        back = F.conv_transpose2d_backward(x, y, w, padding=1, precision=level)
        tolerance.assert_same_bits(back.input, y)
        tolerance.assert_same_bits(back.weight, gradient.weight)
    errors = [relative(by_level[level], by_level["highest"]) for level in ("high", "medium")]
    assert 1e-7 < errors[0] < 1e-5 < 1e-3 < errors[1] < 6e-3
    fastconv.set_isa("avx512")
    with fastconv.float32_precision("medium"):
        lower = call()
    for one, other in zip(lower, call(), strict=True):
        tolerance.assert_same_bits(one, other)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_16_bit_arrays(dtype):
    """Their results are those of float32, rounded once, and come from tiles with fewer products."""
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes has the type bfloat16")
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    call, x, w, g = large_call(dtype, n=2)
    results, ran = tiles_that_ran(call)
    assert ran == {FOUR if dtype == np.float16 else ONE}
    wide = call(*(array.astype("f") for array in (x, w, g)))
    for result, reference in zip(results, wide, strict=True):
        tolerance.assert_same_bits(result.view(np.uint16), reference.astype(dtype).view(np.uint16))


def test_16_bit_arrays_take_the_kernels_of_float32():
    """Also where an item's memory holds their fewer parts and not the three of float32: the bits are of one order."""

    def both(call, *arrays):
        arrays = [array.astype(np.float16) for array in arrays]
        wide = call(*(array.astype("f") for array in arrays))
        tolerance.assert_same_bits(call(*arrays).view(np.uint16), wide.astype(np.float16).view(np.uint16))

    def gradient(g, x, w):
        return F.conv1d_backward(g, x, w, dilation=300, output_mask=(False, True, False)).weight

    x, w = arrays(1, 64, 128, (38356,), (128,))
    both(lambda x, w: F.conv1d(x, w, dilation=300), x, w)
    x, w = arrays(1, 64, 128, (19156,), (64,))
    both(gradient, np.random.default_rng(1).standard_normal((1, 128, 256), "f"), x, w)


def test_bits_do_not_depend_on_threads_or_batch(threads):
    """One, two and three threads, and a sample alone."""
    call, x, w, g = large_call()
    threads(1)
    first, ran = tiles_that_ran(call)
    assert ran == {SIX}
    for count in (2, 3):
        threads(count)
        for one, other in zip(call(), first, strict=True):
            tolerance.assert_same_bits(one, other)
    for i in range(len(x)):
        alone = call(x[i : i + 1], w, g[i : i + 1])
        for one, other in zip(alone[:2], first[:2], strict=True):
            tolerance.assert_same_bits(one[0], other[i])


UNFIT = {
    "nan": np.nan,
    "infinity": -np.inf,
    "largest": np.finfo("f").max,
    "near the largest": np.float32(2.0**125),
}


@pytest.mark.parametrize("name", UNFIT)
@pytest.mark.parametrize("level", ["highest", "high", "medium"])
def test_values_that_parts_do_not_hold(name, level):
    """A sample with such a value has the bits of the float32 kernels; the others have those they have without it."""
    call, x, w, g = large_call()
    with fastconv.float32_precision(level), np.errstate(all="ignore"):
        usual = call()
        for array, results in ((x, [0]), (g, [1])):
            kept, array[1, 5, 3, 3] = array[1, 5, 3, 3], UNFIT[name]
            ours = call()
            fastconv.set_isa("avx512")
            theirs = call()
            fastconv.set_isa("amx")
            for i in results:
                for sample in range(3):
                    wanted = theirs if sample == 1 else usual
                    tolerance.assert_same_bits(ours[i][sample], wanted[i][sample])
            tolerance.assert_same_bits(ours[2], theirs[2])
            array[1, 5, 3, 3] = kept
        for place in ((0, 0, 0, 0), (63, 63, 2, 2)):
            kept, w[place] = w[place], UNFIT[name]
            ours = call()
            fastconv.set_isa("avx512")
            theirs = call()
            fastconv.set_isa("amx")
            for i in (0, 1):
                tolerance.assert_same_bits(ours[i], theirs[i])
            w[place] = kept


@pytest.mark.parametrize("scale", [1e-40, 1e-36, 1e-30, 1e-15, 1e15, 1e30])
def test_scale_does_not_cost_accuracy(scale):
    """Arrays of small and of large numbers keep the bounds of float32 sums, down to where float32 itself ends."""
    call, x, w, g = large_call(n=1)
    scale = np.float32(scale)
    exact = call(*(np.float64(array) for array in (x, w, g)))
    size = call(*(np.abs(np.float64(array)) for array in (x, w, g)))
    for arrays_of_call, places in (
        ((x * scale, w, g), (0, 2)),
        ((x, w * scale, g), (0, 1)),
        ((x, w, g * scale), (1, 2)),
    ):
        results = call(*arrays_of_call)
        for i in places:
            length = 576 if i < 2 else 168
            bound = tolerance.sum_bound(np.float32, length, size[i] * float(scale))
            # Subnormal operands count as zero.
            bound = bound + length * 4 * float(np.finfo("f").tiny)
            tolerance.assert_close(results[i], exact[i] * float(scale), bound, f"result {i}")


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_that_repeats_the_input(mode, force_kernel):
    """Padding modes on tiles: the same as on the other kernels, up to rounding."""
    x, w = arrays(2, 40, 24, (7, 9), (3, 3))
    wanted = F.conv2d(x.astype("d"), w.astype("d"), padding=1, padding_mode=mode)
    with force_kernel(SIX):
        y = F.conv2d(x, w, padding=1, padding_mode=mode, activation="relu")
        gradients = F.conv2d_backward(y, x, w, padding=1, padding_mode=mode)
    assert relative(y, np.maximum(wanted, 0)) < 5e-7
    exact = F.conv2d_backward(y.astype("d"), x.astype("d"), w.astype("d"), padding=1, padding_mode=mode)
    for ours, theirs in zip(gradients, exact, strict=True):
        assert relative(ours, theirs) < 5e-7
