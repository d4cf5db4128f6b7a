"""Winograd's transforms for planes of one row, as one dimension has them: tiles of two outputs side by side."""

import fastconv.functional as F
import numpy as np
import problems
import pytest
import tolerance
from test_winograd import (
    ROWS,
    arrays,
    assert_padding_is_a_copy,
    assert_same_bits_in_any_batch,
    both_formats,
    check_each,
    direct_kernel,
    each_row_of_weights,
    ran,
    taps_of,
)


def line_of(size, kernel, stride=1, pads=(1, 1), dilation=1, **options):
    """A layer of one dimension."""
    return taps_of((size,), (kernel,), (stride,), (pads,), (dilation,), **options)


LINES = {
    "around tiles": [line_of(size, 3, n=n) for size in (2, 3, 4, 5, 8, 9) for n in (1, 2, 7)]
    + [line_of(size, 3, c=33, k=65) for size in (31, 64, 95, 96, 97, 191, 192, 193)],
    "channels": [
        line_of(11, 3, c=c, k=k) for c, k in ((1, 1), (3, 17), (8, 31), (9, 16), (16, 33), (31, 8), (33, 65), (7, 70))
    ],
    "2 to 16 taps": [line_of(29, taps, pads=(taps // 2, taps // 2), c=9, k=20) for taps in range(2, 17)],
    "one-sided padding": [line_of(12, 3, pads=pads) for pads in ((0, 0), (0, 4), (5, 0))],
    "dilation": [
        line_of(size, taps, pads=(dilation, dilation), dilation=dilation, c=18, k=20)
        for size, dilation in ((23, 2), (40, 5), (19, 6), (7, 3))
        for taps in (2, 3, 4)
    ],
    "strides": [
        line_of(26, taps, stride, (2, 2), c=9, k=20, op=op)
        for taps, stride in ((4, 2), (5, 2), (3, 2), (8, 4), (9, 3))
        for op in ("conv", "conv_transpose")
    ],
    "transposed": [line_of(17, 5, pads=(2, 2), c=9, k=20, op="conv_transpose")],
    "groups": [line_of(14, 4, c=12, k=18, groups=3), line_of(9, 3, c=140, k=132, groups=2)],
    "long sums": [line_of(9, 5, pads=(2, 2), c=300, k=40, n=1), line_of(7, 3, c=520, k=600, n=1)],
    "rows of a plane and of a volume": [
        taps_of((1, 21), (1, 3), pads=((0, 0), (1, 1)), c=9, k=20),
        taps_of((2, 13), (2, 3), (2, 1), ((0, 0), (1, 1)), c=9, k=20),
        taps_of((2, 13), (2, 3), (2, 1), ((0, 0), (1, 1)), c=9, k=20, op="conv_transpose"),
        taps_of((1, 13), (3, 4), (3, 2), ((0, 0), (1, 1)), c=9, k=20, op="conv_transpose"),
        taps_of((5, 1, 12), (3, 1, 3), (1, 1, 1), ((1, 1), (0, 0), (1, 1)), (1, 1, 1), c=9, k=20),
        taps_of((6, 1, 12), (2, 1, 5), (2, 1, 1), ((0, 0), (0, 0), (2, 2)), (1, 1, 1), c=70, k=20),
    ],
}


@each_row_of_weights
@both_formats
@pytest.mark.parametrize("lines", LINES)
def test_lines(row, data_format, lines, force_kernel):
    """Sizes and channels around tiles, and everything that a layer may have; all three passes."""
    check_each(LINES[lines], row, data_format, np.random.default_rng(20), force_kernel)


@each_row_of_weights
@both_formats
@pytest.mark.parametrize("view", problems.VIEWS)
def test_views(row, data_format, view, force_kernel):
    """Every arrangement of memory of inputs, weights and gradients."""
    listed = [line_of(15, 3, c=9, k=20), line_of(16, 4, dilation=3, c=8, k=12, groups=2)]
    check_each(listed, row, data_format, np.random.default_rng(21), force_kernel, view)


@each_row_of_weights
@both_formats
@pytest.mark.parametrize("dilation", [1, 3])
def test_bits(row, data_format, dilation, threads, force_kernel):
    """The same bits for any batch around a sample and any number of threads."""
    x, w = arrays((9, 24, 57), (40, 24, 5), row["dtype"])
    g = arrays((9, 40, 57), (1,), row["dtype"], 1)[0]
    x, g = (np.array(problems.to_format(array, data_format)) for array in (x, g))
    options = {"padding": 2 * dilation, "dilation": dilation, "data_format": data_format}

    def run(pick):
        return F.conv1d(x[pick], w, **options), F.conv1d_backward(g[pick], x[pick], w, **options).input

    with force_kernel(row["name"]):
        assert_same_bits_in_any_batch(run, threads)
        threads(1)
        alone = F.conv1d_backward(g, x, w, **options).weight
        threads(2)
        tolerance.assert_same_bits(F.conv1d_backward(g, x, w, **options).weight, alone)


@each_row_of_weights
@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_padding_modes(row, mode, force_kernel):
    """Padding that repeats the input is the padded copy without padding."""
    for size, taps in ((8, 3), (13, 4), (16, 7)):
        x, w = arrays((2, 5, size), (7, 5, taps), row["dtype"])
        with force_kernel(row["name"]):
            assert_padding_is_a_copy(F.conv1d, x, w, ((3, 2),), mode)


@each_row_of_weights
def test_sixteen_bit(row, force_kernel):
    """16-bit arrays give what float32 gives, rounded once."""
    if row["dtype"] != "float32":
        return
    x, w = (array.astype(np.float16) for array in arrays((2, 20, 27), (24, 20, 3), "f"))
    g = arrays((2, 24, 27), (1,), "f", 1)[0].astype(np.float16)
    wide = [array.astype(np.float32) for array in (g, x, w)]
    with force_kernel(row["name"]):
        narrow = F.conv1d(x, w, padding=1), *F.conv1d_backward(g, x, w, padding=1)[:2]
        expected_of = F.conv1d(*wide[1:], padding=1), *F.conv1d_backward(*wide, padding=1)[:2]
    for ours, reference in zip(narrow, expected_of, strict=True):
        tolerance.assert_same_bits(ours, reference.astype(np.float16))


@each_row_of_weights
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dilation", [1, 4])
def test_what_is_not_finite_is_exact(row, value, dilation, force_kernel):
    """A sample with a result that is not finite is computed by the definition, the others as if it were not there."""
    x, w = arrays((3, 10, 26), (20, 10, 3), row["dtype"])
    g = arrays((3, 20, 26), (1,), row["dtype"], 1)[0]
    options = {"padding": dilation, "dilation": dilation}
    with force_kernel(row["name"]):
        clean = F.conv1d(x, w, **options)
    x[1, 3, 14] = value
    with force_kernel(direct_kernel(row["dtype"], 20)):
        exact, weight = F.conv1d(x, w, **options), F.conv1d_backward(g, x, w, **options).weight
    with force_kernel(row["name"]):
        y = F.conv1d(x, w, **options)
        tolerance.assert_same_bits(F.conv1d_backward(g, x, w, **options).weight, weight)
    assert not np.isfinite(exact).all()
    tolerance.assert_same_bits(y[1], exact[1])
    tolerance.assert_same_bits(y[[0, 2]], clean[[0, 2]])


@each_row_of_weights
def test_error_is_no_larger_than_of_a_plain_loop(row, force_kernel):
    """Against a running sum in the same dtype, forward over channels and taps, backward over positions."""
    for c, taps, size in ((48, 3, 400), (64, 3, 300), (96, 2, 300), (40, 5, 300), (24, 11, 300)):
        x, w = arrays((1, c, size), (6, c, taps), row["dtype"])
        g = arrays((1, 6, size - taps + 1), (1,), row["dtype"], 1)[0]
        for inputs, gradient in ((x, g), (np.maximum(x, 0), g), (np.abs(x) + 1, np.abs(g))):
            windows = np.lib.stride_tricks.sliding_window_view(inputs[0], taps, axis=1).swapaxes(0, 1)
            forward = windows * w[:, None]
            backward = np.moveaxis(windows * gradient[0][:, :, None, None], 1, -1)
            with force_kernel(row["name"]):
                y = F.conv1d(inputs, w)[0]
                dw = F.conv1d_backward(gradient, inputs, w, output_mask=(False, True, False)).weight
            wide = windows.astype(np.longdouble)
            exact = (
                (wide * w[:, None]).sum((2, 3)),
                np.einsum("ptc,kp->ktc", wide.swapaxes(1, 2), gradient[0]).swapaxes(1, 2),
            )
            for ours, terms, truth in (
                (y, forward.reshape(*forward.shape[:2], -1), exact[0]),
                (dw, backward, exact[1]),
            ):
                plain = np.add.accumulate(terms, axis=-1, dtype=inputs.dtype)[..., -1]
                assert np.linalg.norm((ours - truth).astype("d")) <= np.linalg.norm((plain - truth).astype("d"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_choice(isa, dtype):
    """Enough channels and taps choose it, whatever the batch."""
    own = [row["name"] for row in ROWS if (row["isa"], row["dtype"]) == (isa, dtype)]
    if not own or isa == "amx":
        pytest.skip(f"{isa} has no such kernels of its own: they are those of the level below")

    def chosen(n, c, k, size, taps, **options):
        x, w = arrays((n, c, size), (k, c // options.get("groups", 1), taps), dtype)
        return ran(own[0], lambda: F.conv1d(x, w, **options))[1]

    def chosen_for_weights(c, k, size, taps, **options):
        x, w = arrays((2, c, size), (k, c, taps), dtype)
        g = F.conv1d(x, w, **options)
        return ran(own[0], lambda: F.conv1d_backward(g, x, w, output_mask=(False, True, False), **options))[1]

    for n in (1, 5):
        assert chosen(n, 128, 128, 100, 3, padding=1)
        assert chosen(n, 64, 64, 400, 11, padding=5)
        assert chosen(n, 256, 256, 100, 3, padding=1, groups=2)
        assert chosen(n, 256, 256, 100, 2)
        assert chosen(n, 256, 256, 200, 3, padding=8, dilation=8)
        assert not chosen(n, 128, 128, 100, 1)
        assert not chosen(n, 128, 128, 100, 3, stride=2)
        assert not chosen(n, 23, 256, 400, 15)
        assert not chosen(n, 64, 6, 100, 3)
        assert not chosen(n, 64, 256, 100, 2)  # a plain sum of so few products errs less
    assert not chosen_for_weights(128, 128, 120, 3)  # 236 positions
    assert chosen_for_weights(128, 128, 140, 3)
    assert not chosen_for_weights(128, 128, 100, 1)
    assert not chosen_for_weights(7, 128, 100, 3)
