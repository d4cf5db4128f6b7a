"""Stride, padding, dilation and transposed convolution: which pixels of the input an output pixel looks at."""

from __future__ import annotations

import numpy as np
from example import options
from fastconv.analysis import conv_matrix
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

output, small = options(__doc__)
KERNEL = np.ones((1, 1, 3, 3))
BLUE, ORANGE, PAPER = "#2166ac", "#e08214", "#ffffff"

# Size of the input, and what else the convolution is told. A transposed one goes from its output to its input.
CASES = {
    "3 x 3": (5, {}, False),
    "padding 1": (5, {"padding": 1}, False),
    "stride 2, padding 1": (5, {"stride": 2, "padding": 1}, False),
    "dilation 2, padding 2": (5, {"dilation": 2, "padding": 2}, False),
    "transposed, stride 2": (7, {"stride": 2}, True),
}


def grid(axes, size, border, coloured):
    """Draw size x size pixels, the border that padding puts around them, and pixels in colour."""
    for row in range(-border, size + border):
        for column in range(-border, size + border):
            inside = 0 <= row < size and 0 <= column < size
            style = {"linestyle": "-" if inside else ":", "edgecolor": "#66788a", "facecolor": PAPER, "linewidth": 0.8}
            axes.add_patch(Rectangle((column, row), 1, 1, zorder=1 if inside else 0, **style))
    for colour, pixels in coloured:
        for pixel in pixels:
            axes.add_patch(Rectangle((pixel % size, pixel // size), 1, 1, color=colour, alpha=0.55, lw=0, zorder=2))
    axes.set(xlim=(size / 2 - 4.8, size / 2 + 4.8), ylim=(size / 2 + 4.8, size / 2 - 4.8), aspect="equal")
    axes.set_axis_off()


figure = Figure(figsize=(11, 4.6), layout="constrained")
pictures = figure.subplots(2, len(CASES))
for (above, below), (name, (size, how, transposed)) in zip(pictures.T, CASES.items(), strict=True):
    matrix = conv_matrix(KERNEL, (1, size, size), **how)  # a row for each output pixel, a column for each input pixel
    if transposed:
        matrix = matrix.T.tocsr()
    sizes = [round(count**0.5) for count in matrix.shape[::-1]]
    # Two outputs, side by side; and the inputs that they are sums of: what is not zero in their rows.
    middle = sizes[1] // 2 * sizes[1] + sizes[1] // 2
    looked_at = [matrix[[i]].indices for i in (middle, middle + 1)]
    taps = " and ".join(str(len(pixels)) for pixels in looked_at)
    print(f"{name:24} {sizes[0]} x {sizes[0]} -> {sizes[1]} x {sizes[1]}, two outputs look at {taps} pixels")
    grid(above, sizes[0], how.get("padding", 0), list(zip((BLUE, ORANGE), looked_at, strict=True)))
    grid(below, sizes[1], 0, [(BLUE, [middle]), (ORANGE, [middle + 1])])
    above.set_title(name, fontsize=10)
pictures[0, 0].text(-1.9, 2.5, "input", rotation=90, va="center", ha="center")
pictures[1, 0].text(-1.9, 1.5, "output", rotation=90, va="center", ha="center")
figure.savefig(output / "convolution-arithmetic.png", dpi=50 if small else 100)

# As a matrix, a convolution is a band that repeats itself; its transpose is the transposed convolution.
matrix = conv_matrix(np.arange(1.0, 10).reshape(1, 1, 3, 3), (1, 5, 5)).toarray()
figure = Figure(figsize=(7.4, 3.6), layout="constrained")
for axes, (name, values) in zip(
    figure.subplots(1, 2),
    {"convolution: 5 x 5 to 3 x 3": matrix, "transposed: 3 x 3 to 5 x 5": matrix.T}.items(),
    strict=True,
):
    axes.imshow(np.where(values, values, np.nan), cmap="viridis")
    axes.set(title=name, xlabel="input pixel", ylabel="output pixel")
figure.savefig(output / "convolution-matrix.png", dpi=50 if small else 90)
