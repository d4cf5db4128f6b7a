"""Layers with few positions and many weights: what is done once for each weight must not be done to all of them."""

import subprocess
import sys

import expected
import fastconv.functional as F
import numpy as np
import problems
import pytest
import tolerance
from fastconv._cli.problem import Problem
from fuzz import SANITIZED


def layer(op, n, c, k, size, kernel, stride=1, pads=(0, 0), dilation=1, groups=1):
    """A layer whose axes are all alike but for their sizes."""
    axes = len(size)
    extra = (0,) * axes if op == "conv_transpose" else ()
    return Problem(
        "",
        op,
        n,
        c,
        size,
        k,
        kernel,
        (stride,) * axes,
        (pads,) * axes,
        (dilation,) * axes,
        groups,
        output_padding=extra,
    )


# One below, at and above what a register, a tile and a block hold, and around where one form gives way to another.
FEW_OUTPUTS = {
    "one": [layer("conv", 1, 16, k, (3, 3), (3, 3)) for k in (15, 16, 17)],
    "eight": [layer("conv", 1, 5, k, (4, 4, 4), (3, 3, 3)) for k in (31, 32, 33, 65)],
    "channels": [layer("conv", 1, c, 33, (5, 5), (3, 3), pads=(1, 1)) for c in (1, 7, 8, 31, 32, 33)],
    "samples": [layer("conv", n, 9, 47, (3, 4), (2, 3), pads=(1, 0)) for n in (2, 3, 9)],
    "strides": [layer("conv", 2, 9, 40, (7, 8), (3, 3), stride=s, pads=(1, 1)) for s in (2, 3, 5)],
    "dilation": [layer("conv", 1, 11, 40, (9,), (4,), pads=(3, 2), dilation=d) for d in (2, 4)],
    "far over the edge": [layer("conv", 1, 10, 64, (2, 3), (5, 7), pads=(4, 3))],
    "transposed": [layer("conv_transpose", 2, 24, 10, (2, 3), (4, 4), stride=2, pads=(1, 1))],
    "many": [layer("conv", 1, 8, k, (18, 17), (3, 3), pads=(1, 1)) for k in (300, 700)],
    "groups": [layer("conv", 1, 18, 68, (4, 4), (3, 3), pads=(1, 1), groups=2)],
}


@pytest.mark.parametrize("view", problems.VIEWS)
@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("name", FEW_OUTPUTS)
def test_few_outputs(isa, name, data_format, view):
    """All passes in every arrangement of memory; the gradient of the weight is a product of matrices for most."""
    rng = np.random.default_rng(30)
    for problem in FEW_OUTPUTS[name]:
        for dtype in problems.DTYPES:
            expected.check(expected.make_call(problem, dtype, rng, data_format, view, True), rng, view)


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_gradients_do_not_meet_the_padding(isa, value, padding, data_format):
    """A gradient that is not finite reaches the weights that it has an input of, and no other."""
    x = np.abs(np.random.default_rng(31).standard_normal((1, 8, 4, 4), np.float32)) + 1
    weight = np.ones((64, 8, 3, 3), np.float32)
    grad = np.ones((1, 64, 2 + 2 * padding, 2 + 2 * padding), np.float32)
    grad[0, 3, 0, 0] = value
    options = {"padding": padding, "data_format": data_format, "output_mask": (False, True, False)}
    inputs = [problems.to_format(a, data_format) for a in (grad, x)]
    result = F.conv2d_backward(*inputs, weight, **options)[1]
    reached = np.zeros(weight.shape, bool)
    reached[3, :, padding:, padding:] = True
    np.testing.assert_array_equal(~np.isfinite(result), reached)


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_sixteen_bit_gradients_are_rounded_once(isa, dtype, data_format):
    """The gradient of the weight has the bits of float32's, rounded."""
    dtype = pytest.importorskip("ml_dtypes", reason="the extra 16bit").bfloat16 if dtype == "bfloat16" else np.float16
    rng = np.random.default_rng(32)
    options = {"padding": 1, "data_format": data_format, "output_mask": (False, True, False)}
    for c, k, size in ((9, 33, 4), (24, 130, 6), (256, 600, 11)):
        x, grad = (rng.standard_normal((2, channels, size, size)).astype(dtype) for channels in (c, k))
        narrow = [problems.to_format(a, data_format) for a in (grad, x)]
        weight = np.zeros((k, c, 3, 3), dtype)
        wide = [a.astype(np.float32) for a in (*narrow, weight)]
        rounded = F.conv2d_backward(*wide, **options)[1].astype(dtype)
        tolerance.assert_same_bits(F.conv2d_backward(*narrow, weight, **options)[1], rounded)


@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_few_outputs_have_the_same_bits_with_more_threads(isa, data_format, threads):
    """One thread or several, all three passes."""
    rng = np.random.default_rng(33)
    x, w = rng.standard_normal((2, 40, 6, 6), np.float32), rng.standard_normal((70, 40, 3, 3), np.float32)
    x = problems.to_format(x, data_format)
    options = {"padding": 1, "stride": 2, "data_format": data_format}

    def run(count):
        threads(count)
        y = F.conv2d(x, w, **options)
        return y, *F.conv2d_backward(y, x, w, **options)

    for one, several in zip(run(1), run(3), strict=True):
        tolerance.assert_same_bits(one, several)


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(
    ("k", "stride", "dilation", "groups"), [(5, 2, 1, 1), (70, 2, 1, 1), (33, 1, 3, 1), (64, 2, 1, 2)]
)
def test_weights_of_one_block_do_not_meet_the_padding(isa, k, stride, dilation, groups, value, data_format):
    """Weights of one block of positions are packed as they are needed; one that is not finite is found afterwards."""
    size = 9
    x, w = np.ones((1, 32, size, size), np.float32), np.ones((k, 32 // groups, 3, 3), np.float32)
    w[1, 2, 0, 0] = value
    options = {"stride": stride, "dilation": dilation, "padding": dilation, "groups": groups}
    y = F.conv2d(problems.to_format(x, data_format), w, data_format=data_format, **options)
    y = y if data_format == "channels_first" else np.moveaxis(y, -1, 1)
    reads = np.arange(y.shape[2]) * stride >= dilation
    wrong = np.zeros(y.shape, bool)
    wrong[0, 1] = reads[:, None] & reads
    np.testing.assert_array_equal(~np.isfinite(y), wrong)
    inside = np.abs(np.where(wrong, np.float32(0), y)) < np.inf
    assert inside.all()


@pytest.mark.parametrize("data_format", problems.FORMATS)
def test_inputs_that_are_not_finite_beside_the_padding(isa, data_format):
    """Inputs that are not finite show where a window has them, with weights that all are finite."""
    x, w = np.ones((1, 32, 9, 9), np.float32), np.ones((40, 32, 3, 3), np.float32)
    x[0, 5, 0, 0] = np.inf
    y = F.conv2d(problems.to_format(x, data_format), w, stride=2, padding=1, data_format=data_format)
    y = y if data_format == "channels_first" else np.moveaxis(y, -1, 1)
    wrong = np.zeros(y.shape, bool)
    wrong[0, :, 0, 0] = True
    np.testing.assert_array_equal(np.isposinf(y), wrong)


@pytest.mark.parametrize("data_format", problems.FORMATS)
@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
@pytest.mark.parametrize("n", [1, 3])
def test_contributions_in_the_order_of_the_weights(isa, op, n, data_format):
    """Few inputs of many channels: their contributions are turned, not the weights; with more samples the weights."""
    rng = np.random.default_rng(34)
    for channels in (15, 16, 33):
        for size, kernel in (((3, 3), (5, 5)), ((7,), (9,)), ((2, 2, 2), (3, 3, 3))):
            few, many = channels, 8 * n + 3
            c, k = (few, many) if op == "conv" else (many, few)
            whole = tuple(s + e - 1 for s, e in zip(size, kernel, strict=True)) if op == "conv" else size
            problem = layer(op, n, c, k, whole, kernel)
            expected.check(expected.make_call(problem, np.float32, rng, data_format, "contiguous", True), rng)


@pytest.mark.parametrize("kernel", [1, 3])
def test_rows_are_shared_out(isa, kernel, threads):
    """Long rows of few channels, cut for the threads: the bits of one thread."""
    rng = np.random.default_rng(35)
    x = rng.standard_normal((1, 6, 1100), np.float32)
    w, bias = rng.standard_normal((70, 6, kernel), np.float32), rng.standard_normal(70, np.float32)
    problem = layer("conv", 1, 6, 70, (1100,), (kernel,))
    threads(4)
    expected.check(expected.make_call(problem, np.float32, rng, "channels_first", "contiguous", True), rng)
    several = F.conv1d(x, w, bias)
    threads(1)
    tolerance.assert_same_bits(F.conv1d(x, w, bias), several)


SCRATCH = """
import os
import numpy as np, fastconv, fastconv.functional as F
fastconv.set_num_threads(2)
x, w = np.ones((2, 64, 40, 40), np.float32), np.ones((64, 64, 3, 3), np.float32)
y = F.conv2d(x, w)
child = os.fork()
if child == 0:
    for _ in range(3):
        assert (F.conv2d(x, w) == y).all()
        fastconv.release_memory()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
fastconv.release_memory()
assert (F.conv2d(x, w) == y).all()
assert fastconv.release_memory() > 0
for elements in range(8170, 8200):  # around the least that is kept
    F.conv1d(np.ones((1, 1, elements), np.float32), np.ones((1, 1, 2), np.float32))
"""


@pytest.mark.skipif(SANITIZED, reason="a sanitizer's own locks may be held by a thread that fork leaves behind")
def test_scratch_in_a_forked_child():
    """What threads keep is theirs: a child, which has lost them, computes and releases like its parent."""
    subprocess.run([sys.executable, "-c", SCRATCH], check=True, timeout=120)
